//! Memory of certain NUMA nodes for guaranteed pods (the static policy, KEP-1769): a container's pages come from the nodes
//! on which its request was set aside.
//!
//! [`plan`] chooses and keeps the books (pure), [`state`] is the file that remembers.

mod machine;
mod plan;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::topology::{Hint, Hints, Nodes as Set};
use crate::config::KubeletConfiguration;
use crate::pod::{Container, Pod, QosClass, amount};
use crate::status::compute::Failure;
pub use plan::Reusable;
use plan::Wanted;
pub use state::Block;
use state::{Nodes, State};

/// The manager.
#[derive(Debug)]
pub struct Memory {
    pinned: bool,
    file: PathBuf,
    state: Mutex<State>,
}

fn is_memory(resource: &str) -> bool {
    resource == "memory" || resource.starts_with("hugepages-")
}

/// What the manager cares for: a pod with amounts of its own shares them among its containers as they like.
fn concerns(pod: &Pod) -> bool {
    pod.qos() == QosClass::Guaranteed && pod.spec.resources.is_none()
}

fn wanted(container: &Container) -> Wanted {
    let (requests, limits) = (&container.resources.requests, &container.resources.limits);
    let names: BTreeSet<&String> = requests.keys().chain(limits.keys()).filter(|name| is_memory(name)).collect();
    let size = |name: &str| {
        let from = if requests.contains_key(name) { requests } else { limits };
        u64::try_from(amount(from, name) / 1000).unwrap_or(0)
    };
    names.into_iter().map(|name| (name.clone(), size(name))).collect()
}

/// What a pod takes at its peak: the larger of its main containers and each init container beside the sidecars.
fn whole(pod: &Pod) -> Wanted {
    let (mut peak, mut lasting) = (Wanted::new(), Wanted::new());
    let add =
        |to: &mut Wanted, what: Wanted| what.into_iter().for_each(|(kind, size)| *to.entry(kind).or_default() += size);
    for container in &pod.spec.init_containers {
        let mut beside = lasting.clone();
        add(&mut beside, wanted(container));
        beside.into_iter().for_each(|(kind, size)| {
            let most = peak.entry(kind).or_default();
            *most = size.max(*most);
        });
        if container.is_sidecar() {
            add(&mut lasting, wanted(container));
        }
    }
    pod.spec.containers.iter().for_each(|c| add(&mut lasting, wanted(c)));
    lasting.into_iter().for_each(|(kind, size)| {
        let most = peak.entry(kind).or_default();
        *most = size.max(*most);
    });
    peak
}

impl Memory {
    /// Takes up what the file in `root` says. `reserved` are the bytes that node allocatable keeps from pods.
    ///
    /// # Errors
    /// The reservation does not fit the machine, or the file is another policy's or another machine's: the administrator
    /// must drain the node and delete it.
    pub fn restore(root: &Path, config: &KubeletConfiguration, system: &Path, reserved: i128) -> Result<Self, String> {
        let pinned = config.memory_manager_policy == "Static";
        let fresh = if pinned { machine::books(&machine::read(system)?, config, reserved)? } else { Nodes::new() };
        let file = root.join(state::FILE);
        let refused = |e: String| {
            format!(
                "could not restore state from checkpoint: {e}, please drain this node and delete the memory manager \
                 checkpoint file {file:?} before restarting Kubelet"
            )
        };
        let restored = super::checkpoint::read(&file)?.map(|text| {
            let state = state::decode(&text, name(pinned))?;
            if pinned { plan::check(&fresh, state) } else { Ok(state) }
        });
        let state = match restored {
            Some(state) => state.map_err(refused)?,
            None => State { nodes: fresh, ..State::default() },
        };
        let memory = Memory { pinned, file, state: Mutex::new(state) };
        memory.keep()?;
        Ok(memory)
    }

    fn keep(&self) -> Result<(), String> {
        super::checkpoint::write(&self.file, &state::encode(name(self.pinned), &self.state.lock())?)
    }

    /// What a container has.
    pub fn blocks(&self, uid: &str, container: &str) -> Vec<Block> {
        self.state.lock().entries.get(uid).and_then(|c| c.get(container)).cloned().unwrap_or_default()
    }

    /// The nodes from which a container's pages may come; none means all.
    pub fn nodes(&self, uid: &str, container: &str) -> Set {
        Set::of(self.blocks(uid, container).into_iter().flat_map(|b| b.nodes))
    }

    /// What each node can give to containers.
    pub fn allocatable(&self) -> Vec<Block> {
        let state = self.state.lock();
        let tables = state.nodes.iter().flat_map(|(id, n)| n.memory_map.iter().map(move |(kind, t)| (*id, kind, t)));
        let some = tables.filter(|(_, _, table)| table.allocatable > 0);
        some.map(|(id, kind, t)| Block { nodes: vec![id], kind: kind.clone(), size: t.allocatable }).collect()
    }

    /// The nodes that could serve a container, or the whole pod if none is named. An empty answer says that it does not
    /// matter, also where nothing suffices: then [`Memory::allocate`] refuses in its own words.
    pub fn hints(&self, pod: &Pod, of: Option<&Container>, reusable: &Reusable) -> Hints {
        if !self.pinned || !concerns(pod) {
            return Hints::new();
        }
        let wanted = of.map_or_else(|| whole(pod), wanted);
        let own = of.map(|c| self.blocks(&pod.metadata.uid, &c.name)).unwrap_or_default();
        if !own.is_empty() {
            let hint = |b: Block| Hint { nodes: Some(Set::of(b.nodes)), preferred: true };
            return own.into_iter().map(|b| (b.kind.clone(), Some(vec![hint(b)]))).collect();
        }
        let hints = plan::hints(&self.state.lock().nodes, &wanted, reusable);
        if hints.is_empty() {
            return Hints::new();
        }
        wanted.into_keys().map(|kind| (kind, Some(hints.clone()))).collect()
    }

    /// Sets a container's memory aside. `reusable` is what its pod's earlier init containers had, and is kept up.
    ///
    /// # Errors
    /// Why the pod fails.
    pub fn allocate(
        &self,
        pod: &Pod,
        container: &Container,
        chosen: Hint,
        reusable: &mut Reusable,
    ) -> Result<(), Failure> {
        if !self.pinned || !concerns(pod) {
            return Ok(());
        }
        let (uid, mut blocks) = (&pod.metadata.uid, self.blocks(&pod.metadata.uid, &container.name));
        if blocks.is_empty() {
            let wanted = wanted(container);
            let mut state = self.state.lock();
            let on = plan::choose(&state.nodes, &wanted, reusable, chosen).map_err(|e| super::unexpected(&e))?;
            let ids: Vec<usize> = on.ids().collect();
            for (kind, size) in wanted {
                let again = reusable.get(&(on, kind.clone())).copied().unwrap_or(0);
                plan::book(&mut state.nodes, &ids, &kind, size.saturating_sub(again));
                blocks.push(Block { nodes: ids.clone(), kind, size });
            }
            let mine = state.entries.entry(uid.clone()).or_default();
            let once = pod.spec.init_containers.iter().take_while(|c| c.name != container.name);
            let once: BTreeSet<&str> = once.filter(|c| !c.is_sidecar()).map(|c| c.name.as_str()).collect();
            let mut earlier: Vec<&mut Vec<Block>> =
                mine.iter_mut().filter(|(name, _)| once.contains(name.as_str())).map(|(_, b)| b).collect();
            blocks.iter().for_each(|block| plan::hand_over(&mut earlier, block));
            mine.insert(container.name.clone(), blocks.clone());
            drop(state);
            self.keep().map_err(|e| super::unexpected(&e))?;
        }
        let runs_once = pod.spec.init_containers.iter().any(|c| c.name == container.name && !c.is_sidecar());
        for block in blocks {
            let left = reusable.entry((Set::of(block.nodes), block.kind)).or_default();
            *left = if runs_once { block.size.max(*left) } else { left.saturating_sub(block.size) };
        }
        Ok(())
    }

    /// Takes back what pods have that are not among the live ones.
    pub fn keep_only(&self, live: &dyn Fn(&str) -> bool) {
        let mut state = self.state.lock();
        let gone: Vec<String> = state.entries.keys().filter(|uid| !live(uid)).cloned().collect();
        gone.iter().for_each(|uid| plan::release(&mut state, uid));
        drop(state);
        if gone.is_empty() {
            return;
        }
        if let Err(error) = self.keep() {
            tracing::error!(%error, "memory checkpoint not written");
        }
    }
}

fn name(pinned: bool) -> &'static str {
    if pinned { "Static" } else { "None" }
}

/// Bytes by kind on each node.
type Sizes = BTreeMap<usize, BTreeMap<String, u64>>;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

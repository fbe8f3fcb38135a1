//! CPUs of their own for guaranteed containers that ask for whole ones (the static policy, KEP-3570); everybody else
//! shares the rest.
//!
//! [`assign`] chooses (pure), [`state`] is the file that remembers, [`shared`] tells running containers when the rest
//! changes.

pub mod assign;
pub mod machine;
pub mod set;
pub mod shared;
mod state;

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::topology::{Hint, Nodes};
use crate::config::KubeletConfiguration;
use crate::pod::{Container, Pod, QosClass, amount};
use crate::status::compute::Failure;
use assign::Manner;
use machine::Machine;
use set::CpuSet;
use state::State;

/// The policy that gives CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Static {
    machine: Machine,
    /// CPUs that no container gets for itself.
    reserved: CpuSet,
    manner: Manner,
    /// `align-by-socket`.
    by_socket: bool,
    /// `strict-cpu-reservation`: nobody runs on reserved CPUs.
    strict: bool,
}

/// The manager.
#[derive(Debug)]
pub struct Cpus {
    policy: Option<Static>,
    file: PathBuf,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

/// Whole CPUs that a container is to have for itself: those of a guaranteed pod that asks for whole ones.
fn wanted(pod: &Pod, container: &Container) -> usize {
    let milli = amount(&container.resources.requests, "cpu").max(amount(&container.resources.limits, "cpu"));
    // A pod with amounts of its own shares them among its containers as they like.
    if pod.qos() != QosClass::Guaranteed || pod.spec.resources.is_some() || milli % 1000 != 0 {
        return 0;
    }
    usize::try_from(milli / 1000).unwrap_or(0)
}

impl Static {
    fn new(config: &KubeletConfiguration, machine: Machine) -> Result<Self, String> {
        let is = |name: &str| config.options.cpu_manager_policy_options.get(name).is_some_and(|v| v == "true");
        let manner = Manner {
            whole_cores: is("full-pcpus-only"),
            spread: is("distribute-cpus-across-numa"),
            by_cache: is("prefer-align-cpus-by-uncorecache"),
        };
        let named = CpuSet::parse(&config.reserved_system_cpus).map_err(|e| format!("reservedSystemCPUs: {e}"))?;
        let reserved = if named.is_empty() {
            let milli = config.reserved("cpu");
            if milli <= 0 {
                return Err("[cpumanager] unable to determine reserved CPU resources for static policy: the static \
                            policy requires systemReserved.cpu + kubeReserved.cpu or reservedSystemCPUs"
                    .into());
            }
            let count = usize::try_from((milli + 999) / 1000).unwrap_or(usize::MAX);
            assign::take(&machine, &machine.all(), count, Manner::default())
                .map_err(|e| format!("[cpumanager] CPUs not reserved: {e}"))?
        } else {
            let unknown = named.without(&machine.all());
            if !unknown.is_empty() {
                return Err(format!("reservedSystemCPUs: the machine has no CPUs {unknown}"));
            }
            named
        };
        let (by_socket, strict) = (is("align-by-socket"), is("strict-cpu-reservation"));
        Ok(Static { machine, reserved, manner, by_socket, strict })
    }

    fn everything(&self) -> CpuSet {
        if self.strict { self.machine.all().without(&self.reserved) } else { self.machine.all() }
    }

    /// What can still be given; `reusable` are CPUs that init containers of the pod have done with.
    fn free(&self, state: &State, reusable: &CpuSet) -> CpuSet {
        state.shared.without(&self.reserved).with(reusable)
    }

    fn check_cores(&self, state: &State, count: usize, reusable: &CpuSet) -> Result<(), Failure> {
        let threads = self.machine.threads();
        let text = if !count.is_multiple_of(threads) {
            format!("requested {count} cpus not multiple cpus per core = {threads}")
        } else {
            let broken = self.machine.around(&self.reserved, |p| p.core);
            let whole = self.free(state, reusable).without(&broken).len();
            if whole >= count {
                return Ok(());
            }
            format!(
                "not enough free physical CPUs: available physical CPUs = {whole}, requested CPUs = {count}, \
                 CPUs per core = {threads}"
            )
        };
        let message = format!("Pod was rejected: SMT Alignment Error: {text}");
        Err(Failure { reason: "SMTAlignmentError".into(), message, disruption: false })
    }

    fn choose(&self, free: &CpuSet, count: usize, nodes: Option<Nodes>) -> Result<CpuSet, String> {
        let mut taken = CpuSet::default();
        if let Some(nodes) = nodes {
            let mut near = self.machine.all().only(|cpu| nodes.has(self.machine.place(cpu).node));
            if self.by_socket {
                near = self.machine.around(&near, |p| p.socket);
            }
            let near = free.only(|cpu| near.0.contains(&cpu));
            taken = assign::take(&self.machine, &near, near.len().min(count), self.manner)?;
        }
        let rest = assign::take(&self.machine, &free.without(&taken), count - taken.len(), self.manner)?;
        Ok(taken.with(&rest))
    }

    /// The sets of nodes that could serve, of which those with the fewest nodes are preferred.
    fn hints(&self, free: &CpuSet, reusable: &CpuSet, count: usize, all: Nodes) -> Vec<Hint> {
        let inside = |cpus: &CpuSet, set: Nodes| cpus.only(|cpu| set.has(self.machine.place(cpu).node)).len();
        let enough = |set: &Nodes| inside(&self.machine.all(), *set) >= count;
        let fewest = all.subsets().into_iter().filter(enough).map(Nodes::count).min().unwrap_or(all.count());
        let possible = all.subsets().into_iter().filter(|set| {
            let reused = inside(reusable, *set);
            (reused == reusable.len() || reused >= count) && inside(free, *set) >= count
        });
        let sockets = |set: Nodes| {
            let cpus = self.machine.all().only(|cpu| set.has(self.machine.place(cpu).node));
            cpus.0.iter().map(|cpu| self.machine.place(*cpu).socket).collect::<std::collections::BTreeSet<_>>().len()
        };
        let per_socket = self.machine.count(|p| p.node) / self.machine.count(|p| p.socket).max(1);
        let sockets_needed = usize::try_from(fewest).unwrap_or(1).div_ceil(per_socket.max(1));
        let preferred = |set: Nodes| set.count() == fewest || (self.by_socket && sockets(set) == sockets_needed);
        possible.map(|set| Hint { nodes: Some(set), preferred: preferred(set) }).collect()
    }
}

impl Cpus {
    /// Takes up what the file in `root` says.
    ///
    /// # Errors
    /// The file is another policy's or does not fit the machine: the administrator must drain the node and delete it.
    pub fn restore(root: &Path, config: &KubeletConfiguration, system: &Path) -> Result<Self, String> {
        let policy = match config.cpu_manager_policy.as_str() {
            "static" => Some(Static::new(config, Machine::read(system)?)?),
            _ => None,
        };
        let file = root.join(state::FILE);
        let refused = |e: String| {
            format!(
                "could not restore state from checkpoint: {e}, please drain this node and delete the CPU manager \
                 checkpoint file {file:?} before restarting Kubelet"
            )
        };
        let name = if policy.is_some() { "static" } else { "none" };
        let state = match super::checkpoint::read(&file)? {
            Some(text) => state::decode(&text, name).and_then(|s| check(policy.as_ref(), s)).map_err(refused)?,
            None => State { shared: policy.as_ref().map(Static::everything).unwrap_or_default(), ..State::default() },
        };
        let cpus = Cpus { policy, file, state: Mutex::new(state), changed: watch::channel(()).0 };
        cpus.keep()?;
        Ok(cpus)
    }

    fn keep(&self) -> Result<(), String> {
        let name = if self.policy.is_some() { "static" } else { "none" };
        super::checkpoint::write(&self.file, &state::encode(name, &self.state.lock())?)
    }

    /// Tells when what containers share may have changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Has running containers looked at: a new one may have missed a change.
    pub fn look(&self) {
        if self.policy.is_some() {
            self.changed.send_replace(());
        }
    }

    /// Whether the pod's containers have CPUs that cannot change while they run.
    pub fn fixes(&self, pod: &Pod) -> bool {
        self.policy.is_some() && pod.qos() == QosClass::Guaranteed
    }

    /// What a container has for itself.
    pub fn exclusive(&self, uid: &str, container: &str) -> CpuSet {
        self.state.lock().entries.get(uid).and_then(|c| c.get(container)).cloned().unwrap_or_default()
    }

    /// Where a container may run; empty means anywhere.
    pub fn allowed(&self, uid: &str, container: &str) -> CpuSet {
        let own = self.exclusive(uid, container);
        if own.is_empty() { self.state.lock().shared.clone() } else { own }
    }

    /// All that can be given to containers.
    pub fn allocatable(&self) -> CpuSet {
        self.policy.as_ref().map(|p| p.machine.all().without(&p.reserved)).unwrap_or_default()
    }

    /// The nodes that could serve a container, or the whole pod if none is named; nothing if it shares.
    pub fn hints(&self, pod: &Pod, of: Option<&Container>, reusable: &CpuSet, all: Nodes) -> Option<Vec<Hint>> {
        let policy = self.policy.as_ref()?;
        let count = match of {
            Some(container) => wanted(pod, container),
            None => whole(pod),
        };
        if count == 0 {
            return None;
        }
        let own = of.map(|c| self.exclusive(&pod.metadata.uid, &c.name)).unwrap_or_default();
        let free = if own.is_empty() { policy.free(&self.state.lock(), reusable) } else { own };
        Some(policy.hints(&free, reusable, count, all))
    }

    /// Gives a container its CPUs. `reusable` is what its pod's earlier init containers had, and is kept up.
    ///
    /// # Errors
    /// Why the pod fails.
    pub fn allocate(
        &self,
        pod: &Pod,
        container: &Container,
        nodes: Option<Nodes>,
        reusable: &mut CpuSet,
    ) -> Result<(), Failure> {
        let (Some(policy), count) = (&self.policy, wanted(pod, container)) else { return Ok(()) };
        if count == 0 {
            return Ok(());
        }
        let uid = &pod.metadata.uid;
        let mut own = self.exclusive(uid, &container.name);
        if own.is_empty() {
            let mut state = self.state.lock();
            if policy.manner.whole_cores {
                policy.check_cores(&state, count, reusable)?;
            }
            let free = policy.free(&state, reusable);
            own = policy.choose(&free, count, nodes).map_err(|e| super::unexpected(&e))?;
            state.shared = state.shared.without(&own);
            state.entries.entry(uid.clone()).or_default().insert(container.name.clone(), own.clone());
            drop(state);
            self.keep().map_err(|e| super::unexpected(&e))?;
            self.changed.send_replace(());
        }
        let runs_once = pod.spec.init_containers.iter().any(|c| c.name == container.name && !c.is_sidecar());
        *reusable = if runs_once { reusable.with(&own) } else { reusable.without(&own) };
        Ok(())
    }

    /// Takes back what pods have that are not among the live ones.
    pub fn keep_only(&self, live: &dyn Fn(&str) -> bool) {
        let mut state = self.state.lock();
        let (kept, gone) = std::mem::take(&mut state.entries).into_iter().partition(|(uid, _)| live(uid));
        state.entries = kept;
        let gone: state::Entries = gone;
        for set in gone.values().flat_map(|containers| containers.values()) {
            state.shared = state.shared.with(set);
        }
        drop(state);
        if gone.is_empty() {
            return;
        }
        self.changed.send_replace(());
        if let Err(error) = self.keep() {
            tracing::error!(%error, "CPU checkpoint not written");
        }
    }
}

/// What a pod takes at its peak: the larger of its main containers and each init container beside the sidecars.
fn whole(pod: &Pod) -> usize {
    let (mut sidecars, mut peak) = (0, 0);
    for container in &pod.spec.init_containers {
        let count = wanted(pod, container);
        peak = peak.max(sidecars + count);
        sidecars += if container.is_sidecar() { count } else { 0 };
    }
    peak.max(sidecars + pod.spec.containers.iter().map(|c| wanted(pod, c)).sum::<usize>())
}

/// Whether the state fits the machine and the reservation.
fn check(policy: Option<&Static>, state: State) -> Result<State, String> {
    let Some(policy) = policy else { return Ok(state) };
    let (all, shared) = (policy.everything(), &state.shared);
    if !policy.strict && !policy.reserved.without(shared).is_empty() {
        let reserved = &policy.reserved;
        return Err(format!(
            "not all reserved cpus: {:?} are present in defaultCpuSet: {:?}",
            reserved.to_string(),
            shared.to_string()
        ));
    }
    let given = state.entries.values().flat_map(|containers| containers.values());
    let known = given.fold(shared.clone(), |sum, set| sum.with(set));
    if known != all {
        let (all, known) = (all.to_string(), known.to_string());
        return Err(format!("current set of available CPUs {all:?} doesn't match with CPUs in state {known:?}"));
    }
    Ok(state)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

//! Nodes with what is placed on them: what the informers say, plus placements that are decided but not yet visible.
//!
//! A pod is *assumed* on its node from the decision on, so that the next decision counts it, until the API server shows
//! it there. It stays assumed while its binding runs and is forgotten when that fails. *Nominated* pods have no node yet,
//! but one was cleared for them.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::budgets::Budgets;
use crate::devices::Devices;
use crate::index::{Count, Index};
use crate::memo::Memo;
use crate::node::{Node, Offer};
use crate::pod::Pod;
use crate::terms::Labels;
use crate::volumes::Volumes;

/// The scheduler's picture of the cluster. One task owns it, so it needs no lock.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: Vec<Node>,
    slots: HashMap<Arc<str>, usize>,
    free: Vec<usize>,
    /// Slots of nodes that exist, zone by zone in turn; empty when it has to be put together again.
    order: Vec<usize>,
    /// The node of each placed pod, by uid.
    placed: HashMap<Arc<str>, usize>,
    /// How many placed pods use a claim, by its namespace and name.
    claims: HashMap<(String, String), usize>,
    assumed: HashSet<Arc<str>>,
    nominated: HashMap<Arc<str>, Vec<Arc<Pod>>>,
    /// The node that was cleared for a pod, by uid.
    nominations: HashMap<Arc<str>, Arc<str>>,
    namespaces: HashMap<Box<str>, Arc<Labels>>,
    index: Index,
    /// How many nodes have an image.
    images: HashMap<Box<str>, usize>,
    /// What volumes there are.
    pub volumes: Volumes,
    /// What devices there are.
    pub devices: Devices,
    /// Disruption budgets.
    pub budgets: Budgets,
    /// What nodes answered to replicas; decisions borrow it.
    pub memo: Memo,
    /// Changes with everything that a decision depends on.
    version: u64,
    /// The last stamp of any node.
    stamp: u64,
}

impl Cache {
    /// Slots of nodes that exist, in the order in which they are looked at.
    pub fn order(&mut self) -> &[usize] {
        if self.order.is_empty() {
            let mut zones: BTreeMap<(&str, &str), VecDeque<(&str, usize)>> = BTreeMap::new();
            for (slot, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.exists) {
                zones.entry(node.offer.zone()).or_default().push_back((&node.offer.name, slot));
            }
            zones.values_mut().for_each(|zone| zone.make_contiguous().sort_unstable());
            let mut order = Vec::new();
            while !zones.is_empty() {
                zones.retain(|_, zone| {
                    order.extend(zone.pop_front().map(|(_, slot)| slot));
                    !zone.is_empty()
                });
            }
            self.order = order;
        }
        &self.order
    }

    /// A node by slot.
    pub fn node(&self, slot: usize) -> &Node {
        &self.nodes[slot]
    }

    /// Lets `f` try something on a node and put everything back as it was: nobody shall think that it has changed.
    pub fn rehearse<T>(&mut self, slot: usize, f: impl FnOnce(&mut Cache) -> T) -> T {
        let (stamp, version) = (self.nodes[slot].stamp, self.version);
        let outcome = f(self);
        self.nodes[slot].stamp = stamp;
        self.version = version;
        outcome
    }

    fn changed(&mut self, slot: usize) {
        self.stamp += 1;
        self.nodes[slot].stamp = self.stamp;
    }

    /// The slot of a node that exists.
    pub fn slot(&self, name: &str) -> Option<usize> {
        self.slots.get(name).copied().filter(|slot| self.nodes[*slot].exists)
    }

    /// Nodes that exist, in no order.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> + Clone {
        self.nodes.iter().filter(|node| node.exists)
    }

    /// Number of placed pods.
    pub fn pods(&self) -> usize {
        self.placed.len()
    }

    /// How many placed pods use a claim.
    pub fn users_of(&self, namespace: &str, claim: &str) -> usize {
        self.claims.get(&(namespace.to_owned(), claim.to_owned())).copied().unwrap_or(0)
    }

    /// A number that is the same as long as no decision could come out differently.
    pub fn version(&self) -> u64 {
        self.version + self.volumes.version() + self.devices.version()
    }

    /// How many nodes have an image.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }

    /// A namespace's labels.
    pub fn namespace(&self, name: &str) -> Option<Arc<Labels>> {
        self.namespaces.get(name).cloned()
    }

    /// A namespace appeared, changed or went; returns whether its labels did.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) -> bool {
        let changed = match labels {
            Some(labels) => {
                let old = self.namespaces.insert(name.into(), Arc::new(labels));
                old.as_deref() != self.namespaces.get(name).map(|new| &**new)
            }
            None => self.namespaces.remove(name).is_some(),
        };
        if changed {
            self.index.namespace_changed();
            self.version += 1;
        }
        changed
    }

    /// The counts by domain.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Makes sure that a decision finds these counts.
    pub fn ensure(&mut self, counts: &[Arc<Count>]) {
        let namespaces = &self.namespaces;
        self.index.ensure(counts, self.nodes.iter(), &|name| namespaces.get(name).cloned());
    }

    /// A node appeared or changed; returns what it offered before.
    pub fn set_node(&mut self, offer: Arc<Offer>) -> Option<Arc<Offer>> {
        let slot = self.slot_for(&offer.name);
        let before = &self.nodes[slot];
        let old = before.exists.then(|| Arc::clone(&before.offer));
        if old.as_ref() == Some(&offer) {
            return old;
        }
        self.version += 1;
        if old.as_ref().is_none_or(|old| old.zone() != offer.zone()) {
            self.order.clear();
        }
        self.count_images(old.as_deref(), Some(&offer));
        let moved = old.as_ref().is_none_or(|old| old.labels != offer.labels || old.taints != offer.taints);
        if moved {
            self.index_node(slot, -1);
        }
        self.changed(slot);
        let node = &mut self.nodes[slot];
        node.exists = true;
        node.offer = offer;
        if moved {
            self.index_node(slot, 1);
        }
        old
    }

    /// A node is gone; pods that name it are kept, as it may come back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.slot(name) else { return };
        self.version += 1;
        self.order.clear();
        let offer = Arc::clone(&self.nodes[slot].offer);
        self.count_images(Some(&offer), None);
        self.index_node(slot, -1);
        self.nodes[slot].exists = false;
        self.changed(slot);
        self.drop_if_empty(slot);
    }

    fn count_images(&mut self, old: Option<&Offer>, new: Option<&Offer>) {
        for image in new.into_iter().flat_map(|offer| offer.images.keys()) {
            *self.images.entry(image.clone()).or_default() += 1;
        }
        for image in old.into_iter().flat_map(|offer| offer.images.keys()) {
            if let Some(count) = self.images.get_mut(image) {
                *count -= 1;
                if *count == 0 {
                    self.images.remove(image);
                }
            }
        }
    }

    fn index_node(&mut self, slot: usize, sign: i64) {
        let namespaces = &self.namespaces;
        self.index.node(&self.nodes[slot], sign, &|name| namespaces.get(name).cloned());
    }

    /// The informer shows a pod on a node. Returns what was known of it before.
    pub fn set_pod(&mut self, pod: Arc<Pod>) -> Option<Arc<Pod>> {
        self.assumed.remove(&pod.uid);
        if let Some(slot) = self.placed.get(&pod.uid).copied()
            && let Some(known) = self.nodes[slot].pods.iter_mut().find(|known| known.uid == pod.uid)
            && known.node == pod.node
            && Arc::ptr_eq(&known.spec, &pod.spec)
            && known.ending == pod.ending
        {
            // Nothing that is counted has changed: a status report, or the end of a binding.
            let old = std::mem::replace(known, pod);
            self.changed(slot);
            return Some(old);
        }
        let old = self.lift(&pod.uid);
        self.put(pod);
        old
    }

    /// A pod is placed here from now on, before the API server knows.
    pub fn assume(&mut self, pod: Arc<Pod>) {
        self.assumed.insert(Arc::clone(&pod.uid));
        self.put(pod);
    }

    /// Placed, and not yet shown so by the informer.
    pub fn is_assumed(&self, uid: &str) -> bool {
        self.assumed.contains(uid)
    }

    /// A pod is gone, or could not be bound.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<Pod>> {
        self.assumed.remove(uid);
        self.lift(uid)
    }

    /// Takes a pod off its node, for good or to see what would be without it.
    pub fn lift(&mut self, uid: &str) -> Option<Arc<Pod>> {
        let slot = self.placed.remove(uid)?;
        let pod = self.nodes[slot].remove(uid)?;
        self.version += 1;
        self.changed(slot);
        let namespaces = &self.namespaces;
        self.index.pod(&pod, &self.nodes[slot], -1, &|name| namespaces.get(name).cloned());
        for (claim, _) in pod.claims() {
            let key = (pod.spec.namespace.clone(), claim);
            if let Some(users) = self.claims.get_mut(&key) {
                *users -= 1;
                if *users == 0 {
                    self.claims.remove(&key);
                }
            }
        }
        self.drop_if_empty(slot);
        Some(pod)
    }

    /// Puts a pod on its node.
    pub fn put(&mut self, pod: Arc<Pod>) {
        let slot = self.slot_for(&pod.node);
        self.version += 1;
        let namespaces = &self.namespaces;
        self.index.pod(&pod, &self.nodes[slot], 1, &|name| namespaces.get(name).cloned());
        self.placed.insert(Arc::clone(&pod.uid), slot);
        for (claim, _) in pod.claims() {
            *self.claims.entry((pod.spec.namespace.clone(), claim)).or_default() += 1;
        }
        self.nodes[slot].add(pod);
        self.changed(slot);
    }

    /// The pods that wait for room on a node that was cleared for them.
    pub fn nominated(&self, node: &str) -> &[Arc<Pod>] {
        self.nominated.get(node).map_or(&[], Vec::as_slice)
    }

    /// Whether any node was cleared for anybody.
    pub fn has_nominated(&self) -> bool {
        !self.nominated.is_empty()
    }

    /// The node that was cleared for a pod.
    pub fn nomination(&self, uid: &str) -> Option<&Arc<str>> {
        self.nominations.get(uid)
    }

    /// A node was cleared for a pod; an empty name takes that back.
    pub fn nominate(&mut self, pod: &Arc<Pod>, node: &str) {
        self.denominate(&pod.uid);
        if !node.is_empty() {
            self.version += 1;
            let node: Arc<str> = node.into();
            self.nominations.insert(Arc::clone(&pod.uid), Arc::clone(&node));
            self.nominated.entry(Arc::clone(&node)).or_default().push(Arc::new(pod.placed_on(&node)));
            self.nomination_changed(&node);
        }
    }

    /// A pod no longer waits for a node that was cleared.
    pub fn denominate(&mut self, uid: &str) {
        let Some(node) = self.nominations.remove(uid) else { return };
        self.version += 1;
        if let Some(pods) = self.nominated.get_mut(&node) {
            pods.retain(|pod| &*pod.uid != uid);
            if pods.is_empty() {
                self.nominated.remove(&node);
            }
        }
        self.nomination_changed(&node);
    }

    fn nomination_changed(&mut self, node: &str) {
        if let Some(slot) = self.slots.get(node).copied() {
            self.changed(slot);
        }
    }

    fn slot_for(&mut self, name: &Arc<str>) -> usize {
        if let Some(slot) = self.slots.get(name) {
            return *slot;
        }
        self.stamp += 1;
        let offer = Arc::new(Offer { name: Arc::clone(name), ..Offer::default() });
        let node = Node { offer, stamp: self.stamp, ..Node::default() };
        let slot = self.free.pop().unwrap_or(self.nodes.len());
        if slot == self.nodes.len() {
            self.nodes.push(node);
        } else {
            self.nodes[slot] = node;
        }
        self.slots.insert(Arc::clone(name), slot);
        slot
    }

    fn drop_if_empty(&mut self, slot: usize) {
        let node = &self.nodes[slot];
        if !node.exists && node.pods.is_empty() && self.slots.remove(&node.offer.name).is_some() {
            self.free.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::from_json;
    use serde_json::json;

    #[test]
    fn an_assumed_pod_is_counted_once_and_confirmed() {
        let mut cache = Cache::default();
        let offer = |name: &str| Arc::new(Offer { name: name.into(), ..Offer::default() });
        cache.set_node(offer("a"));
        let pod = |node: &str| {
            Arc::new(from_json(json!({"metadata": {"name": "p", "uid": "p"}, "spec": {"nodeName": node,
                "containers": [{"resources": {"requests": {"cpu": "1"}}}]}})))
        };
        cache.assume(pod("a"));
        assert!(cache.is_assumed("p"));
        cache.set_pod(pod("a"));
        assert!(!cache.is_assumed("p"));
        assert_eq!(cache.nodes().next().unwrap().requested.milli_cpu, 1000);
        cache.set_pod(pod("b"));
        assert_eq!(cache.nodes().next().unwrap().requested.milli_cpu, 0);
        assert_eq!(cache.nodes().count(), 1, "b is only a name");
        cache.remove_pod("p");
        cache.remove_node("a");
        assert!(cache.slots.is_empty() && cache.free.len() == 2);
    }

    #[test]
    fn zones_take_turns() {
        let mut cache = Cache::default();
        for (name, zone) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")] {
            let labels = json!({"topology.kubernetes.io/zone": zone}).as_object().unwrap().clone();
            cache.set_node(Arc::new(Offer { name: name.into(), labels, ..Offer::default() }));
        }
        let order: Vec<usize> = cache.order().to_vec();
        let names: Vec<&str> = order.iter().map(|slot| &*cache.node(*slot).offer.name).collect();
        assert_eq!(names, ["a1", "b1", "a2", "a3"]);
    }
}

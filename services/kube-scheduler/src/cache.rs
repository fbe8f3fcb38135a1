//! All nodes and the pods on them, including pods that were placed but whose binding the informer has not shown yet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::node::{Node, Offer};
use crate::pod::Pod;

/// The scheduler's picture of the cluster. One task owns it, so it needs no lock.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: BTreeMap<String, Node>,
    /// The node of each placed pod, by uid.
    placed: HashMap<String, String>,
    assumed: HashSet<String>,
}

impl Cache {
    /// Nodes that exist, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|node| node.exists)
    }

    /// A node appeared or changed; returns what it offered before.
    pub fn set_node(&mut self, offer: Arc<Offer>) -> Option<Arc<Offer>> {
        let node = self.nodes.entry(offer.name.clone()).or_default();
        let old = node.exists.then(|| Arc::clone(&node.offer));
        node.exists = true;
        node.offer = offer;
        old
    }

    /// A node is gone; pods that name it are kept, as it may come back.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.exists = false;
        }
        self.drop_if_empty(name);
    }

    /// The informer shows a pod on a node. Returns what was known of it before.
    pub fn set_pod(&mut self, pod: Arc<Pod>) -> Option<Arc<Pod>> {
        let old = self.remove_pod(&pod.uid);
        self.place(pod);
        old
    }

    /// A pod is placed here from now on, before the API server knows.
    pub fn assume(&mut self, pod: Arc<Pod>) {
        self.assumed.insert(pod.uid.clone());
        self.place(pod);
    }

    /// Placed, and not yet shown so by the informer.
    pub fn is_assumed(&self, uid: &str) -> bool {
        self.assumed.contains(uid)
    }

    /// A pod is gone, or could not be bound.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<Pod>> {
        self.assumed.remove(uid);
        let name = self.placed.remove(uid)?;
        let pod = self.nodes.get_mut(&name)?.remove(uid);
        self.drop_if_empty(&name);
        pod
    }

    fn place(&mut self, pod: Arc<Pod>) {
        let node = self.nodes.entry(pod.node.clone()).or_insert_with(|| Node {
            offer: Arc::new(Offer { name: pod.node.clone(), ..Offer::default() }),
            ..Node::default()
        });
        self.placed.insert(pod.uid.clone(), pod.node.clone());
        node.add(pod);
    }

    fn drop_if_empty(&mut self, name: &str) {
        if self.nodes.get(name).is_some_and(|node| !node.exists && node.pods.is_empty()) {
            self.nodes.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_assumed_pod_is_counted_once_and_confirmed() {
        let mut cache = Cache::default();
        let offer = |name: &str| Arc::new(Offer { name: name.to_owned(), ..Offer::default() });
        cache.set_node(offer("a"));
        let pod = |node: &str| {
            Arc::new(Pod::read(Arc::new(json!({"metadata": {"name": "p", "uid": "p"}, "spec": {"nodeName": node,
                "containers": [{"resources": {"requests": {"cpu": "1"}}}]}}))))
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
        assert!(cache.nodes.is_empty());
    }
}

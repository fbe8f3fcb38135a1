//! A node as the scheduler sees it: what it offers and what is placed on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::meta;
use serde_json::Value;

use crate::pod::{Amounts, HostPort, Pod};
use crate::terms::{Labels, Taint, list};

/// What a node offers, read once per change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// metadata.name.
    pub name: String,
    /// metadata.labels.
    pub labels: Labels,
    /// spec.taints.
    pub taints: Vec<Taint>,
    /// spec.unschedulable.
    pub cordoned: bool,
    /// status.allocatable.
    pub allocatable: Amounts,
    /// Most pods.
    pub pods_max: i64,
}

impl Offer {
    /// Reads a node.
    pub fn read(node: &Value) -> Offer {
        let allocatable = node.pointer("/status/allocatable").and_then(Value::as_object);
        let count =
            allocatable.and_then(|a| a.get("pods")).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        Offer {
            name: meta::name(node).to_owned(),
            labels: meta::labels(node).cloned().unwrap_or_default(),
            taints: list(node, "/spec/taints").iter().map(Taint::read).collect(),
            cordoned: node["spec"]["unschedulable"] == true,
            allocatable: Amounts::read(allocatable),
            pods_max: count.and_then(|c| c.parse().ok()).unwrap_or(0),
        }
    }
}

/// A node with its pods.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// What it offers; its name alone is known for a node that is gone while pods still name it.
    pub offer: Arc<Offer>,
    /// Whether the node object exists.
    pub exists: bool,
    /// By uid.
    pub pods: BTreeMap<String, Arc<Pod>>,
    /// Sum of requests.
    pub requested: Amounts,
    /// Sum of assumed use, for scores.
    pub assumed: Amounts,
    /// Host ports in use.
    pub ports: Vec<HostPort>,
    /// How many pods have terms that other pods must be checked against.
    pub with_affinity: usize,
}

impl Node {
    /// Places a pod.
    pub fn add(&mut self, pod: Arc<Pod>) {
        self.requested.merge(&pod.requests, |a, b| a.saturating_add(b));
        self.assumed.merge(&pod.assumed, |a, b| a.saturating_add(b));
        self.ports.extend(pod.ports.iter().cloned());
        self.with_affinity += usize::from(has_terms(&pod));
        self.pods.insert(pod.uid.clone(), pod);
    }

    /// Takes a pod away.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<Pod>> {
        let pod = self.pods.remove(uid)?;
        self.requested.merge(&pod.requests, |a, b| a - b);
        self.assumed.merge(&pod.assumed, |a, b| a - b);
        for port in &pod.ports {
            if let Some(index) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(index);
            }
        }
        self.with_affinity -= usize::from(has_terms(&pod));
        Some(pod)
    }
}

fn has_terms(pod: &Pod) -> bool {
    !pod.affinity.is_empty() || !pod.anti_affinity.is_empty()
}

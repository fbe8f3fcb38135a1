//! A node as the scheduler sees it: what it offers and what is placed on it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::amounts::{Amounts, quantity};
use crate::objects::NodeObject;
use crate::pod::Pod;
use crate::spec::HostPort;
use crate::terms::{Labels, Taint, label};

/// What a node offers, read once per change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// metadata.name.
    pub name: Arc<str>,
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
    /// Sizes of images by name.
    pub images: HashMap<Box<str>, i64>,
}

impl Offer {
    /// Reads a node.
    pub fn read(node: NodeObject) -> Offer {
        let NodeObject { metadata, spec, status } = node;
        let pods = status.allocatable.get("pods").and_then(quantity);
        Offer {
            name: (&*metadata.name).into(),
            labels: metadata.labels,
            taints: spec.taints.iter().map(Taint::read).collect(),
            cordoned: spec.unschedulable,
            allocatable: Amounts::read(&status.allocatable),
            pods_max: pods.map_or(0, |pods| pods.value()),
            images: status
                .images
                .into_iter()
                .flat_map(|image| image.names.into_iter().map(move |name| (name, image.size_bytes)))
                .collect(),
        }
    }

    /// The region and zone, by which nodes take turns.
    pub fn zone(&self) -> (&str, &str) {
        let of = |key| label(&self.labels, key).unwrap_or_default();
        (of("topology.kubernetes.io/region"), of("topology.kubernetes.io/zone"))
    }
}

/// A node with its pods.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// What it offers; its name alone is known for a node that is gone while pods still name it.
    pub offer: Arc<Offer>,
    /// Whether the node object exists.
    pub exists: bool,
    /// In no order.
    pub pods: Vec<Arc<Pod>>,
    /// Sum of requests.
    pub requested: Amounts,
    /// Sum of assumed use, for scores.
    pub assumed: Amounts,
    /// Host ports in use.
    pub ports: Vec<HostPort>,
    /// Another with every change of the node, of the pods on it and of those it was cleared for; never 0 and never used twice.
    pub stamp: u64,
}

impl Node {
    /// Places a pod.
    pub fn add(&mut self, pod: Arc<Pod>) {
        self.requested.merge(&pod.spec.requests, i64::saturating_add);
        self.assumed.merge(&pod.spec.assumed, i64::saturating_add);
        self.ports.extend(pod.spec.ports.iter().cloned());
        self.pods.push(pod);
    }

    /// Takes a pod away.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<Pod>> {
        let index = self.pods.iter().position(|pod| &*pod.uid == uid)?;
        let pod = self.pods.swap_remove(index);
        self.requested.merge(&pod.spec.requests, |a, b| a - b);
        self.assumed.merge(&pod.spec.assumed, |a, b| a - b);
        for port in &pod.spec.ports {
            if let Some(index) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(index);
            }
        }
        Some(pod)
    }
}

//! What decisions know of a kind of pod. Replicas are equal in everything that matters for their placement, so they share
//! one [`Spec`]: twenty thousand pods of fifty workloads are fifty of these.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use apimachinery::selector::LabelSelector;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::amounts::{self, Amounts};
use crate::neighbours::{self, Affinity, Spread};
use crate::objects::{Container, Meta, PodSpec, Volume};
use crate::terms::{Labels, Taint, Term, Toleration, list};

/// The name that a pod without spec.schedulerName asks for.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// A port on the node itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The number.
    pub port: i64,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// The node's address; `0.0.0.0` is all of them.
    pub address: String,
}

impl HostPort {
    /// Whether both cannot be on one node.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let any = |port: &HostPort| port.address == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(self) || any(other) || self.address == other.address)
    }
}

/// nodeSelector and required node affinity.
#[derive(Clone, Debug)]
pub struct NodeRules {
    selector: LabelSelector,
    /// Any of the terms; none if there is no such rule.
    pub required: Option<Vec<Term>>,
    /// Equal for rules that allow the same.
    pub id: String,
}

impl NodeRules {
    /// Preferred node affinity with weights.
    pub fn wishes(spec: &PodSpec) -> Vec<(i64, Term)> {
        let preferred = list(&spec.affinity, "/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution").iter();
        preferred.map(|p| (p["weight"].as_i64().unwrap_or(0), Term::read(&p["preference"]))).collect()
    }

    /// Reads nodeSelector and required node affinity.
    pub fn read(spec: &PodSpec) -> NodeRules {
        let required = spec
            .affinity
            .pointer("/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms")
            .and_then(Value::as_array);
        let id = match (spec.node_selector.is_empty(), required) {
            (true, None) => String::new(),
            _ => format!("{:?}{required:?}", spec.node_selector),
        };
        NodeRules {
            selector: LabelSelector::from_map(&spec.node_selector),
            required: required.map(|terms| terms.iter().map(Term::read).collect()),
            id,
        }
    }

    /// Allows every node.
    pub fn is_empty(&self) -> bool {
        self.required.is_none() && self.selector.is_empty()
    }

    /// Whether a node is allowed.
    pub fn allow(&self, name: &str, labels: &Labels) -> bool {
        self.selector.matches(Some(labels))
            && self.required.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }
}

/// A claim that a pod uses.
#[derive(Clone, Debug)]
pub enum Claim {
    /// One that exists by itself.
    Named(Box<str>),
    /// One that is made for the pod, for the volume of this name.
    Ephemeral(Box<str>),
}

/// What decisions know of a kind of pod.
#[derive(Debug)]
pub struct Spec {
    /// Tells kinds apart.
    pub id: u64,
    /// metadata.namespace.
    pub namespace: String,
    /// metadata.labels.
    pub labels: Labels,
    /// spec.schedulerName.
    pub scheduler: String,
    /// spec.priority.
    pub priority: i64,
    /// preemptionPolicy Never.
    pub never_preempts: bool,
    /// What it asks for.
    pub requests: Amounts,
    /// What scores assume that it uses.
    pub assumed: Amounts,
    /// Host ports.
    pub ports: Vec<HostPort>,
    /// Images of its containers.
    pub images: Vec<Box<str>>,
    /// spec.tolerations.
    pub tolerations: Arc<[Toleration]>,
    /// Where it may run.
    pub nodes: Arc<NodeRules>,
    /// Preferred node affinity with weights.
    pub preferred_nodes: Vec<(i64, Term)>,
    /// Spread constraints.
    pub spread: Vec<Spread>,
    /// Pods to be near.
    pub affinity: Affinity,
    /// Pods to be away from.
    pub anti_affinity: Affinity,
    /// Claims.
    pub claims: Vec<Claim>,
    /// Volumes that it names itself and that not every node can share.
    pub disks: Vec<Volume>,
    /// How many resource claims it has.
    pub resource_claims: usize,
}

impl Spec {
    fn read(id: u64, meta: &Meta, spec: &PodSpec) -> Spec {
        let (namespace, labels) = (&*meta.namespace, &meta.labels);
        let (requests, assumed) = amounts::requests(spec);
        let tolerations: Arc<[Toleration]> = spec.tolerations.iter().map(Toleration::read).collect();
        let nodes = Arc::new(NodeRules::read(spec));
        let containers = || spec.init_containers.iter().chain(&spec.containers);
        let mut images: Vec<Box<str>> = containers().map(|c| c.image.clone()).filter(|i| !i.is_empty()).collect();
        images.shrink_to_fit();
        Spec {
            id,
            namespace: namespace.to_owned(),
            scheduler: if spec.scheduler_name.is_empty() { DEFAULT_SCHEDULER } else { &spec.scheduler_name }.to_owned(),
            priority: spec.priority,
            never_preempts: &*spec.preemption_policy == "Never",
            requests,
            assumed,
            ports: host_ports(spec),
            images,
            preferred_nodes: NodeRules::wishes(spec),
            spread: neighbours::spreads(&spec.topology_spread_constraints, namespace, labels, &nodes, &tolerations),
            affinity: Affinity::read(&spec.affinity["podAffinity"], namespace, labels),
            anti_affinity: Affinity::read(&spec.affinity["podAntiAffinity"], namespace, labels),
            claims: spec.volumes.iter().filter_map(claim).collect(),
            disks: spec.volumes.iter().filter(|v| is_disk(v)).cloned().collect(),
            resource_claims: spec.resource_claims.len(),
            labels: labels.clone(),
            tolerations,
            nodes,
        }
    }

    /// Whether every repelling taint is tolerated.
    pub fn bears(&self, taints: &[Taint]) -> bool {
        bears(&self.tolerations, taints)
    }

    /// Has rules about other pods, which those must be checked against.
    pub fn has_terms(&self) -> bool {
        !self.affinity.is_empty() || !self.anti_affinity.is_empty()
    }
}

/// Whether every repelling taint is tolerated.
pub fn bears(tolerations: &[Toleration], taints: &[Taint]) -> bool {
    let borne = |taint: &Taint| tolerations.iter().any(|t| t.tolerates(taint));
    taints.iter().filter(|taint| taint.repels()).all(borne)
}

fn claim(volume: &Volume) -> Option<Claim> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(Claim::Named(source.claim_name.clone())),
        (None, Some(_)) => Some(Claim::Ephemeral(volume.name.clone())),
        (None, None) => None,
    }
}

fn is_disk(volume: &Volume) -> bool {
    let kinds = [&volume.gce_persistent_disk, &volume.aws_elastic_block_store, &volume.iscsi, &volume.rbd];
    kinds.into_iter().any(Option::is_some)
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let restartable = spec.init_containers.iter().filter(|c| &*c.restart_policy == "Always");
    let ports = spec.containers.iter().chain(restartable).flat_map(|c| &c.ports);
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    ports
        .filter(|port| port.host_port > 0)
        .map(|port| HostPort {
            port: port.host_port,
            protocol: or(&port.protocol, "TCP"),
            address: or(&port.host_ip, "0.0.0.0"),
        })
        .collect()
}

/// All kinds of pods that are in use.
#[derive(Debug, Default)]
pub struct Specs {
    known: HashMap<[u8; 32], Weak<Spec>>,
    prune_at: usize,
}

impl Specs {
    /// The shared form of a pod's spec.
    pub fn intern(&mut self, meta: &Meta, mut spec: PodSpec) -> Arc<Spec> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        for container in spec.containers.iter_mut().chain(&mut spec.init_containers) {
            let Container { ports, .. } = container;
            ports.retain(|port| port.host_port > 0);
        }
        spec.volumes.retain(|volume| claim(volume).is_some() || is_disk(volume));
        let ephemeral: Vec<&str> =
            spec.volumes.iter().filter(|v| v.ephemeral.is_some()).map(|v| v.name.as_ref()).collect();
        // Serialising plain data cannot fail; if it did, equal digests would be equal failures of equal pods.
        let text = serde_json::to_vec(&(&meta.namespace, &meta.labels, &spec, ephemeral)).unwrap_or_default();
        let digest: [u8; 32] = Sha256::digest(&text).into();
        if let Some(known) = self.known.get(&digest).and_then(Weak::upgrade) {
            return known;
        }
        let read = Arc::new(Spec::read(NEXT.fetch_add(1, Ordering::Relaxed), meta, &spec));
        self.known.insert(digest, Arc::downgrade(&read));
        if self.known.len() > self.prune_at {
            self.known.retain(|_, spec| spec.strong_count() > 0);
            self.prune_at = (self.known.len() * 2).max(64);
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn replicas_share_a_spec() {
        let mut specs = Specs::default();
        let mut read = |spec: Value, labels: Value| {
            let meta = Meta { labels: serde_json::from_value(labels).unwrap(), ..Meta::default() };
            specs.intern(&meta, serde_json::from_value(spec).unwrap())
        };
        let plain = |volume: &str, node: &str| {
            json!({"nodeName": node, "containers": [{"image": "a", "ports": [{"containerPort": 80}],
                   "volumeMounts": [{"name": volume}]}],
                   "volumes": [{"name": volume, "projected": {}}]})
        };
        let first = read(plain("kube-api-access-1", ""), json!({"app": "a"}));
        assert!(Arc::ptr_eq(&first, &read(plain("kube-api-access-2", "n1"), json!({"app": "a"}))));
        assert!(!Arc::ptr_eq(&first, &read(plain("kube-api-access-2", ""), json!({"app": "b"}))));
        let id = first.id;
        drop(first);
        assert_ne!(id, read(plain("v", ""), json!({"app": "a"})).id, "forgotten with its last pod");
    }

    #[test]
    fn host_ports_conflict_by_address() {
        let port = |address: &str, protocol: &str| HostPort {
            port: 80,
            protocol: protocol.to_owned(),
            address: address.to_owned(),
        };
        assert!(port("0.0.0.0", "TCP").conflicts(&port("10.0.0.1", "TCP")));
        assert!(!port("10.0.0.2", "TCP").conflicts(&port("10.0.0.1", "TCP")));
        assert!(!port("0.0.0.0", "UDP").conflicts(&port("0.0.0.0", "TCP")));
    }
}

//! A pod as the scheduler keeps it.

use std::sync::Arc;

use apimachinery::time;
use serde_json::{Value, json};

use crate::objects::{Condition, PodObject};
use crate::spec::{Claim, Spec, Specs};

/// A pod: what it shares with its replicas, and what is its own.
#[derive(Clone, Debug)]
pub struct Pod {
    /// metadata.uid.
    pub uid: Arc<str>,
    /// metadata.name.
    pub name: Box<str>,
    /// spec.nodeName; empty while it has none.
    pub node: Arc<str>,
    /// What decisions know of its kind.
    pub spec: Arc<Spec>,
    /// status.startTime in seconds since 1970; placed but not started counts as latest.
    pub started: i64,
    /// Deletion was asked for.
    pub ending: bool,
    /// Ending because of a preemption.
    pub preempted: bool,
    /// What matters only while it has no node.
    pub waiting: Option<Box<Waiting>>,
}

/// Of a pod without a node.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    /// Has scheduling gates.
    pub gates: Vec<Box<str>>,
    /// status.nominatedNodeName.
    pub nominated: Box<str>,
    /// Its PodScheduled condition.
    pub condition: Option<Condition>,
    /// Kind, name and uid of its controller.
    pub owner: Option<(Box<str>, Box<str>, Box<str>)>,
    /// metadata.resourceVersion, for events.
    pub version: Box<str>,
    /// Its resource claims.
    pub resource_claims: Vec<PodClaim>,
}

/// A resource claim of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodClaim {
    /// One that exists by itself.
    Named(Box<str>),
    /// One that was made for the pod.
    Made(Box<str>),
    /// One that is still to be made.
    NotMade,
    /// Its template asks for nothing.
    NotNeeded,
}

impl PodClaim {
    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        match self {
            PodClaim::Named(name) | PodClaim::Made(name) => Some(name),
            PodClaim::NotMade | PodClaim::NotNeeded => None,
        }
    }

    fn read(entry: &Value, statuses: &[Value]) -> PodClaim {
        if let Some(name) = entry["resourceClaimName"].as_str() {
            return PodClaim::Named(name.into());
        }
        match statuses.iter().find(|status| status["name"] == entry["name"]) {
            None => PodClaim::NotMade,
            Some(status) => {
                status["resourceClaimName"].as_str().map_or(PodClaim::NotNeeded, |n| PodClaim::Made(n.into()))
            }
        }
    }
}

impl Pod {
    /// Reads a pod.
    pub fn read(object: PodObject, specs: &mut Specs) -> Pod {
        let PodObject { metadata: meta, mut spec, status } = object;
        let node: Arc<str> = (&*spec.node_name).into();
        let condition = |kind: &str| status.conditions.iter().find(|c| &*c.kind == kind);
        let ending = meta.deletion_timestamp.is_some();
        let waiting = node.is_empty().then(|| {
            let owner = meta.owner_references.iter().find(|owner| owner.controller);
            Box::new(Waiting {
                gates: std::mem::take(&mut spec.scheduling_gates).into_iter().map(|gate| gate.name).collect(),
                nominated: status.nominated_node_name.clone(),
                condition: condition("PodScheduled").cloned(),
                owner: owner.map(|o| (o.kind.clone(), o.name.clone(), o.uid.clone())),
                version: meta.resource_version.clone(),
                resource_claims: spec
                    .resource_claims
                    .iter()
                    .map(|entry| PodClaim::read(entry, &status.resource_claim_statuses))
                    .collect(),
            })
        });
        Pod {
            uid: (&*meta.uid).into(),
            name: meta.name.clone(),
            node,
            started: time::parse_rfc3339(&status.start_time).map_or(i64::MAX, jiff::Timestamp::as_second),
            ending,
            preempted: ending && condition("DisruptionTarget").is_some_and(|c| &*c.reason == "PreemptionByScheduler"),
            waiting,
            spec: specs.intern(&meta, spec),
        }
    }

    /// The pod on a node.
    pub fn placed_on(&self, node: &str) -> Pod {
        Pod { node: node.into(), waiting: None, ..self.clone() }
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.spec.namespace, self.name)
    }

    /// Waits for its scheduling gates.
    pub fn is_gated(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| !waiting.gates.is_empty())
    }

    /// The node that was cleared for it; empty if none.
    pub fn nominated(&self) -> &str {
        self.waiting.as_ref().map_or("", |waiting| &waiting.nominated)
    }

    /// The names of its claims; those made for it say so.
    pub fn claims(&self) -> impl Iterator<Item = (String, bool)> {
        self.spec.claims.iter().map(|claim| match claim {
            Claim::Named(name) => (name.to_string(), false),
            Claim::Ephemeral(volume) => (format!("{}-{volume}", self.name), true),
        })
    }

    /// Its resource claims, while it waits.
    pub fn resource_claims(&self) -> &[PodClaim] {
        self.waiting.as_ref().map_or(&[], |waiting| &waiting.resource_claims)
    }

    /// Enough of the object for an event about it.
    pub fn reference(&self) -> Value {
        let version = self.waiting.as_ref().map_or("", |waiting| &waiting.version);
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": self.spec.namespace, "name": self.name,
               "uid": &*self.uid, "resourceVersion": version}})
    }

    /// Whether this one is spared before the other: higher priority first, then the longer running.
    pub fn is_more_important_than(&self, other: &Pod) -> bool {
        (self.spec.priority, -i128::from(self.started)) > (other.spec.priority, -i128::from(other.started))
    }
}

#[cfg(test)]
pub fn from_json(object: Value) -> Pod {
    Pod::read(serde_json::from_value(object).unwrap(), &mut Specs::default())
}

//! Which pods go first when there are too many: upstream's order, so that users and tests find what they expect.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::meta;
use jiff::Timestamp;
use serde_json::Value;

use crate::{clock, object, pods};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods to delete among the active ones. `related` are the pods of all sets of the same workload.
pub(super) fn victims(owned: &[Arc<Value>], related: &[Arc<Value>], count: usize, now: Timestamp) -> Vec<Arc<Value>> {
    let mut per_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        *per_node.entry(node(pod)).or_default() += 1;
    }
    let active = owned.iter().filter(|pod| pods::is_active(pod));
    let rank = |pod: &Arc<Value>| Rank::of(pod, per_node.get(node(pod)).copied().unwrap_or(0), now);
    let mut ranked: Vec<(Rank, Arc<Value>)> = active.map(|pod| (rank(pod), Arc::clone(pod))).collect();
    ranked.sort_by(|a, b| a.0.compare(&b.0));
    ranked.into_iter().take(count).map(|(_, pod)| pod).collect()
}

fn node(pod: &Value) -> &str {
    object::text(pod, "/spec/nodeName")
}

/// What the order looks at, most important first.
struct Rank {
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    neighbours: usize,
    /// Bucket of the time since it became ready, where that is known.
    ready_age: Option<u32>,
    restarts: i64,
    age: Option<u32>,
    uid: String,
}

impl Rank {
    fn of(pod: &Value, neighbours: usize, now: Timestamp) -> Rank {
        let created = clock::parse(object::text(pod, "/metadata/creationTimestamp"));
        Rank {
            assigned: !node(pod).is_empty(),
            phase: match object::text(pod, "/status/phase") {
                "Running" => 2,
                "Unknown" => 1,
                _ => 0,
            },
            ready: pods::is_ready(pod),
            cost: meta::annotation(pod, DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0),
            neighbours,
            ready_age: pods::ready_since(pod).map(|since| bucket(since, now)),
            restarts: object::list(pod, "/status/containerStatuses")
                .iter()
                .filter_map(|c| c["restartCount"].as_i64())
                .max()
                .unwrap_or(0),
            age: created.map(|created| bucket(created, now)),
            uid: meta::uid(pod).to_owned(),
        }
    }

    /// `Less` means: delete first.
    fn compare(&self, other: &Rank) -> Ordering {
        self.assigned
            .cmp(&other.assigned)
            .then(self.phase.cmp(&other.phase))
            .then(self.ready.cmp(&other.ready))
            .then(self.cost.cmp(&other.cost))
            .then(other.neighbours.cmp(&self.neighbours))
            .then(younger_first(self.ready_age, other.ready_age))
            .then(other.restarts.cmp(&self.restarts))
            .then(younger_first(self.age, other.age))
            .then(self.uid.cmp(&other.uid))
    }
}

/// A pod of unknown age goes first, then the younger one.
fn younger_first(a: Option<u32>, b: Option<u32>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(&b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

/// Ages are compared by their order of magnitude in base two, so that pods of one batch are told apart by uid and a
/// scale-down does not always hit the newest node.
fn bucket(since: Timestamp, now: Timestamp) -> u32 {
    let nanos = u128::try_from(now.duration_since(since).as_nanos()).unwrap_or(0);
    nanos.checked_ilog2().map_or(0, |log| log + 1)
}

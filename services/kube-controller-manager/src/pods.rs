//! What controllers ask about pods.

use std::sync::Arc;

use apimachinery::meta;
use client::Informer;
use jiff::Timestamp;
use serde_json::Value;

use crate::{clock, object};

/// Succeeded or Failed: it will never run again.
pub fn is_finished(pod: &Value) -> bool {
    matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// The pods of a node, one at a time.
pub fn on_node(pods: &Informer, node: &str) -> impl Iterator<Item = Arc<Value>> {
    pods.each_naming("nodeName", node).filter(move |pod| object::text(pod, "/spec/nodeName") == node)
}

/// Whether deletion was asked for.
pub fn is_terminating(pod: &Value) -> bool {
    meta::deletion_timestamp(pod).is_some()
}

/// Counts towards a workload's replicas.
pub fn is_active(pod: &Value) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// Its Ready condition, whatever the status.
pub fn ready_condition(pod: &Value) -> Option<&Value> {
    meta::condition(pod, "Ready")
}

/// Ready is True.
pub fn is_ready(pod: &Value) -> bool {
    meta::is_condition_true(pod, "Ready")
}

/// When it became ready, if it is.
pub fn ready_since(pod: &Value) -> Option<Timestamp> {
    let condition = ready_condition(pod).filter(|c| c["status"] == "True")?;
    clock::parse(condition["lastTransitionTime"].as_str()?)
}

/// Whether a ready pod has been so for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Yes.
    Now,
    /// Will be, if it stays ready.
    At(Timestamp),
    /// Not ready.
    No,
}

/// Ready for at least `min_ready_seconds`.
pub fn availability(pod: &Value, min_ready_seconds: i64, now: Timestamp) -> Availability {
    if !is_ready(pod) {
        return Availability::No;
    }
    if min_ready_seconds <= 0 {
        return Availability::Now;
    }
    let Some(since) = ready_since(pod) else { return Availability::No };
    let then = clock::plus(since, min_ready_seconds);
    if then <= now { Availability::Now } else { Availability::At(then) }
}

/// Bound, or known to a kubelet or to the scheduler: it exists as more than a wish.
pub fn is_created(pod: &Value) -> bool {
    !object::text(pod, "/status/phase").is_empty()
}

/// Its container processes run and it serves.
pub fn is_running_and_ready(pod: &Value) -> bool {
    object::text(pod, "/status/phase") == "Running" && is_ready(pod)
}

/// The names of a pod's claims; an ephemeral volume's claim is named after both.
pub fn claims(pod: &Value) -> impl Iterator<Item = String> + '_ {
    object::list(pod, "/spec/volumes").iter().filter_map(|volume| {
        if volume["ephemeral"].is_object() {
            return Some(format!("{}-{}", meta::name(pod), object::text(volume, "/name")));
        }
        volume["persistentVolumeClaim"]["claimName"].as_str().map(str::to_owned)
    })
}

//! What a ReplicaSet does about its pods, and what it says about them. Pure.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta;
use apimachinery::selector::LabelSelector;
use apimachinery::time;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::pods::{self, Availability};
use crate::{clock, object};

/// Most pods that one pass creates or deletes.
const BURST: usize = 500;

/// What to do about the number of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    Create(usize),
    Delete(usize),
}

/// Compares wanted with active pods.
pub(super) fn manage(set: &Value, owned: &[Arc<Value>]) -> Action {
    let wanted = usize::try_from(replicas(set)).unwrap_or(0);
    let active = owned.iter().filter(|pod| pods::is_active(pod)).count();
    match wanted.checked_sub(active) {
        Some(0) => Action::Nothing,
        Some(missing) => Action::Create(missing.min(BURST)),
        None => Action::Delete((active - wanted).min(BURST)),
    }
}

fn replicas(set: &Value) -> i64 {
    object::int(set, "/spec/replicas").unwrap_or(1)
}

/// The status to write, if it differs, and when it will change by time alone.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) status: Option<Value>,
    pub(super) next: Option<Duration>,
}

/// Counts pods. `failure` is the reason and message of what went wrong in this pass, if anything did.
pub(super) fn status(set: &Value, owned: &[Arc<Value>], failure: Option<(&str, String)>, now: Timestamp) -> Outcome {
    let min_ready = object::int(set, "/spec/minReadySeconds").unwrap_or(0);
    let template = LabelSelector::from_map(object::map(set, "/spec/template/metadata/labels").unwrap_or(&NO_LABELS));
    let (mut active, mut labelled, mut ready, mut available, mut terminating) = (0, 0, 0, 0, 0);
    let mut next: Option<Timestamp> = None;
    for pod in owned.iter().filter(|pod| !pods::is_finished(pod)) {
        if pods::is_terminating(pod) {
            terminating += 1;
            continue;
        }
        active += 1;
        labelled += i64::from(template.matches(meta::labels(pod)));
        ready += i64::from(pods::is_ready(pod));
        match pods::availability(pod, min_ready, now) {
            Availability::Now => available += 1,
            Availability::At(then) => next = Some(next.map_or(then, |n| n.min(then))),
            Availability::No => {}
        }
    }
    let mut status = json!({
        "replicas": active, "fullyLabeledReplicas": labelled, "readyReplicas": ready, "availableReplicas": available,
        "observedGeneration": meta::generation(set),
    });
    if meta::kind(set) != "ReplicationController" {
        status["terminatingReplicas"] = terminating.into();
    }
    let conditions = conditions(set, failure, now);
    if !conditions.is_empty() {
        status["conditions"] = conditions.into();
    }
    Outcome {
        status: (!same(&status, &set["status"])).then_some(status),
        next: next.map(|then| clock::until(now, then)),
    }
}

static NO_LABELS: std::sync::LazyLock<serde_json::Map<String, Value>> = std::sync::LazyLock::new(serde_json::Map::new);

fn conditions(set: &Value, failure: Option<(&str, String)>, now: Timestamp) -> Vec<Value> {
    let mut conditions = object::list(set, "/status/conditions").to_vec();
    match failure {
        Some((reason, message)) => {
            let new = json!({"type": "ReplicaFailure", "status": "True", "reason": reason, "message": message});
            // A failure that lasts keeps its first message, or each retry would be a write.
            let known = object::find_condition(&conditions, "ReplicaFailure").map(|c| &c["reason"]);
            if known != Some(&new["reason"]) {
                object::set_condition(&mut conditions, new, &time::rfc3339(now));
            }
        }
        None => conditions.retain(|c| c["type"] != "ReplicaFailure"),
    }
    conditions
}

/// Equal, where the API leaves out a zero.
fn same(new: &Value, old: &Value) -> bool {
    let counts = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
    let count = |status: &Value, field: &str| status[field].as_i64().unwrap_or(0);
    counts.iter().chain(&["terminatingReplicas"]).all(|field| count(new, field) == count(old, field))
        && !old["replicas"].is_null()
        && object::list(new, "/conditions") == object::list(old, "/conditions")
}

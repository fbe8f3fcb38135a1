//! What a Deployment says about itself: counts and the conditions that `kubectl rollout status` reads.

use std::time::Duration;

use apimachinery::{meta, time};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::Rollout;
use super::sets::{Deployment, Set};
use crate::{clock, object};

/// Pods by state, over all sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    replicas: i64,
    updated: i64,
    ready: i64,
    available: i64,
    unavailable: i64,
    terminating: i64,
}

pub(super) fn counts(rollout: &Rollout<'_>) -> Counts {
    let sum = |field| rollout.sets.iter().map(|set| set.observed_count(field)).sum();
    let available = sum("availableReplicas");
    Counts {
        replicas: sum("replicas"),
        updated: rollout.new.map_or(0, |i| rollout.sets[i].observed_count("replicas")),
        ready: sum("readyReplicas"),
        available,
        unavailable: (rollout.total() - available).max(0),
        terminating: sum("terminatingReplicas"),
    }
}

/// All pods are new and available.
pub(super) fn is_complete(deployment: &Deployment<'_>, counts: &Counts) -> bool {
    let wanted = deployment.replicas();
    counts.updated == wanted && counts.replicas == wanted && counts.available == wanted
}

/// Brings the conditions up to date; returns when the progress deadline has to be looked at again.
pub(super) fn update(rollout: &mut Rollout<'_>, judge: bool) -> Option<Duration> {
    let counts = counts(rollout);
    let now = time::rfc3339(rollout.now);
    let mut next = None;
    if judge {
        judge_progress(rollout, &counts);
        copy_failure(rollout, &now);
        next = deadline(rollout, &counts);
    }
    let enough = counts.available >= rollout.deployment.replicas() - rollout.deployment.max_unavailable();
    let (state, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    let new =
        json!({"type": "Available", "status": state, "reason": reason, "message": message, "lastUpdateTime": now});
    set_condition(&mut rollout.conditions, new, &now);
    next
}

fn judge_progress(rollout: &mut Rollout<'_>, counts: &Counts) {
    let Some(limit) = rollout.deployment.progress_deadline() else {
        rollout.conditions.retain(|c| c["type"] != "Progressing");
        return;
    };
    let current = object::find_condition(&rollout.conditions, "Progressing").cloned();
    let reason = current.as_ref().and_then(|c| c["reason"].as_str()).unwrap_or_default();
    if counts.replicas == counts.updated && reason == "NewReplicaSetAvailable" {
        return;
    }
    let what = match rollout.new {
        Some(new) => format!("ReplicaSet {:?}", rollout.sets[new].name()),
        None => format!("Deployment {:?}", meta::name(rollout.deployment.0)),
    };
    if is_complete(&rollout.deployment, counts) {
        rollout.progress("True", "NewReplicaSetAvailable", format!("{what} has successfully progressed."));
    } else if is_progressing(&rollout.deployment.0["status"], counts) {
        rollout.conditions.retain(|c| c["type"] != "Progressing");
        rollout.progress("True", "ReplicaSetUpdated", format!("{what} is progressing."));
        keep_transition(&mut rollout.conditions, current.as_ref());
    } else if current.is_some_and(|c| is_late(&c, limit, rollout.now)) {
        rollout.progress("False", "ProgressDeadlineExceeded", format!("{what} has timed out progressing."));
    }
}

/// More new pods, fewer old ones or more ready ones than the last status said.
fn is_progressing(old: &Value, counts: &Counts) -> bool {
    let was = |field: &str| old[field].as_i64().unwrap_or(0);
    let (updated, replicas) = (was("updatedReplicas"), was("replicas"));
    counts.updated > updated
        || counts.replicas - counts.updated < replicas - updated
        || counts.ready > was("readyReplicas")
        || counts.available > was("availableReplicas")
}

/// The condition stood still for longer than the limit. A pause does not count, a failure already said so.
fn is_late(progressing: &Value, limit: i64, now: Timestamp) -> bool {
    match progressing["reason"].as_str() {
        Some("NewReplicaSetAvailable" | "DeploymentPaused") => false,
        Some("ProgressDeadlineExceeded") => true,
        _ => due(progressing, limit).is_some_and(|due| due <= now),
    }
}

fn due(progressing: &Value, limit: i64) -> Option<Timestamp> {
    Some(clock::plus(clock::parse(progressing["lastUpdateTime"].as_str()?)?, limit))
}

fn deadline(rollout: &Rollout<'_>, counts: &Counts) -> Option<Duration> {
    let limit = rollout.deployment.progress_deadline()?;
    let progressing = object::find_condition(&rollout.conditions, "Progressing")?;
    let settled = matches!(progressing["reason"].as_str(), Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded"));
    if settled || is_complete(&rollout.deployment, counts) {
        return None;
    }
    let left = clock::until(rollout.now, due(progressing, limit)?);
    // A second later, as API times have no fractions.
    Some(left + Duration::from_secs(1))
}

/// The new set's inability to create pods is the Deployment's; else an old one's.
fn copy_failure(rollout: &mut Rollout<'_>, now: &str) {
    let failure =
        |set: &Set| object::find_condition(object::list(&set.object, "/status/conditions"), "ReplicaFailure").cloned();
    let new = rollout.new.and_then(|i| failure(&rollout.sets[i]));
    let found = new.or_else(|| rollout.old().find_map(|i| failure(&rollout.sets[i])));
    match found {
        Some(found) => {
            let new = json!({"type": "ReplicaFailure", "status": found["status"], "reason": found["reason"],
                             "message": found["message"], "lastUpdateTime": now});
            set_condition(&mut rollout.conditions, new, now);
        }
        None => rollout.conditions.retain(|c| c["type"] != "ReplicaFailure"),
    }
}

fn keep_transition(conditions: &mut [Value], old: Option<&Value>) {
    let Some(old) = old.filter(|c| c["status"] == "True") else { return };
    for condition in conditions.iter_mut().filter(|c| c["type"] == "Progressing") {
        condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
    }
}

/// Sets a condition whose update time, unlike its transition time, moves with every change of reason.
pub(super) fn set_condition(conditions: &mut Vec<Value>, mut new: Value, now: &str) {
    let old = conditions.iter_mut().find(|c| c["type"] == new["type"]);
    match old {
        Some(old) if old["status"] == new["status"] && old["reason"] == new["reason"] => {}
        Some(old) => {
            let kept = old["status"] == new["status"];
            new["lastTransitionTime"] = if kept { old["lastTransitionTime"].take() } else { now.into() };
            *old = new;
        }
        None => {
            new["lastTransitionTime"] = now.into();
            conditions.push(new);
        }
    }
}

/// The whole status.
pub(super) fn build(rollout: &Rollout<'_>) -> Value {
    let counts = counts(rollout);
    let mut status = json!({
        "observedGeneration": meta::generation(rollout.deployment.0),
        "replicas": counts.replicas, "updatedReplicas": counts.updated, "readyReplicas": counts.ready,
        "availableReplicas": counts.available, "unavailableReplicas": counts.unavailable,
        "terminatingReplicas": counts.terminating, "conditions": rollout.conditions,
    });
    // Zeros are absent, as clients know it from upstream.
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|name, value| name == "terminatingReplicas" || *value != json!(0));
    }
    if let Some(collisions) = rollout.deployment.0["status"].get("collisionCount") {
        status["collisionCount"] = collisions.clone();
    }
    status
}

/// Whether writing `new` over `old` would change nothing.
pub(super) fn same(new: &Value, old: &Value) -> bool {
    let numbers = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    numbers.iter().all(|n| new[*n].as_i64().unwrap_or(0) == old[*n].as_i64().unwrap_or(0))
        && object::list(new, "/conditions") == object::list(old, "/conditions")
}

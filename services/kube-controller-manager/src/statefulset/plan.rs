//! What a StatefulSet does next about its pods, and what it says about them. Pure.
//!
//! Pods have ordinals. With `OrderedReady` every step waits for the pods before it (after it, when shrinking); with
//! `Parallel` only a rolling update is careful.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::intstr::{self, Round};
use apimachinery::meta;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::pod;
use crate::pods::{self, Availability};
use crate::revisions::HASH_LABEL;
use crate::{clock, object};

/// Everything the plan looks at.
pub(super) struct Observed<'a> {
    pub(super) set: &'a Value,
    /// The set's pods.
    pub(super) pods: &'a [Arc<Value>],
    /// The revision that pods below the partition have.
    pub(super) current: &'a Value,
    /// The revision of the set's template.
    pub(super) update: &'a Value,
    pub(super) collisions: Option<i64>,
    pub(super) now: Timestamp,
}

/// One step.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Create the pod, after its claims.
    Create(Value),
    /// Create what is missing of the claims of a pod that waits for them.
    Claims(Arc<Value>),
    /// The pod ended and makes room for its successor of the same name.
    Replace(Arc<Value>),
    /// The pod is not wanted any more, or not in this revision.
    Delete(Arc<Value>),
}

/// What to do, and what to say.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) actions: Vec<Action>,
    /// The new status, if it differs.
    pub(super) status: Option<Value>,
    /// When time alone changes something.
    pub(super) next: Option<Duration>,
}

/// The set's wishes.
pub(super) struct Shape {
    pub(super) start: i64,
    pub(super) replicas: i64,
    ordered: bool,
    rolls: bool,
    partition: i64,
    max_unavailable: i64,
    min_ready: i64,
}

impl Shape {
    pub(super) fn of(set: &Value) -> Self {
        let replicas = object::int(set, "/spec/replicas").unwrap_or(1);
        let rolling = &set["spec"]["updateStrategy"]["rollingUpdate"];
        let max_unavailable = intstr::scaled_value(&rolling["maxUnavailable"], replicas, Round::Up).unwrap_or(1);
        Shape {
            start: object::int(set, "/spec/ordinals/start").unwrap_or(0),
            replicas,
            ordered: object::text(set, "/spec/podManagementPolicy") != "Parallel",
            rolls: object::text(set, "/spec/updateStrategy/type") != "OnDelete",
            partition: object::int(rolling, "/partition").unwrap_or(0),
            max_unavailable: max_unavailable.max(1),
            min_ready: object::int(set, "/spec/minReadySeconds").unwrap_or(0),
        }
    }

    pub(super) fn wants(&self, ordinal: i64) -> bool {
        (self.start..self.start + self.replicas).contains(&ordinal)
    }
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    shape: Shape,
    by_ordinal: BTreeMap<i64, Arc<Value>>,
    actions: Vec<Action>,
}

/// Decides.
pub(super) fn plan(observed: &Observed<'_>) -> Plan {
    let name = meta::name(observed.set);
    let numbered = observed.pods.iter().filter_map(|p| Some((pod::ordinal(name, meta::name(p))?, Arc::clone(p))));
    let mut planner =
        Planner { observed, shape: Shape::of(observed.set), by_ordinal: numbered.collect(), actions: Vec::new() };
    let status = planner.status();
    if meta::deletion_timestamp(observed.set).is_none() && planner.fill() && planner.shrink() {
        planner.roll();
    }
    let next = planner.next();
    let status = (!same(&status, &observed.set["status"])).then_some(status);
    Plan { actions: planner.actions, status, next }
}

impl Planner<'_> {
    fn is_available(&self, pod: &Value) -> bool {
        object::text(pod, "/status/phase") == "Running"
            && pods::availability(pod, self.shape.min_ready, self.observed.now) == Availability::Now
    }

    fn is_healthy(&self, pod: &Value) -> bool {
        self.is_available(pod) && !pods::is_terminating(pod)
    }

    /// Creates what is missing, from the lowest ordinal up. Returns whether every wanted pod is far enough to go on.
    fn fill(&mut self) -> bool {
        for ordinal in self.shape.start..self.shape.start + self.shape.replicas {
            let found = self.by_ordinal.get(&ordinal).cloned();
            let Some(pod) = found else {
                let revision = self.revision_for(ordinal);
                self.actions.push(Action::Create(pod::build(self.observed.set, ordinal, revision)));
                if self.shape.ordered {
                    return false;
                }
                continue;
            };
            if pods::is_finished(&pod) {
                if !pods::is_terminating(&pod) {
                    self.actions.push(Action::Replace(pod));
                }
                if self.shape.ordered {
                    return false;
                }
                continue;
            }
            if object::text(&pod, "/status/phase") == "Pending" {
                self.actions.push(Action::Claims(Arc::clone(&pod)));
            }
            if self.shape.ordered && !self.is_healthy(&pod) {
                return false;
            }
        }
        true
    }

    /// Below the partition pods keep the current revision, also when they are made anew in the middle of a rollout.
    fn revision_for(&self, ordinal: i64) -> &Value {
        let kept = self.shape.rolls && ordinal < self.shape.start + self.shape.partition;
        if kept { self.observed.current } else { self.observed.update }
    }

    /// Removes what is too many, from the highest ordinal down. Returns whether nothing is too many.
    fn shrink(&mut self) -> bool {
        let condemned = |(ordinal, _): &(&i64, &Arc<Value>)| !self.shape.wants(**ordinal);
        let condemned: Vec<Arc<Value>> =
            self.by_ordinal.iter().rev().filter(condemned).map(|(_, pod)| Arc::clone(pod)).collect();
        let lowest_unhealthy = self.by_ordinal.values().find(|pod| !self.is_healthy(pod)).map(|p| meta::uid(p));
        let mut victims = Vec::new();
        for pod in &condemned {
            let terminating = pods::is_terminating(pod);
            if !self.shape.ordered {
                if !terminating {
                    victims.push(Arc::clone(pod));
                }
                continue;
            }
            // An unhealthy pod halts the shrinking, unless it is itself the one at fault.
            let at_fault = lowest_unhealthy == Some(meta::uid(pod));
            if !terminating && (self.is_available(pod) || at_fault) {
                victims.push(Arc::clone(pod));
            }
            break;
        }
        self.actions.extend(victims.into_iter().map(Action::Delete));
        condemned.is_empty() || !self.shape.ordered
    }

    /// Replaces pods of older revisions, from the highest ordinal down to the partition.
    fn roll(&mut self) {
        if !self.shape.rolls {
            return;
        }
        let wanted: Vec<(i64, Arc<Value>)> = self.by_ordinal.iter().map(|(o, pod)| (*o, Arc::clone(pod))).collect();
        let wanted: Vec<_> = wanted.into_iter().filter(|(ordinal, _)| self.shape.wants(*ordinal)).collect();
        let mut room = self.shape.max_unavailable;
        if room > 1 {
            room -= i64::try_from(wanted.iter().filter(|(_, pod)| !self.is_healthy(pod)).count()).unwrap_or(room);
        }
        let update = meta::name(self.observed.update);
        for (ordinal, pod) in wanted.iter().rev() {
            if *ordinal < self.shape.start + self.shape.partition || room <= 0 && self.shape.max_unavailable == 1 {
                break;
            }
            let stale = meta::label(pod, HASH_LABEL) != Some(update);
            let healthy = self.is_healthy(pod);
            if stale && !pods::is_terminating(pod) {
                // With room for several, a broken pod is counted already and costs nothing.
                if room > 0 || !healthy {
                    self.actions.push(Action::Delete(Arc::clone(pod)));
                    room -= i64::from(healthy || self.shape.max_unavailable == 1);
                }
            } else if !healthy && self.shape.max_unavailable == 1 {
                break;
            }
        }
    }

    fn next(&self) -> Option<Duration> {
        let available = |pod: &Arc<Value>| match pods::availability(pod, self.shape.min_ready, self.observed.now) {
            Availability::At(then) => Some(clock::until(self.observed.now, then)),
            _ => None,
        };
        self.by_ordinal.values().filter_map(available).min()
    }

    fn status(&self) -> Value {
        let observed = self.observed;
        let (current, update) = (meta::name(observed.current), meta::name(observed.update));
        let count = |matches: &dyn Fn(&Value) -> bool| {
            self.by_ordinal.values().filter(|pod| pods::is_created(pod) && matches(pod)).count()
        };
        let of =
            |pod: &Value, revision: &str| !pods::is_terminating(pod) && meta::label(pod, HASH_LABEL) == Some(revision);
        let (replicas, ready) = (count(&|_| true), count(&pods::is_running_and_ready));
        let mut status = json!({
            "observedGeneration": meta::generation(observed.set),
            "replicas": replicas, "readyReplicas": ready, "availableReplicas": count(&|pod| self.is_available(pod)),
            "currentReplicas": count(&|pod| of(pod, current)), "updatedReplicas": count(&|pod| of(pod, update)),
            "currentRevision": current, "updateRevision": update,
        });
        let all = u64::try_from(self.shape.replicas).ok();
        let reached = |field: &str| status[field].as_u64() == all;
        if self.shape.rolls && ["updatedReplicas", "readyReplicas", "replicas"].into_iter().all(reached) {
            status["currentReplicas"] = status["updatedReplicas"].clone();
            status["currentRevision"] = update.into();
        }
        if let Some(collisions) = observed.collisions {
            status["collisionCount"] = collisions.into();
        }
        if let Some(conditions) = observed.set["status"].get("conditions") {
            status["conditions"] = conditions.clone();
        }
        status
    }
}

/// Equal, where the API leaves out a zero.
fn same(new: &Value, old: &Value) -> bool {
    let counts = ["observedGeneration", "replicas", "readyReplicas", "availableReplicas", "currentReplicas"];
    let count = |status: &Value, field: &str| status[field].as_i64().unwrap_or(0);
    !old["replicas"].is_null()
        && counts.iter().chain(&["updatedReplicas", "collisionCount"]).all(|f| count(new, f) == count(old, f))
        && ["currentRevision", "updateRevision"].iter().all(|field| new[field] == old[field])
}

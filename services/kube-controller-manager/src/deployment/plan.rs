//! What a Deployment does next. Pure: from the Deployment, its ReplicaSets and pods to steps and a status.
//!
//! One plan is one move; the ReplicaSets' answers to it (a pod became available, an old one is gone) lead to the next.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{meta, time};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::sets::{self, Deployment, REVISION, Set};
use super::status;
use crate::{object, pods};

/// Everything the plan looks at.
pub(super) struct Observed<'a> {
    pub(super) deployment: &'a Value,
    pub(super) sets: Vec<Value>,
    /// Pods of these sets; only a Recreate rollout looks at them.
    pub(super) pods: &'a [Arc<Value>],
    pub(super) now: Timestamp,
}

/// One write.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Annotate the Deployment.
    Annotate { key: &'static str, value: String },
    /// Create a ReplicaSet.
    Create(Value),
    /// Merge-patch a ReplicaSet, from one size to another.
    Patch { name: String, patch: Value, from: i64, to: i64 },
    /// Delete a ReplicaSet of an old revision.
    Delete { name: String, uid: String },
}

/// What to do, in order, and what to say.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// The new status, if it differs.
    pub(super) status: Option<Value>,
    /// When time alone changes something.
    pub(super) next: Option<Duration>,
}

/// The plan being made.
pub(super) struct Rollout<'a> {
    pub(super) deployment: Deployment<'a>,
    pub(super) now: Timestamp,
    /// Oldest first; the new one is among them.
    pub(super) sets: Vec<Set>,
    pub(super) new: Option<usize>,
    pub(super) conditions: Vec<Value>,
    steps: Vec<Step>,
}

/// Decides.
pub(super) fn plan(observed: Observed<'_>) -> Plan {
    let mut all: Vec<Set> = observed.sets.into_iter().map(Set::observed).collect();
    all.sort_by(sets::by_creation);
    let mut rollout = Rollout {
        deployment: Deployment(observed.deployment),
        now: observed.now,
        new: sets::position_of_new(observed.deployment, &all),
        sets: all,
        conditions: object::list(observed.deployment, "/status/conditions").to_vec(),
        steps: Vec::new(),
    };
    let mut complete = true;
    if !pods::is_terminating(observed.deployment) {
        rollout.note_pause();
        complete = rollout.advance(observed.pods);
    }
    rollout.finish(complete)
}

impl<'a> Rollout<'a> {
    /// Makes the move. Returns whether the rollout's own progress is to be judged (it is not while paused or scaling).
    fn advance(&mut self, pods: &[Arc<Value>]) -> bool {
        if self.deployment.is_paused() || self.is_scaling() {
            if self.new.is_some() {
                self.describe_new();
            }
            self.scale_proportionally();
            if self.deployment.is_paused() {
                self.delete_old_revisions();
            }
            return false;
        }
        if self.deployment.is_rolling() {
            self.roll()
        } else {
            self.recreate(pods)
        }
        if status::is_complete(&self.deployment, &status::counts(self)) {
            self.delete_old_revisions();
        }
        true
    }

    /// The user changed the size: sets still carry the old one.
    fn is_scaling(&self) -> bool {
        let wanted = self.deployment.replicas();
        self.active().any(|i| self.sets[i].desired().is_some_and(|desired| desired != wanted))
    }

    pub(super) fn active(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.sets.len()).filter(|i| self.sets[*i].replicas() > 0)
    }

    pub(super) fn old(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.sets.len()).filter(|i| Some(*i) != self.new)
    }

    pub(super) fn total(&self) -> i64 {
        self.sets.iter().map(Set::replicas).sum()
    }

    pub(super) fn set_replicas(&mut self, index: usize, replicas: i64) {
        self.sets[index].scale(replicas, &self.deployment);
    }

    /// Finds or makes the set of the current template.
    pub(super) fn ensure_new(&mut self) -> usize {
        let index = match self.new {
            Some(index) => index,
            None => {
                self.sets.push(sets::new_set(self.deployment.0));
                let index = self.sets.len() - 1;
                self.new = Some(index);
                let size = self.size_of_new();
                self.set_replicas(index, size);
                index
            }
        };
        self.describe_new();
        if self.deployment.progress_deadline().is_some() {
            let name = self.sets[index].name();
            if self.sets[index].fresh {
                let message = format!("Created new replica set {name:?}");
                self.progress("True", "NewReplicaSetCreated", message);
            } else if object::find_condition(&self.conditions, "Progressing").is_none() {
                let message = format!("Found new replica set {name:?}");
                self.progress("True", "FoundNewReplicaSet", message);
            }
        }
        index
    }

    fn describe_new(&mut self) {
        let Some(index) = self.new else { return };
        let revision = self.old().map(|i| self.sets[i].revision()).max().unwrap_or(0) + 1;
        let set = &mut self.sets[index];
        set.describe(&self.deployment, revision);
        let min_ready = self.deployment.min_ready_seconds();
        if object::int(&set.object, "/spec/minReadySeconds").unwrap_or(0) != min_ready {
            set.object["spec"]["minReadySeconds"] = min_ready.into();
        }
        let revision = set.revision().to_string();
        if meta::annotation(self.deployment.0, REVISION) != Some(revision.as_str()) {
            self.steps.push(Step::Annotate { key: REVISION, value: revision });
        }
    }

    /// How large the new set may be now.
    pub(super) fn size_of_new(&self) -> i64 {
        let wanted = self.deployment.replicas();
        let current = self.new.map_or(0, |i| self.sets[i].replicas());
        if !self.deployment.is_rolling() {
            return wanted;
        }
        let room = wanted + self.deployment.max_surge() - self.total();
        if room <= 0 { current } else { current + room.min(wanted - current) }
    }

    /// Recreate: nothing new before the last old pod is gone.
    fn recreate(&mut self, pods: &[Arc<Value>]) {
        let old: Vec<usize> = self.old().filter(|i| self.sets[*i].replicas() > 0).collect();
        if !old.is_empty() {
            for index in old {
                self.set_replicas(index, 0);
            }
            return;
        }
        let new_uid = self.new.map(|i| self.sets[i].uid().to_owned());
        let is_old = |pod: &Arc<Value>| {
            let owner = meta::controller_of(pod).and_then(|c| c["uid"].as_str());
            owner.is_some() && owner != new_uid.as_deref() && !pods::is_finished(pod)
        };
        if pods.iter().any(is_old) {
            return;
        }
        let index = self.ensure_new();
        let wanted = self.deployment.replicas();
        if self.sets[index].replicas() != wanted {
            self.set_replicas(index, wanted);
        }
    }

    /// Old revisions beyond the limit go, oldest first, once they are empty.
    fn delete_old_revisions(&mut self) {
        let limit = object::int(self.deployment.0, "/spec/revisionHistoryLimit").unwrap_or(10);
        let Ok(limit) = usize::try_from(limit) else { return };
        let mut old: Vec<usize> = self.old().filter(|i| !self.sets[*i].is_terminating()).collect();
        old.sort_by_key(|i| self.sets[*i].revision());
        for index in old.iter().take(old.len().saturating_sub(limit)) {
            let set = &self.sets[*index];
            let observed = object::int(&set.object, "/status/observedGeneration").unwrap_or(0);
            let settled = meta::generation(&set.object) <= observed;
            if settled && set.replicas() == 0 && set.observed_count("replicas") == 0 {
                self.steps.push(Step::Delete { name: set.name().to_owned(), uid: set.uid().to_owned() });
            }
        }
    }

    /// A pause stops the progress clock; say so, and again when it goes on.
    fn note_pause(&mut self) {
        if self.deployment.progress_deadline().is_none() {
            return;
        }
        let progressing = object::find_condition(&self.conditions, "Progressing");
        let reason = progressing.and_then(|c| c["reason"].as_str()).unwrap_or_default().to_owned();
        if reason == "ProgressDeadlineExceeded" {
            return;
        }
        if self.deployment.is_paused() && reason != "DeploymentPaused" {
            self.progress("Unknown", "DeploymentPaused", "Deployment is paused".to_owned());
        } else if !self.deployment.is_paused() && reason == "DeploymentPaused" {
            self.progress("Unknown", "DeploymentResumed", "Deployment is resumed".to_owned());
        }
    }

    /// Sets the Progressing condition and restarts its clock.
    pub(super) fn progress(&mut self, state: &str, reason: &str, message: String) {
        let now = time::rfc3339(self.now);
        let new = json!({"type": "Progressing", "status": state, "reason": reason, "message": message,
                         "lastUpdateTime": now});
        status::set_condition(&mut self.conditions, new, &now);
    }

    fn finish(mut self, judge: bool) -> Plan {
        let next = status::update(&mut self, judge);
        let status = status::build(&self);
        let mut steps = Vec::new();
        for set in &self.sets {
            if set.fresh {
                steps.push(Step::Create(set.object.clone()));
            } else if let Some(patch) = set.patch() {
                let (from, to) = (set.replicas_before(), set.replicas());
                steps.push(Step::Patch { name: set.name().to_owned(), patch, from, to });
            }
        }
        // The new set first: creating it must not wait for what becomes of the old ones.
        steps.sort_by_key(|step| !matches!(step, Step::Create(_)));
        steps.extend(self.steps);
        let changed = !status::same(&status, &self.deployment.0["status"]);
        Plan { steps, status: changed.then_some(status), next }
    }
}

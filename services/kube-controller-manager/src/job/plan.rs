//! What a Job does next, and what it says about itself. Pure.
//!
//! Every pod carries a finalizer until it has been counted, so that none is counted twice or never. Counting takes two
//! looks: the uid of an ended pod is first written into `status.uncountedTerminatedPods`, then its finalizer goes; once
//! that is seen to be gone, the uid leaves the list and the number grows.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{meta, time};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::indexes::{self, Indexes};
use super::manage;
use super::pod::{self, Outcome};
use super::policy::{self, Verdict};
use crate::{clock, object, pods};

const MANAGER: &str = "kubernetes.io/job-controller";

/// What to do, and what to say.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<Value>,
    pub(super) delete: Vec<Arc<Value>>,
    /// The new status, if it differs.
    pub(super) status: Option<Value>,
    /// Pods that the status accounts for: they lose the finalizer once it is written.
    pub(super) release: Vec<Arc<Value>>,
    /// Events: type, reason and message.
    pub(super) notes: Vec<(&'static str, String, String)>,
    /// When time alone changes something.
    pub(super) next: Option<Duration>,
}

/// How a Job ends: the interim condition, the final one, why.
#[derive(Clone, Debug, PartialEq)]
struct Ending {
    succeeded: bool,
    reason: String,
    message: String,
}

/// The Job and its pods, counted.
pub(super) struct Count<'a> {
    pub(super) job: &'a Value,
    pub(super) now: Timestamp,
    pub(super) all: &'a [Arc<Value>],
    pub(super) active: Vec<Arc<Value>>,
    pub(super) terminating: usize,
    /// Completions asked for; none for a work queue.
    pub(super) completions: Option<i64>,
    pub(super) completed: Indexes,
    pub(super) failed_indexes: Indexes,
    /// How the Job ends has been said; what is still counted changes nothing about it.
    pub(super) concluding: bool,
    /// What the status says already, without the uncounted.
    succeeded: i64,
    failed: i64,
    uncounted: [Vec<String>; 2],
    release: Vec<Arc<Value>>,
    fail_job: Option<String>,
}

/// Complete or Failed.
pub(super) fn is_finished(job: &Value) -> bool {
    meta::is_condition_true(job, "Complete") || meta::is_condition_true(job, "Failed")
}

/// Somebody else's business.
pub(super) fn is_foreign(job: &Value) -> bool {
    job["spec"]["managedBy"].as_str().is_some_and(|manager| manager != MANAGER)
}

pub(super) fn is_indexed(job: &Value) -> bool {
    object::text(job, "/spec/completionMode") == "Indexed"
}

/// Decides. `owned` are the Job's pods.
pub(super) fn plan(job: &Value, owned: &[Arc<Value>], now: Timestamp) -> Plan {
    if is_foreign(job) {
        return Plan::default();
    }
    if is_finished(job) {
        let release = owned.iter().filter(|pod| pod::is_tracked(pod)).cloned().collect();
        return Plan { release, ..Plan::default() };
    }
    let count = Count::new(job, owned, now);
    let mut plan = Plan::default();
    let mut conditions = object::list(job, "/status/conditions").to_vec();
    let ending = count.ending(&conditions);
    let mut start = job["status"].get("startTime").filter(|t| !t.is_null()).cloned();
    if let Some(ending) = &ending {
        // Its pods may have ended before anybody could say that it had begun.
        start.get_or_insert_with(|| time::rfc3339(now).into());
        plan.delete.clone_from(&count.active);
        count.conclude(ending, &mut conditions, &mut plan);
    } else if meta::deletion_timestamp(job).is_none() {
        count.go_on(&mut conditions, &mut start, &mut plan);
    }
    let status = count.status(conditions, start);
    plan.status = (!same(&status, &job["status"])).then_some(status);
    plan.release = count.release;
    plan
}

impl<'a> Count<'a> {
    fn new(job: &'a Value, all: &'a [Arc<Value>], now: Timestamp) -> Self {
        let completions = object::int(job, "/spec/completions");
        let indexes = |field| indexes::parse(object::text(job, field), completions.unwrap_or(0));
        let uids = |list: &str| {
            let uids = object::list(&job["status"]["uncountedTerminatedPods"][list], "").iter();
            uids.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let mut count = Count {
            job,
            now,
            all,
            active: all.iter().filter(|pod| pods::is_active(pod)).cloned().collect(),
            terminating: all.iter().filter(|p| pods::is_terminating(p) && !pods::is_finished(p)).count(),
            completions,
            completed: indexes("/status/completedIndexes"),
            failed_indexes: indexes("/status/failedIndexes"),
            concluding: ["FailureTarget", "SuccessCriteriaMet"].iter().any(|c| meta::is_condition_true(job, c)),
            succeeded: object::int(job, "/status/succeeded").unwrap_or(0),
            failed: object::int(job, "/status/failed").unwrap_or(0),
            uncounted: ["succeeded", "failed"].map(uids),
            release: Vec::new(),
            fail_job: None,
        };
        count.settle_released();
        let deferred = manage::deferred(&count);
        for pod in all.iter().filter(|pod| !deferred.contains(meta::uid(pod))) {
            count.account(pod);
        }
        count
    }

    /// Pods whose finalizer is gone move from the lists to the numbers.
    fn settle_released(&mut self) {
        let tracked: HashSet<&str> =
            self.all.iter().filter(|pod| pod::is_tracked(pod)).map(|pod| meta::uid(pod)).collect();
        let [succeeded, failed] = &mut self.uncounted;
        for (list, number) in [(succeeded, &mut self.succeeded), (failed, &mut self.failed)] {
            let before = list.len();
            list.retain(|uid| tracked.contains(uid.as_str()));
            *number += i64::try_from(before - list.len()).unwrap_or(0);
        }
        if is_indexed(self.job) {
            self.succeeded = self.total(&self.completed);
        }
    }

    fn total(&self, indexes: &Indexes) -> i64 {
        i64::try_from(indexes.len()).unwrap_or(i64::MAX)
    }

    /// One pod: counts it, once, if it has ended.
    fn account(&mut self, pod: &Arc<Value>) {
        let outcome = pod::outcome(self.job, pod);
        if !pod::is_tracked(pod) {
            return;
        }
        match outcome {
            Outcome::Unknown if meta::deletion_timestamp(self.job).is_none() => return,
            Outcome::Unknown => {}
            Outcome::Succeeded => self.account_success(pod),
            Outcome::Failed => self.account_failure(pod),
        }
        self.release.push(Arc::clone(pod));
    }

    fn account_success(&mut self, pod: &Value) {
        let uid = meta::uid(pod).to_owned();
        if !is_indexed(self.job) {
            if !self.uncounted[0].contains(&uid) && !self.uncounted[1].contains(&uid) {
                self.uncounted[0].push(uid);
            }
            return;
        }
        // The index itself keeps it from being counted twice.
        if let Some(index) = pod::index(pod).filter(|index| Some(*index) < self.completions)
            && !self.failed_indexes.contains(&index)
            && self.completed.insert(index)
        {
            self.succeeded += 1;
        }
    }

    fn account_failure(&mut self, pod: &Value) {
        if self.is_suspended() && !pods::is_finished(pod) {
            // We stopped it; that is not the pod's failure.
            return;
        }
        let uid = meta::uid(pod).to_owned();
        let verdict = policy::judge(self.job, pod);
        if let Verdict::FailJob(why) = &verdict {
            self.fail_job.get_or_insert_with(|| why.clone());
        }
        if let Some(index) = pod::index(pod).filter(|_| is_indexed(self.job)) {
            if Some(index) >= self.completions {
                return;
            }
            let limit = object::int(self.job, "/spec/backoffLimitPerIndex");
            let spent = limit.is_some_and(|limit| pod::failures_after(self.job, pod) > limit);
            if (verdict == Verdict::FailIndex || spent) && !self.concluding && !self.completed.contains(&index) {
                self.failed_indexes.insert(index);
            }
        }
        if verdict != Verdict::Ignore && !self.uncounted.iter().any(|list| list.contains(&uid)) {
            self.uncounted[1].push(uid);
        }
    }

    pub(super) fn all_succeeded(&self) -> i64 {
        self.succeeded + i64::try_from(self.uncounted[0].len()).unwrap_or(0)
    }

    fn all_failed(&self) -> i64 {
        self.failed + i64::try_from(self.uncounted[1].len()).unwrap_or(0)
    }

    /// Whether the Job is at its end, and how. What was once decided stays.
    fn ending(&self, conditions: &[Value]) -> Option<Ending> {
        for (kind, succeeded) in [("FailureTarget", false), ("SuccessCriteriaMet", true)] {
            if let Some(found) = object::find_condition(conditions, kind).filter(|c| c["status"] == "True") {
                let text = |field| object::text(found, field).to_owned();
                return Some(Ending { succeeded, reason: text("/reason"), message: text("/message") });
            }
        }
        self.failure().or_else(|| self.success())
    }

    fn failure(&self) -> Option<Ending> {
        let ending = |reason: &str, message: &str| {
            Some(Ending { succeeded: false, reason: reason.to_owned(), message: message.to_owned() })
        };
        if let Some(why) = &self.fail_job {
            return ending("PodFailurePolicy", why);
        }
        let limit = object::int(self.job, "/spec/backoffLimit").unwrap_or(6);
        if self.all_failed() > limit || self.restarted_too_often(limit) {
            return ending("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if self.deadline().is_some_and(|deadline| deadline <= self.now) && !self.is_suspended() {
            return ending("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        if self.job["spec"].get("backoffLimitPerIndex").is_none_or(Value::is_null) {
            return None;
        }
        let failed = self.total(&self.failed_indexes);
        if object::int(self.job, "/spec/maxFailedIndexes").is_some_and(|max| failed > max) {
            return ending(
                "MaxFailedIndexesExceeded",
                "Job has exceeded the specified maximal number of failed indexes",
            );
        }
        if failed > 0 && Some(failed + self.succeeded) >= self.completions {
            return ending("FailedIndexes", "Job has failed indexes");
        }
        None
    }

    /// Pods that restart their own containers fail without ever ending.
    fn restarted_too_often(&self, limit: i64) -> bool {
        if object::text(self.job, "/spec/template/spec/restartPolicy") != "OnFailure" {
            return false;
        }
        let restarts: i64 = self.active.iter().map(|pod| pod::restarts(pod)).sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn success(&self) -> Option<Ending> {
        let ending =
            |reason: &str, message: String| Some(Ending { succeeded: true, reason: reason.to_owned(), message });
        if is_indexed(self.job)
            && let Some(message) = policy::success(self.job, &self.completed, self.completions.unwrap_or(0))
        {
            return ending("SuccessPolicy", message);
        }
        let done = match self.completions {
            Some(wanted) => self.all_succeeded() >= wanted,
            None => self.all_succeeded() > 0 && self.active.is_empty(),
        };
        if done && !self.is_suspended() {
            return ending("CompletionsReached", "Reached expected number of succeeded pods".to_owned());
        }
        None
    }

    fn is_suspended(&self) -> bool {
        self.job["spec"]["suspend"] == true
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = object::int(self.job, "/spec/activeDeadlineSeconds")?;
        Some(clock::plus(clock::parse(self.job["status"]["startTime"].as_str()?)?, seconds))
    }

    /// First says where it goes, and that it is there only when no pod is left to stop and all are counted.
    fn conclude(&self, ending: &Ending, conditions: &mut Vec<Value>, plan: &mut Plan) {
        let now = time::rfc3339(self.now);
        let condition = |kind: &str| {
            json!({"type": kind, "status": "True", "reason": ending.reason, "message": ending.message,
                   "lastProbeTime": now})
        };
        let (interim, last) =
            if ending.succeeded { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") };
        if !self.concluding {
            object::set_condition(conditions, condition(interim), &now);
            return;
        }
        let counted = self.uncounted.iter().all(Vec::is_empty) && self.release.is_empty();
        if !self.active.is_empty() || self.terminating > 0 || !counted {
            return;
        }
        object::set_condition(conditions, condition(last), &now);
        plan.notes.push(if ending.succeeded {
            ("Normal", "Completed".to_owned(), "Job completed".to_owned())
        } else {
            ("Warning", ending.reason.clone(), ending.message.clone())
        });
    }

    /// Runs, or stands still while suspended.
    fn go_on(&self, conditions: &mut Vec<Value>, start: &mut Option<Value>, plan: &mut Plan) {
        let now = time::rfc3339(self.now);
        let stood_still = object::find_condition(conditions, "Suspended").map(|c| c["status"] == "True");
        let suspended = |status: &str, reason: &str, message: &str| json!({"type": "Suspended", "status": status, "reason": reason, "message": message, "lastProbeTime": now});
        if self.is_suspended() {
            plan.delete.clone_from(&self.active);
            if stood_still != Some(true) {
                object::set_condition(conditions, suspended("True", "JobSuspended", "Job suspended"), &now);
                plan.notes.push(("Normal", "Suspended".to_owned(), "Job suspended".to_owned()));
            }
            return;
        }
        if stood_still == Some(true) {
            object::set_condition(conditions, suspended("False", "JobResumed", "Job resumed"), &now);
            plan.notes.push(("Normal", "Resumed".to_owned(), "Job resumed".to_owned()));
            *start = Some(now.as_str().into());
        }
        let started = start.get_or_insert_with(|| now.as_str().into());
        if let Some(seconds) = object::int(self.job, "/spec/activeDeadlineSeconds")
            && let Some(started) = started.as_str().and_then(clock::parse)
        {
            plan.next = Some(clock::until(self.now, clock::plus(started, seconds)));
        }
        manage::manage(self, plan);
    }

    fn status(&self, conditions: Vec<Value>, start: Option<Value>) -> Value {
        let ready = self.active.iter().filter(|pod| pods::is_ready(pod)).count();
        let mut status = json!({
            "active": self.active.len(), "ready": ready, "terminating": self.terminating,
            "succeeded": self.succeeded, "failed": self.failed,
            "uncountedTerminatedPods": {"succeeded": self.uncounted[0], "failed": self.uncounted[1]},
        });
        if self.uncounted.iter().all(Vec::is_empty) {
            status["uncountedTerminatedPods"] = json!({});
        }
        if is_indexed(self.job) && !self.completed.is_empty() {
            status["completedIndexes"] = indexes::format(&self.completed).into();
        }
        if self.job["spec"].get("backoffLimitPerIndex").is_some_and(|limit| !limit.is_null()) {
            status["failedIndexes"] = indexes::format(&self.failed_indexes).into();
        }
        if let Some(start) = start {
            status["startTime"] = start;
        }
        if object::find_condition(&conditions, "Complete").is_some() {
            status["completionTime"] = time::rfc3339(self.now).into();
        }
        if !conditions.is_empty() {
            status["conditions"] = conditions.into();
        }
        status
    }
}

/// Equal, where the API leaves out zeros and empty lists.
fn same(new: &Value, old: &Value) -> bool {
    let count = |status: &Value, field: &str| status[field].as_i64().unwrap_or(0);
    let text = |status: &Value, field: &str| status[field].as_str().unwrap_or_default().to_owned();
    let uncounted =
        |status: &Value, list: &str| object::list(status, &format!("/uncountedTerminatedPods/{list}")).to_vec();
    ["active", "ready", "terminating", "succeeded", "failed"].iter().all(|f| count(new, f) == count(old, f))
        && ["completedIndexes", "failedIndexes", "startTime", "completionTime"]
            .iter()
            .all(|field| text(new, field) == text(old, field))
        && ["succeeded", "failed"].iter().all(|list| uncounted(new, list) == uncounted(old, list))
        && object::list(new, "/conditions") == object::list(old, "/conditions")
}

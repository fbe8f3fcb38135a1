//! What a CronJob does next. Pure.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{meta, time};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::schedule::{self, Schedule};
use crate::{clock, object};

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this mean that something is wrong, most likely a clock.
const MISSED_MAX: usize = 100;

/// What to do, and what to say.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Jobs to delete, old or replaced.
    pub(super) delete: Vec<Arc<Value>>,
    /// The Job to create, and the time it is for.
    pub(super) create: Option<(Value, Timestamp)>,
    /// The status without what `create` will add.
    pub(super) status: Value,
    /// Events: type, reason and message.
    pub(super) notes: Vec<(&'static str, &'static str, String)>,
    /// When the next time comes.
    pub(super) next: Option<Duration>,
}

fn finished(job: &Value) -> Option<&'static str> {
    ["Complete", "Failed"].into_iter().find(|kind| meta::is_condition_true(job, kind))
}

fn at(value: &Value) -> Option<Timestamp> {
    clock::parse(value.as_str()?)
}

/// Decides. `jobs` are those that the CronJob controls.
pub(super) fn plan(cron: &Value, jobs: &[Arc<Value>], now: Timestamp) -> Plan {
    let mut plan = Plan { status: cron["status"].clone(), ..Plan::default() };
    if !plan.status.is_object() {
        plan.status = json!({});
    }
    plan.keep_books(cron, jobs);
    plan.tidy(cron, jobs);
    if meta::deletion_timestamp(cron).is_some() || cron["spec"]["suspend"] == true {
        return plan;
    }
    match times(cron) {
        Ok((schedule, zone)) => plan.start(cron, jobs, &schedule, &zone, now),
        Err(note) => plan.notes.push(note),
    }
    plan
}

/// Reads schedule and time zone; a wrong one is an event, as nothing but the user can change it.
fn times(cron: &Value) -> Result<(Schedule, TimeZone), (&'static str, &'static str, String)> {
    let line = object::text(cron, "/spec/schedule");
    let warning = |reason, message| ("Warning", reason, message);
    let schedule = schedule::parse(line)
        .map_err(|e| warning("UnparseableSchedule", format!("unparseable schedule: {line:?} : {e}")))?;
    let zone = match cron["spec"]["timeZone"].as_str() {
        None => TimeZone::UTC,
        Some(name) => TimeZone::get(name)
            .map_err(|_| warning("UnknownTimeZone", format!("invalid timeZone: {name:?}: unknown time zone {name}")))?,
    };
    Ok((schedule, zone))
}

/// The last time that has passed since the last run, and how many passed.
fn missed(cron: &Value, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> (Option<Timestamp>, usize) {
    let last = at(&cron["status"]["lastScheduleTime"]).or_else(|| clock::parse(meta::creation_timestamp(cron)));
    let mut from = last.unwrap_or(now);
    if let Some(seconds) = object::int(cron, "/spec/startingDeadlineSeconds") {
        from = from.max(clock::plus(now, -seconds));
    }
    let (mut found, mut count) = (None, 0);
    while let Some(next) = schedule.next(from, zone).filter(|next| *next <= now) {
        (found, count, from) = (Some(next), count + 1, next);
        if count > MISSED_MAX {
            // Whatever came since, only the newest matters; look for it from close by.
            let near = clock::plus(now, -86_400).max(from);
            while let Some(next) = schedule.next(if from < near { near } else { from }, zone).filter(|n| *n <= now) {
                (found, from) = (Some(next), next);
            }
            break;
        }
    }
    (found, count)
}

impl Plan {
    /// Brings the list of active Jobs up to date.
    fn keep_books(&mut self, cron: &Value, jobs: &[Arc<Value>]) {
        let known = object::list(cron, "/status/active");
        let is_active = |job: &Value| known.iter().any(|r| r["uid"] == meta::uid(job));
        let mut last_success = at(&cron["status"]["lastSuccessfulTime"]);
        for job in jobs {
            let name = meta::name(job);
            match (is_active(job), finished(job)) {
                (true, Some(how)) => {
                    let message = format!("Saw completed job: {name}, condition: {how}");
                    self.notes.push(("Normal", "SawCompletedJob", message));
                }
                (false, None) => {
                    let message = format!("Saw a job that the controller did not create or forgot: {name}");
                    self.notes.push(("Warning", "UnexpectedJob", message));
                }
                _ => {}
            }
            if finished(job) == Some("Complete") {
                last_success = last_success.max(at(&job["status"]["completionTime"]));
            }
        }
        let runs = |r: &&Value| jobs.iter().any(|job| r["uid"] == meta::uid(job) && finished(job).is_none());
        let active: Vec<Value> = known.iter().filter(runs).cloned().collect();
        let gone = known.iter().filter(|r| !jobs.iter().any(|job| r["uid"] == meta::uid(job)));
        for reference in gone {
            let message = format!("Active job went missing: {}", object::text(reference, "/name"));
            self.notes.push(("Normal", "MissingJob", message));
        }
        if let Some(time) = last_success {
            self.status["lastSuccessfulTime"] = time::rfc3339(time).into();
        }
        if let Some(status) = self.status.as_object_mut() {
            status.remove("active");
            if !active.is_empty() {
                status.insert("active".to_owned(), active.into());
            }
        }
    }

    /// Finished Jobs beyond the limits go, oldest first.
    fn tidy(&mut self, cron: &Value, jobs: &[Arc<Value>]) {
        for (how, field, default) in
            [("Complete", "successfulJobsHistoryLimit", 3), ("Failed", "failedJobsHistoryLimit", 1)]
        {
            let limit = object::int(cron, &format!("/spec/{field}")).unwrap_or(default);
            let limit = usize::try_from(limit).unwrap_or(0);
            let mut old: Vec<&Arc<Value>> = jobs.iter().filter(|job| finished(job) == Some(how)).collect();
            old.sort_by_key(|job| (at(&job["status"]["startTime"]), meta::name(job).to_owned()));
            let surplus = old.len().saturating_sub(limit);
            let ending = |job: &&&Arc<Value>| meta::deletion_timestamp(job).is_none();
            self.delete.extend(old.iter().take(surplus).filter(ending).map(|job| Arc::clone(job)));
        }
    }

    fn start(&mut self, cron: &Value, jobs: &[Arc<Value>], schedule: &Schedule, zone: &TimeZone, now: Timestamp) {
        self.next = schedule.next(now, zone).map(|next| clock::until(now, next));
        let (due, count) = missed(cron, schedule, zone, now);
        if count > MISSED_MAX {
            let message = format!(
                "too many missed start times: {count}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            );
            self.notes.push(("Warning", "TooManyMissedTimes", message));
        }
        let Some(due) = due.filter(|due| Some(*due) != at(&cron["status"]["lastScheduleTime"])) else { return };
        let name = job_name(cron, due);
        if object::int(cron, "/spec/startingDeadlineSeconds").is_some_and(|limit| clock::plus(due, limit) < now) {
            let message = format!("Missed scheduled time to start a job: {}", time::rfc3339(due));
            self.notes.push(("Warning", "MissSchedule", message));
            return;
        }
        let running: Vec<&Arc<Value>> = jobs.iter().filter(|job| finished(job).is_none()).collect();
        if running.iter().any(|job| meta::name(job) == name) {
            // Made by the pass before, which the status has not seen.
            self.status["lastScheduleTime"] = time::rfc3339(due).into();
            return;
        }
        match object::text(cron, "/spec/concurrencyPolicy") {
            "Forbid" if !running.is_empty() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid".to_owned();
                self.notes.push(("Normal", "JobAlreadyActive", message));
                return;
            }
            "Replace" => {
                self.delete.extend(running.iter().map(|job| Arc::clone(job)));
                if let Some(status) = self.status.as_object_mut() {
                    status.remove("active");
                }
            }
            _ => {}
        }
        self.create = Some((job(cron, &name, due, zone), due));
    }
}

/// The time is in the name, so that no time gets two Jobs.
fn job_name(cron: &Value, due: Timestamp) -> String {
    format!("{}-{}", meta::name(cron), due.as_second() / 60)
}

fn job(cron: &Value, name: &str, due: Timestamp, zone: &TimeZone) -> Value {
    let template = &cron["spec"]["jobTemplate"];
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": meta::namespace(cron),
                     "ownerReferences": [meta::controller_reference(cron)]},
        "spec": template["spec"],
    });
    for field in ["labels", "annotations"] {
        if let Some(value) = template["metadata"].get(field) {
            job["metadata"][field] = value.clone();
        }
    }
    let local = due.to_zoned(zone.clone());
    let offset = if zone == &TimeZone::UTC { "Z".to_owned() } else { local.strftime("%:z").to_string() };
    meta::set_annotation(&mut job, SCHEDULED_AT, &format!("{}{offset}", local.strftime("%Y-%m-%dT%H:%M:%S")));
    job
}

/// What the status says of a Job that was just made.
pub(super) fn with_new(mut status: Value, job: &Value, due: Timestamp) -> Value {
    let mut active = object::list(&status, "/active").to_vec();
    active.push(json!({
        "apiVersion": "batch/v1", "kind": "Job", "name": meta::name(job), "namespace": meta::namespace(job),
        "uid": meta::uid(job), "resourceVersion": meta::resource_version(job),
    }));
    status["active"] = active.into();
    status["lastScheduleTime"] = time::rfc3339(due).into();
    status
}

//! How many pods a running Job should have, and which. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta;
use jiff::Timestamp;
use serde_json::Value;

use super::plan::{Count, Plan, is_indexed};
use super::pod::{self, Outcome};
use crate::{clock, object, pods};

/// Most pods that one pass creates or deletes.
const BURST: usize = 500;
/// After a failure the next pod waits this long; twice as long after each further one.
const BACKOFF_FIRST: i64 = 10;
const BACKOFF_LIMIT: i64 = 600;

/// Adds pods to create and to delete to the plan.
pub(super) fn manage(count: &Count<'_>, plan: &mut Plan) {
    let parallelism = object::int(count.job, "/spec/parallelism").unwrap_or(1);
    if is_indexed(count.job) {
        by_index(count, parallelism, plan);
    } else {
        by_number(count, parallelism, plan);
    }
}

fn by_number(count: &Count<'_>, parallelism: i64, plan: &mut Plan) {
    let active = i64::try_from(count.active.len()).unwrap_or(i64::MAX);
    let succeeded = count.all_succeeded();
    let wanted = match count.completions {
        Some(completions) => (completions - succeeded).clamp(0, parallelism),
        None if succeeded > 0 => active.min(parallelism),
        None => parallelism,
    };
    if active > wanted {
        let surplus = usize::try_from(active - wanted).unwrap_or(0);
        plan.delete.extend(least_valuable(&count.active, surplus));
        return;
    }
    let room = usize::try_from(wanted - active - waiting(count)).unwrap_or(0);
    if room == 0 {
        return;
    }
    let wait = backoff(count.all, count.job, count.now);
    if wait.is_zero() {
        plan.create = vec![pod::build(count.job, None, None); room.min(BURST)];
    } else {
        plan.next = Some(plan.next.map_or(wait, |next| next.min(wait)));
    }
}

/// Pods that are still ending and whose replacement has to wait for that.
fn waiting(count: &Count<'_>) -> i64 {
    if pod::replaces_only_failed(count.job) { i64::try_from(count.terminating).unwrap_or(0) } else { 0 }
}

/// Not ready before ready, young before old.
fn least_valuable(active: &[Arc<Value>], surplus: usize) -> Vec<Arc<Value>> {
    let mut ranked = active.to_vec();
    ranked.sort_by_key(|p| (pods::is_ready(p), Reverse(meta::creation_timestamp(p).to_owned())));
    ranked.truncate(surplus.min(BURST));
    ranked
}

fn by_index(count: &Count<'_>, parallelism: i64, plan: &mut Plan) {
    let completions = count.completions.unwrap_or(0);
    let done = |index: &i64| count.completed.contains(index) || count.failed_indexes.contains(index);
    let mut running: BTreeMap<i64, Arc<Value>> = BTreeMap::new();
    for pod in &count.active {
        match pod::index(pod).filter(|index| (0..completions).contains(index) && !done(index)) {
            Some(index) if !running.contains_key(&index) => drop(running.insert(index, Arc::clone(pod))),
            _ => plan.delete.push(Arc::clone(pod)),
        }
    }
    let open = (0..completions).filter(|index| !done(index));
    let wanted = open.clone().count().min(usize::try_from(parallelism).unwrap_or(0));
    if running.len() > wanted {
        let active: Vec<Arc<Value>> = running.values().cloned().collect();
        plan.delete.extend(least_valuable(&active, running.len() - wanted));
        return;
    }
    let ending: BTreeSet<i64> = if pod::replaces_only_failed(count.job) {
        let not_ended = |pod: &&Arc<Value>| pods::is_terminating(pod) && !pods::is_finished(pod);
        count.all.iter().filter(not_ended).filter_map(|pod| pod::index(pod)).collect()
    } else {
        BTreeSet::new()
    };
    let room = (wanted - running.len()).saturating_sub(ending.len()).min(BURST);
    let per_index = count.job["spec"].get("backoffLimitPerIndex").is_some_and(|limit| !limit.is_null());
    let common = if per_index { Duration::ZERO } else { backoff(count.all, count.job, count.now) };
    let mut wait = common;
    for index in open.filter(|index| !running.contains_key(index) && !ending.contains(index)) {
        if plan.create.len() == room || !common.is_zero() {
            break;
        }
        let earlier: Vec<Arc<Value>> = of_index(count, index);
        let own = if per_index { backoff(&earlier, count.job, count.now) } else { Duration::ZERO };
        if own.is_zero() {
            plan.create.push(pod::build(count.job, Some(index), earlier.last().map(|pod| &**pod)));
        } else {
            wait = if wait.is_zero() { own } else { wait.min(own) };
        }
    }
    if room > 0 && !wait.is_zero() {
        plan.next = Some(plan.next.map_or(wait, |next| next.min(wait)));
    }
}

/// The failed pods of an index, the last one last.
fn of_index(count: &Count<'_>, index: i64) -> Vec<Arc<Value>> {
    let failed = |p: &&Arc<Value>| pod::index(p) == Some(index) && pod::outcome(count.job, p) == Outcome::Failed;
    let mut failed: Vec<Arc<Value>> = count.all.iter().filter(failed).cloned().collect();
    failed.sort_by_key(|pod| (pod::ended_at(pod), meta::creation_timestamp(pod).to_owned()));
    failed
}

/// Failed pods that carry their index's count of failures until a successor has it: they must not be let go yet.
pub(super) fn deferred(count: &Count<'_>) -> HashSet<String> {
    let mut deferred = HashSet::new();
    let Some(limit) = object::int(count.job, "/spec/backoffLimitPerIndex") else { return deferred };
    if meta::deletion_timestamp(count.job).is_some() || count.concluding {
        return deferred;
    }
    let indexes: BTreeSet<i64> = count.all.iter().filter_map(|pod| pod::index(pod)).collect();
    for index in indexes {
        let settled = count.completed.contains(&index) || count.failed_indexes.contains(&index);
        let succeeded = |p: &Arc<Value>| pod::outcome(count.job, p) != Outcome::Failed && pod::index(p) == Some(index);
        if settled || count.all.iter().any(succeeded) || Some(index) >= count.completions {
            continue;
        }
        let Some(last) = of_index(count, index).pop() else { continue };
        let judged = super::policy::judge(count.job, &last);
        let final_verdict = matches!(judged, super::policy::Verdict::FailIndex | super::policy::Verdict::FailJob(_));
        if !final_verdict && pod::failures_after(count.job, &last) <= limit {
            deferred.insert(meta::uid(&last).to_owned());
        }
    }
    deferred
}

/// How long the next pod has to wait, for failures since the last success.
fn backoff(all: &[Arc<Value>], job: &Value, now: Timestamp) -> Duration {
    let ended = |outcome: Outcome| {
        let of = move |pod: &&Arc<Value>| pod::outcome(job, pod) == outcome && pods::is_finished(pod);
        all.iter().filter(of).filter_map(|pod| pod::ended_at(pod))
    };
    let last_success = ended(Outcome::Succeeded).max();
    let failures: Vec<Timestamp> = ended(Outcome::Failed).filter(|at| Some(*at) > last_success).collect();
    let Some(last) = failures.iter().max() else { return Duration::ZERO };
    let doublings = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX).min(10);
    clock::until(now, clock::plus(*last, (BACKOFF_FIRST << doublings).min(BACKOFF_LIMIT)))
}

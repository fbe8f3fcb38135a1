//! What the Job controller may say about a Job: conditions that fit each other, counters that only grow, times that stay.
//!
//! Most rules hold for what a change makes wrong: a status that was inconsistent already does not stop its Job from being reported on.

use std::collections::BTreeSet;

use serde_json::Value;

use super::batch::indexes_of;
use super::checks::{IMMUTABLE, non_negative};
use super::tree::{at, bool_at, has, int_at, items, same, str_at};
use crate::errors::FieldError;

const CONDITIONS: &str = "status.conditions";

fn is(job: &Value, kind: &str) -> bool {
    items(job, &["status", "conditions"]).iter().any(|c| str_at(c, &["type"]) == kind && c["status"] == "True")
}

fn finished(job: &Value) -> bool {
    is(job, "Complete") || is(job, "Failed")
}

/// A change of a Job's status.
pub fn check(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        non_negative(errors, &format!("status.{field}"), at(new, &["status", field]));
    }
    uncounted(errors, new);
    conditions(errors, new, old);
    times(errors, new, old);
    counts(errors, new, old);
    indexes(errors, new, old);
}

fn whole(errors: &mut Vec<FieldError>, detail: impl Into<String>) {
    errors.push(FieldError::invalid_whole(CONDITIONS, detail));
}

fn uncounted(errors: &mut Vec<FieldError>, job: &Value) {
    let mut seen = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        for (i, uid) in items(job, &["status", "uncountedTerminatedPods", list]).iter().enumerate() {
            let (path, uid) = (format!("status.uncountedTerminatedPods.{list}[{i}]"), uid.as_str().unwrap_or_default());
            if uid.is_empty() {
                errors.push(FieldError::invalid(path, uid, "must not be empty"));
            } else if !seen.insert(uid) {
                errors.push(FieldError::duplicate(path, uid));
            }
        }
    }
}

/// Conditions that exclude or need each other, and ends that are final.
fn conditions(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    let changed = |kind: &str| is(new, kind) && !is(old, kind);
    let ends = changed("Complete") || changed("Failed");
    if is(new, "Complete") && is(new, "Failed") && ends {
        whole(errors, "cannot set Complete=True and Failed=true conditions");
    }
    if is(new, "Complete") && is(new, "FailureTarget") && (changed("Complete") || changed("FailureTarget")) {
        whole(errors, "cannot set Complete=True and FailureTarget=true conditions");
    }
    if changed("Failed") && !is(new, "FailureTarget") {
        whole(errors, "cannot set Failed=True condition without the FailureTarget=true condition");
    }
    if changed("Complete") && !is(new, "SuccessCriteriaMet") {
        whole(errors, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
    }
    for other in ["Failed", "FailureTarget"] {
        if is(new, "SuccessCriteriaMet") && is(new, other) {
            whole(errors, format!("cannot set SuccessCriteriaMet=True and {other}=true conditions"));
        }
    }
    if has(&new["spec"], "successPolicy") && is(new, "Complete") && !is(new, "SuccessCriteriaMet") {
        let detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        whole(errors, detail);
    }
    for kind in ["Failed", "Complete", "FailureTarget"].into_iter().filter(|k| is(old, k) && !is(new, k)) {
        whole(errors, format!("cannot disable the terminal {kind}=True condition"));
    }
    if is(old, "SuccessCriteriaMet") && !is(new, "SuccessCriteriaMet") {
        whole(errors, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if is(old, "Complete") && !is(old, "SuccessCriteriaMet") && is(new, "SuccessCriteriaMet") {
        whole(errors, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions");
    }
}

fn times(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    let time = |job: &Value, field: &str| at(job, &["status", field]).cloned();
    let (start, end) = (time(new, "startTime"), time(new, "completionTime"));
    let (was_start, was_end) = (time(old, "startTime"), time(old, "completionTime"));
    let path = "status.completionTime";
    let completes = is(new, "Complete") != is(old, "Complete");
    let (started, stopped) = (start != was_start, end != was_end);
    if let Some(end) = end.clone().filter(|_| (completes || stopped) && !is(new, "Complete")) {
        let detail = "cannot set completionTime when there is no Complete=True condition";
        errors.push(FieldError::invalid(path, end, detail));
    }
    if end.is_none() && is(new, "Complete") && (completes || stopped) {
        errors.push(FieldError::required(path, "completionTime is required for Complete jobs"));
    }
    let moment = |v: &Value| v.as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok());
    if let (Some(s), Some(e)) = (&start, &end)
        && (started || stopped)
        && moment(e) < moment(s)
    {
        errors.push(FieldError::invalid(path, e.clone(), "must be equal to or after `startTime`"));
    }
    if start.is_none() && finished(new) && (started || finished(old) != finished(new)) {
        errors.push(FieldError::required("status.startTime", "startTime is required for finished job"));
    }
    if let Some(end) = end.filter(|_| was_end.is_some() && stopped && is(old, "Complete")) {
        errors.push(FieldError::invalid(path, end, IMMUTABLE));
    }
    // A Job that is resumed starts anew.
    if was_start.is_some() && start.is_none() && !bool_at(new, &["spec", "suspend"]) {
        errors.push(FieldError::required("status.startTime", "startTime cannot be removed for unsuspended job"));
    }
}

fn counts(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    let count = |job: &Value, field: &str| int_at(job, &["status", field]).unwrap_or(0);
    let ends = finished(new) && !finished(old);
    let grown = |field: &str| ends || count(new, field) != count(old, field);
    for field in ["active", "terminating"] {
        if finished(new) && count(new, field) > 0 && grown(field) {
            let detail = format!("{field}>0 is invalid for finished job");
            errors.push(FieldError::invalid(format!("status.{field}"), count(new, field), detail));
        }
    }
    let pods = |job: &Value| at(job, &["status", "uncountedTerminatedPods"]).cloned().unwrap_or_default();
    let some = ["succeeded", "failed"].iter().any(|l| !items(&pods(new), &[l]).is_empty());
    if finished(new) && some && (ends || !same(Some(&pods(new)), Some(&pods(old)))) {
        let detail = "must be empty for finished job";
        errors.push(FieldError::invalid("status.uncountedTerminatedPods", pods(new), detail));
    }
    if count(new, "ready") > count(new, "active") && (grown("ready") || grown("active")) {
        let detail = "cannot set more ready pods than active";
        errors.push(FieldError::invalid("status.ready", count(new, "ready"), detail));
    }
    for field in ["failed", "succeeded"] {
        // Someone who scales an indexed job down takes the successes of the lost indexes with them.
        let shrinks = field == "succeeded" && str_at(new, &["spec", "completionMode"]) == "Indexed";
        if count(new, field) < count(old, field) && !shrinks {
            let detail = format!("cannot decrease the {field} counter");
            errors.push(FieldError::invalid(format!("status.{field}"), count(new, field), detail));
        }
    }
}

fn indexes(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    let completions = int_at(new, &["spec", "completions"]);
    let indexed = str_at(new, &["spec", "completionMode"]) == "Indexed";
    let text = |job: &Value, field: &str| str_at(job, &["status", field]).to_owned();
    let limited = has(&new["spec"], "backoffLimitPerIndex");
    for (field, applies) in [("completedIndexes", indexed), ("failedIndexes", limited)] {
        let (path, value) = (format!("status.{field}"), text(new, field));
        if value == text(old, field) || !has(&new["status"], field) {
            continue;
        }
        if let Some(why) = completions.filter(|_| applies).and_then(|n| indexes_of(&value, n).err()) {
            errors.push(FieldError::invalid(path.clone(), value.as_str(), format!("error parsing {field}: {why}")));
        }
        let detail = match field {
            "completedIndexes" => "cannot set non-empty completedIndexes when non-indexed completion mode",
            _ => "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
        };
        if !applies && (field == "failedIndexes" || !value.is_empty()) {
            errors.push(FieldError::invalid(path, value, detail));
        }
    }
    let (done, failed) = (text(new, "completedIndexes"), text(new, "failedIndexes"));
    if let Some(n) = overlap(&done, &failed)
        .filter(|_| failed != text(old, "failedIndexes") || done != text(old, "completedIndexes"))
    {
        let detail = format!("failedIndexes and completedIndexes overlap at index: {n}");
        errors.push(FieldError::invalid("status.failedIndexes", failed, detail));
    }
}

/// The first index that stands in both lists.
fn overlap(a: &str, b: &str) -> Option<i64> {
    let spans = |text: &str| -> Vec<(i64, i64)> {
        let span = |part: &str| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            Some((from.parse().ok()?, to.parse().ok()?))
        };
        text.split(',').filter_map(span).collect()
    };
    let (left, right) = (spans(a), spans(b));
    let common = left.iter().flat_map(|l| right.iter().map(move |r| (l.0.max(r.0), l.1.min(r.1))));
    common.filter(|(from, to)| from <= to).map(|(from, _)| from).min()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ends_are_consistent_and_final() {
        let condition = |kind: &str| json!({"type": kind, "status": "True"});
        let job = |status: Value| json!({"spec": {"completions": 5, "completionMode": "Indexed", "backoffLimitPerIndex": 1}, "status": status});
        let running = job(json!({"startTime": "2026-01-01T00:00:00Z", "active": 2, "failed": 1}));
        let done = json!({"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:00Z", "failed": 1,
            "conditions": [condition("SuccessCriteriaMet"), condition("Complete")]});
        let with = |field: &str, value: Value| {
            let mut status = done.clone();
            status[field] = value;
            job(status)
        };
        let said = |new: &Value, old: &Value| -> Vec<String> {
            let mut errors = Vec::new();
            check(&mut errors, new, old);
            errors.iter().map(ToString::to_string).collect()
        };
        assert_eq!(said(&job(done.clone()), &running), [""; 0]);
        let table = [
            (
                with("completionTime", Value::Null),
                "status.completionTime: Required value: completionTime is required for Complete jobs",
            ),
            (
                with("conditions", json!([condition("Complete")])),
                "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            ),
            (with("active", json!(1)), "status.active: Invalid value: 1: active>0 is invalid for finished job"),
            (
                with("completionTime", json!("2025-01-01T00:00:00Z")),
                "status.completionTime: Invalid value: \"2025-01-01T00:00:00Z\": must be equal to or after `startTime`",
            ),
            (with("failed", json!(0)), "status.failed: Invalid value: 0: cannot decrease the failed counter"),
            (with("ready", json!(1)), "status.ready: Invalid value: 1: cannot set more ready pods than active"),
            (
                with("completedIndexes", json!("9")),
                "status.completedIndexes: Invalid value: \"9\": error parsing completedIndexes: too large index: \"9\"",
            ),
        ];
        for (new, want) in table {
            assert!(said(&new, &running).iter().any(|e| e == want), "{:#?} instead of {want}", said(&new, &running));
        }
        let mut both = done.clone();
        both["completedIndexes"] = json!("0,2-3");
        both["failedIndexes"] = json!("3-4");
        assert_eq!(
            said(&job(both), &running),
            ["status.failedIndexes: Invalid value: \"3-4\": failedIndexes and completedIndexes overlap at index: 3"]
        );
        assert!(
            said(&running, &job(done))
                .iter()
                .any(|e| e.ends_with("cannot disable the terminal Complete=True condition"))
        );
    }
}

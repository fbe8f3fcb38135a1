use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Plan, plan, with_new};

fn time(text: &str) -> Timestamp {
    format!("2026-01-02T{text}Z").parse().unwrap()
}

/// Every ten minutes, made at midnight, last run at ten past.
fn cron(spec: Value) -> Value {
    let mut cron = json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "c", "namespace": "n", "uid": "cron", "creationTimestamp": "2026-01-02T00:00:00Z"},
        "spec": {"schedule": "*/10 * * * ?", "concurrencyPolicy": "Allow",
                 "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"x": 1}}},
        "status": {"lastScheduleTime": "2026-01-02T00:10:00Z"},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        cron["spec"][key] = value.clone();
    }
    cron
}

fn job(name: &str, condition: Option<&str>) -> Arc<Value> {
    let conditions: Vec<Value> = condition.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
    Arc::new(json!({
        "metadata": {"name": name, "namespace": "n", "uid": name},
        "status": {"conditions": conditions, "startTime": format!("2026-01-02T00:{name}:00Z"),
                   "completionTime": format!("2026-01-02T00:{name}:30Z")},
    }))
}

fn reasons(plan: &Plan) -> Vec<&str> {
    plan.notes.iter().map(|(_, reason, _)| *reason).collect()
}

#[test]
fn jobs_come_by_schedule_and_policy() {
    let running = || vec![job("10", None)];
    type Case = (&'static str, Value, Vec<Arc<Value>>, &'static str, bool, usize, &'static [&'static str]);
    let cases: Vec<Case> = vec![
        ("not yet", cron(json!({})), vec![], "00:19:59", false, 0, &[]),
        ("due", cron(json!({})), vec![], "00:20:00", true, 0, &[]),
        ("late without a deadline", cron(json!({})), vec![], "00:29:00", true, 0, &[]),
        ("too late", cron(json!({"startingDeadlineSeconds": 60})), vec![], "00:29:00", false, 0, &[]),
        ("suspended", cron(json!({"suspend": true})), vec![], "00:20:00", false, 0, &[]),
        ("beside another", cron(json!({})), running(), "00:20:00", true, 0, &["UnexpectedJob"]),
        (
            "not beside another",
            cron(json!({"concurrencyPolicy": "Forbid"})),
            running(),
            "00:20:00",
            false,
            0,
            &["UnexpectedJob", "JobAlreadyActive"],
        ),
        ("instead", cron(json!({"concurrencyPolicy": "Replace"})), running(), "00:20:00", true, 1, &["UnexpectedJob"]),
        ("no schedule", cron(json!({"schedule": "x"})), vec![], "00:20:00", false, 0, &["UnparseableSchedule"]),
        ("no zone", cron(json!({"timeZone": "Mars/Base"})), vec![], "00:20:00", false, 0, &["UnknownTimeZone"]),
        (
            "elsewhere",
            cron(json!({"timeZone": "Asia/Kathmandu", "schedule": "5 6 * * *"})),
            vec![],
            "00:20:00",
            true,
            0,
            &[],
        ),
    ];
    for (what, cron, jobs, now, creates, deletes, notes) in cases {
        let plan = plan(&cron, &jobs, time(now));
        assert_eq!((plan.create.is_some(), plan.delete.len()), (creates, deletes), "{what}");
        assert_eq!(reasons(&plan), notes, "{what}");
    }
}

#[test]
fn the_time_is_in_the_name() {
    let plan = plan(&cron(json!({"timeZone": "Europe/Berlin"})), &[], time("00:25:00"));
    let (made, due) = plan.create.unwrap();
    assert_eq!(made["metadata"]["name"], format!("c-{}", due.as_second() / 60));
    let at = &made["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert_eq!(at, "2026-01-02T01:20:00+01:00");
    assert_eq!((&made["metadata"]["labels"], &made["spec"]), (&json!({"a": "b"}), &json!({"x": 1})));
    assert_eq!(plan.next, Some(Duration::from_secs(300)));
    let status = with_new(plan.status, &made, due);
    assert_eq!(
        (&status["lastScheduleTime"], &status["active"][0]["kind"]),
        (&json!("2026-01-02T00:20:00Z"), &json!("Job"))
    );
}

#[test]
fn books_are_kept() {
    let mut with_active = cron(json!({}));
    with_active["status"]["active"] =
        json!([{"uid": "10", "name": "10"}, {"uid": "11", "name": "11"}, {"uid": "12", "name": "12"}]);
    let jobs = [job("10", Some("Complete")), job("11", None)];
    let plan = plan(&with_active, &jobs, time("00:15:00"));
    assert_eq!(plan.status["active"], json!([{"uid": "11", "name": "11"}]));
    assert_eq!(plan.status["lastSuccessfulTime"], "2026-01-02T00:10:30Z");
    assert_eq!(reasons(&plan), ["SawCompletedJob", "MissingJob"]);
    let mut settled = with_active;
    settled["status"] = plan.status;
    assert_eq!(super::plan::plan(&settled, &jobs, time("00:15:00")).status, settled["status"]);
}

#[test]
fn the_oldest_finished_jobs_go() {
    let mut jobs: Vec<_> = ["14", "11", "13", "12"].iter().map(|name| job(name, Some("Complete"))).collect();
    jobs.extend(["22", "21"].iter().map(|name| job(name, Some("Failed"))));
    let plan = plan(&cron(json!({})), &jobs, time("00:15:00"));
    let names: Vec<_> = plan.delete.iter().map(|job| job["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["11", "21"]);
}

#[test]
fn many_missed_times_are_one_run_and_a_warning() {
    let mut old = cron(json!({"schedule": "* * * * *"}));
    old["status"]["lastScheduleTime"] = "2025-12-01T00:00:00Z".into();
    let plan = plan(&old, &[], time("00:15:30"));
    assert_eq!(plan.create.as_ref().unwrap().1, time("00:15:00"));
    assert_eq!(reasons(&plan), ["TooManyMissedTimes"]);
}

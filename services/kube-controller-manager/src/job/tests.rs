use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Plan, plan};
use super::pod;

fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().unwrap()
}

fn job(spec: Value) -> Value {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "j", "namespace": "n", "uid": "job"},
        "spec": {"parallelism": 2, "completions": 3, "backoffLimit": 6, "completionMode": "NonIndexed",
                 "podReplacementPolicy": "TerminatingOrFailed",
                 "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
        "status": {},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        job["spec"][key] = value.clone();
    }
    job
}

fn indexed(spec: Value) -> Value {
    let mut job = job(spec);
    job["spec"]["completionMode"] = "Indexed".into();
    job
}

/// `name[/index]`, then the state: `+` ready, `-` not ready, `s` succeeded, `f` failed, `t` terminating; a `.` in front
/// means that the finalizer is gone.
fn pods(job: &Value, all: &str) -> Vec<Arc<Value>> {
    let one = |text: &str| {
        let (text, tracked) = (text.trim_start_matches('.'), !text.starts_with('.'));
        let (name, state) = text.split_at(text.len() - 1);
        let index = name.split_once('/').map(|(_, index)| index.parse().unwrap());
        let mut pod = pod::build(job, index, None);
        if !tracked {
            pod["metadata"]["finalizers"] = json!([]);
        }
        pod["metadata"]["name"] = name.into();
        pod["metadata"]["uid"] = name.into();
        pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        let (phase, ready) = match state {
            "s" => ("Succeeded", "False"),
            "f" => ("Failed", "False"),
            "-" => ("Running", "False"),
            _ => ("Running", "True"),
        };
        if state == "t" {
            pod["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z".into();
        }
        pod["status"] = json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}]});
        Arc::new(pod)
    };
    all.split_whitespace().map(one).collect()
}

fn decide(job: &Value, all: &str) -> Plan {
    plan(job, &pods(job, all), now())
}

fn names(pods: &[Arc<Value>]) -> String {
    pods.iter().map(|p| p["metadata"]["name"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

fn indexes(plan: &Plan) -> String {
    let index = |pod: &Value| pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"].clone();
    plan.create.iter().map(|p| index(p).as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

fn with_status(mut job: Value, status: Value) -> Value {
    job["status"] = status;
    job
}

#[test]
fn as_many_pods_as_are_wanted() {
    let cases = [
        ("fresh", job(json!({})), "", 2, ""),
        ("enough", job(json!({})), "a+ b+", 0, ""),
        ("one came to an end", job(json!({})), "as b+", 1, ""),
        ("only what is left", job(json!({})), "as bs c+", 0, ""),
        ("too many", job(json!({"parallelism": 1})), "a+ b-", 0, "b"),
        ("none", job(json!({"parallelism": 0})), "", 0, ""),
        ("a queue", job(json!({"completions": null})), "", 2, ""),
        ("a queue that one worker found empty", job(json!({"completions": null})), "as b+", 0, ""),
        ("replaced while it ends", job(json!({})), "at b+", 1, ""),
        ("replaced when it has ended", job(json!({"podReplacementPolicy": "Failed"})), "at b+", 0, ""),
        ("suspended", job(json!({"suspend": true})), "a+ b+", 0, "a b"),
        ("somebody else's", job(json!({"managedBy": "example.com/me"})), "", 0, ""),
    ];
    for (what, job, pods, create, delete) in cases {
        let plan = decide(&job, pods);
        assert_eq!((plan.create.len(), names(&plan.delete).as_str()), (create, delete), "{what}");
    }
}

#[test]
fn each_pod_is_counted_once() {
    let first = decide(&job(json!({})), "as bf c+");
    let status = first.status.unwrap();
    assert_eq!(status["uncountedTerminatedPods"], json!({"succeeded": ["a"], "failed": ["b"]}));
    assert_eq!((&status["succeeded"], &status["failed"]), (&json!(0), &json!(0)));
    assert_eq!(names(&first.release), "a b");
    // The finalizers are not gone yet: nothing changes.
    let second = with_status(job(json!({})), status);
    assert!(decide(&second, "as bf c+").status.is_none());
    let third = decide(&second, ".as .bf c+").status.unwrap();
    assert_eq!((&third["succeeded"], &third["failed"]), (&json!(1), &json!(1)));
    assert_eq!(third["uncountedTerminatedPods"], json!({}));
    let fourth = with_status(job(json!({})), third);
    assert!(decide(&fourth, ".as .bf c+").status.is_none(), "settled");
}

/// Runs plan after plan as the shell would, with finalizers going and deleted pods ending, until nothing changes.
fn settle(mut job: Value, all: &str) -> (Value, Vec<String>) {
    let mut pods = pods(&job, all);
    let mut seen = Vec::new();
    for _ in 0..10 {
        let plan = plan(&job, &pods, now());
        let Some(status) = plan.status else { return (job["status"].clone(), seen) };
        for kind in ["FailureTarget", "Failed", "SuccessCriteriaMet", "Complete"] {
            if condition(&status, kind).is_some() && !seen.contains(&kind.to_owned()) {
                seen.push(kind.to_owned());
            }
        }
        job["status"] = status;
        let gone: Vec<&str> = plan.delete.iter().map(|p| p["metadata"]["uid"].as_str().unwrap()).collect();
        for pod in &mut pods {
            let mut new = Value::clone(pod);
            let uid = new["metadata"]["uid"].clone();
            if gone.iter().any(|g| uid == *g) {
                new["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z".into();
                new["status"]["phase"] = "Failed".into();
            }
            if plan.release.iter().any(|r| r["metadata"]["uid"] == uid) {
                new["metadata"]["finalizers"] = json!([]);
            }
            *pod = Arc::new(new);
        }
        pods.retain(|p| p["metadata"].get("deletionTimestamp").is_none() || pod::is_tracked(p));
    }
    panic!("never settles");
}

#[test]
fn endings_come_in_two_steps() {
    let late = json!({"startTime": "2026-01-01T23:00:00Z"});
    let exit = |code: i64| {
        json!({"podFailurePolicy": {"rules": [{"action": "FailJob", "onPodConditions": [{"type": "X"}],
            "onExitCodes": {"operator": "In", "values": [code]}}]}})
    };
    let two = json!({"succeededIndexes": "1"});
    type Case = (&'static str, Value, &'static str, &'static str, &'static str, i64, i64);
    let cases: Vec<Case> = vec![
        ("all done", job(json!({})), "as bs cs", "Complete", "CompletionsReached", 3, 0),
        ("limit", job(json!({"backoffLimit": 1})), "af bf", "Failed", "BackoffLimitExceeded", 0, 2),
        ("limit zero, others stop", job(json!({"backoffLimit": 0})), "af b+", "Failed", "BackoffLimitExceeded", 0, 2),
        (
            "deadline",
            with_status(job(json!({"activeDeadlineSeconds": 60})), late),
            "a+",
            "Failed",
            "DeadlineExceeded",
            0,
            1,
        ),
        (
            "success policy",
            indexed(json!({"successPolicy": {"rules": [two]}})),
            "a/0+ b/1s",
            "Complete",
            "SuccessPolicy",
            1,
            1,
        ),
        (
            "failed indexes",
            indexed(json!({"backoffLimitPerIndex": 0, "completions": 2})),
            "a/0s b/1f",
            "Failed",
            "FailedIndexes",
            1,
            1,
        ),
        (
            "too many failed indexes",
            indexed(json!({"backoffLimitPerIndex": 0, "maxFailedIndexes": 0, "completions": 3})),
            "a/0f",
            "Failed",
            "MaxFailedIndexesExceeded",
            0,
            1,
        ),
        ("a queue", job(json!({"completions": null})), "as bs", "Complete", "CompletionsReached", 2, 0),
        ("no rule matches", with_status(job(exit(3)), json!({})), "as bs cs", "Complete", "CompletionsReached", 3, 0),
    ];
    for (what, job, pods, end, reason, succeeded, failed) in cases {
        let (status, seen) = settle(job, pods);
        let interim = if end == "Complete" { "SuccessCriteriaMet" } else { "FailureTarget" };
        assert_eq!(seen, [interim, end], "{what}");
        let last = condition(&status, end).unwrap();
        assert_eq!((&last["reason"], &last["status"]), (&json!(reason), &json!("True")), "{what}");
        for (field, expected) in
            [("succeeded", succeeded), ("failed", failed), ("active", 0), ("ready", 0), ("terminating", 0)]
        {
            assert_eq!(status[field], expected, "{what}: {field}");
        }
        assert_eq!(status.get("completionTime").is_some(), end == "Complete", "{what}");
    }
}

#[test]
fn indexes_are_run_once_each() {
    let three = || indexed(json!({"completions": 3}));
    let cases = [
        ("from the first", three(), "", "0 1", ""),
        ("what is missing", three(), "a/1+", "0", ""),
        ("after a success", three(), "a/0s b/1+", "2", ""),
        ("duplicates go", three(), "a/0+ b/0+", "1", "b/0"),
        ("out of range goes", three(), "a/7+ b/0+", "1", "a/7"),
        ("failed comes again", three(), "a/0f", "0 1", ""),
    ];
    for (what, job, pods, create, delete) in cases {
        let plan = decide(&job, pods);
        assert_eq!((indexes(&plan).as_str(), names(&plan.delete).as_str()), (create, delete), "{what}");
    }
    let done = decide(&indexed(json!({"completions": 3})), "a/0s b/2s").status.unwrap();
    assert_eq!((&done["completedIndexes"], &done["succeeded"]), (&json!("0,2"), &json!(2)));
    let made = pod::build(&three(), Some(1), None);
    assert_eq!(made["spec"]["hostname"], "j-1");
    assert_eq!(made["metadata"]["generateName"], "j-1-");
    assert_eq!(made["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
}

#[test]
fn failures_per_index_are_carried_on() {
    let job = indexed(json!({"backoffLimitPerIndex": 1, "completions": 2}));
    let first = decide(&job, "a/0f b/1+");
    // Not let go before its successor has the count.
    assert_eq!((names(&first.release).as_str(), indexes(&first).as_str()), ("", "0"));
    assert_eq!(first.create[0]["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"], "1");
    let mut both = pods(&job, "a/0f c/0+ b/1+");
    assert_eq!(names(&plan(&job, &both, now()).release), "a/0");
    both.remove(0);
    let mut second = Value::clone(&both[0]);
    second["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] = "1".into();
    second["status"]["phase"] = "Failed".into();
    both[0] = Arc::new(second);
    let spent = plan(&job, &both, now());
    assert_eq!(spent.status.unwrap()["failedIndexes"], "0");
    assert!(spent.create.is_empty());
}

#[test]
fn failures_slow_the_next_pods_down() {
    let ended = |ago: i64| {
        let at = apimachinery::time::rfc3339(now().checked_sub(jiff::SignedDuration::from_secs(ago)).unwrap());
        json!([{"state": {"terminated": {"finishedAt": at, "exitCode": 1}}}])
    };
    let job = job(json!({"parallelism": 1}));
    let decide = |all: &[(&str, i64)]| {
        let mut made = Vec::new();
        for (text, ago) in all {
            let mut pod = Value::clone(&pods(&job, text)[0]);
            pod["status"]["containerStatuses"] = ended(*ago);
            made.push(Arc::new(pod));
        }
        let plan = plan(&job, &made, now());
        (plan.create.len(), plan.next)
    };
    assert_eq!(decide(&[("af", 4)]), (0, Some(Duration::from_secs(6))));
    assert_eq!(decide(&[("af", 10)]), (1, None));
    assert_eq!(decide(&[("af", 60), ("bf", 15)]), (0, Some(Duration::from_secs(5))));
    assert_eq!(decide(&[("af", 60), ("bf", 30), ("cs", 20)]), (1, None), "a success starts afresh");
}

#[test]
fn a_pause_stops_and_starts_the_clock() {
    let suspended = decide(&job(json!({"suspend": true})), "a+").status.unwrap();
    let stands = condition(&suspended, "Suspended").unwrap();
    assert_eq!((&stands["status"], &stands["reason"]), (&json!("True"), &json!("JobSuspended")));
    assert!(suspended.get("startTime").is_none());
    let resumed = decide(&with_status(job(json!({})), suspended), "").status.unwrap();
    assert_eq!(condition(&resumed, "Suspended").unwrap()["reason"], "JobResumed");
    assert_eq!(resumed["startTime"], "2026-01-02T00:00:00Z");
    // Pods that we stopped have not failed.
    let stopped = decide(&job(json!({"suspend": true})), "at").status.unwrap();
    assert_eq!((&stopped["failed"], &stopped["uncountedTerminatedPods"]), (&json!(0), &json!({})));
}

#[test]
fn a_job_whose_pods_ended_unseen_has_a_start() {
    let status = decide(&job(json!({})), "as bs cs").status.unwrap();
    assert!(condition(&status, "SuccessCriteriaMet").is_some());
    assert_eq!(status["startTime"], "2026-01-02T00:00:00Z");
}

#[test]
fn a_finished_job_lets_everything_go() {
    let done = with_status(job(json!({})), json!({"conditions": [{"type": "Complete", "status": "True"}]}));
    let plan = decide(&done, "as .bs c+");
    assert_eq!(names(&plan.release), "a c");
    assert!(plan.status.is_none() && plan.create.is_empty() && plan.delete.is_empty());
}

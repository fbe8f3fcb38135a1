use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{self, Action};
use super::ranking;
use crate::expectations::Expectations;

fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().unwrap()
}

fn pod(name: &str, change: impl Fn(&mut Value)) -> Arc<Value> {
    let mut pod = json!({
        "metadata": {"name": name, "uid": name, "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z",
                     "labels": {"app": "web"}},
        "spec": {"nodeName": "a"},
        "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    change(&mut pod);
    Arc::new(pod)
}

fn set(replicas: i64) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "set", "generation": 3},
        "spec": {"replicas": replicas, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}},
        "status": {"replicas": 0},
    })
}

#[test]
fn the_least_valuable_pod_goes_first() {
    // Each case: what makes the first pod go before an ordinary one.
    type Change = fn(&mut Value);
    let cases: &[(&str, Change)] = &[
        ("unassigned", |p| p["spec"]["nodeName"] = "".into()),
        ("pending", |p| p["status"]["phase"] = "Pending".into()),
        ("unknown", |p| p["status"]["phase"] = "Unknown".into()),
        ("not ready", |p| p["status"]["conditions"][0]["status"] = "False".into()),
        ("cheaper", |p| p["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"] = "-5".into()),
        ("crowded", |p| p["spec"]["nodeName"] = "crowded".into()),
        ("ready for less", |p| p["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T23:00:00Z".into()),
        ("restarted", |p| p["status"]["containerStatuses"] = json!([{"restartCount": 4}])),
        ("younger", |p| p["metadata"]["creationTimestamp"] = "2026-01-01T23:00:00Z".into()),
        ("smaller uid", |p| p["metadata"]["uid"] = "a".into()),
    ];
    for (what, change) in cases {
        let pods = [pod("z-ordinary", |_| {}), pod("victim", change), pod("zz-ordinary", |_| {})];
        let mut related = pods.to_vec();
        related.extend((0..5).map(|i| pod(&format!("c{i}"), |p| p["spec"]["nodeName"] = "crowded".into())));
        let victims = ranking::victims(&pods, &related, 1, now());
        assert_eq!(victims[0]["metadata"]["name"], "victim", "{what}");
    }
}

#[test]
fn ages_of_the_same_magnitude_are_equal() {
    let older = pod("1", |p| p["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into());
    let younger = pod("2", |p| p["metadata"]["creationTimestamp"] = "2026-01-01T00:10:00Z".into());
    let victims = ranking::victims(&[younger, older], &[], 1, now());
    assert_eq!(victims[0]["metadata"]["name"], "1");
}

#[test]
fn counts_only_active_pods() {
    let pods = [
        pod("a", |_| {}),
        pod("done", |p| p["status"]["phase"] = "Failed".into()),
        pod("ending", |p| p["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into()),
    ];
    assert_eq!(plan::manage(&set(3), &pods), Action::Create(2));
    assert_eq!(plan::manage(&set(1), &pods), Action::Nothing);
    assert_eq!(plan::manage(&set(0), &pods), Action::Delete(1));
    assert_eq!(plan::manage(&set(9000), &pods), Action::Create(500));
}

#[test]
fn status_counts_and_wakes_for_availability() {
    let mut web = set(3);
    web["spec"]["minReadySeconds"] = 60.into();
    let pods = [
        pod("old", |_| {}),
        pod("fresh", |p| p["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T23:59:30Z".into()),
        pod("unready", |p| p["status"]["conditions"] = json!([])),
        pod("ending", |p| p["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into()),
    ];
    let outcome = plan::status(&web, &pods, None, now());
    assert_eq!(
        outcome.status.clone(),
        Some(json!({"replicas": 3, "fullyLabeledReplicas": 3, "readyReplicas": 2, "availableReplicas": 1,
                    "terminatingReplicas": 1, "observedGeneration": 3}))
    );
    assert_eq!(outcome.next, Some(Duration::from_secs(30)));

    web["status"] = outcome.status.unwrap();
    assert!(plan::status(&web, &pods, None, now()).status.is_none(), "nothing changed, nothing to write");

    let failed = plan::status(&web, &pods, Some(("FailedCreate", "quota".to_owned())), now()).status.unwrap();
    assert_eq!(failed["conditions"][0]["type"], "ReplicaFailure");
    web["status"] = failed;
    assert!(plan::status(&web, &pods, Some(("FailedCreate", "quota again".to_owned())), now()).status.is_none());
    assert!(plan::status(&web, &pods, None, now()).status.unwrap().get("conditions").is_none(), "cleared");
}

#[test]
fn expectations_are_exact() {
    let (expected, start) = (Expectations::default(), Instant::now());
    expected.created("set", "a", start);
    expected.deleted("set", "b", start);
    assert!(expected.pending("set", start).is_some());
    assert!(expected.pending("other", start).is_none());

    expected.seen(&pod("b", |_| {}));
    expected.seen(&pod("a", |_| {}));
    assert!(expected.pending("set", start).is_some(), "b is there, but not yet terminating");
    expected.seen(&pod("b", |p| p["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into()));
    assert!(expected.pending("set", start).is_none());

    expected.created("set", "missed", start);
    assert!(expected.pending("set", start + Duration::from_secs(61)).is_none());
}

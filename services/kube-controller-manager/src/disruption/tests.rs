use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Scale, needs_scale, plan, stale_in, unmanaged};

fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().unwrap()
}

fn budget(spec: Value) -> Value {
    json!({"metadata": {"name": "b", "namespace": "n", "generation": 3}, "spec": spec})
}

/// `+` healthy, `-` unready, `t` terminating.
fn pods(all: &str) -> Vec<Arc<Value>> {
    let one = |(index, state): (usize, char)| {
        let ready = if state == '-' { "False" } else { "True" };
        let mut pod = json!({"metadata": {"name": format!("p{index}"), "namespace": "n"},
                             "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        if state == 't' {
            pod["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z".into();
        }
        Arc::new(pod)
    };
    all.chars().enumerate().map(one).collect()
}

#[test]
fn what_may_be_taken_away() {
    // expected, desired, healthy, allowed
    let cases = [
        ("minimum", json!({"minAvailable": 2}), "+++", 0, (3, 2, 3, 1)),
        ("minimum, one unready", json!({"minAvailable": 2}), "++-", 0, (3, 2, 2, 0)),
        ("minimum, one going", json!({"minAvailable": 2}), "++t", 0, (3, 2, 2, 0)),
        ("too high a minimum", json!({"minAvailable": 5}), "+++", 0, (3, 5, 3, 0)),
        ("share, rounded up", json!({"minAvailable": "50%"}), "+++", 3, (3, 2, 3, 1)),
        ("share of what should be there", json!({"minAvailable": "50%"}), "+++", 10, (10, 5, 3, 0)),
        ("one may be missing", json!({"maxUnavailable": 1}), "+++", 3, (3, 2, 3, 1)),
        ("one is missing", json!({"maxUnavailable": 1}), "++", 3, (3, 2, 2, 0)),
        ("a third may be missing, rounded up", json!({"maxUnavailable": "33%"}), "+++++", 5, (5, 3, 5, 2)),
        ("none may be missing", json!({"maxUnavailable": 0}), "+++", 3, (3, 3, 3, 0)),
        ("nothing selected", json!({"maxUnavailable": 1}), "", 0, (0, 0, 0, 0)),
        ("nothing said", json!({}), "++", 0, (2, 1, 2, 1)),
    ];
    for (what, spec, all, scale, (expected, desired, healthy, allowed)) in cases {
        let status = plan(&budget(spec), &pods(all), &Scale::Known(scale), now()).status.unwrap();
        let got = ["expectedPods", "desiredHealthy", "currentHealthy", "disruptionsAllowed"].map(|f| status[f].clone());
        assert_eq!(got, [expected, desired, healthy, allowed].map(Value::from), "{what}");
        assert_eq!(status["observedGeneration"], 3);
        let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
        assert_eq!(status["conditions"][0]["reason"], reason, "{what}");
    }
    assert!(needs_scale(&budget(json!({"minAvailable": "1%"}))) && !needs_scale(&budget(json!({"minAvailable": 1}))));
}

#[test]
fn evictions_under_way_are_not_forgotten() {
    let mut budget = budget(json!({"minAvailable": 1}));
    budget["status"]["disruptedPods"] = json!({
        "p0": "2026-01-01T23:59:30Z", "p1": "2026-01-01T23:50:00Z", "p2": "2026-01-01T23:59:30Z", "gone": "2026-01-01T23:59:30Z",
    });
    let plan = plan(&budget, &pods("++t+"), &Scale::Known(0), now());
    let status = plan.status.unwrap();
    assert_eq!(status["disruptedPods"], json!({"p0": "2026-01-01T23:59:30Z"}));
    assert_eq!((&status["currentHealthy"], &status["disruptionsAllowed"]), (&json!(2), &json!(1)));
    assert_eq!((plan.not_deleted, plan.next), (vec!["p1".to_owned()], Some(Duration::from_secs(90))));
    budget["status"] = status;
    assert!(super::plan::plan(&budget, &pods("++t+"), &Scale::Known(0), now()).status.is_none(), "settled");
}

#[test]
fn what_cannot_be_counted_may_not_be_taken() {
    let unknown = Scale::Unknown("found no controllers for pod \"p0\"".to_owned());
    let mut budget = budget(json!({"maxUnavailable": 1}));
    budget["status"] = json!({"observedGeneration": 2, "disruptionsAllowed": 1, "currentHealthy": 2});
    let plan = plan(&budget, &pods("++"), &unknown, now());
    let status = plan.status.unwrap();
    assert_eq!((&status["disruptionsAllowed"], &status["currentHealthy"]), (&json!(0), &json!(2)));
    assert_eq!(status["observedGeneration"], 2, "it was not looked at");
    assert_eq!(status["conditions"][0]["reason"], "SyncFailed");
    assert!(plan.failure.unwrap().contains("p0"));
}

#[test]
fn what_nobody_controls_is_named() {
    let selector = json!({"matchLabels": {"app": "a", "tier": "b"},
                          "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}]});
    let said = unmanaged(&budget(json!({"maxUnavailable": 1, "selector": selector})));
    let start = "Pods selected by this PodDisruptionBudget (selector: &LabelSelector{MatchLabels:map[string]string{app: a,tier: b,},\
                 MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}) were found to \
                 be unmanaged. As a result, the status of the PDB cannot";
    assert!(said.starts_with(start), "{said}");
}

#[test]
fn pods_that_were_spared() {
    let pod = |status: &str, reason: &str, since: &str, change: Value| {
        let mut pod = json!({"metadata": {}, "status": {"phase": "Running", "conditions": [
            {"type": "DisruptionTarget", "status": status, "reason": reason, "lastTransitionTime": since}]}});
        for (pointer, value) in change.as_object().unwrap() {
            pod[pointer] = value.clone();
        }
        pod
    };
    let (long_ago, just_now) = ("2026-01-01T23:00:00Z", "2026-01-01T23:59:30Z");
    let going = json!({"metadata": {"deletionTimestamp": long_ago}});
    let cases = [
        ("left alone", pod("True", "EvictionByEvictionAPI", long_ago, json!({})), Some(0)),
        ("not for long", pod("True", "EvictionByEvictionAPI", just_now, json!({})), Some(90)),
        ("not any more", pod("False", "", long_ago, json!({})), None),
        ("its kubelet is at it", pod("True", "TerminationByKubelet", long_ago, json!({})), None),
        ("going", pod("True", "PreemptionByScheduler", long_ago, going), None),
        ("never", json!({"status": {}}), None),
    ];
    for (what, pod, expected) in cases {
        assert_eq!(stale_in(&pod, now()), expected.map(Duration::from_secs), "{what}");
    }
    let mut done = pod("True", "EvictionByEvictionAPI", long_ago, json!({}));
    done["status"]["phase"] = "Succeeded".into();
    assert_eq!(stale_in(&done, now()), None);
}

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::behavior::History;
use super::plan::{self, decide};
use super::replicas::{Goal, Proposal, Sample, Samples, of_whole, per_pod};
use crate::clock;

fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    clock::plus(now(), seconds)
}

fn hpa(least: i64, most: i64, behavior: Value) -> Value {
    json!({"metadata": {"name": "h", "namespace": "n", "generation": 1},
           "spec": {"minReplicas": least, "maxReplicas": most, "behavior": behavior}})
}

/// Pods that request one CPU: `+` ready, `-` never ready, `p` pending.
fn pods(states: &str) -> Vec<Arc<Value>> {
    let one = |(index, state): (usize, char)| {
        let ready = if state == '+' { "True" } else { "False" };
        let phase = if state == 'p' { "Pending" } else { "Running" };
        Arc::new(json!({
            "metadata": {"name": index.to_string()},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": phase, "startTime": "2026-01-01T00:00:00Z", "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
    };
    states.chars().enumerate().map(one).collect()
}

fn samples(milli: &[i128]) -> Samples {
    let sample = |milli: &i128| Sample { milli: *milli, at: now(), window: 60 };
    milli.iter().enumerate().filter(|(_, m)| **m >= 0).map(|(i, m)| (i.to_string(), sample(m))).collect()
}

#[test]
fn replicas_by_utilization() {
    // Target: half of one CPU per pod.
    let cases: &[(&str, &str, &[i128], i64)] = &[
        ("double", "+++", &[1000, 1000, 1000], 6),
        ("near enough", "+++", &[540, 540, 540], 3),
        ("half", "++++", &[250, 250, 250, 250], 2),
        ("pending pods count as idle when growing", "++p", &[1000, 1000, -1], 4),
        ("unready ones as well", "++-", &[1000, 1000, 0], 4),
        ("missing ones count as idle when growing", "+++", &[1000, 1000, -1], 4),
        ("missing ones count as busy when shrinking", "+++", &[100, 100, -1], 3),
    ];
    for (what, states, used, expected) in cases {
        let all = pods(states);
        let current = i64::try_from(all.len()).unwrap();
        let got = per_pod(current, Goal::Utilization(50), &all, &samples(used), Some(("cpu", None)), now()).unwrap();
        assert_eq!(got.replicas, *expected, "{what}");
    }
    let got = per_pod(2, Goal::Average(100), &pods("++"), &samples(&[300, 100]), None, now()).unwrap();
    assert_eq!((got.replicas, got.average, got.utilization), (4, 200, None));
    let error = |states: &str, used: &[i128], name: &str| {
        per_pod(1, Goal::Utilization(50), &pods(states), &samples(used), Some((name, None)), now()).unwrap_err()
    };
    assert!(error("+", &[-1], "cpu").contains("did not receive metrics"));
    assert!(error("+", &[1], "memory").contains("missing request for memory in container c of Pod 0"));
    assert!(error("", &[], "cpu").contains("no pods"));
}

#[test]
fn replicas_by_one_value() {
    let replicas = |current, ready, value, target, average| of_whole(current, ready, value, target, average).replicas;
    assert_eq!(replicas(2, 2, 3000, 1000, false), 6);
    assert_eq!(replicas(2, 2, 1050, 1000, false), 2, "near enough");
    assert_eq!(replicas(0, 0, 3000, 1000, false), 3, "from nothing");
    assert_eq!(replicas(2, 2, 5000, 1000, true), 5);
}

#[test]
fn bounds_windows_and_policies() {
    let up_slowly = json!({"scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}});
    let never_down = json!({"scaleDown": {"selectPolicy": "Disabled"}});
    let both = json!({"scaleUp": {"selectPolicy": "Min", "policies": [
        {"type": "Pods", "value": 5, "periodSeconds": 60}, {"type": "Percent", "value": 10, "periodSeconds": 60}]}});
    let quick_down = json!({"scaleDown": {"stabilizationWindowSeconds": 0}});
    let cases = [
        ("within", hpa(1, 10, json!({})), 4, 6, 6, "DesiredWithinRange"),
        ("too many", hpa(1, 5, json!({})), 4, 8, 5, "TooManyReplicas"),
        ("at most double by default", hpa(1, 100, json!({})), 10, 50, 20, "ScaleUpLimit"),
        ("four more at the start", hpa(1, 100, json!({})), 1, 50, 5, "ScaleUpLimit"),
        ("a slow policy", hpa(1, 100, up_slowly), 10, 50, 12, "ScaleUpLimit"),
        ("the smaller of two", hpa(1, 100, both), 10, 50, 11, "ScaleUpLimit"),
        ("never down", hpa(1, 100, never_down), 10, 2, 10, "ScaleDownLimit"),
        ("too few", hpa(3, 100, quick_down), 10, 1, 3, "TooFewReplicas"),
    ];
    for (what, hpa, current, proposed, expected, reason) in cases {
        let limited = History::default().limit(&hpa, current, proposed, now());
        assert_eq!((limited.replicas, limited.limit.1), (expected, reason), "{what}");
    }
}

#[test]
fn shrinking_waits_for_the_window() {
    let (hpa, mut history) = (hpa(1, 10, json!({})), History::default());
    assert_eq!(history.limit(&hpa, 8, 8, now()).replicas, 8);
    let held = history.limit(&hpa, 8, 3, after(15));
    assert_eq!((held.replicas, held.stabilized.map(|s| s.0)), (8, Some("ScaleDownStabilized")));
    assert_eq!(history.limit(&hpa, 8, 3, after(301)).replicas, 3);
}

#[test]
fn a_period_is_not_spent_twice() {
    let slowly = json!({"scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}});
    let (hpa, mut history) = (hpa(1, 100, slowly), History::default());
    assert_eq!(history.limit(&hpa, 10, 50, now()).replicas, 12);
    history.changed(now(), 2);
    assert_eq!(history.limit(&hpa, 12, 50, after(15)).replicas, 12);
    assert_eq!(history.limit(&hpa, 12, 50, after(61)).replicas, 14);
}

#[test]
fn decisions_and_what_they_say() {
    let proposal = |replicas| {
        let proposal = Proposal { replicas, utilization: Some(80), average: 800 };
        let metric = json!({"type": "Resource", "resource": {"name": "cpu"}});
        Ok((proposal, plan::shown(&metric, "resource", &proposal, false)))
    };
    let missing = || {
        let (reason, why, what) =
            ("FailedGetResourceMetric", "no metrics API".to_owned(), "cpu resource metric".to_owned());
        Err(plan::Failure { reason, why, what })
    };
    let reason = |decision: &plan::Decision, kind: &str| {
        let found = decision.conditions.iter().find(|c| c["type"] == kind);
        found.map(|c| c["reason"].as_str().unwrap().to_owned()).unwrap_or_default()
    };
    let cases = [
        ("grows", 2, vec![proposal(4)], Some(4), "SucceededRescale", "ValidMetricFound"),
        ("the largest wins", 2, vec![proposal(3), proposal(4)], Some(4), "SucceededRescale", "ValidMetricFound"),
        ("stays", 2, vec![proposal(2)], None, "ReadyForNewScale", "ValidMetricFound"),
        ("no metrics", 2, vec![missing()], None, "SucceededGetScale", "FailedGetResourceMetric"),
        ("one is missing: may grow", 2, vec![proposal(4), missing()], Some(4), "SucceededRescale", "ValidMetricFound"),
        (
            "one is missing: not less",
            4,
            vec![proposal(2), missing()],
            None,
            "SucceededGetScale",
            "FailedGetResourceMetric",
        ),
        ("switched off", 0, vec![], None, "SucceededGetScale", "ScalingDisabled"),
        ("above", 20, vec![], Some(10), "SucceededRescale", ""),
    ];
    for (what, current, outcomes, expected, able, active) in cases {
        let decision = decide(&hpa(1, 10, json!({})), current, outcomes, &mut History::default(), now());
        assert_eq!(decision.rescale.as_ref().map(|r| r.0), expected, "{what}");
        assert_eq!(
            (reason(&decision, "AbleToScale").as_str(), reason(&decision, "ScalingActive").as_str()),
            (able, active),
            "{what}"
        );
    }
    let mut settled = hpa(1, 10, json!({}));
    let decide = |hpa: &Value| decide(hpa, 2, vec![proposal(2)], &mut History::default(), now());
    let status = plan::status(&settled, Some(2), &decide(&settled), now()).unwrap();
    assert_eq!(
        status["currentMetrics"][0]["resource"]["current"],
        json!({"averageUtilization": 80, "averageValue": "800m"})
    );
    settled["status"] = status;
    assert_eq!(plan::status(&settled, Some(2), &decide(&settled), now()), None);
}

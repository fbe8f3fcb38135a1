use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Fit, Observed, Plan, fit, plan};
use super::pod;

fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().unwrap()
}

fn set(rolling: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "d", "namespace": "n", "uid": "set", "generation": 1},
        "spec": {"template": {"metadata": {"labels": {"app": "d"}}, "spec": {"nodeSelector": {"os": "linux"}}},
                 "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}},
    })
}

fn node(name: &str, taints: Value, labels: Value) -> Arc<Value> {
    Arc::new(json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}}))
}

fn nodes(names: &str) -> Vec<Arc<Value>> {
    names.split_whitespace().map(|name| node(name, json!([]), json!({"os": "linux"}))).collect()
}

/// `a:old+`: on node a, in revision old; `+` available, `-` unready, `x` failed, `t` terminating.
fn pods(all: &str) -> Vec<Arc<Value>> {
    let one = |text: &str| {
        let (node, rest) = text.split_once(':').unwrap();
        let (hash, state) = rest.split_at(rest.len() - 1);
        let mut pod = pod::build(&set(json!({})), node, hash);
        pod["metadata"]["name"] = text.into();
        pod["metadata"]["uid"] = text.into();
        pod["spec"]["nodeName"] = node.into();
        let ready = if state == "+" { "True" } else { "False" };
        let phase = if state == "x" { "Failed" } else { "Running" };
        pod["status"] = json!({"phase": phase, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        if state == "t" {
            pod["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z".into();
        }
        Arc::new(pod)
    };
    all.split_whitespace().map(one).collect()
}

fn decide(set: &Value, nodes: &[Arc<Value>], all: &str) -> Plan {
    plan(&Observed { set, pods: &pods(all), nodes, hash: "new", collisions: None, now: now() })
}

fn text(plan: &Plan) -> String {
    let names = |pods: &[Arc<Value>], sign: &str| {
        pods.iter().map(|p| format!("{sign}{}", p["metadata"]["name"].as_str().unwrap())).collect::<Vec<_>>()
    };
    let mut all: Vec<String> = plan.create.iter().map(|node| format!("+{node}")).collect();
    all.extend(names(&plan.replace, "!"));
    all.extend(names(&plan.delete, "-"));
    all.join(" ")
}

#[test]
fn nodes_fit_by_labels_names_and_taints() {
    let fit_of = |taints: Value, labels: Value| fit(&set(json!({})), &node("a", taints, labels));
    let linux = json!({"os": "linux"});
    let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
    let cases = [
        ("plain", fit_of(json!([]), linux.clone()), (true, true)),
        ("other label", fit_of(json!([]), json!({})), (false, false)),
        ("not for new pods", fit_of(taint("mine", "NoSchedule"), linux.clone()), (false, true)),
        ("for no pods", fit_of(taint("mine", "NoExecute"), linux.clone()), (false, false)),
        ("preference", fit_of(taint("mine", "PreferNoSchedule"), linux.clone()), (true, true)),
        ("cordoned", fit_of(taint("node.kubernetes.io/unschedulable", "NoSchedule"), linux.clone()), (true, true)),
        ("not ready", fit_of(taint("node.kubernetes.io/not-ready", "NoExecute"), linux), (true, true)),
    ];
    for (what, got, (should_run, may_stay)) in cases {
        assert_eq!(got, Fit { should_run, may_stay }, "{what}");
    }
}

#[test]
fn one_pod_per_fitting_node() {
    let mut two = nodes("a b");
    two.push(node("other", json!([]), json!({})));
    let cases = [
        ("everywhere", "", "+a +b"),
        ("elsewhere too", "a:new+ b:new+ other:new+", "-other:new+"),
        ("failed ones come again", "a:newx b:new+", "!a:newx"),
        ("after the old one is gone", "a:newt b:new+", ""),
        ("one is enough", "a:new+ a:new- b:new+", "-a:new-"),
    ];
    for (what, pods, expected) in cases {
        assert_eq!(text(&decide(&set(json!({})), &two, pods)), expected, "{what}");
    }
}

#[test]
fn rollouts_keep_their_fences() {
    let unavailable = |n: Value| set(json!({"maxUnavailable": n, "maxSurge": 0}));
    let surge = |n: Value| set(json!({"maxUnavailable": 0, "maxSurge": n}));
    let cases = [
        ("one at a time", unavailable(json!(1)), "a:old+ b:old+ c:old+", "-a:old+"),
        ("waits for the gap", unavailable(json!(1)), "a:oldt b:old+ c:old+", ""),
        ("waits for the new one", unavailable(json!(1)), "a:new- b:old+ c:old+", ""),
        ("then the next", unavailable(json!(1)), "a:new+ b:old+ c:old+", "-b:old+"),
        ("the broken at once", unavailable(json!(1)), "a:old- b:old- c:old+", "-a:old- -b:old-"),
        ("half, rounded up", unavailable(json!("50%")), "a:old+ b:old+ c:old+", "-a:old+ -b:old+"),
        ("surge adds", surge(json!(1)), "a:old+ b:old+ c:old+", "+a"),
        ("surge waits", surge(json!(1)), "a:old+ a:new- b:old+ c:old+", ""),
        ("surge takes away and goes on", surge(json!(1)), "a:old+ a:new+ b:old+ c:old+", "+b -a:old+"),
        ("surge need not spare the broken", surge(json!(1)), "a:old- a:new- b:old+ c:old+", "-a:old-"),
        ("back to what still runs", unavailable(json!(1)), "a:new+ b:new+ c:old-", "-c:old-"),
    ];
    for (what, set, pods, expected) in cases {
        assert_eq!(text(&decide(&set, &nodes("a b c"), pods)), expected, "{what}");
    }
}

#[test]
fn status_counts_nodes() {
    let mut all = nodes("a b c");
    all.push(node("other", json!([]), json!({})));
    let status = decide(&set(json!({})), &all, "a:new+ b:old- other:new+").status.unwrap();
    let expected = [
        ("desiredNumberScheduled", 3),
        ("currentNumberScheduled", 2),
        ("numberMisscheduled", 1),
        ("numberReady", 1),
        ("numberAvailable", 1),
        ("numberUnavailable", 2),
        ("updatedNumberScheduled", 1),
    ];
    for (field, expected) in expected {
        assert_eq!(status[field], expected, "{field}");
    }
    let mut settled = set(json!({}));
    settled["status"] = status;
    assert!(decide(&settled, &all, "a:new+ b:old- other:new+").status.is_none());
}

#[test]
fn pods_are_bound_by_name() {
    let mut with_affinity = set(json!({}));
    with_affinity["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] =
        json!([1]);
    let made = pod::build(&with_affinity, "a", "h");
    assert_eq!(pod::node_of(&made), "a");
    assert_eq!(made["metadata"]["labels"], json!({"app": "d", "controller-revision-hash": "h"}));
    let affinity = &made["spec"]["affinity"]["nodeAffinity"];
    assert_eq!(affinity["preferredDuringSchedulingIgnoredDuringExecution"], json!([1]));
    assert_eq!(made["spec"]["tolerations"].as_array().unwrap().len(), 6);
}

use serde_json::{Value, json};

use super::cells::human;
use super::{PRINTERS, table};
use crate::registry::{Resource, table as rows};

const NOW: &str = "2026-01-02T03:04:05Z";

fn row(group: &str, plural: &str) -> Option<&'static Resource> {
    rows().iter().find(|r| r.group == group && r.plural == plural)
}

fn cells(group: &str, plural: &str, object: Value) -> Vec<Value> {
    let resource = row(group, plural).expect("in the table");
    let table = table(resource, &[object], NOW);
    let cells = table["rows"][0]["cells"].as_array().cloned().expect("cells");
    assert_eq!(
        Some(cells.len()),
        table["columnDefinitions"].as_array().map(Vec::len),
        "{plural}: a cell for every column"
    );
    cells
}

#[test]
fn ages() {
    for (seconds, want) in [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (11_100, "3h5m"),
        (28_800, "8h"),
        (172_799, "47h"),
        (172_800, "2d"),
        (176_400, "2d1h"),
        (691_200, "8d"),
        (63_072_000, "2y"),
        (63_158_400, "2y1d"),
        (252_288_000, "8y"),
    ] {
        assert_eq!(human(seconds), want, "{seconds}");
    }
}

#[test]
fn every_printer_fills_its_columns() {
    for p in PRINTERS.iter().flat_map(|p| p.iter()) {
        assert!(row(p.group, p.plural).is_some(), "{} is not served", p.plural);
        cells(p.group, p.plural, json!({"metadata": {"name": "x"}}));
    }
}

fn pod(status: Value) -> Value {
    json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-02T03:02:05Z"},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}, "status": status})
}

/// One container that is done, one sidecar that runs: what init containers leave behind.
fn initialized() -> Value {
    json!([{"name": "i", "state": {"terminated": {"exitCode": 0}}},
        {"name": "s", "started": true, "ready": true, "state": {"running": {}}}])
}

/// A pod's status, and the three cells that condense it.
type Case = (Value, [&'static str; 3]);

fn check(table: Vec<Case>) {
    for (status, want) in table {
        let cells = cells("", "pods", pod(status.clone()));
        assert_eq!(cells[1..4], want.map(Value::from), "{status}");
        assert_eq!(cells[4], "2m");
    }
}

#[test]
fn pods_that_start() {
    let gated = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]);
    let init = |state: Value| json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 3, "state": state}]});
    let mut second = initialized();
    second[1] = json!({"name": "s", "state": {"waiting": {"reason": "PodInitializing"}}});
    check(vec![
        (json!({"phase": "Pending"}), ["0/3", "Pending", "0"]),
        (json!({"phase": "Pending", "conditions": gated}), ["0/3", "SchedulingGated", "0"]),
        (init(json!({"running": {}})), ["0/3", "Init:0/2", "3"]),
        (init(json!({"waiting": {"reason": "CrashLoopBackOff"}})), ["0/3", "Init:CrashLoopBackOff", "3"]),
        (init(json!({"terminated": {"exitCode": 3}})), ["0/3", "Init:ExitCode:3", "3"]),
        (json!({"phase": "Pending", "initContainerStatuses": second}), ["0/3", "Init:1/2", "0"]),
    ]);
}

#[test]
fn pods_that_run_or_ran() {
    let running = json!({"ready": true, "restartCount": 0, "state": {"running": {}}});
    let crashing = json!({"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"finishedAt": "2026-01-02T03:03:35Z"}}});
    let completed = json!({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
    let killed = json!({"state": {"terminated": {"exitCode": 137, "signal": 9}}});
    let status = |containers: [&Value; 2]| json!({"phase": "Running", "containerStatuses": containers});
    let with = |mut status: Value, field: &str, value: Value| {
        status[field] = value;
        status
    };
    let ready = json!([{"type": "Ready", "status": "True"}]);
    check(vec![
        (with(status([&running, &running]), "initContainerStatuses", initialized()), ["3/3", "Running", "0"]),
        (
            with(status([&running, &crashing]), "initContainerStatuses", initialized()),
            ["2/3", "CrashLoopBackOff", "3 (30s ago)"],
        ),
        (status([&running, &completed]), ["1/3", "NotReady", "0"]),
        (with(status([&running, &completed]), "conditions", ready), ["1/3", "Running", "0"]),
        (json!({"phase": "Failed", "containerStatuses": [killed]}), ["0/3", "Signal:9", "0"]),
        (json!({"phase": "Failed", "reason": "Evicted"}), ["0/3", "Evicted", "0"]),
    ]);
}

#[test]
fn deleted_pods_say_so() {
    let running = json!({"ready": true, "restartCount": 0, "state": {"running": {}}});
    let mut leaving = pod(json!({"phase": "Running", "containerStatuses": [running]}));
    leaving["metadata"]["deletionTimestamp"] = json!(NOW);
    assert_eq!(cells("", "pods", leaving)[2], "Terminating");
}

#[test]
fn services() {
    let ports = json!([{"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]);
    for (spec, status, external) in [
        (json!({"type": "ClusterIP", "clusterIP": "10.96.0.9", "ports": ports}), json!({}), "<none>"),
        (json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9", "ports": ports}), json!({}), "<pending>"),
        (
            json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9", "ports": ports}),
            json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}),
            "1.2.3.4",
        ),
    ] {
        let cells = cells("", "services", json!({"metadata": {"name": "s"}, "spec": spec, "status": status}));
        assert_eq!(
            (&cells[2], &cells[3], &cells[4]),
            (&json!("10.96.0.9"), &json!(external), &json!("80:30080/TCP,53/UDP"))
        );
    }
}

#[test]
fn the_rest() {
    let addresses: Vec<Value> = (1..=4).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect();
    let endpoints = json!({"metadata": {"name": "e"}, "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
    assert_eq!(cells("", "endpoints", endpoints)[1], "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more...");
    let node = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.35.0"}}});
    let node = cells("", "nodes", node);
    assert_eq!(
        (&node[1], &node[2], &node[4]),
        (&json!("Ready,SchedulingDisabled"), &json!("control-plane"), &json!("v1.35.0"))
    );
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["y", "x"]}]},
        "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}, "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}});
    assert_eq!(
        cells("apps", "deployments", deployment),
        [
            json!("d"),
            json!("2/3"),
            json!(3),
            json!(1),
            json!("<unknown>"),
            json!("c"),
            json!("i"),
            json!("a=b,c in (x,y)")
        ]
    );
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p"}, "lastTimestamp": "2026-01-02T03:03:55Z", "type": "Normal", "reason": "R", "message": "m\n"});
    let event = cells("", "events", event);
    assert_eq!((&event[0], &event[3], &event[6], &event[8]), (&json!("10s"), &json!("pod/p"), &json!("m"), &json!(1)));
}

#[test]
fn autoscalers_show_what_they_aim_at() {
    let metric = |name: &str, percent: i64| json!({"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": percent}}});
    let current = json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12, "averageValue": "120m"}}});
    let pods = json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "5"}}});
    let object = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 9, "metrics": [metric("cpu", 80), metric("memory", 60), pods]},
        "status": {"currentReplicas": 3, "currentMetrics": [current]}});
    let row = cells("autoscaling", "horizontalpodautoscalers", object);
    assert_eq!(
        row[1..6],
        [
            json!("Deployment/web"),
            json!("cpu: 12%/80%, memory: <unknown>/60% + 1 more..."),
            json!("1"),
            json!(9),
            json!(3)
        ]
    );
}

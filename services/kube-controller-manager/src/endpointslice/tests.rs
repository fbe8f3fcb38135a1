use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::plan::{Change, plan, service_of};

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "n", "uid": "s"},
           "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "web"}, "ipFamilies": ["IPv4"],
                    "ports": [{"port": 80, "targetPort": 8080}]}})
}

fn pod(number: usize, ready: bool) -> Arc<Value> {
    let ready = if ready { "True" } else { "False" };
    Arc::new(json!({
        "metadata": {"name": format!("p{number}"), "namespace": "n", "uid": format!("p{number}")},
        "spec": {"nodeName": "a"},
        "status": {"podIP": format!("10.0.{}.{}", number / 250, number % 250), "conditions": [{"type": "Ready", "status": ready}]},
    }))
}

fn decide(service: &Value, pods: &[Arc<Value>], slices: &[Arc<Value>]) -> Vec<Change> {
    plan(service, pods, slices, &BTreeMap::new(), "now")
}

/// Carries out changes as the API server would.
fn apply(slices: &mut Vec<Arc<Value>>, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Create(mut slice) => {
                slice["metadata"]["name"] = format!("web-{}", slices.len()).into();
                slices.push(Arc::new(slice));
            }
            Change::Update(slice) => {
                let name = slice["metadata"]["name"].clone();
                slices.retain(|s| s["metadata"]["name"] != name);
                slices.push(Arc::new(slice));
            }
            Change::Delete(slice) => slices.retain(|s| s["metadata"]["name"] != slice["metadata"]["name"]),
        }
    }
    slices.sort_by_key(|s| s["metadata"]["name"].to_string());
}

fn sizes(slices: &[Arc<Value>]) -> Vec<usize> {
    slices.iter().map(|s| s["endpoints"].as_array().unwrap().len()).collect()
}

#[test]
fn slices_hold_a_hundred_and_little_moves() {
    let (service, mut slices) = (service(), Vec::new());
    let mut pods: Vec<_> = (0..150).map(|n| pod(n, true)).collect();
    apply(&mut slices, decide(&service, &pods, &[]));
    assert_eq!(sizes(&slices), [100, 50]);
    assert!(decide(&service, &pods, &slices).is_empty(), "settled");
    assert_eq!(service_of(&slices[0]).as_deref(), Some("n/web"));

    // One pod goes from the full slice; a new one takes its place and the other slice is left alone.
    let gone = slices[0]["endpoints"][0]["targetRef"]["name"].clone();
    pods.retain(|p| p["metadata"]["name"] != gone);
    pods.push(pod(200, true));
    let changes = decide(&service, &pods, &slices);
    assert_eq!(changes.len(), 1, "{changes:?}");
    apply(&mut slices, changes);
    assert_eq!(sizes(&slices), [100, 50]);

    let changes = decide(&service, &[], &slices);
    apply(&mut slices, changes);
    assert_eq!(sizes(&slices), [0], "an empty Service keeps one slice");
    assert!(decide(&service, &[], &slices).is_empty());
}

#[test]
fn conditions_follow_the_pod() {
    let mut service = service();
    let mut leaving = Value::clone(&pod(2, true));
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let pods = [pod(0, true), pod(1, false), Arc::new(leaving)];
    let conditions = |service: &Value| -> Vec<[bool; 3]> {
        let Some(Change::Create(slice)) = decide(service, &pods, &[]).pop() else { panic!("no slice") };
        let read = |e: &Value| ["ready", "serving", "terminating"].map(|c| e["conditions"][c] == true);
        slice["endpoints"].as_array().unwrap().iter().map(read).collect()
    };
    assert_eq!(conditions(&service), [[true, true, false], [false, false, false], [false, true, true]]);
    service["spec"]["publishNotReadyAddresses"] = true.into();
    assert_eq!(conditions(&service), [[true, true, false], [true, false, false], [true, true, true]]);
}

#[test]
fn pods_with_other_ports_get_slices_of_their_own() {
    let mut service = service();
    service["spec"]["ports"] = json!([{"name": "web", "port": 80, "targetPort": "http"}]);
    let with_port = |number, port: i64| {
        let mut pod = Value::clone(&pod(number, true));
        pod["spec"]["containers"] = json!([{"ports": [{"name": "http", "containerPort": port}]}]);
        Arc::new(pod)
    };
    let mut slices = Vec::new();
    apply(&mut slices, decide(&service, &[with_port(0, 8080), with_port(1, 9090)], &[]));
    let ports: Vec<_> = slices.iter().map(|s| s["ports"][0]["port"].as_i64().unwrap()).collect();
    assert_eq!(ports, [8080, 9090]);
    let changes = decide(&service, &[with_port(0, 8080)], &slices);
    apply(&mut slices, changes);
    assert_eq!(slices.len(), 1);
}

#[test]
fn endpoints_say_for_whom_they_are() {
    let zones = BTreeMap::from([("a".to_owned(), "z1".to_owned())]);
    let zone = json!([{"name": "z1"}]);
    let cases = [
        (None, true, Value::Null),
        (Some("PreferClose"), true, json!({"forZones": zone})),
        (Some("PreferSameZone"), true, json!({"forZones": zone})),
        (Some("PreferSameNode"), true, json!({"forZones": zone, "forNodes": [{"name": "a"}]})),
        (Some("PreferSameNode"), false, Value::Null),
    ];
    for (distribution, ready, expected) in cases {
        let mut service = service();
        service["spec"]["trafficDistribution"] = distribution.into();
        let changes = plan(&service, &[pod(1, ready)], &[], &zones, "now");
        let [Change::Create(slice)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!(slice["endpoints"][0]["hints"], expected, "{distribution:?}, ready: {ready}");
    }
    // A zone that nobody knows is nobody's.
    let mut service = service();
    service["spec"]["trafficDistribution"] = "PreferClose".into();
    let changes = decide(&service, &[pod(1, true)], &[]);
    assert!(matches!(&changes[..], [Change::Create(slice)] if slice["endpoints"][0]["hints"].is_null()));
}

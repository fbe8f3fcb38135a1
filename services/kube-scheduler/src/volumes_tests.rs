use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Bindings, in_zone};
use crate::cache::Cache;
use crate::pod::Pod;
use crate::testing::{cluster, node, place, pod, run};

fn read<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

/// Two nodes in different zones, with classes `local` (static), `made` (provisioned in zone a) and `now` (immediate).
fn storage() -> Cache {
    let zone =
        |zone: &'static str| move |n: &mut Value| n["metadata"]["labels"]["topology.kubernetes.io/zone"] = zone.into();
    let mut cache = cluster(&[node("n1", "4", zone("a")), node("n2", "4", zone("b"))]);
    let topologies = json!([{"matchLabelExpressions": [{"key": "topology.kubernetes.io/zone", "values": ["a"]}]}]);
    for (name, provisioner, mode, allowed) in [
        ("local", "kubernetes.io/no-provisioner", "WaitForFirstConsumer", json!([])),
        ("made", "example.com/csi", "WaitForFirstConsumer", topologies),
        ("now", "example.com/csi", "Immediate", json!([])),
    ] {
        let class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode,
                           "allowedTopologies": allowed});
        cache.volumes.set_class(name, Some(read(class)));
    }
    cache
}

fn claim(cache: &mut Cache, name: &str, class: &str, change: impl Fn(&mut Value)) {
    let mut claim = json!({
        "metadata": {"namespace": "n", "name": name, "uid": name}, "status": {"phase": "Pending"},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}},
    });
    change(&mut claim);
    cache.volumes.set_claim(read(claim));
}

fn bound_to(volume: &'static str) -> impl Fn(&mut Value) {
    move |claim| {
        claim["spec"]["volumeName"] = volume.into();
        claim["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
    }
}

fn volume(cache: &mut Cache, name: &str, size: &str, on: &str, change: impl Fn(&mut Value)) {
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [on]}]}]);
    let mut volume = json!({
        "metadata": {"name": name}, "status": {"phase": "Available"},
        "spec": {"storageClassName": "local", "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
                 "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}},
    });
    change(&mut volume);
    cache.volumes.set_volume(read(volume));
}

fn user(name: &str, claim: &str) -> Pod {
    pod(name, |p| p["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]))
}

fn message(cache: &mut Cache, claim: &str) -> String {
    run(cache, &user("p", claim), &[]).unwrap_err().message()
}

#[test]
fn refusals_in_upstreams_words() {
    let mut cache = storage();
    let head = "0/2 nodes are available:";
    assert_eq!(message(&mut cache, "none"), format!("{head} persistentvolumeclaim \"none\" not found."));
    claim(&mut cache, "now", "now", |_| {});
    assert_eq!(message(&mut cache, "now"), format!("{head} pod has unbound immediate PersistentVolumeClaims."));
    claim(&mut cache, "going", "local", |c| c["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    assert_eq!(message(&mut cache, "going"), format!("{head} persistentvolumeclaim \"going\" is being deleted."));
    claim(&mut cache, "local", "local", |_| {});
    let nothing = "node(s) didn't find available persistent volumes to bind";
    assert_eq!(message(&mut cache, "local"), format!("{head} 2 {nothing}."));
    claim(&mut cache, "away", "local", bound_to("away"));
    let lost = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
    assert_eq!(message(&mut cache, "away"), format!("{head} 2 {lost}."));
    volume(&mut cache, "away", "5Gi", "n9", |_| {});
    assert_eq!(message(&mut cache, "away"), format!("{head} 2 node(s) had volume node affinity conflict."));
}

#[test]
fn bound_claims_decide_the_node() {
    let mut cache = storage();
    volume(&mut cache, "disk", "5Gi", "n2", |_| {});
    claim(&mut cache, "data", "local", bound_to("disk"));
    assert_eq!(run(&mut cache, &user("p", "data"), &[]).as_deref(), Ok("n2"));
}

#[test]
fn unbound_claims_get_the_smallest_volume_or_a_new_one() {
    let mut cache = storage();
    volume(&mut cache, "small", "1Gi", "n2", |_| {});
    volume(&mut cache, "large", "50Gi", "n2", |_| {});
    volume(&mut cache, "right", "6Gi", "n2", |_| {});
    volume(&mut cache, "kept", "5Gi", "n2", |v| v["spec"]["claimRef"] = json!({"namespace": "n", "name": "other"}));
    claim(&mut cache, "data", "local", |_| {});
    claim(&mut cache, "new", "made", |_| {});
    assert_eq!(run(&mut cache, &user("p", "data"), &[]).as_deref(), Ok("n2"));
    assert_eq!(run(&mut cache, &user("p", "new"), &[]).as_deref(), Ok("n1"), "only zone a is provisioned");

    let bindings = |cache: &Cache, name: &str, on: &str| {
        let slot = cache.slot(on).unwrap();
        let claim = cache.volumes.claim("n", name).unwrap();
        cache.volumes.bindings(&[claim], &cache.node(slot).offer)
    };
    let key = |name: &str| ("n".into(), name.into());
    let chosen = bindings(&cache, "data", "n2").unwrap();
    assert_eq!(chosen, Bindings { reserve: vec![("right".into(), key("data"))], provision: vec![] });
    assert_eq!(bindings(&cache, "new", "n1").unwrap(), Bindings { reserve: vec![], provision: vec![key("new")] });

    // What is promised to one claim is not given to another before the server says so.
    cache.volumes.assume(&chosen);
    claim(&mut cache, "second", "local", |_| {});
    let second = bindings(&cache, "second", "n2").unwrap();
    assert_eq!(second, Bindings { reserve: vec![("large".into(), key("second"))], provision: vec![] });
    let n2 = Arc::clone(&cache.node(cache.slot("n2").unwrap()).offer);
    assert_eq!(cache.volumes.complete(&chosen, &n2), Ok(false));
    claim(&mut cache, "data", "local", bound_to("right"));
    assert_eq!(cache.volumes.complete(&chosen, &n2), Ok(true));
}

#[test]
fn volumes_have_one_user_and_nodes_take_so_many() {
    let mut cache = storage();
    let csi = |v: &mut Value| {
        v["spec"]["csi"] = json!({"driver": "d", "volumeHandle": v["metadata"]["name"]});
        v["spec"]["nodeAffinity"] = Value::Null;
    };
    for name in ["v1", "v2"] {
        volume(&mut cache, name, "5Gi", "", csi);
    }
    claim(&mut cache, "c1", "local", |c| {
        bound_to("v1")(c);
        c["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
    });
    claim(&mut cache, "c2", "local", bound_to("v2"));
    place(&mut cache, &user("first", "c1"), "n1");
    let once = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
    assert_eq!(message(&mut cache, "c1"), format!("0/2 nodes are available: 2 {once}."));

    let limits = json!({"spec": {"drivers": [{"name": "d", "allocatable": {"count": 1}}]}});
    cache.volumes.set_limits("n1", Some(&read(limits)));
    assert_eq!(run(&mut cache, &user("p", "c2"), &[]).as_deref(), Ok("n2"), "n1 has one already");
    let limits = json!({"spec": {"drivers": [{"name": "d", "allocatable": {"count": 0}}]}});
    cache.volumes.set_limits("n2", Some(&read(limits)));
    assert_eq!(message(&mut cache, "c2"), "0/2 nodes are available: 2 node(s) exceed max volume count.");
}

#[test]
fn zones_of_volumes() {
    let zone = "topology.kubernetes.io/zone";
    for (volume, node, expected) in [
        (json!({zone: "a"}), json!({zone: "a"}), true),
        (json!({zone: "a__b"}), json!({zone: "b"}), true),
        (json!({zone: "a"}), json!({zone: "b"}), false),
        (json!({zone: "a"}), json!({}), true),
        (json!({}), json!({zone: "b"}), true),
    ] {
        let labels = |value: &Value| value.as_object().unwrap().clone();
        assert_eq!(in_zone(&labels(&volume), &labels(&node)), expected, "{volume} {node}");
    }
}

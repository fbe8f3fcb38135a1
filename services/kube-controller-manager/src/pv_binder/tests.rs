use std::sync::Arc;

use serde_json::{Value, json};

use super::plan::{Around, Step, claim, volume};

fn a_volume(name: &str, size: &str, change: impl Fn(&mut Value)) -> Arc<Value> {
    let mut volume = json!({
        "metadata": {"name": name},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "slow",
                 "persistentVolumeReclaimPolicy": "Retain"},
        "status": {"phase": "Available"},
    });
    change(&mut volume);
    Arc::new(volume)
}

fn a_claim(change: impl Fn(&mut Value)) -> Value {
    let mut claim = json!({
        "metadata": {"name": "c", "namespace": "n", "uid": "claim"},
        "spec": {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"], "storageClassName": "slow"},
        "status": {"phase": "Pending"},
    });
    change(&mut claim);
    claim
}

fn decide(of: &Value, volumes: &[Arc<Value>], class: Option<Value>, node: Option<Value>) -> Vec<Step> {
    claim(of, &Around { volumes, class: class.as_ref(), node: node.as_ref() })
}

/// The volume that the first step binds, or the reason of the event.
fn outcome(steps: &[Step]) -> String {
    steps
        .iter()
        .find_map(|step| match step {
            Step::Volume(volume) => Some(volume["metadata"]["name"].as_str().unwrap().to_owned()),
            Step::NoteClaim(_, reason, _) => Some((*reason).to_owned()),
            _ => None,
        })
        .unwrap_or_default()
}

#[test]
fn the_smallest_volume_that_suits() {
    let held = |uid: &'static str| {
        move |v: &mut Value| v["spec"]["claimRef"] = json!({"name": "c", "namespace": "n", "uid": uid})
    };
    let other = |field: &'static str, value: Value| move |v: &mut Value| v["spec"][field] = value.clone();
    let one = |v: Arc<Value>| vec![v];
    let cases = [
        ("smallest", vec![a_volume("big", "5Gi", |_| {}), a_volume("small", "2Gi", |_| {})], "small"),
        ("held for it", vec![a_volume("small", "2Gi", |_| {}), a_volume("held", "5Gi", held(""))], "held"),
        ("held for an earlier one", one(a_volume("v", "2Gi", held("earlier"))), "FailedBinding"),
        ("too small", one(a_volume("v", "1Mi", |_| {})), "FailedBinding"),
        ("other class", one(a_volume("v", "2Gi", other("storageClassName", json!("fast")))), "FailedBinding"),
        ("other mode", one(a_volume("v", "2Gi", other("volumeMode", json!("Block")))), "FailedBinding"),
        ("other access", one(a_volume("v", "2Gi", other("accessModes", json!(["ReadOnlyMany"])))), "FailedBinding"),
        ("released", one(a_volume("v", "2Gi", |v| v["status"]["phase"] = "Released".into())), "FailedBinding"),
        ("going", one(a_volume("v", "2Gi", |v| v["metadata"]["deletionTimestamp"] = "t".into())), "FailedBinding"),
    ];
    let class = json!({"provisioner": "kubernetes.io/no-provisioner"});
    for (what, volumes, expected) in cases {
        assert_eq!(outcome(&decide(&a_claim(|_| {}), &volumes, Some(class.clone()), None)), expected, "{what}");
    }
    let picky = a_claim(|c| c["spec"]["selector"] = json!({"matchLabels": {"disk": "ssd"}}));
    assert_eq!(outcome(&decide(&picky, &[a_volume("v", "2Gi", |_| {})], Some(class), None)), "FailedBinding");
}

#[test]
fn classes_wait_and_provision() {
    let waits = json!({"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"});
    let here =
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]});
    let local = [a_volume("local", "2Gi", |v| v["spec"]["nodeAffinity"]["required"] = here.clone())];
    let node = |name: &str| Some(json!({"metadata": {"name": name}}));
    let chosen = |node| outcome(&decide(&a_claim(|_| {}), &local, Some(waits.clone()), node));
    assert_eq!(chosen(None), "WaitForFirstConsumer");
    assert_eq!(chosen(node("a")), "local");
    assert_eq!(chosen(node("b")), "FailedBinding");

    let steps = decide(&a_claim(|_| {}), &[], Some(json!({"provisioner": "example.com/disk"})), None);
    let annotated = |s: &Step| {
        matches!(s, Step::Claim(c)
        if c["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"] == "example.com/disk")
    };
    assert!(steps.iter().any(annotated));
    assert_eq!(outcome(&steps), "ExternalProvisioning");
    assert_eq!(outcome(&decide(&a_claim(|_| {}), &[], None, None)), "ProvisioningFailed");
}

#[test]
fn bindings_are_completed_from_any_point() {
    let mut volumes = vec![a_volume("v", "2Gi", |_| {})];
    let mut pvc = a_claim(|_| {});
    let class = json!({"provisioner": "kubernetes.io/no-provisioner"});
    let mut writes = Vec::new();
    for _ in 0..10 {
        let steps = decide(&pvc, &volumes, Some(class.clone()), None);
        // Crash after every single write: only the first step is done.
        let Some(step) = steps.into_iter().find(|s| !matches!(s, Step::LookAtClaim(_))) else { break };
        match step {
            Step::Volume(new) | Step::VolumeStatus(new) => volumes[0] = Arc::new(new),
            Step::Claim(new) | Step::ClaimStatus(new) => pvc = new,
            other => panic!("{other:?}"),
        }
        writes.push(());
    }
    assert_eq!(writes.len(), 4);
    assert_eq!((&pvc["status"]["phase"], &volumes[0]["status"]["phase"]), (&json!("Bound"), &json!("Bound")));
    assert_eq!((&pvc["spec"]["volumeName"], &pvc["status"]["capacity"]["storage"]), (&json!("v"), &json!("2Gi")));
    assert_eq!(volumes[0]["spec"]["claimRef"]["uid"], "claim");
    assert!(volume(&volumes[0], Some(&pvc)).is_empty(), "settled");

    let lost = decide(&pvc, &[], Some(class.clone()), None);
    assert_eq!(outcome(&lost), "ClaimLost");
    assert!(matches!(&lost[0], Step::ClaimStatus(c) if c["status"]["phase"] == "Lost"));
}

#[test]
fn volumes_follow_their_claims() {
    let held = |uid: &'static str| {
        a_volume("v", "2Gi", move |v| {
            v["spec"]["claimRef"] = json!({"name": "c", "namespace": "n", "uid": uid});
            v["status"] = json!({});
        })
    };
    let phase = |steps: Vec<Step>| {
        steps.into_iter().find_map(|s| match s {
            Step::VolumeStatus(v) => Some(v["status"]["phase"].as_str().unwrap().to_owned()),
            _ => None,
        })
    };
    let named = |name: &'static str| a_claim(move |c| c["spec"]["volumeName"] = name.into());
    assert_eq!(phase(volume(&a_volume("v", "1Gi", |v| v["status"] = json!({})), None)).as_deref(), Some("Available"));
    assert_eq!(phase(volume(&held(""), None)).as_deref(), Some("Available"));
    assert_eq!(phase(volume(&held("claim"), Some(&named("v")))).as_deref(), Some("Bound"));
    assert_eq!(phase(volume(&held("claim"), None)).as_deref(), Some("Released"));
    assert_eq!(phase(volume(&held("earlier"), Some(&named("v")))).as_deref(), Some("Released"));
    assert!(matches!(&volume(&held("claim"), Some(&named("")))[0], Step::LookAtClaim(key) if key == "n/c"));
    let let_go = volume(&held("claim"), Some(&named("other")));
    assert!(matches!(&let_go[0], Step::Volume(v) if v["spec"]["claimRef"].get("uid").is_none()));
    let mut gone = Value::clone(&held("claim"));
    gone["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
    assert_eq!(phase(volume(&gone, None)).as_deref(), Some("Failed"));
    gone["spec"]["csi"] = json!({});
    assert_eq!(phase(volume(&gone, None)).as_deref(), Some("Released"));
}

//! From a template to a claim, and from a claim's last pod to free devices.

use std::sync::Arc;

use apimachinery::meta;
use serde_json::{Value, json};

use super::plan::*;

fn pod(phase: &str, node: &str, going: bool) -> Arc<Value> {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"nodeName": node, "resourceClaims": [
            {"name": "gpu", "resourceClaimTemplateName": "one"}, {"name": "nic", "resourceClaimName": "shared"}]},
        "status": {"phase": phase, "resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "p-gpu-x"}]}});
    if going {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    Arc::new(pod)
}

#[test]
fn a_claim_is_made_once() {
    let pod = pod("Pending", "", false);
    let template = Arc::new(json!({"spec": {"metadata": {"labels": {"a": "b"}}, "spec": {"devices": {}}}}));
    let wanted = claims(&pod, &[], |_| Some(Arc::clone(&template)));
    let [(entry, Ok(Claim::Create(claim)))] = wanted.as_slice() else { panic!("{wanted:?}") };
    assert_eq!((entry.as_str(), meta::generate_name(claim)), ("gpu", "p-gpu-"));
    assert_eq!(claim["metadata"]["labels"], json!({"a": "b"}));
    assert!(meta::is_controlled_by(claim, &pod));
    let mut made = claim.clone();
    made["metadata"]["name"] = "p-gpu-x".into();
    let again = claims(&pod, &[Arc::new(made)], |_| None);
    assert_eq!(again, [("gpu".to_owned(), Ok(Claim::Exists("p-gpu-x".to_owned())))]);
    let missing = "resourceclaimtemplate.resource.k8s.io \"one\" not found".to_owned();
    assert_eq!(claims(&pod, &[], |_| None), [("gpu".to_owned(), Err(missing))]);
    assert_eq!(claims_of(&pod).collect::<Vec<_>>(), ["shared", "p-gpu-x"]);
}

fn claim(reserved: bool, allocated: bool, protected: bool) -> Value {
    let mut claim = json!({"metadata": {"name": "shared", "finalizers": []}, "status": {}});
    if reserved {
        claim["status"]["reservedFor"] = json!([{"resource": "pods", "name": "p", "uid": "u"}]);
    }
    if allocated {
        claim["status"]["allocation"] = json!({"devices": {}});
    }
    if protected {
        claim["metadata"]["finalizers"] = json!([FINALIZER]);
    }
    claim
}

#[test]
fn devices_come_back_with_the_last_pod() {
    let running = pod("Running", "a", false);
    let ended = pod("Succeeded", "a", false);
    let unborn = pod("Pending", "", true);
    let reserved = claim(true, true, true)["status"].clone();
    let mut going = claim(false, false, true);
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let cases = [
        (claim(true, true, true), Some(&running), None, "in use"),
        (claim(true, true, true), Some(&ended), Some(Step::Status(json!({}))), "ended"),
        (claim(true, true, true), Some(&unborn), Some(Step::Status(json!({}))), "never had a node"),
        (claim(true, true, true), None, Some(Step::Status(json!({}))), "gone"),
        (claim(false, false, true), None, None, "about to be allocated"),
        (going, None, Some(Step::Finalizers(Vec::new())), "given back"),
        (claim(false, true, true), Some(&running), Some(Step::Status(reserved)), "bound past the scheduler"),
        (claim(false, false, false), None, None, "new"),
    ];
    for (claim, pod, expected, why) in cases {
        let around: Vec<Arc<Value>> = pod.into_iter().cloned().collect();
        assert_eq!(step(&claim, |_| pod.cloned(), &around), expected, "{why}");
    }
}

#[test]
fn a_generated_claim_goes_when_its_pod_has_ended() {
    let mut own = claim(false, false, false);
    own["metadata"]["ownerReferences"] = json!([{"kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
    for (phase, expected) in [("Running", None), ("Failed", Some(Step::Delete))] {
        assert_eq!(step(&own, |_| Some(pod(phase, "a", false)), &[]), expected, "{phase}");
    }
}

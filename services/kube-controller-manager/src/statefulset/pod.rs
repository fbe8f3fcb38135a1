//! A StatefulSet's pods and claims as objects: names, labels, volumes. Pure.

use apimachinery::meta;
use serde_json::{Value, json};

use crate::revisions::{self, HASH_LABEL};
use crate::{object, pod_control};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The number in a pod's name, if the name is one that the set gives.
pub(super) fn ordinal(set: &str, pod: &str) -> Option<i64> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let plain = digits == "0" || !digits.starts_with('0');
    (plain && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The claim of one template for one pod.
pub(super) fn claim_name(template: &Value, pod: &str) -> String {
    format!("{}-{pod}", meta::name(template))
}

/// The pod with that ordinal in that revision.
pub(super) fn build(set: &Value, ordinal: i64, revision: &Value) -> Value {
    let name = format!("{}-{ordinal}", meta::name(set));
    let mut pod = pod_control::from_template(set, &revisions::template(revision));
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.remove("generateName");
        metadata.insert("name".to_owned(), name.as_str().into());
    }
    meta::set_label(&mut pod, POD_NAME, &name);
    meta::set_label(&mut pod, POD_INDEX, &ordinal.to_string());
    meta::set_label(&mut pod, HASH_LABEL, meta::name(revision));
    pod["spec"]["hostname"] = name.as_str().into();
    pod["spec"]["subdomain"] = object::text(set, "/spec/serviceName").into();
    let claims = object::list(set, "/spec/volumeClaimTemplates");
    if !claims.is_empty() {
        // A claim's volume wins over one of the same name in the template.
        let kept = object::list(&pod, "/spec/volumes").iter();
        let kept = kept.filter(|v| !claims.iter().any(|claim| v["name"] == meta::name(claim))).cloned();
        let made = claims.iter().map(|claim| {
            json!({"name": meta::name(claim), "persistentVolumeClaim": {"claimName": claim_name(claim, &name)}})
        });
        let volumes: Vec<Value> = kept.chain(made).collect();
        pod["spec"]["volumes"] = volumes.into();
    }
    pod
}

/// The claims of a pod, as they are to be created.
pub(super) fn claims(set: &Value, pod: &str) -> Vec<Value> {
    let claim = |template: &Value| {
        let mut claim = template.clone();
        claim["apiVersion"] = "v1".into();
        claim["kind"] = "PersistentVolumeClaim".into();
        claim["metadata"]["name"] = claim_name(template, pod).into();
        claim["metadata"]["namespace"] = meta::namespace(set).into();
        for (key, value) in object::map(set, "/spec/selector/matchLabels").into_iter().flatten() {
            meta::set_label(&mut claim, key, value.as_str().unwrap_or_default());
        }
        if let Some(fields) = claim.as_object_mut() {
            fields.remove("status");
        }
        claim
    };
    object::list(set, "/spec/volumeClaimTemplates").iter().map(claim).collect()
}

/// Who owns a claim by the set's retention policy, besides owners that others have named: the set when it is to go with the
/// set, the pod when the pod is being scaled away. `None`: as it should be already.
pub(super) fn claim_owners(set: &Value, claim: &Value, pod: &Value, scaled_down: bool) -> Option<Vec<Value>> {
    let policy = |field: &str| set["spec"]["persistentVolumeClaimRetentionPolicy"][field] == "Delete";
    let (with_set, with_scale) = (policy("whenDeleted"), policy("whenScaled"));
    let by_pod = with_scale && scaled_down;
    let by_set = with_set && !by_pod;
    let reference = |owner: &Value, kind: &str| {
        json!({"apiVersion": if kind == "Pod" { "v1" } else { "apps/v1" }, "kind": kind, "name": meta::name(owner),
               "uid": meta::uid(owner), "controller": kind != "Pod", "blockOwnerDeletion": kind != "Pod"})
    };
    let before = meta::owner_references(claim);
    // Earlier pods of the same name own nothing any more.
    let ours = |r: &Value| {
        r["uid"] == meta::uid(set) || (r["kind"] == "Pod" && r["apiVersion"] == "v1" && r["name"] == meta::name(pod))
    };
    let has = |owner: &Value| before.iter().any(|r| r["uid"] == meta::uid(owner));
    let settled = has(set) == by_set
        && has(pod) == by_pod
        && before.iter().filter(|r| ours(r)).count() == usize::from(by_set) + usize::from(by_pod);
    if settled {
        return None;
    }
    let mut owners: Vec<Value> = before.iter().filter(|r| !ours(r)).cloned().collect();
    if by_set {
        owners.push(reference(set, "StatefulSet"));
    }
    if by_pod {
        owners.push(reference(pod, "Pod"));
    }
    Some(owners)
}

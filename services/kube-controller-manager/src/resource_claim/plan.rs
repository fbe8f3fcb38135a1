//! Which claims a pod needs, and what a claim needs next. Pure.

use std::sync::Arc;

use apimachinery::meta;
use serde_json::{Value, json};

use crate::{object, pods};

/// Keeps an allocated claim until its devices are given back.
pub(super) const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Which of its pod's claims a generated claim is.
pub(super) const ENTRY: &str = "resource.kubernetes.io/pod-claim-name";

/// One claim of a pod.
#[derive(Debug, PartialEq)]
pub(super) enum Claim {
    /// Has this name.
    Exists(String),
    /// To be made.
    Create(Value),
}

/// The claims that a pod describes by templates, by the names that the pod has for them; an error says what is missing.
pub(super) fn claims(
    pod: &Value,
    owned: &[Arc<Value>],
    template: impl Fn(&str) -> Option<Arc<Value>>,
) -> Vec<(String, Result<Claim, String>)> {
    let entries = object::list(pod, "/spec/resourceClaims").iter();
    let described = entries.filter_map(|entry| {
        let name = object::text(entry, "/resourceClaimTemplateName");
        (!name.is_empty()).then(|| (object::text(entry, "/name"), name))
    });
    described
        .map(|(entry, name)| {
            let found = owned.iter().find(|claim| {
                meta::is_controlled_by(claim, pod)
                    && meta::annotation(claim, ENTRY) == Some(entry)
                    && meta::deletion_timestamp(claim).is_none()
            });
            let claim = match (found, template(name)) {
                (Some(found), _) => Ok(Claim::Exists(meta::name(found).to_owned())),
                (None, Some(template)) => Ok(Claim::Create(generated(pod, entry, &template))),
                (None, None) => Err(format!("resourceclaimtemplate.resource.k8s.io \"{name}\" not found")),
            };
            (entry.to_owned(), claim)
        })
        .collect()
}

fn generated(pod: &Value, entry: &str, template: &Value) -> Value {
    let mut claim = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {
            "namespace": meta::namespace(pod), "generateName": format!("{}-{entry}-", meta::name(pod)),
            "labels": template["spec"]["metadata"]["labels"],
            "annotations": template["spec"]["metadata"]["annotations"],
            "ownerReferences": [meta::controller_reference(pod)],
        },
        "spec": template["spec"]["spec"],
    });
    for field in ["labels", "annotations"] {
        if claim["metadata"][field].is_null() {
            meta::metadata_mut(&mut claim).remove(field);
        }
    }
    meta::set_annotation(&mut claim, ENTRY, entry);
    claim
}

/// The templates that a pod names.
pub(super) fn templates_of(pod: &Value) -> impl Iterator<Item = &str> {
    let entries = object::list(pod, "/spec/resourceClaims").iter();
    entries.map(|entry| object::text(entry, "/resourceClaimTemplateName")).filter(|name| !name.is_empty())
}

/// The names of a pod's claims: those it names, and those that were made for it.
pub(super) fn claims_of(pod: &Value) -> impl Iterator<Item = &str> {
    let entries = object::list(pod, "/spec/resourceClaims").iter();
    let statuses = object::list(pod, "/status/resourceClaimStatuses").iter();
    entries.chain(statuses).map(|entry| object::text(entry, "/resourceClaimName")).filter(|name| !name.is_empty())
}

/// Whether a pod will never use its claims (again): it has ended, or it goes without ever having had a node.
pub(super) fn is_done(pod: &Value) -> bool {
    pods::is_finished(pod) || pods::is_terminating(pod) && object::text(pod, "/spec/nodeName").is_empty()
}

/// The next write about a claim.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Of its status.
    Status(Value),
    /// Of its finalizers.
    Finalizers(Vec<String>),
    /// Its end.
    Delete,
}

/// Decides. `pod` looks up a pod of the claim's namespace, `around` are all of them.
pub(super) fn step(claim: &Value, pod: impl Fn(&str) -> Option<Arc<Value>>, around: &[Arc<Value>]) -> Option<Step> {
    let reserved = object::list(claim, "/status/reservedFor");
    let holds = |entry: &&Value| {
        // What is not a pod is somebody else's to take off.
        let is_pod = object::text(entry, "/apiGroup").is_empty() && entry["resource"] == "pods";
        let found = || pod(object::text(entry, "/name")).filter(|pod| entry["uid"] == meta::uid(pod));
        !is_pod || found().is_some_and(|pod| !is_done(&pod))
    };
    let mut holders: Vec<Value> = reserved.iter().filter(holds).cloned().collect();
    let allocated = claim["status"]["allocation"].is_object();
    if allocated && meta::deletion_timestamp(claim).is_none() {
        holders.extend(unreserved(claim, reserved, around));
    }
    let protected = meta::finalizers(claim).contains(&FINALIZER);
    if holders != reserved || allocated && protected && holders.is_empty() {
        let mut status = claim["status"].clone();
        if holders.is_empty() {
            // Nobody holds it, so whoever is next may have other devices.
            let fields = status.as_object_mut()?;
            fields.remove("reservedFor");
            if protected {
                fields.remove("allocation");
                fields.remove("devices");
            }
        } else {
            status["reservedFor"] = holders.into();
        }
        return Some(Step::Status(status));
    }
    // One that stays keeps it: the scheduler sets it just before it allocates, and would find its claim changed.
    if protected && !allocated && holders.is_empty() && meta::deletion_timestamp(claim).is_some() {
        let others = meta::finalizers(claim).into_iter().filter(|finalizer| *finalizer != FINALIZER);
        return Some(Step::Finalizers(others.map(str::to_owned).collect()));
    }
    let owner = meta::controller_of(claim).filter(|owner| owner["kind"] == "Pod")?;
    let found = pod(object::text(owner, "/name")).filter(|pod| owner["uid"] == meta::uid(pod));
    let over = found.is_some_and(|pod| is_done(&pod));
    (over && holders.is_empty() && meta::deletion_timestamp(claim).is_none()).then_some(Step::Delete)
}

/// Pods that were given a node past the scheduler, and so were never entered.
fn unreserved(claim: &Value, reserved: &[Value], around: &[Arc<Value>]) -> Vec<Value> {
    let uses = |pod: &&Arc<Value>| {
        !object::text(pod, "/spec/nodeName").is_empty()
            && !is_done(pod)
            && claims_of(pod).any(|name| name == meta::name(claim))
            && !reserved.iter().any(|entry| entry["uid"] == meta::uid(pod))
    };
    let entry = |pod: &Arc<Value>| json!({"name": meta::name(pod), "resource": "pods", "uid": meta::uid(pod)});
    around.iter().filter(uses).map(entry).collect()
}

//! Pods: a node makes mirrors of those that it runs from files, and says how those bound to it are.

use serde_json::Value;

use super::super::{AdmissionRequest, Operation, find};
use crate::authz::node::references;
use crate::errors::ApiError;
use crate::registry::Context;
use crate::registry::strategy::tree::{at, bool_at, items, same, str_at};

const MIRROR: &str = "kubernetes.io/config.mirror";

/// All but making a pod and evicting one, for which the request does not show all.
pub fn judge(node: &str, request: &AdmissionRequest<'_>) -> Option<String> {
    let foreign = |v: &Value| str_at(v, &["spec", "nodeName"]) != node;
    match (request.operation, request.subresource) {
        (Operation::Delete, None) => foreign(request.old?)
            .then(|| format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
        (_, None) => {
            Some(format!("unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"))
        }
        (Operation::Update, Some("status")) => status(node, request.object, request.old?),
        (_, Some(other)) => {
            Some(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
        }
    }
}

fn status(node: &str, new: &Value, old: &Value) -> Option<String> {
    if str_at(old, &["spec", "nodeName"]) != node {
        return Some(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    let unchanged = |path: &[&str]| same(at(new, path), at(old, path));
    if !unchanged(&["metadata", "labels"]) {
        return Some(format!("node {node:?} cannot update labels through pod status"));
    }
    if !unchanged(&["status", "resourceClaimStatuses"]) {
        return Some(format!("node {node:?} cannot update resource claim statues"));
    }
    (!unchanged(&["status", "extendedResourceClaimStatus"]))
        .then(|| format!("node {node:?} cannot update extended resource claim status"))
}

/// Making a pod.
pub async fn create(cx: &Context<'_>, node: &str, pod: &Value) -> Result<Option<String>, ApiError> {
    if let Some(why) = mirror(node, pod) {
        return Ok(Some(why));
    }
    let own = find(cx, "", "nodes", "", node).await?.ok_or_else(|| ApiError::not_found("", "nodes", node))?.uid();
    let owner = items(pod, &["metadata", "ownerReferences"]).first().map_or("", |owner| str_at(owner, &["uid"]));
    if owner != own {
        return Ok(Some(format!("node {node} UID mismatch: expected {owner} got {own}")));
    }
    Ok(reaches(node, pod))
}

/// Whether it is a mirror of one of the node's, and the node its owner.
pub fn mirror(node: &str, pod: &Value) -> Option<String> {
    if at(pod, &["metadata", "annotations", MIRROR]).is_none() {
        return Some(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    let only = |what: &str| Some(format!("node {node:?} can only create pods with {what} set to itself"));
    if str_at(pod, &["spec", "nodeName"]) != node {
        return only("spec.nodeName");
    }
    let owner = match items(pod, &["metadata", "ownerReferences"]) {
        [] => return only("an owner reference"),
        [owner] => owner,
        _ => return only("a single owner reference"),
    };
    let says = |field: &str| str_at(owner, &[field]);
    if (says("apiVersion"), says("kind"), says("name")) != ("v1", "Node", node) {
        return only("an owner reference");
    }
    if !bool_at(owner, &["controller"]) {
        return only("a controller owner reference");
    }
    bool_at(owner, &["blockOwnerDeletion"])
        .then(|| format!("node {node:?} must not set blockOwnerDeletion on an owner reference"))
}

/// Whether the pod names anything of the API, which the node could then read.
pub fn reaches(node: &str, pod: &Value) -> Option<String> {
    let names = |kind: &str| !references(&pod["spec"], kind).is_empty();
    let mut sources = items(pod, &["spec", "volumes"]).iter().flat_map(|v| items(v, &["projected", "sources"]));
    let table = [
        ("a service account", names("serviceaccounts")),
        ("secrets", names("secrets")),
        ("configmaps", names("configmaps")),
        ("clustertrustbundles", sources.any(|s| at(s, &["clusterTrustBundle"]).is_some())),
        ("persistentvolumeclaims", names("persistentvolumeclaims")),
        ("resourceclaims", !items(pod, &["spec", "resourceClaims"]).is_empty()),
    ];
    let (what, _) = table.into_iter().find(|(_, named)| *named)?;
    Some(format!("node {node:?} can not create pods that reference {what}"))
}

/// Evicting one: whose it is stands in the store.
pub async fn evict(cx: &Context<'_>, node: &str, request: &AdmissionRequest<'_>) -> Result<Option<String>, ApiError> {
    let pod = find(cx, "", "pods", request.namespace, request.name).await?;
    let pod = pod.ok_or_else(|| ApiError::not_found("", "pods", request.name))?.object();
    Ok((str_at(&pod, &["spec", "nodeName"]) != node)
        .then(|| format!("node {node} can only evict pods with spec.nodeName set to itself")))
}

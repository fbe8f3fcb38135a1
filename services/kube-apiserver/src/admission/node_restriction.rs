//! A kubelet may write its own node, its own lease and the pods bound to it, and nothing of its neighbours'. Reading is the
//! authorizer's business.

use serde_json::Value;

use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::errors::ApiError;
use crate::registry::Context;
use crate::registry::strategy::tree::{at, items, map_at, same, str_at};

const MIRROR: &str = "kubernetes.io/config.mirror";

/// The plugin.
pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn admit<'a>(&'a self, cx: &'a Context<'_>, request: &'a mut AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            let Some(node) = cx.user.node_name() else { return Ok(()) };
            let verdict = match (request.resource.group, request.resource.plural, request.subresource) {
                ("", "serviceaccounts", Some("token")) => token(cx, node, request).await?,
                _ => judge(node, request),
            };
            verdict.map_or(Ok(()), |why| Err(request.forbidden(&why)))
        })
    }
}

/// Why a node may not do this, if it may not.
pub fn judge(node: &str, request: &AdmissionRequest<'_>) -> Option<String> {
    match (request.resource.group, request.resource.plural) {
        ("", "nodes") => own_node(node, request),
        ("", "pods") => own_pod(node, request),
        ("coordination.k8s.io", "leases") if request.namespace != "kube-node-lease" => Some(format!(
            "can only access leases in the \"kube-node-lease\" system namespace, not {:?}",
            request.namespace
        )),
        ("coordination.k8s.io", "leases") if named(request) != node => {
            Some("can only access node lease with the same name as the requesting node".into())
        }
        _ => None,
    }
}

fn named<'a>(request: &'a AdmissionRequest<'_>) -> &'a str {
    if request.name.is_empty() { str_at(request.object, &["metadata", "name"]) } else { request.name }
}

fn own_node(node: &str, request: &AdmissionRequest<'_>) -> Option<String> {
    let target = named(request);
    if target != node {
        return Some(format!("node {node:?} is not allowed to modify node {target:?}"));
    }
    if request.operation == Operation::Update {
        let old = request.old?;
        if !same(at(request.object, &["spec", "taints"]), at(old, &["spec", "taints"])) {
            return Some(format!("node {node:?} is not allowed to modify taints"));
        }
        // Labels under this prefix say where workloads may go; a node must not choose its own.
        let reserved = |v: &Value| -> Vec<(String, Value)> {
            let labels = map_at(v, &["metadata", "labels"]).into_iter().flatten();
            labels
                .filter(|(k, _)| k.contains("node-restriction.kubernetes.io/"))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect()
        };
        if reserved(request.object) != reserved(old) {
            return Some(format!("is not allowed to modify labels: node-restriction.kubernetes.io/ ({node})"));
        }
    }
    None
}

fn own_pod(node: &str, request: &AdmissionRequest<'_>) -> Option<String> {
    let bound = |v: &Value| str_at(v, &["spec", "nodeName"]).to_owned();
    match (request.operation, request.subresource) {
        (Operation::Create, None) => {
            if at(request.object, &["metadata", "annotations", MIRROR]).is_none() {
                return Some(format!(
                    "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
                ));
            }
            if bound(request.object) != node {
                return Some(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
            }
            let reads_api = items(request.object, &["spec", "volumes"]).iter().any(|v| {
                ["secret", "configMap", "projected", "persistentVolumeClaim"].iter().any(|kind| v.get(kind).is_some())
            });
            reads_api.then(|| format!("node {node:?} can not create pods that reference secrets, configmaps, persistentvolumeclaims or tokens"))
        }
        (Operation::Delete, None) => {
            let old = request.old?;
            (bound(old) != node).then(|| format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        (Operation::Update, Some("status")) => {
            let old = request.old?;
            if bound(old) != node {
                return Some(format!(
                    "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                ));
            }
            let labels = |v| at(v, &["metadata", "labels"]).cloned();
            let (new, old) = (labels(request.object), labels(old));
            (!same(new.as_ref(), old.as_ref()))
                .then(|| format!("node {node:?} cannot update labels through pod status"))
        }
        (Operation::Create, Some("eviction")) => {
            let old = request.old?;
            (bound(old) != node).then(|| format!("node {node:?} can only evict pods with spec.nodeName set to itself"))
        }
        (_, other) => Some(format!("unexpected operation on pods/{} by node {node:?}", other.unwrap_or_default())),
    }
}

/// A node gets tokens only for pods that run on it.
async fn token(cx: &Context<'_>, node: &str, request: &AdmissionRequest<'_>) -> Result<Option<String>, ApiError> {
    let reference = at(request.object, &["spec", "boundObjectRef"]);
    let Some(pod) = reference.filter(|r| str_at(r, &["kind"]) == "Pod") else {
        return Ok(Some("node requested token not bound to a pod".into()));
    };
    let Some(pods) = cx.state.resource("", "v1", "pods") else { return Ok(None) };
    let (name, uid) = (str_at(pod, &["name"]), str_at(pod, &["uid"]));
    let Some(found) = cx.state.storage.get(pods, request.namespace, name).await? else {
        return Err(ApiError::not_found("", "pods", name));
    };
    let found = found.object();
    if uid.is_empty() || str_at(&found, &["metadata", "uid"]) != uid {
        return Ok(Some("node requested token with a different pod UID".into()));
    }
    Ok((str_at(&found, &["spec", "nodeName"]) != node)
        .then(|| "node requested token bound to a pod scheduled on a different node".into()))
}

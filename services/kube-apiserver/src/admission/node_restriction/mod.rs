//! A kubelet may write its own node, lease and CSINode, the pods bound to it and what they claim, and nothing of its neighbours'. Reading is
//! the authorizer's business. The rules and their words are upstream's (plugin NodeRestriction; KEP-279, KEP-1314 for pods, KEP-2535 and
//! KEP-4412 for tokens).

mod pods;
mod token;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::Value;

use super::certificates::common_name;
use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::registry::Context;
use crate::registry::strategy::tree::{at, map_at, remove, same, str_at, within};

/// The plugin.
pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn admit<'a>(&'a self, cx: &'a Context<'_>, request: &'a mut AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            let Some(node) = cx.user.node_name().filter(|_| request.operation != Operation::Connect) else {
                return Ok(());
            };
            let refusal = match (request.resource.group, request.resource.plural, request.subresource) {
                ("", "serviceaccounts", Some("token")) => token::judge(cx, node, request).await?,
                ("", "pods", None) if request.operation == Operation::Create => {
                    pods::create(cx, node, request.object).await?
                }
                ("", "pods", Some("eviction")) => pods::evict(cx, node, request).await?,
                _ => judge(node, request),
            };
            refusal.map_or(Ok(()), |why| Err(request.forbidden(&why)))
        })
    }
}

/// Why a node may not do this, if it may not, as far as the request shows it.
fn judge(node: &str, request: &AdmissionRequest<'_>) -> Option<String> {
    let foreign = named(request) != node;
    match (request.resource.group, request.resource.plural) {
        ("", "nodes") => own_node(node, request),
        ("", "pods") => pods::judge(node, request),
        ("", "persistentvolumeclaims") => claim_status(node, request),
        ("coordination.k8s.io", "leases") if request.namespace != "kube-node-lease" => {
            Some("can only access leases in the \"kube-node-lease\" system namespace".into())
        }
        ("coordination.k8s.io", "leases") if foreign => {
            Some("can only access node lease with the same name as the requesting node".into())
        }
        ("storage.k8s.io", "csinodes") if foreign => {
            Some("can only access CSINode with the same name as the requesting node".into())
        }
        ("certificates.k8s.io", "certificatesigningrequests") if request.operation == Operation::Create => {
            own_certificate(node, request.object)
        }
        ("resource.k8s.io", "resourceslices") => own_slice(node, request),
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
    let taints = |v: &Value| at(v, &["spec", "taints"]).cloned();
    match (request.operation, request.old) {
        (Operation::Create, _) => {
            let labels = forbidden_labels(request.object, &Value::Null)?;
            Some(format!("node {node:?} is not allowed to set the following labels: {labels}"))
        }
        (Operation::Update, Some(old)) if !same(taints(request.object).as_ref(), taints(old).as_ref()) => {
            Some(format!("node {node:?} is not allowed to modify taints"))
        }
        (Operation::Update, Some(old)) => {
            let labels = forbidden_labels(request.object, old)?;
            Some(format!("is not allowed to modify labels: {labels}"))
        }
        _ => None,
    }
}

/// Those of the labels which differ that a node may not choose for itself, as they say where workloads may go.
fn forbidden_labels(new: &Value, old: &Value) -> Option<String> {
    let labels = |v| map_at(v, &["metadata", "labels"]);
    let keys = [labels(new), labels(old)].into_iter().flatten().flat_map(|map| map.keys());
    let changed: BTreeSet<&String> =
        keys.filter(|k| labels(new).and_then(|l| l.get(*k)) != labels(old).and_then(|l| l.get(*k))).collect();
    let forbidden: Vec<&str> = changed.into_iter().map(String::as_str).filter(|key| reserved(key)).collect();
    (!forbidden.is_empty()).then(|| forbidden.join(", "))
}

/// What kubelets have always said about themselves.
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

fn reserved(key: &str) -> bool {
    let Some((namespace, _)) = key.split_once('/') else { return false };
    let within =
        |domain: &str| namespace.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let kubelets = KUBELET_LABELS.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    within("node-restriction.kubernetes.io") || ((within("kubernetes.io") || within("k8s.io")) && !kubelets)
}

/// Of a claim a node reports how large its volume has become.
fn claim_status(node: &str, request: &AdmissionRequest<'_>) -> Option<String> {
    let old = match (request.operation, request.subresource, request.old) {
        (Operation::Update, Some("status"), Some(old)) => old,
        _ => return Some("may only update PVC status".into()),
    };
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        for (part, fields) in [
            ("metadata", &["resourceVersion", "managedFields"][..]),
            ("status", &["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"][..]),
        ] {
            within(&mut claim, part, |part| {
                for field in fields {
                    remove(part, field);
                }
            });
        }
        claim
    };
    let why = format!("node {node:?} is not allowed to update fields other than status.quantity and status.conditions");
    (!same(Some(&rest(request.object)), Some(&rest(old)))).then_some(why)
}

/// A node asks for certificates of kubelets in its own name only.
fn own_certificate(node: &str, request: &Value) -> Option<String> {
    let signer = str_at(request, &["spec", "signerName"]);
    if !matches!(signer, "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet") {
        return None;
    }
    let name = common_name(str_at(request, &["spec", "request"]));
    let own = name.as_deref().and_then(|name| name.strip_prefix("system:node:")) == Some(node);
    (!own).then(|| format!("can only create a node CSR with CN=system:node:{node}"))
}

fn own_slice(node: &str, request: &AdmissionRequest<'_>) -> Option<String> {
    let (verb, slice) = match request.operation {
        Operation::Create => ("create", &*request.object),
        Operation::Delete => ("delete", request.old?),
        _ => return None,
    };
    let why = || format!("can only {verb} ResourceSlice with the same NodeName as the requesting node");
    (str_at(slice, &["spec", "nodeName"]) != node).then(why)
}

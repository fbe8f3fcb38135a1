//! What a kubelet may do: read what its own pods refer to and write about its own node. Pure.

use super::Attributes;
use serde_json::Value;

const READ: &[&str] = &["get", "list", "watch"];
const OWN: &[&str] = &["get", "create", "update", "patch", "delete"];

/// What every kubelet may do whatever the name: (group, resource, verbs).
const ANY: &[(&str, &str, &[&str])] = &[
    ("", "nodes", READ),
    ("", "nodes", &["create"]),
    ("", "pods", READ),
    ("", "pods", &["create", "delete"]),
    ("", "pods/status", &["update", "patch"]),
    ("", "pods/eviction", &["create"]),
    ("", "services", READ),
    ("", "endpoints", READ),
    ("", "events", &["create", "update", "patch"]),
    ("events.k8s.io", "events", &["create", "update", "patch"]),
    ("discovery.k8s.io", "endpointslices", READ),
    ("node.k8s.io", "runtimeclasses", READ),
    ("storage.k8s.io", "csidrivers", READ),
    ("storage.k8s.io", "volumeattachments", &["get"]),
    ("certificates.k8s.io", "certificatesigningrequests", &["create", "get", "list", "watch"]),
    ("authentication.k8s.io", "tokenreviews", &["create"]),
    ("authorization.k8s.io", "subjectaccessreviews", &["create"]),
    ("authorization.k8s.io", "localsubjectaccessreviews", &["create"]),
];

/// Whether the node's kubelet may do this. `pods` returns its pods in the request's namespace and is called only when needed.
pub fn allows(node: &str, a: &Attributes, pods: impl Fn() -> Vec<Value>) -> bool {
    if a.path.is_some() {
        return false;
    }
    let resource = a.full_resource();
    let verb = a.verb.as_str();
    if ANY.iter().any(|(group, name, verbs)| *group == a.group && *name == resource && verbs.contains(&verb)) {
        return true;
    }
    match (a.group.as_str(), resource.as_str()) {
        ("", "nodes" | "nodes/status") => a.name == node && matches!(verb, "update" | "patch"),
        ("coordination.k8s.io", "leases") => {
            a.namespace == "kube-node-lease"
                && ((verb == "create" && a.name.is_empty()) || (a.name == node && OWN.contains(&verb)))
        }
        ("storage.k8s.io", "csinodes") => {
            (verb == "create" && a.name.is_empty()) || (a.name == node && OWN.contains(&verb))
        }
        ("", kind @ ("secrets" | "configmaps" | "persistentvolumeclaims" | "serviceaccounts")) => {
            READ.contains(&verb) && !a.name.is_empty() && pods().iter().any(|pod| refers_to(pod, kind, &a.name))
        }
        ("", "persistentvolumes") => verb == "get",
        ("", "serviceaccounts/token") => {
            verb == "create" && pods().iter().any(|pod| refers_to(pod, "serviceaccounts", &a.name))
        }
        _ => false,
    }
}

/// Whether a pod's spec names the object.
fn refers_to(pod: &Value, kind: &str, name: &str) -> bool {
    let Some(spec) = pod.get("spec") else { return false };
    if kind == "serviceaccounts" {
        return spec.get("serviceAccountName").and_then(Value::as_str) == Some(name);
    }
    // One walk for the few shapes: {"secretName": n}, {"secret"|"configMap": {"name": n}}, {"…KeyRef"|"…Ref": {"name": n}}, claims and pull secrets.
    let (holders, direct): (&[&str], &[&str]) = match kind {
        "secrets" => {
            (&["secret", "secretRef", "secretKeyRef", "imagePullSecrets", "nodePublishSecretRef"], &["secretName"])
        }
        "configmaps" => (&["configMap", "configMapRef", "configMapKeyRef"], &[]),
        _ => (&[], &["claimName"]),
    };
    names(spec, holders, direct, name)
}

fn names(value: &Value, holders: &[&str], direct: &[&str], name: &str) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, child)| {
            let named = |v: &Value| v.get("name").and_then(Value::as_str) == Some(name);
            (direct.contains(&key.as_str()) && child.as_str() == Some(name))
                || (holders.contains(&key.as_str())
                    && (named(child) || child.as_array().is_some_and(|list| list.iter().any(named))))
                || names(child, holders, direct, name)
        }),
        Value::Array(list) => list.iter().any(|child| names(child, holders, direct, name)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_kubelet_reads_only_what_its_pods_use() {
        let pod = json!({"spec": {"serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}], "envFrom": [{"configMapRef": {"name": "env"}}]}],
            "volumes": [{"secret": {"secretName": "vol"}}, {"projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}}]}});
        let check = |verb: &str, group: &str, resource: &str, namespace: &str, name: &str| {
            let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
            let a = Attributes {
                verb: verb.into(),
                group: group.into(),
                resource: resource.into(),
                subresource: sub.into(),
                namespace: namespace.into(),
                name: name.into(),
                ..Default::default()
            };
            allows("n1", &a, || vec![pod.clone()])
        };
        for name in ["pull", "key", "vol"] {
            assert!(check("get", "", "secrets", "d", name), "{name}");
        }
        assert!(!check("get", "", "secrets", "d", "env"), "a config map is no secret");
        assert!(!check("list", "", "secrets", "d", ""));
        assert!(check("get", "", "configmaps", "d", "kube-root-ca.crt"));
        assert!(check("create", "", "serviceaccounts/token", "d", "sa"));
        assert!(!check("create", "", "serviceaccounts/token", "d", "other"));
        assert!(check("patch", "", "nodes/status", "", "n1"));
        assert!(!check("patch", "", "nodes/status", "", "n2"));
        assert!(check("update", "coordination.k8s.io", "leases", "kube-node-lease", "n1"));
        assert!(!check("update", "coordination.k8s.io", "leases", "kube-node-lease", "n2"));
        assert!(!check("create", "apps", "deployments", "d", ""));
    }
}

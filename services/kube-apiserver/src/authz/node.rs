//! What a kubelet may do: read what its own pods refer to and write about its own node. Pure.

use super::Attributes;
use serde_json::Value;

const READ: &[&str] = &["get", "list", "watch"];
const OWN: &[&str] = &["get", "create", "update", "patch", "delete"];

/// What every kubelet may do whatever the name: (group, resource, verbs).
const ANY: &[(&str, &str, &[&str])] = &[
    ("", "nodes", &["create"]),
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
    ("certificates.k8s.io", "clustertrustbundles", READ),
    ("certificates.k8s.io", "certificatesigningrequests", &["create", "get", "list", "watch"]),
    ("authentication.k8s.io", "tokenreviews", &["create"]),
    ("authorization.k8s.io", "subjectaccessreviews", &["create"]),
    ("authorization.k8s.io", "localsubjectaccessreviews", &["create"]),
];

/// What the rules need to know of the cluster; asked only when needed.
pub trait Cluster {
    /// The pods bound to a node in a namespace.
    fn pods_of(&self, node: &str, namespace: &str) -> Vec<Value>;
    /// The persistent volumes that need a secret.
    fn volumes_with_secret(&self, namespace: &str, name: &str) -> Vec<String>;
    /// An object of the core group.
    fn object(&self, plural: &str, namespace: &str, name: &str) -> Option<Value>;
}

/// Whether the node's kubelet may do this.
pub fn allows(node: &str, a: &Attributes, cluster: &impl Cluster) -> bool {
    if a.path.is_some() {
        return false;
    }
    let resource = a.full_resource();
    let verb = a.verb.as_str();
    if ANY.iter().any(|(group, name, verbs)| *group == a.group && *name == resource && verbs.contains(&verb)) {
        return true;
    }
    let pods = || cluster.pods_of(node, &a.namespace);
    match (a.group.as_str(), resource.as_str()) {
        // A collection of one is named by its selector.
        ("", "nodes") if READ.contains(&verb) => a.name == node,
        ("", "pods") if verb == "get" => {
            // Whoever asks for a pod that is gone is told so.
            let bound = |pod: Value| pod["spec"]["nodeName"] == node;
            cluster.object("pods", &a.namespace, &a.name).is_none_or(bound)
        }
        ("", "pods") => READ.contains(&verb) && selects(&a.field_selector, "spec.nodeName", node),
        ("", "nodes" | "nodes/status") => a.name == node && matches!(verb, "update" | "patch"),
        ("coordination.k8s.io", "leases") => {
            a.namespace == "kube-node-lease"
                && ((verb == "create" && a.name.is_empty()) || (a.name == node && OWN.contains(&verb)))
        }
        ("storage.k8s.io", "csinodes") => {
            (verb == "create" && a.name.is_empty()) || (a.name == node && OWN.contains(&verb))
        }
        ("", kind @ ("secrets" | "configmaps" | "persistentvolumeclaims" | "serviceaccounts")) => {
            let direct = || pods().iter().any(|pod| refers_to(pod, kind, &a.name));
            READ.contains(&verb)
                && !a.name.is_empty()
                && (direct() || (kind == "secrets" && verb == "get" && of_volume(node, a, cluster)))
        }
        ("", "persistentvolumeclaims/status") => {
            matches!(verb, "get" | "update" | "patch")
                && pods().iter().any(|pod| refers_to(pod, "persistentvolumeclaims", &a.name))
        }
        ("resource.k8s.io", "resourceclaims") => verb == "get" && pods().iter().any(|pod| claims(pod, &a.name)),
        ("", "persistentvolumes") => verb == "get" && mounts(node, &a.name, cluster),
        ("", "serviceaccounts/token") => {
            verb == "create" && pods().iter().any(|pod| refers_to(pod, "serviceaccounts", &a.name))
        }
        _ => false,
    }
}

/// Whether a selector admits only objects whose field has the value.
fn selects(selector: &str, field: &str, value: &str) -> bool {
    selector.split(',').any(|term| {
        let wanted = term.trim().split_once('=').map(|(f, v)| (f.trim(), v.trim_start_matches('=').trim()));
        wanted == Some((field, value))
    })
}

/// Whether a pod of the node uses the claim that a volume is bound to.
fn mounts(node: &str, volume: &str, cluster: &impl Cluster) -> bool {
    let Some(volume) = cluster.object("persistentvolumes", "", volume) else { return false };
    let claim = |field: &str| volume["spec"]["claimRef"][field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (claim("namespace"), claim("name"));
    !name.is_empty()
        && cluster.pods_of(node, &namespace).iter().any(|pod| {
            let ephemeral = pod["metadata"]["name"].as_str().and_then(|p| name.strip_prefix(p)?.strip_prefix('-'));
            refers_to(pod, "persistentvolumeclaims", &name) || ephemeral.is_some_and(|volume| makes_claim(pod, volume))
        })
}

/// Whether a pod has a volume whose claim is made with it, under the pod's name and the volume's.
fn makes_claim(pod: &Value, volume: &str) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.into_iter().any(|v| v["name"] == volume && v.get("ephemeral").is_some())
}

/// Whether a volume that a pod of the node uses needs the secret.
fn of_volume(node: &str, a: &Attributes, cluster: &impl Cluster) -> bool {
    cluster.volumes_with_secret(&a.namespace, &a.name).iter().any(|volume| mounts(node, volume, cluster))
}

/// Whether the node's driver gets the secret with the persistent volume.
pub fn needs_secret(volume: &Value, namespace: &str, name: &str) -> bool {
    let csi = &volume["spec"]["csi"];
    let fields = ["nodeStageSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];
    fields.iter().any(|f| csi[*f]["name"] == name && csi[*f]["namespace"] == namespace)
}

/// Whether a pod names a claim on dynamic resources, or one was made for it.
fn claims(pod: &Value, claim: &str) -> bool {
    let lists = [&pod["spec"]["resourceClaims"], &pod["status"]["resourceClaimStatuses"]];
    lists.into_iter().filter_map(Value::as_array).flatten().any(|c| c["resourceClaimName"] == claim)
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

    struct World;

    impl Cluster for World {
        fn pods_of(&self, node: &str, namespace: &str) -> Vec<Value> {
            if node != "n1" || namespace != "d" {
                return Vec::new();
            }
            vec![
                json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
                "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}], "envFrom": [{"configMapRef": {"name": "env"}}]}],
                "volumes": [{"secret": {"secretName": "vol"}}, {"projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}},
                    {"persistentVolumeClaim": {"claimName": "data"}}, {"name": "scratch", "ephemeral": {}}]}}),
            ]
        }

        fn volumes_with_secret(&self, namespace: &str, name: &str) -> Vec<String> {
            let volume = json!({"spec": {"csi": {"nodeStageSecretRef": {"namespace": "s", "name": "stage"}}}});
            let other = json!({"spec": {"csi": {"nodePublishSecretRef": {"namespace": "s", "name": "else"}}}});
            let all = [("pv-data", volume), ("pv-else", other)];
            let found = all.iter().filter(|(_, v)| needs_secret(v, namespace, name));
            found.map(|(n, _)| (*n).to_owned()).collect()
        }

        fn object(&self, plural: &str, _namespace: &str, name: &str) -> Option<Value> {
            let claim = |name: &str| json!({"spec": {"claimRef": {"namespace": "d", "name": name}}});
            match (plural, name) {
                ("pods", "mine") => Some(json!({"spec": {"nodeName": "n1"}})),
                ("pods", "other") => Some(json!({"spec": {"nodeName": "n2"}})),
                ("persistentvolumes", "pv-data") => Some(claim("data")),
                ("persistentvolumes", "pv-scratch") => Some(claim("p-scratch")),
                ("persistentvolumes", "pv-else") => Some(claim("else")),
                ("persistentvolumes", "pv-free") => Some(json!({"spec": {}})),
                _ => None,
            }
        }
    }

    fn request(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
        let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: sub.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Default::default()
        }
    }

    fn check(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> bool {
        allows("n1", &request(verb, group, resource, namespace, name), &World)
    }

    #[test]
    fn a_kubelet_reads_only_what_its_pods_use() {
        for name in ["pull", "key", "vol"] {
            assert!(check("get", "", "secrets", "d", name), "{name}");
        }
        assert!(!check("get", "", "secrets", "d", "env"), "a config map is no secret");
        assert!(!check("get", "", "secrets", "e", "vol"), "another namespace");
        assert!(!check("list", "", "secrets", "d", ""));
        assert!(check("get", "", "secrets", "s", "stage"), "its volume's driver needs it");
        assert!(!check("watch", "", "secrets", "s", "stage") && !check("get", "", "secrets", "s", "else"));
        assert!(check("patch", "", "persistentvolumeclaims/status", "d", "data"));
        assert!(!check("patch", "", "persistentvolumeclaims/status", "d", "other"));
        assert!(check("get", "", "configmaps", "d", "kube-root-ca.crt"));
        assert!(check("create", "", "serviceaccounts/token", "d", "sa"));
        assert!(!check("create", "", "serviceaccounts/token", "d", "other"));
        for (volume, want) in
            [("pv-data", true), ("pv-scratch", true), ("pv-else", false), ("pv-free", false), ("no", false)]
        {
            assert_eq!(check("get", "", "persistentvolumes", "", volume), want, "{volume}");
        }
    }

    #[test]
    fn a_kubelet_writes_about_its_own_node() {
        assert!(check("patch", "", "nodes/status", "", "n1"));
        assert!(!check("patch", "", "nodes/status", "", "n2"));
        assert!(check("update", "coordination.k8s.io", "leases", "kube-node-lease", "n1"));
        assert!(!check("update", "coordination.k8s.io", "leases", "kube-node-lease", "n2"));
        assert!(!check("create", "apps", "deployments", "d", ""));
    }

    #[test]
    fn a_kubelet_sees_its_own_node_and_pods() {
        assert!(check("get", "", "nodes", "", "n1") && check("watch", "", "nodes", "", "n1"));
        assert!(!check("get", "", "nodes", "", "n2") && !check("list", "", "nodes", "", ""));
        assert!(check("get", "", "pods", "d", "mine") && check("get", "", "pods", "d", "gone"));
        assert!(!check("get", "", "pods", "d", "other"));
        for (selector, want) in [
            ("spec.nodeName=n1", true),
            ("a=b,spec.nodeName==n1", true),
            ("spec.nodeName=n2", false),
            ("", false),
            ("spec.nodeName!=n1", false),
        ] {
            let a = Attributes { field_selector: selector.into(), ..request("watch", "", "pods", "", "") };
            assert_eq!(allows("n1", &a, &World), want, "{selector}");
        }
    }
}

//! What a kubelet may do: read what its own pods refer to and write about its own node. Pure.

use super::Attributes;
use serde_json::Value;

const READ: &[&str] = &["get", "list", "watch"];
const OWN: &[&str] = &["get", "create", "update", "patch", "delete"];
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What every kubelet may do whatever the name: (group, resource, verbs).
const ANY: &[(&str, &str, &[&str])] = &[
    ("", "services", READ),
    ("", "endpoints", READ),
    ("", "events", &["create", "update", "patch"]),
    ("events.k8s.io", "events", &["create", "update", "patch"]),
    ("discovery.k8s.io", "endpointslices", READ),
    ("node.k8s.io", "runtimeclasses", READ),
    ("storage.k8s.io", "csidrivers", READ),
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
    /// An object.
    fn object(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value>;
}

/// Whether the node's kubelet may do this; the error says why not, in upstream's words, and is empty where upstream says nothing.
/// What a node creates, and what it writes about nodes and pods, NodeRestriction looks at: here its content is unknown.
pub fn decide(node: &str, a: &Attributes, cluster: &impl Cluster) -> Result<(), String> {
    if a.path.is_some() {
        return Err(String::new());
    }
    match (a.group.as_str(), a.resource.as_str(), a.subresource.as_str()) {
        ("", "secrets" | "configmaps", _) => read(node, a, cluster),
        ("", "persistentvolumeclaims", "status") => {
            rule(matches!(a.verb.as_str(), "update" | "patch"), "can only get/update/patch this type")?;
            related(node, a, cluster)
        }
        ("", "persistentvolumeclaims" | "persistentvolumes", _)
        | ("resource.k8s.io", "resourceclaims", _)
        | ("storage.k8s.io", "volumeattachments", _) => get(node, a, cluster),
        ("", "serviceaccounts", "") if a.verb == "get" => related(node, a, cluster),
        ("", "serviceaccounts", sub) => {
            let one = a.verb == "create" && !a.name.is_empty();
            rule(one, "can only create tokens for individual service accounts")?;
            rule(sub == "token", "can only create token subresource of serviceaccount")?;
            related(node, a, cluster)
        }
        ("coordination.k8s.io", "leases", _) => {
            rule(OWN.contains(&verb(a)), "can only get, create, update, patch, or delete a node lease")?;
            let home = a.namespace == "kube-node-lease";
            rule(home, "can only access leases in the \"kube-node-lease\" system namespace")?;
            rule(own(node, a), "can only access node lease with the same name as the requesting node")
        }
        ("storage.k8s.io", "csinodes", sub) => {
            rule(OWN.contains(&verb(a)), "can only get, create, update, patch, or delete a CSINode")?;
            rule(sub.is_empty(), "cannot authorize CSINode subresources")?;
            rule(own(node, a), "can only access CSINode with the same name as the requesting node")
        }
        ("resource.k8s.io", "resourceslices", _) => slices(node, a, cluster),
        ("", "nodes", _) => nodes(node, a),
        ("", "pods", _) => pods(node, a, cluster),
        (group, ..) => {
            let resource = a.full_resource();
            let listed =
                |(g, r, verbs): &(&str, &str, &[&str])| *g == group && *r == resource && verbs.contains(&verb(a));
            rule(ANY.iter().any(listed), "")
        }
    }
}

fn rule(holds: bool, why: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.to_owned()) }
}

fn verb(a: &Attributes) -> &str {
    &a.verb
}

/// Whether the object is the node's namesake; of what is created, the name is not known yet.
fn own(node: &str, a: &Attributes) -> bool {
    a.name == node || (a.verb == "create" && a.name.is_empty())
}

fn read(node: &str, a: &Attributes, cluster: &impl Cluster) -> Result<(), String> {
    rule(READ.contains(&verb(a)), "can only read resources of this type")?;
    rule(a.subresource.is_empty(), "cannot read subresource")?;
    rule(!a.namespace.is_empty(), "can only read namespaced object of this type")?;
    related(node, a, cluster)
}

fn get(node: &str, a: &Attributes, cluster: &impl Cluster) -> Result<(), String> {
    // The kubelet here also watches a claim of which it made the volume larger, by its name; upstream's reads it again and again.
    let watched = a.resource == "persistentvolumeclaims" && READ.contains(&verb(a)) && !a.name.is_empty();
    rule(a.verb == "get" || watched, "can only get individual resources of this type")?;
    rule(a.subresource.is_empty(), "cannot get subresource")?;
    related(node, a, cluster)
}

fn slices(node: &str, a: &Attributes, cluster: &impl Cluster) -> Result<(), String> {
    rule(a.subresource.is_empty(), "cannot authorize ResourceSlice subresources")?;
    match verb(a) {
        "create" => Ok(()),
        "get" | "update" | "patch" | "delete" => related(node, a, cluster),
        "list" | "watch" | "deletecollection" => {
            let why = "can only list/watch/deletecollection resourceslices with spec.nodeName field selector";
            rule(selects(&a.field_selector, "spec.nodeName", node), why)
        }
        _ => rule(
            false,
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
        ),
    }
}

fn nodes(node: &str, a: &Attributes) -> Result<(), String> {
    match (a.subresource.as_str(), verb(a)) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        // A collection of one is named by its selector.
        ("", "get" | "list" | "watch") if a.name == node => Ok(()),
        ("", "get" | "list" | "watch") => {
            let what = if a.name.is_empty() { "all nodes".to_owned() } else { format!("'{}'", a.name) };
            Err(format!("node '{node}' cannot read {what}, only its own Node object"))
        }
        _ => Err(String::new()),
    }
}

fn pods(node: &str, a: &Attributes, cluster: &impl Cluster) -> Result<(), String> {
    match (a.subresource.as_str(), verb(a)) {
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
        ("", "list" | "watch") if selects(&a.field_selector, "spec.nodeName", node) => Ok(()),
        ("", "list" | "watch") if a.name.is_empty() => {
            rule(false, "can only list/watch pods with spec.nodeName field selector")
        }
        ("", "get" | "list" | "watch") => related(node, a, cluster),
        _ => Err(String::new()),
    }
}

/// Whether the object has to do with the node: is about it, or is used by a pod that is bound to it.
fn related(node: &str, a: &Attributes, cluster: &impl Cluster) -> Result<(), String> {
    rule(!a.name.is_empty(), "No Object name found")?;
    let users = || users(node, &a.namespace, cluster);
    let known = || cluster.object(&a.group, &a.resource, &a.namespace, &a.name);
    let found = match a.resource.as_str() {
        // Whoever asks for a pod that is gone is told so.
        "pods" => known().is_none_or(|pod| pod["spec"]["nodeName"] == node),
        "volumeattachments" | "resourceslices" => known().is_some_and(|object| object["spec"]["nodeName"] == node),
        "persistentvolumes" => mounts(node, &a.name, cluster),
        "persistentvolumeclaims" => users().any(|pod| uses_claim(&pod, &a.name)),
        "resourceclaims" => users().any(|pod| claims(&pod, &a.name)),
        "secrets" => {
            users().any(|pod| refers_to(&pod, "secrets", &a.name)) || (a.verb == "get" && of_volume(node, a, cluster))
        }
        kind => users().any(|pod| refers_to(&pod, kind, &a.name)),
    };
    if found { Ok(()) } else { Err(format!("no relationship found between node '{node}' and this object")) }
}

/// Whether a selector admits only objects whose field has the value.
fn selects(selector: &str, field: &str, value: &str) -> bool {
    selector.split(',').any(|term| {
        let wanted = term.trim().split_once('=').map(|(f, v)| (f.trim(), v.trim_start_matches('=').trim()));
        wanted == Some((field, value))
    })
}

/// The pods of a node in a namespace. What a kubelet made up itself, a mirror pod, opens nothing to it.
fn users<C: Cluster>(node: &str, namespace: &str, cluster: &C) -> impl Iterator<Item = Value> + use<C> {
    let pods = cluster.pods_of(node, namespace).into_iter();
    pods.filter(|pod| pod["metadata"]["annotations"].get(MIRROR).is_none())
}

/// Whether a pod of the node uses the claim that a volume is bound to.
fn mounts(node: &str, volume: &str, cluster: &impl Cluster) -> bool {
    let Some(volume) = cluster.object("", "persistentvolumes", "", volume) else { return false };
    let claim = |field: &str| volume["spec"]["claimRef"][field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (claim("namespace"), claim("name"));
    !name.is_empty() && users(node, &namespace, cluster).any(|pod| uses_claim(&pod, &name))
}

/// Whether a pod names the claim, or it is made with the pod.
fn uses_claim(pod: &Value, claim: &str) -> bool {
    let volume = pod["metadata"]["name"].as_str().and_then(|p| claim.strip_prefix(p)?.strip_prefix('-'));
    refers_to(pod, "persistentvolumeclaims", claim) || volume.is_some_and(|volume| makes_claim(pod, volume))
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
    references(&pod["spec"], kind).contains(&name)
}

/// The objects of a kind that a pod's spec names: secrets, configmaps, persistentvolumeclaims or serviceaccounts.
pub fn references<'a>(spec: &'a Value, kind: &str) -> Vec<&'a str> {
    // One walk for the few shapes: {"secretName": n}, {"secret"|"configMap": {"name": n}}, {"…KeyRef"|"…Ref": {"name": n}}, claims and pull secrets.
    let (holders, direct): (&[&str], &[&str]) = match kind {
        "serviceaccounts" => {
            return spec["serviceAccountName"].as_str().filter(|n| !n.is_empty()).into_iter().collect();
        }
        "secrets" => {
            (&["secret", "secretRef", "secretKeyRef", "imagePullSecrets", "nodePublishSecretRef"], &["secretName"])
        }
        "configmaps" => (&["configMap", "configMapRef", "configMapKeyRef"], &[]),
        _ => (&[], &["claimName"]),
    };
    let mut found = Vec::new();
    names(spec, holders, direct, &mut found);
    found
}

fn names<'a>(value: &'a Value, holders: &[&str], direct: &[&str], found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                if direct.contains(&key.as_str()) {
                    found.extend(child.as_str());
                }
                if holders.contains(&key.as_str()) {
                    let list = child.as_array().map_or(std::slice::from_ref(child), Vec::as_slice);
                    found.extend(list.iter().filter_map(|holder| holder.get("name")?.as_str()));
                }
                names(child, holders, direct, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|child| names(child, holders, direct, found)),
        _ => {}
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
                json!({"metadata": {"name": "static", "annotations": {MIRROR: "h"}}, "spec": {"serviceAccountName": "made-up"}}),
            ]
        }

        fn volumes_with_secret(&self, namespace: &str, name: &str) -> Vec<String> {
            let volume = json!({"spec": {"csi": {"nodeStageSecretRef": {"namespace": "s", "name": "stage"}}}});
            let other = json!({"spec": {"csi": {"nodePublishSecretRef": {"namespace": "s", "name": "else"}}}});
            let all = [("pv-data", volume), ("pv-else", other)];
            let found = all.iter().filter(|(_, v)| needs_secret(v, namespace, name));
            found.map(|(n, _)| (*n).to_owned()).collect()
        }

        fn object(&self, _group: &str, plural: &str, _namespace: &str, name: &str) -> Option<Value> {
            let claim = |name: &str| json!({"spec": {"claimRef": {"namespace": "d", "name": name}}});
            match (plural, name) {
                ("pods", "mine") => Some(json!({"spec": {"nodeName": "n1"}})),
                ("pods", "other") => Some(json!({"spec": {"nodeName": "n2"}})),
                ("volumeattachments", "here") => Some(json!({"spec": {"nodeName": "n1"}})),
                ("volumeattachments", "there") => Some(json!({"spec": {"nodeName": "n2"}})),
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
        decide("n1", &request(verb, group, resource, namespace, name), &World).is_ok()
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
            assert_eq!(decide("n1", &a, &World).is_ok(), want, "{selector}");
        }
    }

    #[test]
    fn a_refusal_says_why() {
        const UNRELATED: &str = "no relationship found between node 'n1' and this object";
        let table = [
            ("get", "", "secrets", "d", "env", UNRELATED),
            ("list", "", "secrets", "", "", "can only read namespaced object of this type"),
            ("list", "", "secrets", "d", "", "No Object name found"),
            ("delete", "", "configmaps", "d", "env", "can only read resources of this type"),
            ("list", "", "persistentvolumeclaims", "d", "", "can only get individual resources of this type"),
            ("get", "", "nodes", "", "n2", "node 'n1' cannot read 'n2', only its own Node object"),
            ("list", "", "nodes", "", "", "node 'n1' cannot read all nodes, only its own Node object"),
            ("watch", "", "pods", "", "", "can only list/watch pods with spec.nodeName field selector"),
            ("get", "", "pods", "d", "other", UNRELATED),
            ("get", "storage.k8s.io", "volumeattachments", "", "here", ""),
            ("get", "storage.k8s.io", "volumeattachments", "", "there", UNRELATED),
            ("get", "storage.k8s.io", "volumeattachments", "", "gone", UNRELATED),
            ("list", "storage.k8s.io", "volumeattachments", "", "", "can only get individual resources of this type"),
            ("create", "", "serviceaccounts/token", "d", "made-up", UNRELATED),
            ("create", "", "serviceaccounts", "d", "", "can only create tokens for individual service accounts"),
            (
                "get",
                "coordination.k8s.io",
                "leases",
                "d",
                "n1",
                "can only access leases in the \"kube-node-lease\" system namespace",
            ),
            (
                "get",
                "storage.k8s.io",
                "csinodes",
                "",
                "n2",
                "can only access CSINode with the same name as the requesting node",
            ),
            ("create", "storage.k8s.io", "csinodes", "", "", ""),
        ];
        for (verb, group, resource, namespace, name, want) in table {
            let decided = decide("n1", &request(verb, group, resource, namespace, name), &World);
            assert_eq!(decided.err().unwrap_or_default(), want, "{verb} {resource} {name}");
        }
        let other = decide("n1", &request("create", "apps", "deployments", "d", ""), &World);
        assert_eq!(other, Err(String::new()), "others may still allow it, and say why not");
    }
}

//! What the controllers never read of an object, and therefore do not keep, and which objects they keep as text: of twenty
//! thousand pods it is most of the memory.
//! An object of a kind that is trimmed here must never be written back whole; patches and fresh reads are for that.

use client::Resource;
use client::resource::{CONFIGMAPS, ENDPOINTS, ENDPOINTSLICES, LEASES, NODES, PODS, SECRETS, SERVICEACCOUNTS};
use serde_json::{Map, Value};

/// Kept as text: a large cluster has tens of thousands of them, and most are looked at only when they change.
pub const MANY: [Resource<'static>; 7] =
    [CONFIGMAPS, ENDPOINTS, ENDPOINTSLICES, LEASES, PODS, SECRETS, SERVICEACCOUNTS];

/// What takes it away, for kinds that are many or large.
pub fn of(resource: Resource<'_>) -> Option<fn(&mut Value)> {
    [(PODS, pod as fn(&mut Value)), (NODES, node), (CONFIGMAPS, config_map), (SECRETS, secret)]
        .into_iter()
        .find_map(|(kind, trim)| (kind == resource).then_some(trim))
}

/// Keeps what decides about a pod's place, its amounts, its addresses and its end.
fn pod(pod: &mut Value) {
    if let Some(spec) = pod["spec"].as_object_mut() {
        keep(
            spec,
            &[
                "nodeName",
                "affinity",
                "tolerations",
                "volumes",
                "containers",
                "initContainers",
                "resources",
                "overhead",
                "hostname",
                "subdomain",
                "priorityClassName",
                "activeDeadlineSeconds",
                "resourceClaims",
            ],
        );
        if let Some(volumes) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
            // The others are made and unmade by the node alone.
            let local = ["projected", "configMap", "secret", "emptyDir", "downwardAPI", "hostPath", "image"];
            volumes.retain(|volume| local.iter().all(|kind| volume.get(kind).is_none()));
        }
        for containers in ["containers", "initContainers"] {
            each(spec, containers, |container| {
                keep(container, &["name", "ports", "resources", "restartPolicy"]);
                if let Some(ports) = container.get_mut("ports").and_then(Value::as_array_mut) {
                    // Services ask for ports by name only.
                    ports.retain(|port| port.get("name").is_some());
                }
                without_empty(container);
            });
        }
        without_empty(spec);
    }
    if let Some(status) = pod["status"].as_object_mut() {
        for field in ["hostIPs", "qosClass", "ephemeralContainerStatuses", "observedGeneration", "resources"] {
            status.remove(field);
        }
        if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
            let internal = ["PodReadyToStartContainers", "Initialized", "ContainersReady", "PodScheduled"];
            conditions.retain(|condition| internal.iter().all(|kind| condition["type"] != *kind));
        }
        for statuses in ["containerStatuses", "initContainerStatuses"] {
            each(status, statuses, |container| {
                keep(container, &["name", "ready", "restartCount", "state", "lastState"]);
                for state in ["state", "lastState"] {
                    // Only an end has something to say: an exit code, and when.
                    if container.get(state).is_some_and(|state| state.get("terminated").is_none()) {
                        container.remove(state);
                    }
                }
            });
        }
    }
}

/// Images are most of a node.
fn node(node: &mut Value) {
    if let Some(status) = node["status"].as_object_mut() {
        status.remove("images");
        status.remove("features");
        status.remove("runtimeHandlers");
    }
}

/// Two of them are read here; others may be a megabyte.
fn config_map(map: &mut Value) {
    let read = ["kube-root-ca.crt", "cluster-info"].iter().any(|name| map["metadata"]["name"] == *name);
    if let Some(fields) = map.as_object_mut().filter(|_| !read) {
        fields.remove("data");
        fields.remove("binaryData");
    }
}

/// Tokens are read here; the rest is nobody's business.
fn secret(secret: &mut Value) {
    let kind = secret["type"].as_str().unwrap_or_default();
    let read = ["bootstrap.kubernetes.io/token", "kubernetes.io/service-account-token"].contains(&kind);
    if let Some(fields) = secret.as_object_mut().filter(|_| !read) {
        fields.remove("data");
    }
}

fn keep(fields: &mut Map<String, Value>, names: &[&str]) {
    fields.retain(|name, _| names.contains(&name.as_str()));
}

fn each(fields: &mut Map<String, Value>, list: &str, change: impl Fn(&mut Map<String, Value>)) {
    let items = fields.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
    items.filter_map(Value::as_object_mut).for_each(change);
}

/// The API's "absent means empty" makes empty ones a waste.
fn without_empty(fields: &mut Map<String, Value>) {
    fields.retain(|_, value| match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_keeps_what_controllers_read() {
        let mut whole = json!({
            "metadata": {"name": "p", "labels": {"a": "b"}},
            "spec": {
                "nodeName": "n", "dnsPolicy": "ClusterFirst", "securityContext": {}, "schedulingGates": [],
                "containers": [{"name": "c", "image": "i", "env": [{"name": "A"}], "volumeMounts": [{"name": "v"}], "resources": {},
                                "ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81}]}],
                "volumes": [{"name": "token", "projected": {}}, {"name": "data", "persistentVolumeClaim": {"claimName": "d"}},
                            {"name": "own", "ephemeral": {}}],
            },
            "status": {
                "phase": "Running", "qosClass": "BestEffort", "hostIPs": [{"ip": "1"}], "podIPs": [{"ip": "2"}],
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized"}, {"type": "DisruptionTarget"}],
                "containerStatuses": [{"name": "c", "image": "i", "restartCount": 2, "state": {"running": {}},
                                       "lastState": {"terminated": {"exitCode": 3}}}],
            },
        });
        pod(&mut whole);
        let expected = json!({
            "metadata": {"name": "p", "labels": {"a": "b"}},
            "spec": {
                "nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "d"}}, {"name": "own", "ephemeral": {}}],
            },
            "status": {
                "phase": "Running", "podIPs": [{"ip": "2"}],
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "DisruptionTarget"}],
                "containerStatuses": [{"name": "c", "restartCount": 2, "lastState": {"terminated": {"exitCode": 3}}}],
            },
        });
        assert_eq!(whole, expected);
    }

    #[test]
    fn data_is_kept_only_where_it_is_read() {
        for (trim, object, kept) in [
            (of(CONFIGMAPS), json!({"metadata": {"name": "large"}, "data": {"a": "b"}}), false),
            (of(CONFIGMAPS), json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"a": "b"}}), true),
            (of(SECRETS), json!({"type": "Opaque", "data": {"a": "b"}}), false),
            (of(SECRETS), json!({"type": "bootstrap.kubernetes.io/token", "data": {"a": "b"}}), true),
        ] {
            let mut trimmed = object.clone();
            trim.unwrap()(&mut trimmed);
            assert_eq!(trimmed.get("data").is_some(), kept, "{object}");
        }
    }
}

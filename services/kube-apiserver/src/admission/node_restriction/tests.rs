use serde_json::{Value, json};

use super::super::{AdmissionRequest, Operation};
use super::{forbidden_labels, judge, pods, token};
use crate::registry::lookup;

/// Resource and subresource, name, what is done, the object, the one before, and the refusal.
type Row = (&'static str, &'static str, Operation, Value, Value, &'static str);

fn nodes_and_pods() -> Vec<Row> {
    use Operation::{Create, Delete, Update};
    let on = |node: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node}});
    let tainted = json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let labelled = |key: &str| json!({"metadata": {"name": "n1", "labels": {key: "v"}}});
    let mut waiting = on("n1");
    waiting["status"] = json!({"resourceClaimStatuses": [{"name": "c", "resourceClaimName": "other"}]});
    vec![
        ("/nodes", "n1", Create, labelled("kubernetes.io/os"), Value::Null, ""),
        (
            "/nodes",
            "n1",
            Create,
            labelled("kubernetes.io/foo"),
            Value::Null,
            "node \"n1\" is not allowed to set the following labels: kubernetes.io/foo",
        ),
        ("/nodes/status", "n2", Update, json!({}), json!({}), "node \"n1\" is not allowed to modify node \"n2\""),
        ("/nodes", "n1", Update, tainted, json!({}), "node \"n1\" is not allowed to modify taints"),
        (
            "/nodes",
            "n1",
            Update,
            json!({}),
            labelled("node-role.kubernetes.io/edge"),
            "is not allowed to modify labels: node-role.kubernetes.io/edge",
        ),
        ("/pods/status", "p", Update, on("n1"), on("n1"), ""),
        (
            "/pods/status",
            "p",
            Update,
            on("n1"),
            on("n2"),
            "node \"n1\" can only update pod status for pods with spec.nodeName set to itself",
        ),
        ("/pods/status", "p", Update, waiting, on("n1"), "node \"n1\" cannot update resource claim statues"),
        ("/pods", "p", Delete, Value::Null, on("n1"), ""),
        (
            "/pods",
            "p",
            Delete,
            Value::Null,
            on("n2"),
            "node \"n1\" can only delete pods with spec.nodeName set to itself",
        ),
        (
            "/pods",
            "p",
            Update,
            on("n1"),
            on("n1"),
            "unexpected operation \"UPDATE\", node \"n1\" can only create and delete mirror pods",
        ),
        (
            "/pods/ephemeralcontainers",
            "p",
            Update,
            on("n1"),
            on("n1"),
            "unexpected pod subresource \"ephemeralcontainers\", only 'status' and 'eviction' are allowed",
        ),
    ]
}

fn other_resources() -> Vec<Row> {
    use Operation::{Create, Update};
    let on = |node: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node}});
    let size =
        |size: &str, volume: &str| json!({"spec": {"volumeName": volume}, "status": {"capacity": {"storage": size}}});
    let lease = "can only access node lease with the same name as the requesting node";
    vec![
        ("/persistentvolumeclaims/status", "c", Update, size("2Gi", "v"), size("1Gi", "v"), ""),
        (
            "/persistentvolumeclaims/status",
            "c",
            Update,
            size("2Gi", "w"),
            size("1Gi", "v"),
            "node \"n1\" is not allowed to update fields other than status.quantity and status.conditions",
        ),
        ("/persistentvolumeclaims", "c", Update, json!({}), json!({}), "may only update PVC status"),
        ("coordination.k8s.io/leases", "n1", Update, json!({}), json!({}), ""),
        ("coordination.k8s.io/leases", "n2", Update, json!({}), json!({}), lease),
        ("storage.k8s.io/csinodes", "n1", Create, json!({}), Value::Null, ""),
        (
            "storage.k8s.io/csinodes",
            "n2",
            Create,
            json!({}),
            Value::Null,
            "can only access CSINode with the same name as the requesting node",
        ),
        (
            "certificates.k8s.io/certificatesigningrequests",
            "r",
            Create,
            json!({"spec": {"signerName": "kubernetes.io/kubelet-serving", "request": ""}}),
            Value::Null,
            "can only create a node CSR with CN=system:node:n1",
        ),
        (
            "certificates.k8s.io/certificatesigningrequests",
            "r",
            Create,
            json!({"spec": {"signerName": "example.com/s", "request": ""}}),
            Value::Null,
            "",
        ),
        (
            "resource.k8s.io/resourceslices",
            "s",
            Create,
            on("n2"),
            Value::Null,
            "can only create ResourceSlice with the same NodeName as the requesting node",
        ),
    ]
}

#[test]
fn nodes_keep_to_themselves() {
    for (what, name, operation, mut object, old, want) in nodes_and_pods().into_iter().chain(other_resources()) {
        let mut parts = what.split('/');
        let (group, plural) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let request = AdmissionRequest {
            operation,
            resource: lookup(group, "v1", plural).expect("in the table"),
            subresource: parts.next(),
            namespace: if plural == "leases" { "kube-node-lease" } else { "d" },
            name,
            object: &mut object,
            old: Some(&old),
        };
        assert_eq!(judge("n1", &request).unwrap_or_default(), want, "{what} {name}");
    }
}

#[test]
fn labels_that_steer_workloads_are_not_the_nodes() {
    let node = |labels: Value| json!({"metadata": {"labels": labels}});
    let old = node(json!({"node-restriction.kubernetes.io/a": "1", "example.com/b": "1", "kubernetes.io/os": "linux"}));
    let table = [
        (json!({"node-restriction.kubernetes.io/a": "1"}), None),
        (json!({"node-restriction.kubernetes.io/a": "2"}), Some("node-restriction.kubernetes.io/a")),
        (
            json!({"x.k8s.io/z": "", "k8s.io/y": "", "team.node-restriction.kubernetes.io/q": ""}),
            Some("k8s.io/y, node-restriction.kubernetes.io/a, team.node-restriction.kubernetes.io/q, x.k8s.io/z"),
        ),
        (
            json!({"node-restriction.kubernetes.io/a": "1", "node.kubernetes.io/x": "", "my.kubelet.kubernetes.io/y": "", "plain": ""}),
            None,
        ),
        (
            json!({"node-restriction.kubernetes.io/a": "1", "notkubernetes.io/x": "", "topology.kubernetes.io/zone": "z"}),
            None,
        ),
    ];
    for (labels, want) in table {
        assert_eq!(forbidden_labels(&node(labels.clone()), &old).as_deref(), want, "{labels}");
    }
}

#[test]
fn a_mirror_pod_is_its_nodes_and_reads_nothing() {
    let pod = |owner: Value, spec: Value| {
        let mut pod = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": owner}, "spec": spec});
        pod["spec"]["nodeName"] = json!("n1");
        pod
    };
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true});
    let with = |field: &str, value: Value| {
        let mut owner = owner.clone();
        owner[field] = value;
        json!([owner])
    };
    let refused = "node \"n1\" can only create pods with ";
    let owners = [
        (json!([owner]), ""),
        (json!([]), "an owner reference set to itself"),
        (json!([owner, owner]), "a single owner reference set to itself"),
        (with("name", json!("n2")), "an owner reference set to itself"),
        (with("kind", json!("Pod")), "an owner reference set to itself"),
        (with("controller", Value::Null), "a controller owner reference set to itself"),
    ];
    for (owner, want) in owners {
        let said = pods::mirror("n1", &pod(owner.clone(), json!({}))).unwrap_or_default();
        assert_eq!(said.strip_prefix(refused).unwrap_or(&said), want, "{owner}");
    }
    let blocking = pods::mirror("n1", &pod(with("blockOwnerDeletion", json!(true)), json!({})));
    assert_eq!(blocking.as_deref(), Some("node \"n1\" must not set blockOwnerDeletion on an owner reference"));
    let plain = json!({"metadata": {}, "spec": {"nodeName": "n1"}});
    assert!(pods::mirror("n1", &plain).is_some_and(|why| why.ends_with("can only create mirror pods")));

    let refused = "node \"n1\" can not create pods that reference ";
    let specs = [
        (json!({"volumes": [{"hostPath": {"path": "/"}}], "containers": [{"env": [{"name": "A", "value": "b"}]}]}), ""),
        (json!({"serviceAccountName": "default"}), "a service account"),
        (json!({"imagePullSecrets": [{"name": "s"}]}), "secrets"),
        (json!({"initContainers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]}), "secrets"),
        (json!({"volumes": [{"azureFile": {"secretName": "s"}}]}), "secrets"),
        (json!({"containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "c"}}}]}]}), "configmaps"),
        (
            json!({"volumes": [{"projected": {"sources": [{"clusterTrustBundle": {"name": "t"}}]}}]}),
            "clustertrustbundles",
        ),
        (json!({"volumes": [{"persistentVolumeClaim": {"claimName": "c"}}]}), "persistentvolumeclaims"),
        (json!({"resourceClaims": [{"name": "r"}]}), "resourceclaims"),
    ];
    for (spec, want) in specs {
        let said = pods::reaches("n1", &pod(json!([]), spec.clone())).unwrap_or_default();
        assert_eq!(said.strip_prefix(refused).unwrap_or(&said), want, "{spec}");
    }
}

#[test]
fn tokens_are_for_whom_the_pod_wants_them() {
    let pod = json!({"spec": {"volumes": [{"emptyDir": {}}, {"projected": {"sources": [
        {"configMap": {"name": "c"}}, {"serviceAccountToken": {"path": "t"}}, {"serviceAccountToken": {"audience": "vault"}}]}}]}});
    let without = json!({"spec": {"volumes": [{"projected": {"sources": [{"configMap": {"name": "c"}}]}}]}});
    for (pod, audience, want) in
        [(&pod, "", true), (&pod, "vault", true), (&pod, "other", false), (&without, "", false)]
    {
        assert_eq!(token::projected(pod, audience), want, "{audience:?}");
    }
}

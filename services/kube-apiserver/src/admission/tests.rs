use serde_json::{Value, json};

use super::{AdmissionRequest, Operation, escalation, node_restriction, service_account, tolerations};
use crate::authz::rbac::Rule;
use crate::registry::strategy::tree::items;
use crate::registry::{Resource, lookup};

fn row(group: &str, plural: &str) -> &'static Resource {
    lookup(group, "v1", plural).expect("in the table")
}

#[test]
fn pods_get_a_token_where_the_field_expects_it() {
    let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [
        {"name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}]}});
    service_account::apply(&mut pod, &json!({"imagePullSecrets": [{"name": "s"}]}));
    let volume = &pod["spec"]["volumes"][0];
    let name = volume["name"].as_str().expect("name");
    assert!(name.starts_with("kube-api-access-") && name.len() == "kube-api-access-".len() + 5);
    assert_eq!(volume["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
    assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], name);
    assert_eq!(pod["spec"]["containers"][1]["volumeMounts"].as_array().map(Vec::len), Some(1));
    assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "s"}]));
    for (own, theirs) in [(json!(false), Value::Null), (Value::Null, json!(false)), (json!(false), json!(true))] {
        let mut pod = json!({"spec": {"automountServiceAccountToken": own, "containers": [{"name": "a"}]}});
        service_account::apply(&mut pod, &json!({"automountServiceAccountToken": theirs}));
        assert!(pod["spec"].get("volumes").is_none());
    }
}

#[test]
fn tolerations_are_added_once() {
    let mut pod = json!({"spec": {"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]}});
    tolerations::apply(&mut pod);
    tolerations::apply(&mut pod);
    let list = pod["spec"]["tolerations"].as_array().expect("list");
    assert_eq!((list.len(), &list[0]["tolerationSeconds"], &list[1]["tolerationSeconds"]), (2, &json!(5), &json!(300)));
    let mut all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
    tolerations::apply(&mut all);
    assert_eq!(all["spec"]["tolerations"].as_array().map(Vec::len), Some(1));
}

#[test]
fn nodes_keep_to_themselves() {
    let on = |node: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node}});
    let mirror = |node: &str| json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {"nodeName": node}});
    let tainted = json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let leases = row("coordination.k8s.io", "leases");
    let table = [
        ("its own node", row("", "nodes"), None, "", "n1", Operation::Create, json!({}), Value::Null, true),
        ("another node", row("", "nodes"), Some("status"), "", "n2", Operation::Update, json!({}), json!({}), false),
        ("its own taints", row("", "nodes"), None, "", "n1", Operation::Update, tainted, json!({}), false),
        ("status of its pod", row("", "pods"), Some("status"), "d", "p", Operation::Update, on("n1"), on("n1"), true),
        (
            "status of another's pod",
            row("", "pods"),
            Some("status"),
            "d",
            "p",
            Operation::Update,
            on("n1"),
            on("n2"),
            false,
        ),
        ("delete its pod", row("", "pods"), None, "d", "p", Operation::Delete, Value::Null, on("n1"), true),
        ("delete another's pod", row("", "pods"), None, "d", "p", Operation::Delete, Value::Null, on("n2"), false),
        ("create a pod", row("", "pods"), None, "d", "p", Operation::Create, on("n1"), Value::Null, false),
        ("create a mirror pod", row("", "pods"), None, "d", "p", Operation::Create, mirror("n1"), Value::Null, true),
        ("its lease", leases, None, "kube-node-lease", "n1", Operation::Update, json!({}), json!({}), true),
        ("another's lease", leases, None, "kube-node-lease", "n2", Operation::Update, json!({}), json!({}), false),
        ("a lease elsewhere", leases, None, "default", "n1", Operation::Create, json!({}), json!({}), false),
    ];
    for (what, resource, subresource, namespace, name, operation, mut object, old, ok) in table {
        let request = AdmissionRequest {
            operation,
            resource,
            subresource,
            namespace,
            name,
            object: &mut object,
            old: Some(&old),
        };
        let verdict = node_restriction::judge("n1", &request);
        assert_eq!(verdict.is_none(), ok, "{what}: {verdict:?}");
    }
}

/// Rules as they stand in a role.
fn rules(role: &Value) -> Vec<Rule> {
    items(role, &["rules"]).iter().map(Rule::from_object).collect()
}

#[test]
fn nobody_grants_what_they_lack() {
    let rule = |verbs: Value, groups: Value, resources: Value, names: Value| json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names});
    let own = rules(&json!({"rules": [
        rule(json!(["get", "list"]), json!([""]), json!(["pods", "*/status"]), json!([])),
        rule(json!(["get"]), json!([""]), json!(["secrets"]), json!(["a"])),
        rule(json!(["get"]), json!([""]), json!(["secrets"]), json!(["b"])),
        {"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]}]}));
    let table = [
        (rule(json!(["get"]), json!([""]), json!(["pods"]), json!([])), true),
        (rule(json!(["get"]), json!([""]), json!(["pods"]), json!(["x"])), true),
        (rule(json!(["get", "delete"]), json!([""]), json!(["pods"]), json!([])), false),
        (rule(json!(["get"]), json!(["apps"]), json!(["pods"]), json!([])), false),
        (rule(json!(["get"]), json!([""]), json!(["nodes/status"]), json!([])), true),
        (rule(json!(["get"]), json!([""]), json!(["pods/log"]), json!([])), false),
        (rule(json!(["*"]), json!([""]), json!(["pods"]), json!([])), false),
        (rule(json!(["get"]), json!([""]), json!(["secrets"]), json!([])), false),
        (rule(json!(["get"]), json!([""]), json!(["secrets"]), json!(["a", "b"])), true),
        (rule(json!(["get"]), json!([""]), json!(["secrets"]), json!(["a", "c"])), false),
        (json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/x"]}), true),
        (json!({"verbs": ["get"], "nonResourceURLs": ["/metrics"]}), false),
    ];
    for (wanted, ok) in table {
        let missing = escalation::missing(&own, &rules(&json!({"rules": [wanted]})));
        assert_eq!(missing.is_empty(), ok, "{wanted}: {missing:?}");
    }
}

use serde_json::{Value, json};

use super::{escalation, service_account, tolerations};
use crate::authz::rbac::Rule;
use crate::registry::strategy::tree::items;

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

#[test]
fn what_is_lacking_is_said_in_few_lines() {
    let wanted = rules(&json!({"rules": [
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "bindings"]},
        {"verbs": ["watch"], "apiGroups": [""], "resources": ["bindings"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"]},
        {"verbs": ["get", "put"], "nonResourceURLs": ["/x"]}]}));
    let own = rules(&json!({"rules": [
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}]}));
    let texts: Vec<String> =
        escalation::compact(escalation::missing(&own, &wanted)).iter().map(ToString::to_string).collect();
    let want = [
        r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#,
        r#"{APIGroups:[""], Resources:["bindings"], Verbs:["get" "list" "watch"]}"#,
        r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["b"], Verbs:["get"]}"#,
        r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#,
        r#"{NonResourceURLs:["/x"], Verbs:["put"]}"#,
    ];
    assert_eq!(texts, want);
}

//! The default ClusterRoles and ClusterRoleBindings as objects, and how an existing one is brought up to date.

use serde_json::{Value, json};

use super::rules::{CONTROLLERS, ROLES, Role, Rule};
use crate::registry::strategy::tree::{items, set, str_at};

const GROUP: &str = "rbac.authorization.k8s.io";
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const MANAGER: &str = "system:kube-controller-manager";
/// The roles for people: each has the rules of the ones before it, and of what is labelled to belong to it.
const LADDER: [&str; 3] = ["view", "edit", "admin"];

/// Every default ClusterRole.
pub fn cluster_roles() -> Vec<Value> {
    let mut roles: Vec<Value> = ROLES.iter().map(plain).collect();
    roles.extend(LADDER.iter().map(|name| ladder(name)));
    roles.extend(
        CONTROLLERS
            .iter()
            .map(|(name, rules)| object("ClusterRole", &controller(name), json!({}), json!({"rules": list(rules)}))),
    );
    roles
}

/// Every default ClusterRoleBinding.
pub fn cluster_role_bindings() -> Vec<Value> {
    let mut bindings: Vec<Value> = ROLES.iter().filter(|r| r.part_of.is_none()).filter_map(binding).collect();
    bindings.push(bind("system:node", Vec::new()));
    bindings.push(bind("system:kube-dns", vec![account("kube-dns")]));
    for (name, _) in CONTROLLERS {
        bindings.push(bind(&controller(name), vec![account(name), subject("User", MANAGER)]));
    }
    bindings
}

fn account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "name": name, "namespace": "kube-system"})
}

fn controller(name: &str) -> String {
    format!("system:controller:{name}")
}

pub(super) fn object(kind: &str, name: &str, labels: Value, mut body: Value) -> Value {
    let mut labels = labels;
    set(&mut labels, "kubernetes.io/bootstrapping", "rbac-defaults");
    body["apiVersion"] = json!(API_VERSION);
    body["kind"] = json!(kind);
    body["metadata"] = json!({"name": name, "labels": labels, "annotations": {AUTO_UPDATE: "true"}});
    body
}

fn plain(role: &Role) -> Value {
    let mut labels = json!({});
    if let Some(part_of) = role.part_of {
        set(&mut labels, &format!("{GROUP}/aggregate-to-{part_of}"), "true");
    }
    object("ClusterRole", role.name, labels, json!({"rules": list(role.rules)}))
}

/// An aggregated role, with the rules its parts have at the start; whoever aggregates later comes to the same.
fn ladder(name: &str) -> Value {
    let rank = LADDER.iter().position(|n| *n == name).unwrap_or(0);
    let parts = ROLES.iter().filter(|r| r.part_of.is_some_and(|p| LADDER[..=rank].contains(&p)));
    let rules: Vec<Value> = parts.flat_map(|r| r.rules.iter().map(rule)).collect();
    let selector = json!({"clusterRoleSelectors": [{"matchLabels": {format!("{GROUP}/aggregate-to-{name}"): "true"}}]});
    let mut labels = json!({});
    if let Some(next) = LADDER.get(rank + 1) {
        set(&mut labels, &format!("{GROUP}/aggregate-to-{next}"), "true");
    }
    object("ClusterRole", name, labels, json!({"rules": rules, "aggregationRule": selector}))
}

pub(super) fn list(rules: &[Rule]) -> Value {
    rules.iter().map(rule).collect()
}

fn rule(rule: &Rule) -> Value {
    if rule.groups.is_empty() {
        return json!({"verbs": rule.verbs, "nonResourceURLs": rule.resources});
    }
    let mut out = json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
    if !rule.names.is_empty() {
        out["resourceNames"] = json!(rule.names);
    }
    out
}

pub(super) fn subject(kind: &str, name: &str) -> Value {
    json!({"kind": kind, "name": name, "apiGroup": GROUP})
}

fn binding(role: &Role) -> Option<Value> {
    let users = role.users.iter().map(|u| subject("User", u));
    let subjects: Vec<Value> = users.chain(role.groups.iter().map(|g| subject("Group", g))).collect();
    (!subjects.is_empty()).then(|| bind(role.name, subjects))
}

fn bind(role: &str, subjects: Vec<Value>) -> Value {
    let mut body = json!({"roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role}});
    if !subjects.is_empty() {
        body["subjects"] = json!(subjects);
    }
    object("ClusterRoleBinding", role, json!({}), body)
}

fn updates(existing: &Value) -> bool {
    str_at(existing, &["metadata", "annotations", AUTO_UPDATE]) != "false"
}

fn add_missing(existing: &mut Value, wanted: &Value, field: &str) {
    let mut list = items(existing, &[field]).to_vec();
    let before = list.len();
    for item in items(wanted, &[field]) {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
    if list.len() > before {
        set(existing, field, list);
    }
}

fn add_labels(existing: &mut Value, wanted: &Value) {
    for field in ["labels", "annotations"] {
        let mut map = existing["metadata"][field].as_object().cloned().unwrap_or_default();
        for (k, v) in wanted["metadata"][field].as_object().into_iter().flatten() {
            map.entry(k.clone()).or_insert_with(|| v.clone());
        }
        set(&mut existing["metadata"], field, map);
    }
}

/// Adds the rules an existing role lacks; it never takes any away.
pub fn merge_role(existing: &mut Value, wanted: &Value) {
    if updates(existing) {
        add_missing(existing, wanted, "rules");
        add_labels(existing, wanted);
        if existing.get("aggregationRule").is_none() && wanted.get("aggregationRule").is_some() {
            set(existing, "aggregationRule", wanted["aggregationRule"].clone());
        }
    }
}

/// Adds the subjects an existing binding lacks.
pub fn merge_binding(existing: &mut Value, wanted: &Value) {
    if updates(existing) {
        add_missing(existing, wanted, "subjects");
        add_labels(existing, wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Strategy, strategy::rbac};
    use std::collections::BTreeSet;

    #[test]
    fn defaults_are_valid_and_unique() {
        let mut names = BTreeSet::new();
        for mut role in cluster_roles() {
            assert!(names.insert(str_at(&role, &["metadata", "name"]).to_owned()), "{role}");
            (rbac::CLUSTER_ROLE.defaults)(&mut role);
            assert_eq!(rbac::CLUSTER_ROLE.validate(&role), [], "{role}");
        }
        for mut binding in cluster_role_bindings() {
            let role = str_at(&binding, &["roleRef", "name"]).to_owned();
            assert!(names.contains(&role), "{role} is bound but not made");
            let before = binding.clone();
            (rbac::CLUSTER_ROLE_BINDING.defaults)(&mut binding);
            assert_eq!(binding, before, "as stored, so that a restart writes nothing");
            assert_eq!(rbac::CLUSTER_ROLE_BINDING.validate(&binding), []);
        }
    }

    #[test]
    fn merging_only_adds() {
        let roles = cluster_roles();
        let wanted = roles.iter().find(|r| r["metadata"]["name"] == "system:kube-scheduler").expect("role");
        let mut same = wanted.clone();
        merge_role(&mut same, wanted);
        assert_eq!(&same, wanted);
        let mut less = wanted.clone();
        less["rules"] = json!([{"verbs": ["own"], "apiGroups": [""], "resources": ["x"]}]);
        merge_role(&mut less, wanted);
        assert_eq!(items(&less, &["rules"]).len(), items(wanted, &["rules"]).len() + 1);
        less["metadata"]["annotations"][AUTO_UPDATE] = json!("false");
        less["rules"] = json!([]);
        merge_role(&mut less, wanted);
        assert!(items(&less, &["rules"]).is_empty());
    }

    #[test]
    fn the_ladder_grows() {
        let roles = cluster_roles();
        let count =
            |name: &str| roles.iter().find(|r| r["metadata"]["name"] == name).map_or(0, |r| items(r, &["rules"]).len());
        assert!(count("view") < count("edit") && count("edit") < count("admin"));
    }
}

//! Roles and bindings: who may do what. A binding's role is fixed for life: to change it is to make another binding.

use serde_json::Value;

use super::checks::{dns_subdomain, label_selector, named, path_segment};
use super::kind::Kind;
use super::tree::{at, default, each, has, items, object, same, set, str_at};
use crate::errors::FieldError;

const GROUP: &str = "rbac.authorization.k8s.io";

const ROLES: Kind = Kind {
    names: path_segment,
    defaults: |r| {
        if !has(r, "rules") && !has(r, "aggregationRule") {
            set(r, "rules", Value::Array(Vec::new()));
        }
    },
    ..Kind::BASE
};
const BINDINGS: Kind = Kind {
    names: path_segment,
    defaults: binding_defaults,
    check_update: |errors, _, new, old| {
        if !same(new.get("roleRef"), old.get("roleRef")) {
            errors.push(FieldError::invalid("roleRef", new["roleRef"].clone(), "cannot change roleRef"));
        }
    },
    ..Kind::BASE
};

/// Role.
pub static ROLE: Kind = Kind { check: |errors, r| rules(errors, r, true), ..ROLES };
/// ClusterRole.
pub static CLUSTER_ROLE: Kind = Kind {
    check: |errors, r| {
        rules(errors, r, false);
        if at(r, &["aggregationRule"]).is_some() {
            let selectors = items(r, &["aggregationRule", "clusterRoleSelectors"]);
            if selectors.is_empty() {
                errors.push(FieldError::required(
                    "aggregationRule.clusterRoleSelectors",
                    "at least one clusterRoleSelector required if aggregationRule is non-nil",
                ));
            }
            for (i, s) in selectors.iter().enumerate() {
                label_selector(errors, &format!("aggregationRule.clusterRoleSelectors[{i}]"), s);
            }
        }
    },
    ..ROLES
};
/// RoleBinding.
pub static ROLE_BINDING: Kind = Kind { check: |errors, b| binding(errors, b, &["Role", "ClusterRole"]), ..BINDINGS };
/// ClusterRoleBinding.
pub static CLUSTER_ROLE_BINDING: Kind = Kind { check: |errors, b| binding(errors, b, &["ClusterRole"]), ..BINDINGS };

fn binding_defaults(b: &mut Value) {
    default(object(b, "roleRef"), "apiGroup", GROUP);
    each(b, "subjects", |s| match str_at(s, &["kind"]) {
        "User" | "Group" => default(s, "apiGroup", GROUP),
        _ => {}
    });
}

fn rules(errors: &mut Vec<FieldError>, role: &Value, namespaced: bool) {
    for (i, r) in items(role, &["rules"]).iter().enumerate() {
        let path = format!("rules[{i}]");
        let empty = |f: &str| items(r, &[f]).is_empty();
        if empty("verbs") {
            errors.push(FieldError::required(format!("{path}.verbs"), "verbs must contain at least one value"));
        }
        if !empty("nonResourceURLs") {
            if namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(
                    format!("{path}.nonResourceURLs"),
                    r["nonResourceURLs"].clone(),
                    detail,
                ));
            }
            if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(
                    format!("{path}.nonResourceURLs"),
                    r["nonResourceURLs"].clone(),
                    detail,
                ));
            }
            continue;
        }
        if empty("apiGroups") {
            errors.push(FieldError::required(
                format!("{path}.apiGroups"),
                "resource rules must supply at least one api group",
            ));
        }
        if empty("resources") {
            errors.push(FieldError::required(
                format!("{path}.resources"),
                "resource rules must supply at least one resource",
            ));
        }
    }
}

fn binding(errors: &mut Vec<FieldError>, b: &Value, kinds: &[&str]) {
    let group = str_at(b, &["roleRef", "apiGroup"]);
    if group != GROUP {
        errors.push(FieldError::not_supported("roleRef.apiGroup", group, &[GROUP]));
    }
    let kind = str_at(b, &["roleRef", "kind"]);
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported("roleRef.kind", kind, kinds));
    }
    match str_at(b, &["roleRef", "name"]) {
        "" => errors.push(FieldError::required("roleRef.name", "")),
        name => named(errors, "roleRef.name", name, path_segment),
    }
    for (i, s) in items(b, &["subjects"]).iter().enumerate() {
        subject(errors, &format!("subjects[{i}]"), s);
    }
}

fn subject(errors: &mut Vec<FieldError>, path: &str, s: &Value) {
    let name = str_at(s, &["name"]);
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    }
    let group = str_at(s, &["apiGroup"]);
    match str_at(s, &["kind"]) {
        "ServiceAccount" => {
            if !name.is_empty() {
                named(errors, &format!("{path}.name"), name, dns_subdomain);
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(format!("{path}.apiGroup"), group, &[""]));
            }
            if str_at(s, &["namespace"]).is_empty() {
                errors.push(FieldError::required(format!("{path}.namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.push(FieldError::not_supported(format!("{path}.apiGroup"), group, &[GROUP]));
            }
        }
        kind => {
            errors.push(FieldError::not_supported(format!("{path}.kind"), kind, &["ServiceAccount", "User", "Group"]))
        }
    }
}

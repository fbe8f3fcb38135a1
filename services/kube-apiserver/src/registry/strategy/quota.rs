//! ResourceQuota and LimitRange: how much a namespace, and each thing in it, may have.

use apimachinery::quantity::Quantity;
use serde_json::{Map, Value};

use super::checks::{immutable, one_of, qualified_name};
use super::kind::Kind;
use super::tree::{at, has, items, map_at, object, set, str_at};
use crate::errors::FieldError;

/// What a namespace may have in sum, by the plain name of a resource.
const COUNTED: [&str; 17] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "persistentvolumeclaims",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
];
const COUNTED_TOO: [&str; 3] = ["configmaps", "services.nodeports", "services.loadbalancers"];
/// Resources whose amounts have no fractions.
const WHOLE: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// ResourceQuota.
pub static RESOURCE_QUOTA: Kind = Kind {
    generation: false,
    check: |errors, q| {
        amounts(errors, "spec.hard", map_at(q, &["spec", "hard"]));
        scopes(errors, q);
    },
    check_update: |errors, sub, new, old| {
        if sub == Some("status") {
            for part in ["hard", "used"] {
                amounts(errors, &format!("status.{part}"), map_at(new, &["status", part]));
            }
            return;
        }
        let sorted = |v: &Value| {
            let mut list: Vec<String> =
                items(v, &["spec", "scopes"]).iter().filter_map(|s| s.as_str().map(str::to_owned)).collect();
            list.sort();
            Value::from(list)
        };
        immutable(errors, "spec.scopes", Some(&sorted(new)), Some(&sorted(old)));
    },
    ..Kind::SPEC_STATUS
};

/// Whether a quota can limit a resource of what a scope chooses; resources that are not of this server are nobody's business.
fn limits(scope: &str, resource: &str) -> bool {
    let computed = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
    let known = COUNTED.contains(&resource) || COUNTED_TOO.contains(&resource);
    match scope {
        _ if !known => true,
        "BestEffort" => resource == "pods",
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            resource == "pods" || computed.contains(&resource)
        }
        _ => true,
    }
}

fn scopes(errors: &mut Vec<FieldError>, q: &Value) {
    let names: Vec<&String> = map_at(q, &["spec", "hard"]).into_iter().flat_map(Map::keys).collect();
    let list: Vec<&str> = items(q, &["spec", "scopes"]).iter().filter_map(Value::as_str).collect();
    for scope in &list {
        if !SCOPES.contains(scope) {
            errors.push(FieldError::invalid("spec.scopes", q["spec"]["scopes"].clone(), "unsupported scope"));
        }
    }
    if list.iter().any(|scope| names.iter().any(|name| !limits(scope, name))) {
        errors.push(FieldError::invalid("spec.scopes", list.clone(), "unsupported scope applied to resource"));
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|s| list.contains(s)) {
            errors.push(FieldError::invalid("spec.scopes", q["spec"]["scopes"].clone(), "conflicting scopes"));
        }
    }
    for e in items(q, &["spec", "scopeSelector", "matchExpressions"]) {
        let path = "spec.scopeSelector.matchExpressions";
        let (scope, operator, values) = (str_at(e, &["scopeName"]), str_at(e, &["operator"]), items(e, &["values"]));
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(format!("{path}.scopeName"), scope, "unsupported scope"));
        }
        let bare = !matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if bare && operator != "Exists" {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(FieldError::invalid(format!("{path}.operator"), operator, detail));
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(format!("{path}.values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(format!("{path}.values"), values.to_vec(), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                errors.push(FieldError::invalid(format!("{path}.operator"), other, "not a valid selector operator"))
            }
        }
    }
}

fn amounts(errors: &mut Vec<FieldError>, path: &str, map: Option<&Map<String, Value>>) {
    for (name, amount) in map.into_iter().flatten() {
        let path = format!("{path}[{name}]");
        errors.extend(qualified_name(name).into_iter().map(|d| FieldError::invalid(path.clone(), name.as_str(), d)));
        let plain = !name.contains('/');
        let known = COUNTED.contains(&name.as_str())
            || COUNTED_TOO.contains(&name.as_str())
            || ["hugepages-", "requests.hugepages-"].iter().any(|p| name.starts_with(p));
        if plain && !known {
            errors.push(FieldError::invalid(path.clone(), name.as_str(), "must be a standard resource for quota"));
        }
        let text = amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
        let Ok(q) = Quantity::parse(&text) else { continue };
        if q.sign() < 0 {
            errors.push(FieldError::invalid(path, text, "must be greater than or equal to 0"));
        } else if (WHOLE.contains(&name.as_str()) || name.starts_with("count/")) && q.milli() % 1000 != 0 {
            errors.push(FieldError::invalid(path, text, "must be an integer"));
        }
    }
}

/// LimitRange.
pub static LIMIT_RANGE: Kind = Kind {
    defaults: |l| {
        super::tree::each(object(l, "spec"), "limits", |item| {
            if str_at(item, &["type"]) == "Container" {
                container_defaults(item);
            }
        });
    },
    check: check_limits,
    ..Kind::BASE
};

/// For containers the largest is the default limit, and the default limit or else the smallest the default request.
fn container_defaults(item: &mut Value) {
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let Some(source) = map_at(item, &[from]).cloned() else { continue };
        let target = object(item, to);
        for (name, amount) in source {
            if !has(target, &name) {
                set(target, &name, amount);
            }
        }
    }
}

fn check_limits(errors: &mut Vec<FieldError>, l: &Value) {
    let limits = items(l, &["spec", "limits"]);
    for (i, item) in limits.iter().enumerate() {
        let path = format!("spec.limits[{i}]");
        let kind = str_at(item, &["type"]);
        if kind.is_empty() {
            errors.push(FieldError::required(format!("{path}.type"), ""));
        } else if !kind.contains('/') {
            one_of(errors, &format!("{path}.type"), kind, &["Container", "PersistentVolumeClaim", "Pod"]);
        }
        if limits[..i].iter().any(|other| str_at(other, &["type"]) == kind) {
            errors.push(FieldError::duplicate(format!("{path}.type"), kind));
        }
        if kind == "Pod" {
            for (field, detail) in [
                ("default", "may not be specified when `type` is 'Pod'"),
                ("defaultRequest", "may not be specified when `type` is 'Pod'"),
            ] {
                if map_at(item, &[field]).is_some_and(|m| !m.is_empty()) {
                    errors.push(FieldError::forbidden(format!("{path}.{field}"), detail));
                }
            }
        }
        if kind == "PersistentVolumeClaim"
            && at(item, &["min", "storage"]).is_none()
            && at(item, &["max", "storage"]).is_none()
        {
            errors.push(FieldError::required(
                path.clone(),
                "either minimum or maximum storage value is required, but neither was provided",
            ));
        }
        order(errors, &path, item);
    }
}

/// min ≤ defaultRequest ≤ default ≤ max, as far as they are there.
fn order(errors: &mut Vec<FieldError>, path: &str, item: &Value) {
    let of = |field: &str, name: &str| -> Option<(Quantity, String)> {
        let v = at(item, &[field, name])?;
        let text = v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        Quantity::parse(&text).ok().map(|q| (q, text))
    };
    let words = [
        ("min", "min", "max", "min value {} is greater than max value {}"),
        ("defaultRequest", "min", "defaultRequest", "min value {} is greater than default request value {}"),
        ("defaultRequest", "defaultRequest", "max", "default request value {} is greater than max value {}"),
        (
            "defaultRequest",
            "defaultRequest",
            "default",
            "default request value {} is greater than default limit value {}",
        ),
        ("default", "min", "default", "min value {} is greater than default value {}"),
        ("default", "default", "max", "default value {} is greater than max value {}"),
    ];
    let mut names: Vec<&String> = ["min", "max", "default", "defaultRequest"]
        .iter()
        .filter_map(|f| map_at(item, &[f]))
        .flat_map(Map::keys)
        .collect();
    names.sort();
    names.dedup();
    for name in names {
        for (blamed, low, high, text) in words {
            if let (Some((l, shown_low)), Some((h, shown_high))) = (of(low, name), of(high, name))
                && l.milli() > h.milli()
            {
                let detail = text.replacen("{}", &shown_low, 1).replacen("{}", &shown_high, 1);
                let value = of(blamed, name).map(|(_, t)| t).unwrap_or_default();
                errors.push(FieldError::invalid(format!("{path}.{blamed}[{name}]"), value, detail));
            }
        }
        if let Some((ratio, shown)) = of("maxLimitRequestRatio", name)
            && ratio.milli() < 1000
        {
            let path = format!("{path}.maxLimitRequestRatio[{name}]");
            errors.push(FieldError::invalid(path, shown.clone(), format!("ratio {shown} is less than 1")));
        }
    }
}

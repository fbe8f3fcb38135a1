//! ResourceQuota and LimitRange: how much a namespace, and each thing in it, may have.

use apimachinery::quantity::Quantity;
use serde_json::{Map, Value};

use super::checks::{named, qualified_name};
use super::container_checks::{amount, any_resource_name, overcommits, resource_name};
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

/// Whether a name without a domain means a resource of containers, claims or namespaces.
pub fn is_counted(name: &str) -> bool {
    COUNTED.contains(&name) || COUNTED_TOO.contains(&name) || name.starts_with("requests.hugepages-")
}

/// Whether a resource comes in whole pieces only.
pub fn is_whole(name: &str) -> bool {
    WHOLE.contains(&name)
}

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
        if sorted(new) != sorted(old) {
            let shown = items(new, &["spec", "scopes"]).to_vec();
            errors.push(FieldError::invalid("spec.scopes", shown, super::checks::IMMUTABLE));
        }
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
    let all = items(q, &["spec", "scopes"]).to_vec();
    for scope in all.iter().filter_map(Value::as_str) {
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid("spec.scopes", all.clone(), "unsupported scope"));
        }
        for _ in names.iter().filter(|name| !limits(scope, name)) {
            errors.push(FieldError::invalid("spec.scopes", all.clone(), "unsupported scope applied to resource"));
        }
    }
    conflicts(errors, &all, &all);
    let path = "spec.scopeSelector.matchExpressions";
    let list = items(q, &["spec", "scopeSelector", "matchExpressions"]);
    for e in list {
        let (scope, operator, values) = (str_at(e, &["scopeName"]), str_at(e, &["operator"]), items(e, &["values"]));
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(format!("{path}.scopeName"), scope, "unsupported scope"));
        }
        for _ in names.iter().filter(|name| !limits(scope, name)) {
            let shown = q["spec"]["scopeSelector"].clone();
            errors.push(FieldError::invalid(path, shown, "unsupported scope applied to resource"));
        }
        let bare = SCOPES.contains(&scope) && !matches!(scope, "PriorityClass" | "VolumeAttributesClass");
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
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(format!("{path}.values"), values.to_vec(), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                errors.push(FieldError::invalid(format!("{path}.operator"), other, "not a valid selector operator"))
            }
        }
    }
    let selected: Vec<Value> = list.iter().map(|e| e["scopeName"].clone()).collect();
    conflicts(errors, &selected, &all);
}

/// Scopes that leave nothing together.
fn conflicts(errors: &mut Vec<FieldError>, list: &[Value], shown: &[Value]) {
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|s| list.iter().any(|l| l == s)) {
            errors.push(FieldError::invalid("spec.scopes", shown.to_vec(), "conflicting scopes"));
        }
    }
}

fn amounts(errors: &mut Vec<FieldError>, path: &str, map: Option<&Map<String, Value>>) {
    for (name, value) in map.into_iter().flatten() {
        let path = format!("{path}[{name}]");
        any_resource_name(errors, &path, name);
        if !name.contains('/') && !is_counted(name) && !name.starts_with("hugepages-") {
            errors.push(FieldError::invalid(path.clone(), name.as_str(), "must be a standard resource for quota"));
        }
        amount(errors, &path, name, value);
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

const AMOUNTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn check_limits(errors: &mut Vec<FieldError>, l: &Value) {
    let limits = items(l, &["spec", "limits"]);
    for (i, item) in limits.iter().enumerate() {
        let path = format!("spec.limits[{i}]");
        let kind = str_at(item, &["type"]);
        let before = errors.len();
        named(errors, &format!("{path}.type"), kind, qualified_name);
        let known = ["Container", "PersistentVolumeClaim", "Pod"].contains(&kind);
        if errors.len() == before && !kind.contains('/') && !known {
            let detail = "must be a standard limit type or fully qualified";
            errors.push(FieldError::invalid(format!("{path}.type"), kind, detail));
        }
        if limits[..i].iter().any(|other| str_at(other, &["type"]) == kind) {
            errors.push(FieldError::duplicate(format!("{path}.type"), kind));
        }
        let of_pods = matches!(kind, "Container" | "Pod");
        for field in AMOUNTS {
            let map = map_at(item, &[field]).filter(|m| !m.is_empty());
            if kind == "Pod" && matches!(field, "default" | "defaultRequest") {
                if map.is_some() {
                    let detail = "may not be specified when `type` is 'Pod'";
                    errors.push(FieldError::forbidden(format!("{path}.{field}"), detail));
                }
                continue;
            }
            let name_check = if of_pods { resource_name } else { any_resource_name };
            map.into_iter().flat_map(Map::keys).for_each(|n| name_check(errors, &format!("{path}.{field}[{n}]"), n));
        }
        if kind == "PersistentVolumeClaim"
            && at(item, &["min", "storage"]).is_none()
            && at(item, &["max", "storage"]).is_none()
        {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            errors.push(FieldError::required(format!("{path}.limits"), detail));
        }
        order(errors, &path, item);
    }
}

/// min ≤ defaultRequest ≤ default ≤ max, as far as they are there. (Where it is reported, whose value is shown, the lower, the higher,
/// and the words about them.)
const ORDER: [(&str, &str, &str, &str, &str); 6] = [
    ("min", "min", "min", "max", "min value {} is greater than max value {}"),
    (
        "defaultRequest",
        "defaultRequest",
        "min",
        "defaultRequest",
        "min value {} is greater than default request value {}",
    ),
    (
        "defaultRequest",
        "defaultRequest",
        "defaultRequest",
        "max",
        "default request value {} is greater than max value {}",
    ),
    (
        "defaultRequest",
        "defaultRequest",
        "defaultRequest",
        "default",
        "default request value {} is greater than default limit value {}",
    ),
    ("default", "min", "min", "default", "min value {} is greater than default value {}"),
    ("default", "max", "default", "max", "default value {} is greater than max value {}"),
];

fn order(errors: &mut Vec<FieldError>, path: &str, item: &Value) {
    let of = |field: &str, name: &str| at(item, &[field, name]).and_then(crate::admission::pod_resources::quantity);
    let mut names: Vec<&String> = AMOUNTS.iter().filter_map(|f| map_at(item, &[f])).flat_map(Map::keys).collect();
    names.sort();
    names.dedup();
    for name in names {
        for (blamed, shown, low, high, text) in ORDER {
            if let (Some(l), Some(h)) = (of(low, name), of(high, name))
                && l.milli() > h.milli()
            {
                let detail = text.replacen("{}", &l.to_string(), 1).replacen("{}", &h.to_string(), 1);
                let value = of(shown, name).map(|q| q.to_string()).unwrap_or_default();
                errors.push(FieldError::invalid(format!("{path}.{blamed}[{name}]"), value, detail));
            }
        }
        ratio(errors, path, name, &of);
        let (default, request) = (of("default", name), of("defaultRequest", name));
        if let (Some(d), Some(r)) = (default, request)
            && !overcommits(name)
            && d.milli() != r.milli()
        {
            let detail = format!("default value {d} must equal to defaultRequest value {r} in {name}");
            errors.push(FieldError::invalid(format!("{path}.defaultRequest[{name}]"), r.to_string(), detail));
        }
    }
}

/// How many times as much as it asks for something may use.
fn ratio(errors: &mut Vec<FieldError>, path: &str, name: &str, of: &dyn Fn(&str, &str) -> Option<Quantity>) {
    let Some(ratio) = of("maxLimitRequestRatio", name) else { return };
    let path = format!("{path}.maxLimitRequestRatio[{name}]");
    if ratio.milli() < 1000 {
        errors.push(FieldError::invalid(path.clone(), ratio.to_string(), format!("ratio {ratio} is less than 1")));
    }
    let (Some(min), Some(max)) = (of("min", name), of("max", name)) else { return };
    if min.milli() > 0 && ratio.milli() * min.milli() > max.milli() * 1000 {
        #[expect(clippy::cast_precision_loss, reason = "shown to people with six digits")]
        let most = max.milli() as f64 / min.milli() as f64;
        let detail = format!("ratio {ratio} is greater than max/min = {most:.6}");
        errors.push(FieldError::invalid(path, ratio.to_string(), detail));
    }
}

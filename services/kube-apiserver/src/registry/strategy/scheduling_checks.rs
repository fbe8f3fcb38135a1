//! What makes the wishes of a pod about its node well formed: tolerations, spreading, affinity.

use serde_json::Value;

use super::checks::{
    dns_label, dns_subdomain, label_selector, label_value, named, one_of, optional_one_of, qualified_name,
};
use super::tree::{at, has, int_at, items, str_at};
use crate::errors::FieldError;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Tolerations; also of what a pod update adds.
pub fn tolerations(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    for (i, t) in items(spec, &["tolerations"]).iter().enumerate() {
        let path = format!("{path}[{i}]");
        let (key, operator, effect) = (str_at(t, &["key"]), str_at(t, &["operator"]), str_at(t, &["effect"]));
        if !key.is_empty() {
            named(errors, &format!("{path}.key"), key, qualified_name);
        } else if operator != "Exists" {
            errors.push(FieldError::invalid(
                format!("{path}.operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ));
        }
        if has(t, "tolerationSeconds") && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(format!("{path}.effect"), effect, detail));
        }
        let value = str_at(t, &["value"]);
        match operator {
            "" | "Equal" => {
                let problems = label_value(value);
                if !problems.is_empty() {
                    errors.push(FieldError::invalid(format!("{path}.operator"), value, problems.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(format!("{path}.operator"), value, detail));
            }
            "Exists" => {}
            other => errors.push(FieldError::not_supported(format!("{path}.operator"), other, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            one_of(errors, &format!("{path}.effect"), effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
    }
}

/// Topology spread constraints.
pub fn spreading(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    let list = items(spec, &["topologySpreadConstraints"]);
    for (i, c) in list.iter().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{i}]");
        let skew = int_at(c, &["maxSkew"]).unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(format!("{path}.maxSkew"), skew, "must be greater than zero"));
        }
        let (key, when) = (str_at(c, &["topologyKey"]), str_at(c, &["whenUnsatisfiable"]));
        if key.is_empty() {
            errors.push(FieldError::required(format!("{path}.topologyKey"), "can not be empty"));
        }
        one_of(errors, &format!("{path}.whenUnsatisfiable"), when, &["DoNotSchedule", "ScheduleAnyway"]);
        let twin = |o: &Value| str_at(o, &["topologyKey"]) == key && str_at(o, &["whenUnsatisfiable"]) == when;
        if list[i + 1..].iter().any(twin) {
            let pair = format!("{{{key}, {when}}}");
            errors.push(FieldError::duplicate(format!("{path}.{{topologyKey, whenUnsatisfiable}}"), pair));
        }
        if let Some(n) = int_at(c, &["minDomains"]) {
            let path = format!("{path}.minDomains");
            if n <= 0 {
                errors.push(FieldError::invalid(path.clone(), n, "must be greater than zero"));
            }
            if when != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                errors.push(FieldError::invalid(path, n, detail));
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            optional_one_of(errors, &format!("{path}.{field}"), str_at(c, &[field]), &["Honor", "Ignore"]);
        }
        if let Some(s) = at(c, &["labelSelector"]) {
            label_selector(errors, &format!("{path}.labelSelector"), s);
        }
        label_keys(errors, &path, c);
    }
}

/// Affinity to nodes and to other pods.
pub fn affinity(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    if let Some(node) = at(spec, &["affinity", "nodeAffinity"]) {
        node_affinity(errors, &format!("{path}.nodeAffinity"), node);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (i, term) in items(spec, &["affinity", kind, REQUIRED]).iter().enumerate() {
            pod_term(errors, &format!("{path}.{kind}.{REQUIRED}[{i}]"), term);
        }
        for (i, weighted) in items(spec, &["affinity", kind, PREFERRED]).iter().enumerate() {
            let path = format!("{path}.{kind}.{PREFERRED}[{i}]");
            weight(errors, &path, weighted);
            let term = at(weighted, &["podAffinityTerm"]).unwrap_or(&Value::Null);
            pod_term(errors, &format!("{path}.podAffinityTerm"), term);
        }
    }
}

fn weight(errors: &mut Vec<FieldError>, path: &str, weighted: &Value) {
    let n = int_at(weighted, &["weight"]).unwrap_or(0);
    if !(1..=100).contains(&n) {
        errors.push(FieldError::invalid(format!("{path}.weight"), n, "must be in the range 1-100"));
    }
}

fn node_affinity(errors: &mut Vec<FieldError>, path: &str, node: &Value) {
    if let Some(required) = at(node, &[REQUIRED]) {
        node_selector(errors, &format!("{path}.{REQUIRED}"), required);
    }
    for (i, weighted) in items(node, &[PREFERRED]).iter().enumerate() {
        let path = format!("{path}.{PREFERRED}[{i}]");
        weight(errors, &path, weighted);
        let preference = at(weighted, &["preference"]).unwrap_or(&Value::Null);
        node_term(errors, &format!("{path}.preference"), preference, false);
    }
}

/// A node selector: at least one alternative, each well formed.
pub fn node_selector(errors: &mut Vec<FieldError>, path: &str, selector: &Value) {
    let path = format!("{path}.nodeSelectorTerms");
    let terms = items(selector, &["nodeSelectorTerms"]);
    if terms.is_empty() {
        errors.push(FieldError::required(path.clone(), "must have at least one node selector term"));
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(errors, &format!("{path}[{i}]"), term, true);
    }
}

fn pod_term(errors: &mut Vec<FieldError>, path: &str, term: &Value) {
    for selector in ["labelSelector", "namespaceSelector"] {
        if let Some(s) = at(term, &[selector]) {
            label_selector(errors, &format!("{path}.{selector}"), s);
        }
    }
    for name in items(term, &["namespaces"]).iter().filter_map(Value::as_str) {
        named(errors, &format!("{path}.namespace"), name, dns_label);
    }
    label_keys(errors, path, term);
    let key = str_at(term, &["topologyKey"]);
    if key.is_empty() {
        errors.push(FieldError::required(format!("{path}.topologyKey"), "can not be empty"));
    }
    named(errors, &format!("{path}.topologyKey"), key, qualified_name);
}

/// Keys whose values are taken from the pod itself. On creation they became expressions of the selector, so only the user's own
/// expression of the same key is one too many.
fn label_keys(errors: &mut Vec<FieldError>, path: &str, term: &Value) {
    let other = items(term, &["mismatchLabelKeys"]);
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = items(term, &[field]);
        if !keys.is_empty() && at(term, &["labelSelector"]).is_none() {
            let detail = "must not be specified when labelSelector is not set";
            errors.push(FieldError::forbidden(format!("{path}.{field}"), detail));
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            let text = key.as_str().unwrap_or_default();
            named(errors, &format!("{path}.{field}[{i}]"), text, qualified_name);
            if field == "matchLabelKeys" && other.contains(key) {
                let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
                errors.push(FieldError::invalid(format!("{path}.{field}[{i}]"), text, detail));
            }
        }
    }
    let mut seen: Vec<&str> = at(term, &["labelSelector", "matchLabels"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(k, _)| k.as_str())
        .collect();
    for e in items(term, &["labelSelector", "matchExpressions"]) {
        let key = str_at(e, &["key"]);
        let place = items(term, &["matchLabelKeys"]).iter().position(|k| k == key);
        if let Some(i) = place.filter(|_| seen.contains(&key)) {
            let detail = "exists in both matchLabelKeys and labelSelector";
            errors.push(FieldError::invalid(format!("{path}[{i}]"), key, detail));
        }
        seen.push(key);
    }
}

/// One alternative of a node selector; where it only expresses a preference, any value will do.
fn node_term(errors: &mut Vec<FieldError>, path: &str, term: &Value, strict: bool) {
    for (j, e) in items(term, &["matchExpressions"]).iter().enumerate() {
        node_requirement(errors, &format!("{path}.matchExpressions[{j}]"), e, strict);
    }
    for (j, e) in items(term, &["matchFields"]).iter().enumerate() {
        node_field(errors, &format!("{path}.matchFields[{j}]"), e);
    }
}

/// The one field there is to select nodes by is their name.
fn node_field(errors: &mut Vec<FieldError>, path: &str, e: &Value) {
    let values = items(e, &["values"]);
    match str_at(e, &["operator"]) {
        "In" | "NotIn" if values.len() != 1 => {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(FieldError::required(format!("{path}.values"), detail));
        }
        "In" | "NotIn" => {}
        other => errors.push(FieldError::invalid(format!("{path}.operator"), other, "not a valid selector operator")),
    }
    match str_at(e, &["key"]) {
        "metadata.name" => {
            for (i, v) in values.iter().enumerate() {
                named(errors, &format!("{path}.values[{i}]"), v.as_str().unwrap_or_default(), dns_subdomain);
            }
        }
        other => errors.push(FieldError::invalid(format!("{path}.key"), other, "not a valid field selector key")),
    }
}

fn node_requirement(errors: &mut Vec<FieldError>, path: &str, e: &Value, strict: bool) {
    let count = items(e, &["values"]).len();
    match str_at(e, &["operator"]) {
        "In" | "NotIn" if count == 0 => {
            errors.push(FieldError::required(
                format!("{path}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ));
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            errors.push(FieldError::forbidden(
                format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ));
        }
        "Gt" | "Lt" if count != 1 => {
            errors.push(FieldError::required(
                format!("{path}.values"),
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(format!("{path}.operator"), other, "not a valid selector operator")),
    }
    named(errors, &format!("{path}.key"), str_at(e, &["key"]), qualified_name);
    for (i, value) in items(e, &["values"]).iter().enumerate().filter(|_| strict) {
        named(errors, &format!("{path}.values[{i}]"), value.as_str().unwrap_or_default(), label_value);
    }
}

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
        match operator {
            "" | "Equal" => named(errors, &format!("{path}.value"), str_at(t, &["value"]), label_value),
            "Exists" if !str_at(t, &["value"]).is_empty() => {
                errors.push(FieldError::invalid(
                    format!("{path}.operator"),
                    operator,
                    "value must be empty when `operator` is 'Exists'",
                ));
            }
            "Exists" => {}
            other => errors.push(FieldError::not_supported(format!("{path}.operator"), other, &["Equal", "Exists"])),
        }
        if has(t, "tolerationSeconds") && effect != "NoExecute" {
            errors.push(FieldError::invalid(
                format!("{path}.effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            ));
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
        } else {
            named(errors, &format!("{path}.topologyKey"), key, qualified_name);
        }
        one_of(errors, &format!("{path}.whenUnsatisfiable"), when, &["DoNotSchedule", "ScheduleAnyway"]);
        let twin = |o: &Value| str_at(o, &["topologyKey"]) == key && str_at(o, &["whenUnsatisfiable"]) == when;
        if list[..i].iter().any(twin) {
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
        for (k, key) in items(c, &["matchLabelKeys"]).iter().enumerate() {
            let key = key.as_str().unwrap_or_default();
            named(errors, &format!("{path}.matchLabelKeys[{k}]"), key, qualified_name);
            if at(c, &["labelSelector"]).is_none() {
                let detail = "must not be specified when labelSelector is not set";
                errors.push(FieldError::forbidden(format!("{path}.matchLabelKeys"), detail));
            }
        }
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
        let path = format!("{path}.{REQUIRED}.nodeSelectorTerms");
        let terms = items(required, &["nodeSelectorTerms"]);
        if terms.is_empty() {
            errors.push(FieldError::required(path.clone(), "must have at least one node selector term"));
        }
        for (i, term) in terms.iter().enumerate() {
            node_term(errors, &format!("{path}[{i}]"), term);
        }
    }
    for (i, weighted) in items(node, &[PREFERRED]).iter().enumerate() {
        let path = format!("{path}.{PREFERRED}[{i}]");
        weight(errors, &path, weighted);
        node_term(errors, &format!("{path}.preference"), at(weighted, &["preference"]).unwrap_or(&Value::Null));
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
    match str_at(term, &["topologyKey"]) {
        "" => errors.push(FieldError::required(format!("{path}.topologyKey"), "can not be empty")),
        key => named(errors, &format!("{path}.topologyKey"), key, qualified_name),
    }
}

/// One alternative of a node selector.
pub fn node_term(errors: &mut Vec<FieldError>, path: &str, term: &Value) {
    for (j, e) in items(term, &["matchExpressions"]).iter().enumerate() {
        node_requirement(errors, &format!("{path}.matchExpressions[{j}]"), e);
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

fn node_requirement(errors: &mut Vec<FieldError>, path: &str, e: &Value) {
    named(errors, &format!("{path}.key"), str_at(e, &["key"]), qualified_name);
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
}

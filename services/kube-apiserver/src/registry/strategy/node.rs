//! Nodes: registered with a status, because a kubelet writes its first one in the same request.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::checks::{label_value, named, one_of, qualified_name};
use super::kind::{Fields, Kind};
use super::tree::{at, bool_at, has, items, keep, object, same, set, str_at};
use crate::errors::{ApiError, FieldError};
use crate::registry::Context;

/// The kind.
pub static NODE: Kind = Kind { defaults, update, check, check_update, fields, ..Kind::BASE };

fn defaults(node: &mut Value) {
    let status = object(node, "status");
    if !has(status, "allocatable") && has(status, "capacity") {
        let capacity = status["capacity"].clone();
        set(status, "allocatable", capacity);
    }
    let spec = object(node, "spec");
    // One family or two: the single field repeats the first of the list.
    let (one, many) = (str_at(spec, &["podCIDR"]).to_owned(), items(spec, &["podCIDRs"]).to_vec());
    match (one.is_empty(), many.first()) {
        (false, None) => set(spec, "podCIDRs", json!([one])),
        (true, Some(first)) => set(spec, "podCIDR", first.clone()),
        _ => {}
    }
}

fn update(_: &Context<'_>, sub: Option<&str>, new: &mut Value, old: &Value) -> Result<(), ApiError> {
    if sub.is_none() {
        keep(new, old, "status");
    }
    Ok(())
}

fn check(errors: &mut Vec<FieldError>, node: &Value) {
    let mut seen = BTreeSet::new();
    for (i, t) in items(node, &["spec", "taints"]).iter().enumerate() {
        let path = format!("spec.taints[{i}]");
        let (key, effect) = (str_at(t, &["key"]), str_at(t, &["effect"]));
        named(errors, &format!("{path}.key"), key, qualified_name);
        named(errors, &format!("{path}.value"), str_at(t, &["value"]), label_value);
        if effect.is_empty() {
            errors.push(FieldError::required(format!("{path}.effect"), ""));
        } else {
            one_of(errors, &format!("{path}.effect"), effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
        if !seen.insert((key, effect)) {
            errors.push(FieldError::duplicate(path, t.clone()));
        }
    }
    for (i, cidr) in items(node, &["spec", "podCIDRs"]).iter().enumerate() {
        let text = cidr.as_str().unwrap_or_default();
        if text.parse::<ipnet::IpNet>().is_err() {
            errors.push(FieldError::invalid(
                format!("spec.podCIDRs[{i}]"),
                text,
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ));
        }
    }
}

fn check_update(errors: &mut Vec<FieldError>, _: Option<&str>, new: &Value, old: &Value) {
    for (field, detail) in [
        ("podCIDRs", "node updates may not change podCIDR except from \"\" to valid"),
        ("providerID", "node updates may not change providerID except from \"\" to valid"),
    ] {
        let was = at(old, &["spec", field]);
        if was.is_some_and(|w| w != "") && !same(at(new, &["spec", field]), was) {
            errors.push(FieldError::forbidden(format!("spec.{field}"), detail));
        }
    }
}

fn fields(node: &Value) -> Fields {
    vec![("spec.unschedulable", bool_at(node, &["spec", "unschedulable"]).to_string())]
}

//! Nodes: registered with a status, because a kubelet writes its first one in the same request.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::checks::{cidr, label_value, named, qualified_name, required_one_of};
use super::container_checks::amount;
use super::kind::{Fields, Kind};
use super::tree::{at, bool_at, has, items, keep, map_at, object, same, set, str_at};
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

/// Taints are reported at metadata, as clients know it.
fn check(errors: &mut Vec<FieldError>, node: &Value) {
    let mut seen = BTreeSet::new();
    for (i, t) in items(node, &["spec", "taints"]).iter().enumerate() {
        let path = format!("metadata.taints[{i}]");
        let (key, value, effect) = (str_at(t, &["key"]), str_at(t, &["value"]), str_at(t, &["effect"]));
        named(errors, &format!("{path}.key"), key, qualified_name);
        let problems = label_value(value);
        if !problems.is_empty() {
            errors.push(FieldError::invalid(format!("{path}.value"), value, problems.join(";")));
        }
        let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        required_one_of(errors, &format!("{path}.effect"), effect, &known);
        if !seen.insert((key, effect)) {
            let detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(FieldError { detail, ..FieldError::duplicate(path, t.clone()) });
        }
    }
    for field in ["capacity", "allocatable"] {
        for (name, value) in map_at(node, &["status", field]).into_iter().flatten() {
            amount(errors, &format!("status.{field}.{name}"), name, value);
        }
    }
    ranges(errors, items(node, &["spec", "podCIDRs"]));
}

/// The ranges of a node's pods, at most one of each family.
fn ranges(errors: &mut Vec<FieldError>, list: &[Value]) {
    let path = "spec.podCIDRs";
    for (i, range) in list.iter().enumerate() {
        cidr(errors, &format!("{path}[{i}]"), range.as_str().unwrap_or_default());
    }
    let six = list.iter().filter(|r| r.as_str().is_some_and(|t| t.contains(':'))).count();
    if list.len() > 2 || (list.len() == 2 && six != 1) {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid(path, list.to_vec(), detail));
    }
    for (i, range) in list.iter().enumerate().filter(|(i, r)| list[..*i].contains(r)) {
        errors.push(FieldError::duplicate(format!("{path}[{i}]"), range.clone()));
    }
}

fn check_update(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    if sub.is_some() {
        check(errors, new);
    }
    let addresses = items(new, &["status", "addresses"]);
    for (i, address) in addresses.iter().enumerate().filter(|(i, a)| addresses[..*i].contains(a)) {
        errors.push(FieldError::duplicate(format!("status.addresses[{i}]"), address.clone()));
    }
    for (field, detail) in [
        ("podCIDRs", "node updates may not change podCIDR except from \"\" to valid"),
        ("providerID", "node updates may not change providerID except from \"\" to valid"),
    ] {
        let was = at(old, &["spec", field]);
        if was.is_some_and(|w| w != "") && !same(at(new, &["spec", field]), was) {
            errors.push(FieldError::forbidden(format!("spec.{field}"), detail));
        }
    }
    if !same(at(new, &["spec", "externalID"]), at(old, &["spec", "externalID"])) {
        errors.push(FieldError::forbidden("spec.externalID", "may not be updated"));
    }
}

fn fields(node: &Value) -> Fields {
    vec![("spec.unschedulable", bool_at(node, &["spec", "unschedulable"]).to_string())]
}

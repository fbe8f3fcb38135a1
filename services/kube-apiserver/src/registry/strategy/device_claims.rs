//! Claims of devices: what is asked for, what was given, and who may use it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::checks::{dns_label, dns_subdomain, driver_name, immutable, named, one_of, required, required_one_of};
use super::device::{configuration, pool_name, qualified, selectors, set_of, taint_effect};
use super::scheduling_checks::node_selector;
use super::tree::{at, has, int_at, items, str_at};
use crate::errors::FieldError;

/// How many requests, constraints, configurations and results there may be; how many pods may share a claim.
const MAX: usize = 32;
const RESERVED_MAX: usize = 256;
const ALTERNATIVES_MAX: usize = 8;

/// Requests by name, with the names of their alternatives.
type Names<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn names(devices: &Value) -> Names<'_> {
    let of = |r| items(r, &["firstAvailable"]).iter().map(|s| str_at(s, &["name"])).collect();
    items(devices, &["requests"]).iter().map(|r| (str_at(r, &["name"]), of(r))).collect()
}

/// A claim's wishes.
pub fn claim(errors: &mut Vec<FieldError>, path: &str, devices: &Value) {
    let known = names(devices);
    let requests = items(devices, &["requests"]);
    set_of(errors, &format!("{path}.requests"), requests, MAX, |r| str_at(r, &["name"]).to_owned(), request);
    let constraints = items(devices, &["constraints"]);
    if constraints.len() > MAX {
        errors.push(FieldError::too_many(format!("{path}.constraints"), constraints.len(), MAX));
    } else {
        for (i, c) in constraints.iter().enumerate() {
            constraint(errors, &format!("{path}.constraints[{i}]"), c, &known);
        }
    }
    configurations(errors, &format!("{path}.config"), items(devices, &["config"]), MAX, &known);
}

fn configurations(errors: &mut Vec<FieldError>, path: &str, list: &[Value], max: usize, known: &Names<'_>) {
    if list.len() > max {
        errors.push(FieldError::too_many(path, list.len(), max));
        return;
    }
    for (i, config) in list.iter().enumerate() {
        let path = format!("{path}[{i}]");
        references(errors, &format!("{path}.requests"), items(config, &["requests"]), known);
        configuration(errors, &path, config);
    }
}

fn references(errors: &mut Vec<FieldError>, path: &str, list: &[Value], known: &Names<'_>) {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    set_of(errors, path, list, MAX, text, |errors, path, v| {
        reference(errors, path, v.as_str().unwrap_or_default(), known)
    });
}

/// `request` or `request/alternative`.
fn reference(errors: &mut Vec<FieldError>, path: &str, name: &str, known: &Names<'_>) {
    let detail =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let parts: Vec<&str> = name.split('/').collect();
    let found = match parts.as_slice() {
        [request] => known.contains_key(request),
        [request, sub] => known.get(request).is_some_and(|subs| subs.contains(sub)),
        _ => {
            errors.push(FieldError::invalid(path, name, detail));
            return;
        }
    };
    parts.iter().for_each(|part| named(errors, path, part, dns_label));
    if !found {
        errors.push(FieldError::invalid(path, name, detail));
    }
}

fn request(errors: &mut Vec<FieldError>, path: &str, r: &Value) {
    named(errors, &format!("{path}.name"), str_at(r, &["name"]), dns_label);
    let alternatives = items(r, &["firstAvailable"]);
    match (at(r, &["exactly"]), alternatives.is_empty()) {
        (Some(_), false) => {
            let detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(FieldError::invalid(path, Value::Null, detail));
        }
        (None, true) => {
            errors.push(FieldError::required(path, "exactly one of `exactly` or `firstAvailable` is required"));
        }
        (Some(exact), true) => wish(errors, &format!("{path}.exactly"), exact),
        (None, false) => {
            let (path, name) = (format!("{path}.firstAvailable"), |s: &Value| str_at(s, &["name"]).to_owned());
            set_of(errors, &path, alternatives, ALTERNATIVES_MAX, name, |errors, path, sub| {
                named(errors, &format!("{path}.name"), str_at(sub, &["name"]), dns_label);
                wish(errors, path, sub);
            });
        }
    }
}

fn wish(errors: &mut Vec<FieldError>, path: &str, r: &Value) {
    match str_at(r, &["deviceClassName"]) {
        "" => errors.push(FieldError::required(format!("{path}.deviceClassName"), "")),
        name => named(errors, &format!("{path}.deviceClassName"), name, dns_subdomain),
    }
    selectors(errors, &format!("{path}.selectors"), items(r, &["selectors"]));
    let (mode, count) = (str_at(r, &["allocationMode"]), int_at(r, &["count"]).unwrap_or(0));
    match mode {
        "All" if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(format!("{path}.count"), count, detail));
        }
        "ExactCount" if count <= 0 => {
            errors.push(FieldError::invalid(format!("{path}.count"), count, "must be greater than zero"));
        }
        other => one_of(errors, &format!("{path}.allocationMode"), other, &["All", "ExactCount"]),
    }
    for (i, t) in items(r, &["tolerations"]).iter().enumerate() {
        toleration(errors, &format!("{path}.tolerations[{i}]"), t);
    }
}

fn toleration(errors: &mut Vec<FieldError>, path: &str, t: &Value) {
    let (key, operator, value) = (str_at(t, &["key"]), str_at(t, &["operator"]), str_at(t, &["value"]));
    super::checks::optional_named(errors, &format!("{path}.key"), key, super::checks::qualified_name);
    match operator {
        "Exists" if !value.is_empty() => {
            let detail = "must be empty for operator `Exists`";
            errors.push(FieldError::invalid(format!("{path}.value"), value, detail));
        }
        "Exists" => {}
        "Equal" => named(errors, &format!("{path}.value"), value, super::checks::label_value),
        "" => errors.push(FieldError::required(format!("{path}.operator"), "")),
        other => errors.push(FieldError::not_supported(format!("{path}.operator"), other, &["Equal", "Exists"])),
    }
    if key.is_empty() && operator == "Equal" {
        let detail = "must be `Exists` when `key` is empty";
        errors.push(FieldError::invalid(format!("{path}.operator"), operator, detail));
    }
    let effect = str_at(t, &["effect"]);
    if !effect.is_empty() {
        taint_effect(errors, &format!("{path}.effect"), effect);
    }
}

fn constraint(errors: &mut Vec<FieldError>, path: &str, c: &Value, known: &Names<'_>) {
    references(errors, &format!("{path}.requests"), items(c, &["requests"]), known);
    match at(c, &["matchAttribute"]).and_then(Value::as_str) {
        None => errors.push(FieldError::required(format!("{path}.matchAttribute"), "")),
        Some(name) => full_name(errors, &format!("{path}.matchAttribute"), name),
    }
}

fn full_name(errors: &mut Vec<FieldError>, path: &str, name: &str) {
    qualified(errors, path, name);
    if !name.contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(FieldError::invalid(path, name, detail));
    }
}

/// What a scheduler and drivers may say about a claim.
pub fn status(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    let known = names(&new["spec"]["devices"]);
    let reserved = items(new, &["status", "reservedFor"]);
    let path = "status.reservedFor";
    set_of(
        errors,
        path,
        reserved,
        RESERVED_MAX,
        |r| str_at(r, &["uid"]).to_owned(),
        |errors, path, r| {
            for field in ["resource", "name", "uid"] {
                required(errors, &format!("{path}.{field}"), str_at(r, &[field]));
            }
        },
    );
    let (now, before) = (at(new, &["status", "allocation"]), at(old, &["status", "allocation"]));
    devices(errors, new, now);
    if !reserved.is_empty() && now.is_none() {
        errors.push(FieldError::forbidden(path, "may not be specified when `allocated` is not set"));
    } else if has(&new["metadata"], "deletionTimestamp") {
        let was = items(old, &["status", "reservedFor"]);
        if reserved.iter().any(|r| !was.contains(r)) {
            let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(FieldError::forbidden(path, detail));
        }
    }
    match (now, before) {
        (Some(_), Some(_)) => immutable(errors, "status.allocation", now, before),
        (Some(allocation), None) => allocated(errors, "status.allocation", allocation, &known),
        _ => {}
    }
}

fn allocated(errors: &mut Vec<FieldError>, path: &str, allocation: &Value, known: &Names<'_>) {
    let results = items(allocation, &["devices", "results"]);
    let at_results = format!("{path}.devices.results");
    if results.len() > MAX {
        errors.push(FieldError::too_many(at_results, results.len(), MAX));
    } else {
        for (i, r) in results.iter().enumerate() {
            let path = format!("{at_results}[{i}]");
            reference(errors, &format!("{path}.request"), str_at(r, &["request"]), known);
            driver_name(errors, &format!("{path}.driver"), str_at(r, &["driver"]));
            pool_name(errors, &format!("{path}.pool"), str_at(r, &["pool"]));
            named(errors, &format!("{path}.device"), str_at(r, &["device"]), dns_label);
            for (j, t) in items(r, &["tolerations"]).iter().enumerate() {
                toleration(errors, &format!("{path}.tolerations[{j}]"), t);
            }
        }
    }
    let config = items(allocation, &["devices", "config"]);
    let at_config = format!("{path}.devices.config");
    for (i, c) in config.iter().enumerate() {
        let path = format!("{at_config}[{i}].source");
        required_one_of(errors, &path, str_at(c, &["source"]), &["FromClaim", "FromClass"]);
    }
    configurations(errors, &at_config, config, 2 * MAX, known);
    if let Some(selector) = at(allocation, &["nodeSelector"]) {
        node_selector(errors, &format!("{path}.nodeSelector"), selector);
    }
}

/// What drivers report about devices that were given.
fn devices(errors: &mut Vec<FieldError>, claim: &Value, allocation: Option<&Value>) {
    let id = |d: &Value| ["driver", "pool", "device"].map(|f| str_at(d, &[f]).to_owned());
    let given: BTreeSet<[String; 3]> =
        allocation.map(|a| items(a, &["devices", "results"]).iter().map(id).collect()).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (i, d) in items(claim, &["status", "devices"]).iter().enumerate() {
        let path = format!("status.devices[{i}]");
        driver_name(errors, &format!("{path}.driver"), str_at(d, &["driver"]));
        pool_name(errors, &format!("{path}.pool"), str_at(d, &["pool"]));
        named(errors, &format!("{path}.device"), str_at(d, &["device"]), dns_label);
        if !given.contains(&id(d)) {
            let detail = "must be an allocated device in the claim";
            let shown = serde_json::json!({"driver": d["driver"], "pool": d["pool"], "device": d["device"]});
            errors.push(FieldError::invalid(path.clone(), shown, detail));
        }
        if !seen.insert(id(d)) {
            errors.push(FieldError::duplicate(path, id(d).join("/")));
        }
    }
}

//! Claims of devices: what is asked for, what was given, and who may use it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::checks::{
    dns_label, dns_subdomain, driver_name, immutable, named, one_of, qualified_name, required, required_named,
    required_one_of,
};
use super::device::{configuration, pool_name, qualified, raw, selectors, set_of, taint_effect};
use super::device_parts::binding;
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
            binding(errors, &path, r);
            for (j, t) in items(r, &["tolerations"]).iter().enumerate() {
                toleration(errors, &format!("{path}.tolerations[{j}]"), t);
            }
            share_id(errors, &path, r);
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
    let id = |d: &Value| ["driver", "pool", "device", "shareID"].map(|f| str_at(d, &[f]).to_owned());
    let given: BTreeSet<[String; 4]> =
        allocation.map(|a| items(a, &["devices", "results"]).iter().map(id).collect()).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (i, d) in items(claim, &["status", "devices"]).iter().enumerate() {
        let path = format!("status.devices[{i}]");
        driver_name(errors, &format!("{path}.driver"), str_at(d, &["driver"]));
        pool_name(errors, &format!("{path}.pool"), str_at(d, &["pool"]));
        named(errors, &format!("{path}.device"), str_at(d, &["device"]), dns_label);
        share_id(errors, &path, d);
        if !given.contains(&id(d)) {
            let detail = "must be an allocated device in the claim";
            let shown = serde_json::json!({"driver": d["driver"], "pool": d["pool"], "device": d["device"]});
            errors.push(FieldError::invalid(path.clone(), shown, detail));
        }
        conditions(errors, &format!("{path}.conditions"), items(d, &["conditions"]));
        if let Some(data) = at(d, &["data"]) {
            raw(errors, &format!("{path}.data"), data);
        }
        network(errors, &format!("{path}.networkData"), &d["networkData"]);
        if !seen.insert(id(d)) {
            errors.push(FieldError::duplicate(path, id(d)[..3].join("/")));
        }
    }
}

/// Which share of a device it is: a UUID as everybody writes it.
fn share_id(errors: &mut Vec<FieldError>, path: &str, of: &Value) {
    let Some(id) = at(of, &["shareID"]).and_then(Value::as_str) else { return };
    let path = format!("{path}.shareID");
    match uuid::Uuid::try_parse(id) {
        Err(_) if id.len() != 36 => {
            errors.push(FieldError::invalid(
                path,
                id,
                format!("error validating uid: invalid UUID length: {}", id.len()),
            ));
        }
        Err(_) => errors.push(FieldError::invalid(path, id, "error validating uid: invalid UUID format")),
        Ok(uuid) if uuid.hyphenated().to_string() != id => {
            let detail = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
            errors.push(FieldError::invalid(path, id, detail));
        }
        Ok(_) => {}
    }
}

const CONDITIONS_MAX: usize = 8;
const REASON_MAX: usize = 1024;
const MESSAGE_MAX: usize = 32768;
const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// Conditions of the form that newer kinds have (metav1.Condition).
fn conditions(errors: &mut Vec<FieldError>, path: &str, list: &[Value]) {
    if list.len() > CONDITIONS_MAX {
        errors.push(FieldError::too_many(path, list.len(), CONDITIONS_MAX));
    }
    let mut types = BTreeSet::new();
    for (i, c) in list.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let (kind, reason) = (str_at(c, &["type"]), str_at(c, &["reason"]));
        required_named(errors, &format!("{path}.type"), kind, qualified_name);
        if !types.insert(kind) {
            errors.push(FieldError::duplicate(format!("{path}.type"), kind));
        }
        one_of(errors, &format!("{path}.status"), str_at(c, &["status"]), &["False", "True", "Unknown"]);
        if let Some(n) = int_at(c, &["observedGeneration"]).filter(|n| *n < 0) {
            let detail = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(format!("{path}.observedGeneration"), n, detail));
        }
        if at(c, &["lastTransitionTime"]).is_none() {
            errors.push(FieldError::required(format!("{path}.lastTransitionTime"), "must be set"));
        }
        let path_of_reason = format!("{path}.reason");
        if reason.len() > REASON_MAX {
            errors.push(FieldError::too_long(path_of_reason, REASON_MAX));
        } else if reason.is_empty() {
            errors.push(FieldError::required(path_of_reason, ""));
        } else if !is_reason(reason) {
            errors.push(FieldError::invalid(path_of_reason, reason, REASON));
        }
        if str_at(c, &["message"]).len() > MESSAGE_MAX {
            errors.push(FieldError::too_long(format!("{path}.message"), MESSAGE_MAX));
        }
    }
}

fn is_reason(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(word)
        && text.chars().all(|c| word(c) || c == ',' || c == ':')
}

const INTERFACE_MAX: usize = 256;
const HARDWARE_MAX: usize = 128;
const ADDRESSES_MAX: usize = 16;

/// A network device: its name, its own address and those it has in the network.
fn network(errors: &mut Vec<FieldError>, path: &str, data: &Value) {
    for (field, max) in [("interfaceName", INTERFACE_MAX), ("hardwareAddress", HARDWARE_MAX)] {
        if str_at(data, &[field]).len() > max {
            errors.push(FieldError::too_long(format!("{path}.{field}"), max));
        }
    }
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    set_of(errors, &format!("{path}.ips"), items(data, &["ips"]), ADDRESSES_MAX, text, |errors, path, v| {
        interface_address(errors, path, v.as_str().unwrap_or_default());
    });
}

/// An address with the length of its network's prefix, in canonical form.
fn interface_address(errors: &mut Vec<FieldError>, path: &str, text: &str) {
    // Zeros in front of an octet are an error of form only.
    let octet = |part: &str| part.parse::<u8>().map_or_else(|_| part.to_owned(), |n| n.to_string());
    let plain = match text.split_once('/') {
        Some((address, length)) if !address.contains(':') => {
            format!("{}/{length}", address.split('.').map(octet).collect::<Vec<_>>().join("."))
        }
        _ => text.to_owned(),
    };
    let read = plain.parse::<ipnet::IpNet>().ok().filter(|_| text.contains('/'));
    match read.map(|net| format!("{}/{}", net.addr(), net.prefix_len())) {
        None => {
            let detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
            errors.push(FieldError::invalid(path, text, detail));
        }
        Some(canonical) if canonical != text => {
            errors.push(FieldError::invalid(path, text, format!("must be in canonical form (\"{canonical}\")")));
        }
        Some(_) => {}
    }
}

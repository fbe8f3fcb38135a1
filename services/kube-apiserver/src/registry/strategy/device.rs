//! Devices that pods claim: resource.k8s.io.

use std::collections::BTreeSet;

use cel::device::{Refusal, Selector};
use serde_json::Value;

use super::checks::{dns_label, dns_subdomain, driver_name, immutable, label_value, named, qualified_name};
use super::device_claims::{claim, status};
use super::device_parts::{binding, capacity, consumptions, counter_sets};
use super::kind::Kind;
use super::scheduling_checks::node_selector;
use super::tree::{at, bool_at, default, default_int, each, has, int_at, items, map_at, object, str_at, within};
use crate::errors::FieldError;

/// DeviceClass.
pub static DEVICE_CLASS: Kind = Kind { generation: true, check: check_class, ..Kind::BASE };

/// ResourceClaim.
pub static RESOURCE_CLAIM: Kind = Kind {
    status_leaves: Kind::CLIENTS_METADATA,
    generation: false,
    defaults: |c| claim_defaults(object(c, "spec")),
    check: |errors, c| claim(errors, "spec.devices", at(c, &["spec", "devices"]).unwrap_or(&Value::Null)),
    check_update: |errors, sub, new, old| match sub {
        None => immutable(errors, "spec", new.get("spec"), old.get("spec")),
        Some("status") => status(errors, new, old),
        Some(_) => {}
    },
    ..Kind::SPEC_STATUS
};

/// ResourceClaimTemplate.
pub static RESOURCE_CLAIM_TEMPLATE: Kind = Kind {
    defaults: |t| claim_defaults(object(object(t, "spec"), "spec")),
    check: |errors, t| {
        super::volume_checks::template_metadata(errors, "spec.metadata", &t["spec"]["metadata"]);
        claim(errors, "spec.spec.devices", at(t, &["spec", "spec", "devices"]).unwrap_or(&Value::Null));
    },
    check_update: |errors, _, new, old| immutable(errors, "spec", new.get("spec"), old.get("spec")),
    ..Kind::BASE
};

/// ResourceSlice.
pub static RESOURCE_SLICE: Kind = Kind {
    generation: true,
    check: check_slice,
    check_update: |errors, _, new, old| {
        for field in ["driver", "nodeName"] {
            immutable(errors, &format!("spec.{field}"), at(new, &["spec", field]), at(old, &["spec", field]));
        }
        let path = ["spec", "pool", "name"];
        immutable(errors, &path.join("."), at(new, &path), at(old, &path));
    },
    fields: |s| {
        vec![
            ("spec.nodeName", str_at(s, &["spec", "nodeName"]).to_owned()),
            ("spec.driver", str_at(s, &["spec", "driver"]).to_owned()),
        ]
    },
    ..Kind::BASE
};

fn request_defaults(r: &mut Value) {
    default(r, "allocationMode", "ExactCount");
    if str_at(r, &["allocationMode"]) == "ExactCount" {
        default_int(r, "count", 1);
    }
    each(r, "tolerations", |t| default(t, "operator", "Equal"));
}

fn claim_defaults(spec: &mut Value) {
    within(spec, "devices", |d| {
        each(d, "requests", |r| {
            within(r, "exactly", request_defaults);
            each(r, "firstAvailable", request_defaults);
        });
    });
}

/// How many selectors and configurations a class or a request has, and how long an expression or parameters may be, bytes.
const LIST_MAX: usize = 32;
const EXPRESSION_MAX: usize = 10 * 1024;
const PARAMETERS_MAX: usize = 10 * 1024;

fn check_class(errors: &mut Vec<FieldError>, c: &Value) {
    selectors(errors, "spec.selectors", items(c, &["spec", "selectors"]));
    let configs = items(c, &["spec", "config"]);
    if configs.len() > LIST_MAX {
        errors.push(FieldError::too_many("spec.config", configs.len(), LIST_MAX));
    } else {
        configs.iter().enumerate().for_each(|(i, c)| configuration(errors, &format!("spec.config[{i}]"), c));
    }
    if let Some(name) = at(c, &["spec", "extendedResourceName"]).and_then(Value::as_str) {
        let native = super::container_checks::native(name) || name.starts_with("requests.");
        if native || !qualified_name(&format!("requests.{name}")).is_empty() {
            let detail = "must be a valid extended resource name";
            errors.push(FieldError::invalid("spec.extendedResourceName", name, detail));
        }
    }
}

/// What a driver is told besides which device.
pub fn configuration(errors: &mut Vec<FieldError>, path: &str, config: &Value) {
    let path = format!("{path}.opaque");
    let Some(opaque) = at(config, &["opaque"]) else {
        errors.push(FieldError::required(path, ""));
        return;
    };
    driver_name(errors, &format!("{path}.driver"), str_at(opaque, &["driver"]));
    raw(errors, &format!("{path}.parameters"), opaque.get("parameters").unwrap_or(&Value::Null));
}

/// An object that only its driver understands.
pub fn raw(errors: &mut Vec<FieldError>, path: &str, value: &Value) {
    match value {
        Value::Null => errors.push(FieldError::required(path, "")),
        value if value.to_string().len() > PARAMETERS_MAX => errors.push(FieldError::too_long(path, PARAMETERS_MAX)),
        Value::Object(_) => {}
        _ => errors.push(FieldError::invalid(path, "<value omitted>", "must be a valid JSON object")),
    }
}

/// Expressions that a device must satisfy.
pub fn selectors(errors: &mut Vec<FieldError>, path: &str, list: &[Value]) {
    if list.len() > LIST_MAX {
        errors.push(FieldError::too_many(path, list.len(), LIST_MAX));
        return;
    }
    for (i, s) in list.iter().enumerate() {
        let Some(cel) = at(s, &["cel"]) else {
            errors.push(FieldError::required(format!("{path}[{i}].cel"), ""));
            continue;
        };
        let (path, text) = (format!("{path}[{i}].cel.expression"), str_at(cel, &["expression"]));
        if text.len() > EXPRESSION_MAX {
            errors.push(FieldError::too_long(path, EXPRESSION_MAX));
            continue;
        }
        match Selector::compile(text) {
            Ok(_) => {}
            Err(Refusal::Invalid(detail)) => errors.push(FieldError::invalid(path, text, detail)),
            Err(Refusal::TooComplex) => errors.push(FieldError::forbidden(path, Refusal::TooComplex.to_string())),
        }
    }
}

/// A list that is not too long, whose members follow a rule and have keys of their own.
pub fn set_of(
    errors: &mut Vec<FieldError>,
    path: &str,
    list: &[Value],
    max: usize,
    key: impl Fn(&Value) -> String,
    mut rule: impl FnMut(&mut Vec<FieldError>, &str, &Value),
) {
    if list.len() > max {
        errors.push(FieldError::too_many(path, list.len(), max));
        return;
    }
    list.iter().enumerate().for_each(|(i, v)| rule(errors, &format!("{path}[{i}]"), v));
    let mut seen = BTreeSet::new();
    for (i, v) in list.iter().enumerate() {
        if !seen.insert(key(v)) {
            errors.push(FieldError::duplicate(format!("{path}[{i}]"), key(v)));
        }
    }
}

const POOL_NAME_MAX: usize = 253;

/// The name of a pool: subdomains with slashes between them.
pub fn pool_name(errors: &mut Vec<FieldError>, path: &str, name: &str) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if name.len() > POOL_NAME_MAX {
        errors.push(FieldError::too_long(path, POOL_NAME_MAX));
    }
    name.split('/').for_each(|part| named(errors, path, part, dns_subdomain));
}

/// What a taint does.
pub fn taint_effect(errors: &mut Vec<FieldError>, path: &str, effect: &str) {
    super::checks::required_one_of(errors, path, effect, &["NoExecute", "NoSchedule", "None"]);
}

const ID_MAX: usize = 32;
const IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";

/// The name of an attribute or capacity: an identifier, perhaps with the domain of who defined it.
pub fn qualified(errors: &mut Vec<FieldError>, path: &str, name: &str) {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        [id] => identifier(errors, path, id),
        [domain, id] => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(path, "", "the domain must not be empty"));
            } else {
                driver_name(errors, path, domain);
            }
            if id.is_empty() {
                errors.push(FieldError::invalid(path, "", "the name must not be empty"));
            } else {
                identifier(errors, path, id);
            }
        }
        _ => errors.push(FieldError::invalid(path, name, "must not contain more than one slash")),
    }
}

fn identifier(errors: &mut Vec<FieldError>, path: &str, id: &str) {
    if id.len() > ID_MAX {
        errors.push(FieldError::too_long(path, ID_MAX));
    }
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if id.is_empty() || id.starts_with(|c: char| c.is_ascii_digit()) || !id.bytes().all(letters) {
        errors.push(FieldError::invalid(path, id, IDENTIFIER));
    }
}

/// How many devices one slice may list; fewer where they are tainted or share counters.
const MAX_DEVICES: usize = 128;
const MAX_DEVICES_ADVANCED: usize = 64;
const ATTRIBUTES_MAX: usize = 32;
const TEXT_MAX: usize = 64;
const TAINTS_MAX: usize = 16;

fn check_slice(errors: &mut Vec<FieldError>, s: &Value) {
    let spec = at(s, &["spec"]).unwrap_or(&Value::Null);
    driver_name(errors, "spec.driver", str_at(spec, &["driver"]));
    pool_name(errors, "spec.pool.name", str_at(spec, &["pool", "name"]));
    let slices = int_at(spec, &["pool", "resourceSliceCount"]).unwrap_or(0);
    if slices <= 0 {
        errors.push(FieldError::invalid("spec.pool.resourceSliceCount", slices, "must be greater than zero"));
    }
    if let Some(n) = int_at(spec, &["pool", "generation"]).filter(|n| *n < 0) {
        let detail = "must be greater than or equal to zero";
        errors.push(FieldError::invalid("spec.pool.generation", n, detail));
    }
    places(errors, spec);
    counter_sets(errors, spec);
    let devices = items(spec, &["devices"]);
    let advanced =
        devices.iter().any(|d| !items(d, &["taints"]).is_empty() || !items(d, &["consumesCounters"]).is_empty());
    let max = if advanced { MAX_DEVICES_ADVANCED } else { MAX_DEVICES };
    let each_place = bool_at(spec, &["perDeviceNodeSelection"]);
    set_of(
        errors,
        "spec.devices",
        devices,
        max,
        |d| str_at(d, &["name"]).to_owned(),
        |errors, path, d| {
            device(errors, path, d, each_place);
        },
    );
}

/// Where a slice's devices can be used from.
fn places(errors: &mut Vec<FieldError>, spec: &Value) {
    let mut given = Vec::new();
    match at(spec, &["nodeName"]).and_then(Value::as_str) {
        Some("") => {
            let detail = "must be either unset or set to a non-empty string";
            errors.push(FieldError::invalid("spec.nodeName", "", detail));
        }
        Some(name) => {
            given.push("`nodeName`");
            named(errors, "spec.nodeName", name, dns_subdomain);
        }
        None => {}
    }
    if let Some(selector) = at(spec, &["nodeSelector"]) {
        given.push("`nodeSelector`");
        node_selector(errors, "spec.nodeSelector", selector);
        let terms = items(selector, &["nodeSelectorTerms"]);
        if terms.len() != 1 {
            let detail = "must have exactly one node selector term";
            errors.push(FieldError::invalid("spec.nodeSelector.nodeSelectorTerms", terms.to_vec(), detail));
        }
    }
    for (field, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        if bool_at(spec, &[field]) {
            given.push(shown);
        } else if has(spec, field) {
            let detail = "must be either unset or set to true";
            errors.push(FieldError::invalid(format!("spec.{field}"), false, detail));
        }
    }
    let detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.len() {
        0 => errors.push(FieldError::required("spec", detail)),
        1 => {}
        _ => {
            let list = format!("{{{}}}", given.join(", "));
            errors.push(FieldError::invalid("spec", list, format!("{detail}, but multiple fields are set")));
        }
    }
}

fn device(errors: &mut Vec<FieldError>, path: &str, d: &Value, each_place: bool) {
    named(errors, &format!("{path}.name"), str_at(d, &["name"]), dns_label);
    let count =
        ["attributes", "capacity"].iter().map(|f| map_at(d, &[f]).map_or(0, serde_json::Map::len)).sum::<usize>();
    if count > ATTRIBUTES_MAX {
        let detail = format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}");
        errors.push(FieldError::invalid(path, count, detail));
    }
    for (name, value) in map_at(d, &["attributes"]).into_iter().flatten() {
        let path = format!("{path}.attributes[{}]", shortened(name));
        qualified(errors, &path, name);
        attribute(errors, &path, value);
    }
    for (name, value) in map_at(d, &["capacity"]).into_iter().flatten() {
        let path = format!("{path}.capacity[{}]", shortened(name));
        qualified(errors, &path, name);
        capacity(errors, &path, value, d);
    }
    let taints = items(d, &["taints"]);
    if taints.len() > TAINTS_MAX {
        errors.push(FieldError::too_many(format!("{path}.taints"), taints.len(), TAINTS_MAX));
    } else {
        for (i, t) in taints.iter().enumerate() {
            let path = format!("{path}.taints[{i}]");
            named(errors, &format!("{path}.key"), str_at(t, &["key"]), qualified_name);
            super::checks::optional_named(errors, &format!("{path}.value"), str_at(t, &["value"]), label_value);
            taint_effect(errors, &format!("{path}.effect"), str_at(t, &["effect"]));
        }
    }
    consumptions(errors, path, d);
    device_place(errors, path, d, each_place);
    binding(errors, path, d);
}

/// The longest key that a message shows: a domain, a slash and a name.
const KEY_MAX: usize = 63 + 1 + ID_MAX;

/// A key that is too long without its middle.
fn shortened(key: &str) -> String {
    if key.len() <= KEY_MAX {
        return key.to_owned();
    }
    let rest = KEY_MAX - "...".len();
    let (head, tail) = (key.get(..rest.div_ceil(2)), key.get(key.len() - rest / 2..));
    format!("{}...{}", head.unwrap_or_default(), tail.unwrap_or_default())
}

fn device_place(errors: &mut Vec<FieldError>, path: &str, d: &Value, each_place: bool) {
    let fields = ["nodeName", "nodeSelector", "allNodes"];
    if !each_place {
        if fields.iter().any(|f| has(d, f)) {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.push(FieldError::invalid(path, Value::Null, detail));
        }
        return;
    }
    let mut given: Vec<String> = Vec::new();
    match at(d, &["nodeName"]).and_then(Value::as_str) {
        Some("") => errors.push(FieldError::invalid(format!("{path}.nodeName"), "", "must not be empty")),
        Some(name) => {
            given.push("`nodeName`".to_owned());
            named(errors, &format!("{path}.nodeName"), name, dns_subdomain);
        }
        None => {}
    }
    if let Some(selector) = at(d, &["nodeSelector"]) {
        given.push("`nodeSelector`".to_owned());
        node_selector(errors, &format!("{path}.nodeSelector"), selector);
    }
    if bool_at(d, &["allNodes"]) {
        given.push("`allNodes`".to_owned());
    } else if has(d, "allNodes") {
        let detail = "must be either unset or set to true";
        errors.push(FieldError::invalid(format!("{path}.allNodes"), false, detail));
    }
    let detail = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match given.len() {
        0 => errors.push(FieldError::required(path, detail)),
        1 => {}
        _ => errors.push(FieldError::invalid(path, format!("{{{}}}", given.join(", ")), detail)),
    }
}

/// What is known about a device: one value of one type.
fn attribute(errors: &mut Vec<FieldError>, path: &str, value: &Value) {
    let kinds = ["bool", "int", "string", "version"];
    match kinds.iter().filter(|k| has(value, k)).count() {
        1 => {}
        0 => errors.push(FieldError::invalid(path, "", "exactly one value must be specified")),
        _ => errors.push(FieldError::invalid(path, value.clone(), "exactly one value must be specified")),
    }
    for kind in ["string", "version"] {
        let Some(text) = at(value, &[kind]).and_then(Value::as_str) else { continue };
        let path = format!("{path}.{kind}");
        if kind == "version" && !is_semantic_version(text) {
            let detail = "must be a string compatible with semver.org spec 2.0.0";
            errors.push(FieldError::invalid(path.clone(), text, detail));
        }
        if text.len() > TEXT_MAX {
            errors.push(FieldError::too_long(path, TEXT_MAX));
        }
    }
}

/// `major.minor.patch[-pre][+build]` (semver.org 2.0.0).
fn is_semantic_version(text: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let number = |t: &str| digits(t) && (t == "0" || !t.starts_with('0'));
    let word = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let (rest, build) = text.split_once('+').map_or((text, None), |(r, b)| (r, Some(b)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(c, p)| (c, Some(p)));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|p| p.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|b| b.split('.').all(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semantic_versions() {
        for good in ["1.0.0", "0.1.2-alpha.1", "1.2.3+build.05", "10.20.30-rc-1+x"] {
            assert!(is_semantic_version(good), "{good}");
        }
        for bad in ["1.0", "01.0.0", "1.0.0-", "1.0.0-01", "v1.0.0", "1.0.0+"] {
            assert!(!is_semantic_version(bad), "{bad}");
        }
    }
}

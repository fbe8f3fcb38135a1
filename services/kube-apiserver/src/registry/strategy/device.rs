//! Devices that pods claim: resource.k8s.io.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks::{dns_label, driver_name, immutable, named, one_of, required};
use super::kind::Kind;
use super::tree::{at, default, default_int, each, has, int_at, items, object, str_at, within};
use crate::errors::FieldError;

/// DeviceClass.
pub static DEVICE_CLASS: Kind = Kind { generation: true, check: check_class, ..Kind::BASE };

/// ResourceClaim.
pub static RESOURCE_CLAIM: Kind = Kind {
    generation: false,
    defaults: |c| claim_defaults(object(c, "spec")),
    check: |errors, c| claim(errors, "spec.devices", at(c, &["spec", "devices"]).unwrap_or(&Value::Null)),
    check_update: |errors, sub, new, old| {
        if sub.is_none() {
            immutable(errors, "spec", new.get("spec"), old.get("spec"));
        }
    },
    ..Kind::SPEC_STATUS
};

/// ResourceClaimTemplate.
pub static RESOURCE_CLAIM_TEMPLATE: Kind = Kind {
    defaults: |t| claim_defaults(object(object(t, "spec"), "spec")),
    check: |errors, t| claim(errors, "spec.spec.devices", at(t, &["spec", "spec", "devices"]).unwrap_or(&Value::Null)),
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

fn check_class(errors: &mut Vec<FieldError>, c: &Value) {
    selectors(errors, "spec.selectors", items(c, &["spec", "selectors"]));
    configurations(errors, "spec.config", items(c, &["spec", "config"]));
}

/// What drivers are told besides which device.
fn configurations(errors: &mut Vec<FieldError>, path: &str, list: &[Value]) {
    for (i, config) in list.iter().enumerate() {
        let Some(opaque) = at(config, &["opaque"]) else { continue };
        driver_name(errors, &format!("{path}[{i}].opaque.driver"), str_at(opaque, &["driver"]));
        if at(opaque, &["parameters"]).is_none() {
            errors.push(FieldError::required(format!("{path}[{i}].opaque.parameters"), ""));
        }
    }
}

fn selectors(errors: &mut Vec<FieldError>, path: &str, list: &[Value]) {
    if list.len() > 32 {
        errors.push(FieldError::too_many(path, list.len(), 32));
    }
    for (i, s) in list.iter().enumerate() {
        match at(s, &["cel"]) {
            None => errors.push(FieldError::required(format!("{path}[{i}].cel"), "")),
            Some(cel) => required(errors, &format!("{path}[{i}].cel.expression"), str_at(cel, &["expression"])),
        }
    }
}

fn claim(errors: &mut Vec<FieldError>, path: &str, devices: &Value) {
    let requests = items(devices, &["requests"]);
    if requests.len() > 32 {
        errors.push(FieldError::too_many(format!("{path}.requests"), requests.len(), 32));
    }
    configurations(errors, &format!("{path}.config"), items(devices, &["config"]));
    let mut names = BTreeSet::new();
    for (i, r) in requests.iter().enumerate() {
        let path = format!("{path}.requests[{i}]");
        let name = str_at(r, &["name"]);
        named(errors, &format!("{path}.name"), name, dns_label);
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        let alternatives = items(r, &["firstAvailable"]);
        match (at(r, &["exactly"]), alternatives.is_empty()) {
            (Some(_), false) => {
                let detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
                errors.push(FieldError::invalid(path, Value::Null, detail));
            }
            (None, true) => {
                errors.push(FieldError::required(path, "exactly one of `exactly` or `firstAvailable` is required"));
            }
            (Some(exact), true) => request(errors, &format!("{path}.exactly"), exact),
            (None, false) => {
                for (j, sub) in alternatives.iter().enumerate() {
                    let path = format!("{path}.firstAvailable[{j}]");
                    named(errors, &format!("{path}.name"), str_at(sub, &["name"]), dns_label);
                    request(errors, &path, sub);
                }
            }
        }
    }
}

fn request(errors: &mut Vec<FieldError>, path: &str, r: &Value) {
    required(errors, &format!("{path}.deviceClassName"), str_at(r, &["deviceClassName"]));
    selectors(errors, &format!("{path}.selectors"), items(r, &["selectors"]));
    let mode = str_at(r, &["allocationMode"]);
    one_of(errors, &format!("{path}.allocationMode"), mode, &["All", "ExactCount"]);
    let count = int_at(r, &["count"]).unwrap_or(0);
    if mode == "All" && count != 0 {
        let detail = "must not be specified when allocationMode is 'All'";
        errors.push(FieldError::invalid(format!("{path}.count"), count, detail));
    }
    if mode == "ExactCount" && count <= 0 {
        errors.push(FieldError::invalid(format!("{path}.count"), count, "must be greater than zero"));
    }
}

/// How many devices one slice may list.
const MAX_DEVICES: usize = 128;

fn check_slice(errors: &mut Vec<FieldError>, s: &Value) {
    let spec = at(s, &["spec"]).unwrap_or(&Value::Null);
    driver_name(errors, "spec.driver", str_at(spec, &["driver"]));
    required(errors, "spec.pool.name", str_at(spec, &["pool", "name"]));
    let slices = int_at(spec, &["pool", "resourceSliceCount"]).unwrap_or(0);
    if slices <= 0 {
        errors.push(FieldError::invalid("spec.pool.resourceSliceCount", slices, "must be greater than zero"));
    }
    let places = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let given = places.iter().filter(|p| has(spec, p)).count();
    if given != 1 {
        let detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        errors.push(FieldError::required("spec", detail));
    }
    let devices = items(spec, &["devices"]);
    if devices.len() > MAX_DEVICES {
        errors.push(FieldError::too_many("spec.devices", devices.len(), MAX_DEVICES));
    }
    let mut names = BTreeSet::new();
    for (i, d) in devices.iter().enumerate() {
        let path = format!("spec.devices[{i}].name");
        let name = str_at(d, &["name"]);
        named(errors, &path, name, dns_label);
        if !names.insert(name) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
}

//! What storage drivers say about themselves: CSIDriver, CSINode, CSIStorageCapacity, VolumeAttachment, VolumeAttributesClass.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::checks::{
    IMMUTABLE, dns_subdomain, driver_name, immutable, label_selector, non_negative, one_of, qualified_name,
    required_named,
};
use super::kind::Kind;
use super::tree::{at, default, has, int_at, items, map_at, object, same, set, str_at};
use super::volume::parameters;
use crate::errors::FieldError;

const MAX_NODE_ID: usize = 256;

/// CSIDriver.
pub static CSI_DRIVER: Kind = Kind {
    defaults: |d| {
        let spec = object(d, "spec");
        default(spec, "attachRequired", true);
        for off in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            default(spec, off, false);
        }
        default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if items(spec, &["volumeLifecycleModes"]).is_empty() {
            set(spec, "volumeLifecycleModes", json!(["Persistent"]));
        }
    },
    check: check_driver,
    check_update: |errors, _, new, old| {
        for field in ["attachRequired", "volumeLifecycleModes"] {
            immutable(errors, &format!("spec.{field}"), at(new, &["spec", field]), at(old, &["spec", field]));
        }
    },
    ..Kind::BASE
};

fn check_driver(errors: &mut Vec<FieldError>, d: &Value) {
    driver_name(errors, "metadata.name", str_at(d, &["metadata", "name"]));
    let spec = at(d, &["spec"]).unwrap_or(&Value::Null);
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    one_of(errors, "spec.fsGroupPolicy", str_at(spec, &["fsGroupPolicy"]), &policies);
    for mode in items(spec, &["volumeLifecycleModes"]) {
        one_of(errors, "spec.volumeLifecycleModes", mode.as_str().unwrap_or_default(), &["Ephemeral", "Persistent"]);
    }
    let mut audiences = BTreeSet::new();
    for (i, t) in items(spec, &["tokenRequests"]).iter().enumerate() {
        let path = format!("spec.tokenRequests[{i}]");
        let audience = str_at(t, &["audience"]);
        if !audiences.insert(audience) {
            errors.push(FieldError::duplicate(format!("{path}.audience"), audience));
        }
        let seconds = int_at(t, &["expirationSeconds"]);
        if let Some(n) = seconds.filter(|n| *n < 600) {
            let detail = "may not specify a duration less than 10 minutes";
            errors.push(FieldError::invalid(format!("{path}.expirationSeconds"), n, detail));
        }
        if let Some(n) = seconds.filter(|n| *n > 1 << 32) {
            let detail = "may not specify a duration larger than 2^32 seconds";
            errors.push(FieldError::invalid(format!("{path}.expirationSeconds"), n, detail));
        }
    }
    if let Some(n) = int_at(spec, &["nodeAllocatableUpdatePeriodSeconds"]).filter(|n| *n < 10) {
        let detail = "must be greater than or equal to 10 seconds";
        errors.push(FieldError::invalid("spec.nodeAllocatableUpdatePeriodSeconds", n, detail));
    }
}

/// CSINode.
pub static CSI_NODE: Kind = Kind {
    check: check_node,
    check_update: |errors, _, new, old| {
        for (i, d) in items(new, &["spec", "drivers"]).iter().enumerate() {
            let name = str_at(d, &["name"]);
            let before = items(old, &["spec", "drivers"]).iter().find(|o| str_at(o, &["name"]) == name);
            if before.is_some_and(|b| !same(Some(d), Some(b))) {
                errors.push(FieldError::invalid(format!("spec.drivers[{i}]"), d.clone(), IMMUTABLE));
            }
        }
    },
    ..Kind::BASE
};

fn check_node(errors: &mut Vec<FieldError>, n: &Value) {
    let mut names = BTreeSet::new();
    for (i, d) in items(n, &["spec", "drivers"]).iter().enumerate() {
        let path = format!("spec.drivers[{i}]");
        let name = str_at(d, &["name"]);
        driver_name(errors, &format!("{path}.name"), name);
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        match str_at(d, &["nodeID"]) {
            "" => errors.push(FieldError::required(format!("{path}.nodeID"), "")),
            id if id.len() > MAX_NODE_ID => {
                let detail = format!("must be {MAX_NODE_ID} characters or less");
                errors.push(FieldError::invalid(format!("{path}.nodeID"), id, detail));
            }
            _ => {}
        }
        non_negative(errors, &format!("{path}.allocatable.count"), at(d, &["allocatable", "count"]));
        let mut keys = BTreeSet::new();
        for key in items(d, &["topologyKeys"]).iter().map(|k| k.as_str().unwrap_or_default()) {
            let path = format!("{path}.topologyKeys");
            if !keys.insert(key) {
                errors.push(FieldError::duplicate(path.clone(), key));
            }
            required_named(errors, &path, key, qualified_name);
        }
    }
}

/// CSIStorageCapacity.
pub static CSI_STORAGE_CAPACITY: Kind = Kind {
    check: |errors, c| {
        if let Some(s) = at(c, &["nodeTopology"]) {
            label_selector(errors, "nodeTopology", s);
        }
        required_named(errors, "storageClassName", str_at(c, &["storageClassName"]), dns_subdomain);
    },
    check_update: |errors, _, new, old| {
        for field in ["nodeTopology", "storageClassName"] {
            immutable(errors, field, new.get(field), old.get(field));
        }
    },
    ..Kind::BASE
};

/// VolumeAttachment.
pub static VOLUME_ATTACHMENT: Kind = Kind {
    generation: false,
    defaults: |a| {
        default(object(a, "status"), "attached", false);
    },
    check: |errors, a| {
        let spec = at(a, &["spec"]).unwrap_or(&Value::Null);
        driver_name(errors, "spec.attacher", str_at(spec, &["attacher"]));
        let exactly_one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        let source = at(spec, &["source"]).unwrap_or(&Value::Null);
        match (has(source, "inlineVolumeSpec"), has(source, "persistentVolumeName")) {
            (false, false) => errors.push(FieldError::required("spec.source", exactly_one)),
            (true, true) => errors.push(FieldError::forbidden("spec.source", exactly_one)),
            (false, true) if str_at(source, &["persistentVolumeName"]).is_empty() => {
                let detail = "must specify non empty persistentVolumeName";
                errors.push(FieldError::required("spec.source.persistentVolumeName", detail));
            }
            _ => {}
        }
        super::checks::named(errors, "spec.nodeName", str_at(spec, &["nodeName"]), dns_subdomain);
    },
    check_update: |errors, sub, new, old| {
        if sub.is_none() {
            immutable(errors, "spec", new.get("spec"), old.get("spec"));
        }
    },
    ..Kind::SPEC_STATUS
};

/// VolumeAttributesClass.
pub static VOLUME_ATTRIBUTES_CLASS: Kind = Kind {
    check: |errors, c| {
        driver_name(errors, "driverName", str_at(c, &["driverName"]));
        let map = map_at(c, &["parameters"]);
        if map.is_none_or(serde_json::Map::is_empty) {
            errors.push(FieldError::required("parameters", "must contain at least one key/value pair"));
        }
        parameters(errors, map);
    },
    check_update: |errors, _, new, old| {
        for field in ["driverName", "parameters"] {
            if !same(new.get(field), old.get(field)) {
                errors.push(FieldError::forbidden(field, format!("updates to {field} are forbidden.")));
            }
        }
    },
    ..Kind::BASE
};

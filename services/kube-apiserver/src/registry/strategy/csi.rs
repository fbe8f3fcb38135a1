//! What storage drivers say about themselves: CSIDriver, CSINode, CSIStorageCapacity, VolumeAttachment, VolumeAttributesClass.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::checks::{
    IMMUTABLE, dns_subdomain, driver_name, immutable, label_selector, named, non_negative, one_of, path_segment,
    qualified_name,
};
use super::kind::Kind;
use super::tree::{at, default, has, int_at, items, map_at, object, same, set, str_at};
use super::volume::parameters;
use crate::admission::pod_resources::quantity;
use crate::errors::FieldError;

const MAX_NODE_ID: usize = 256;

/// CSIDriver.
pub static CSI_DRIVER: Kind = Kind {
    // The name is a driver's, and judged as one.
    names: path_segment,
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
        for (field, shown) in [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
        {
            immutable(errors, &format!("spec.{shown}"), at(new, &["spec", field]), at(old, &["spec", field]));
        }
    },
    ..Kind::BASE
};

fn check_driver(errors: &mut Vec<FieldError>, d: &Value) {
    driver_name(errors, "name", str_at(d, &["metadata", "name"]));
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
            continue;
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
        // How many volumes a node takes may change; the rest of what a driver said once may not.
        let fixed = |d: &Value| {
            let mut d = d.clone();
            super::tree::remove(&mut d, "allocatable");
            d
        };
        for d in items(new, &["spec", "drivers"]) {
            let name = str_at(d, &["name"]);
            let before = items(old, &["spec", "drivers"]).iter().find(|o| str_at(o, &["name"]) == name);
            if before.is_some_and(|b| !same(Some(&fixed(d)), Some(&fixed(b)))) {
                errors.push(FieldError::invalid("CSINodeDriver", d.clone(), IMMUTABLE));
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
            if key.is_empty() {
                errors.push(FieldError::required(path.clone(), key));
            }
            if !keys.insert(key) {
                errors.push(FieldError::duplicate(path.clone(), key));
            }
            let problems = qualified_name(key).into_iter();
            errors.extend(problems.map(|why| FieldError::invalid(path.clone(), d["topologyKeys"].clone(), why)));
        }
    }
}

/// CSIStorageCapacity.
pub static CSI_STORAGE_CAPACITY: Kind = Kind {
    check: |errors, c| {
        if let Some(s) = at(c, &["nodeTopology"]) {
            label_selector(errors, "nodeTopology", s);
        }
        named(errors, "storageClassName", str_at(c, &["storageClassName"]), dns_subdomain);
        for field in ["capacity", "maximumVolumeSize"] {
            if let Some(q) = c.get(field).and_then(quantity).filter(|q| q.sign() < 0) {
                errors.push(FieldError::invalid(field, q.to_string(), "must be greater than or equal to 0"));
            }
        }
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
    status_leaves: Kind::CLIENTS_METADATA,
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
            (false, true) => match str_at(source, &["persistentVolumeName"]) {
                "" => {
                    let detail = "must specify non empty persistentVolumeName";
                    errors.push(FieldError::required("spec.source.persistentVolumeName", detail));
                }
                name => named(errors, "spec.source.persistentVolumeName", name, dns_subdomain),
            },
            (true, false) => inline(errors, &source["inlineVolumeSpec"]),
        }
        named(errors, "spec.nodeName", str_at(spec, &["nodeName"]), dns_subdomain);
    },
    check_update: |errors, sub, new, old| {
        if sub.is_none() {
            immutable(errors, "spec", new.get("spec"), old.get("spec"));
        } else {
            attached(errors, new);
        }
    },
    ..Kind::SPEC_STATUS
};

/// A volume that is attached without a PersistentVolume: a driver's, and little more.
fn inline(errors: &mut Vec<FieldError>, spec: &Value) {
    let path = "spec.source.inlineVolumeSpec";
    for field in ["claimRef", "capacity", "nodeAffinity", "storageClassName"] {
        let set = at(spec, &[field]).is_some_and(|v| v != "" && v.as_object().is_none_or(|m| !m.is_empty()));
        if set {
            let detail = "may not be specified in the context of inline volumes";
            errors.push(FieldError::forbidden(format!("{path}.{field}"), detail));
        }
    }
    let policy = str_at(spec, &["persistentVolumeReclaimPolicy"]);
    if !matches!(policy, "" | "Retain") {
        let detail = "may only be Retain in the context of inline volumes";
        errors.push(FieldError::forbidden(format!("{path}.persistentVolumeReclaimPolicy"), detail));
    }
    if !matches!(str_at(spec, &["volumeMode"]), "" | "Filesystem") {
        let detail = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        errors.push(FieldError::forbidden(format!("{path}.volumeMode"), detail));
    }
    let modes = items(spec, &["accessModes"]);
    if modes.is_empty() {
        errors.push(FieldError::required(format!("{path}.accessModes"), ""));
    }
    super::volume::access_modes(errors, &format!("{path}.accessModes"), modes);
    match at(spec, &["csi"]) {
        None => {
            let detail = "has to be specified in the context of inline volumes";
            errors.push(FieldError::required(format!("{path}.csi"), detail));
        }
        Some(csi) => super::source_checks::source(errors, path, "csi", csi, true),
    }
}

/// The longest message about a failure, and the most a driver may note, bytes.
const MAX_MESSAGE: usize = 1024;
const MAX_NOTES: usize = 256 * 1024;

fn attached(errors: &mut Vec<FieldError>, a: &Value) {
    let notes = map_at(a, &["status", "attachmentMetadata"]).into_iter().flatten();
    if notes.map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum::<usize>() > MAX_NOTES {
        errors.push(FieldError::too_long("status.attachmentMetadata", MAX_NOTES));
    }
    for field in ["attachError", "detachError"] {
        if str_at(a, &["status", field, "message"]).len() > MAX_MESSAGE {
            errors.push(FieldError::too_long(format!("status.{field}.message"), MAX_NOTES));
        }
    }
}

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

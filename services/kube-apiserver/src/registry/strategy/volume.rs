//! Volumes that outlive pods: PersistentVolume, PersistentVolumeClaim and StorageClass.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::checks::{
    IMMUTABLE, dns_label, dns_subdomain, immutable, label_selector, named, one_of, optional_named, qualified_name,
    required,
};
use super::container_checks::native;
use super::kind::Kind;
use super::scheduling_checks::node_selector;
use super::source_checks::{exactly_one, iscsi_names, source};
use super::tree::{at, default, each, has, items, keep, map_at, object, same, set, str_at, within};
use crate::errors::FieldError;

/// Ways to use a volume; the last excludes the others.
const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETER_BYTES: usize = 256 * 1024;
/// How far a claim's growth has come.
const RESIZE: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// StorageClass.
pub static STORAGE_CLASS: Kind = Kind {
    defaults: |s| {
        default(s, "reclaimPolicy", "Delete");
        default(s, "volumeBindingMode", "Immediate");
    },
    check: check_class,
    check_update: |errors, _, new, old| {
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            if !same(new.get(field), old.get(field)) {
                errors.push(FieldError::forbidden(field, format!("updates to {field} are forbidden.")));
            }
        }
        let field = "volumeBindingMode";
        immutable(errors, field, new.get(field), old.get(field));
    },
    ..Kind::BASE
};

/// PersistentVolume.
pub static PERSISTENT_VOLUME: Kind = Kind {
    generation: false,
    defaults: |v| {
        let spec = object(v, "spec");
        default(spec, "persistentVolumeReclaimPolicy", "Retain");
        default(spec, "volumeMode", "Filesystem");
        within(spec, "hostPath", |h| {
            if !has(h, "type") {
                set(h, "type", "");
            }
        });
        default(object(v, "status"), "phase", "Pending");
    },
    check: check_volume,
    check_update: volume_fixed,
    ..Kind::SPEC_STATUS
};

/// PersistentVolumeClaim.
pub static PERSISTENT_VOLUME_CLAIM: Kind = Kind {
    generation: false,
    defaults: |c| {
        claim_defaults(object(c, "spec"));
        default(object(c, "status"), "phase", "Pending");
    },
    check: |errors, c| claim_spec(errors, "spec", at(c, &["spec"]).unwrap_or(&Value::Null)),
    check_update: claim_fixed,
    ..Kind::SPEC_STATUS
};

/// What an unset field of a claim's spec means; also of templates for claims.
pub fn claim_defaults(spec: &mut Value) {
    default(spec, "volumeMode", "Filesystem");
    // The old and the new name of the same thing, as far as the old one can say it.
    let (old, new) = (at(spec, &["dataSource"]).cloned(), at(spec, &["dataSourceRef"]).cloned());
    match (old, new) {
        (Some(source), None) => set(spec, "dataSourceRef", source),
        (None, Some(source)) if str_at(&source, &["namespace"]).is_empty() => {
            let known = matches!(str_at(&source, &["kind"]), "PersistentVolumeClaim" | "VolumeSnapshot");
            if known {
                set(spec, "dataSource", source);
            }
        }
        _ => {}
    }
}

fn check_class(errors: &mut Vec<FieldError>, s: &Value) {
    let provisioner = str_at(s, &["provisioner"]);
    if provisioner.is_empty() {
        errors.push(FieldError::required("provisioner", ""));
    } else {
        let problems = qualified_name(&provisioner.to_ascii_lowercase());
        errors.extend(problems.into_iter().map(|d| FieldError::invalid("provisioner", provisioner, d)));
    }
    parameters(errors, map_at(s, &["parameters"]));
    one_of(errors, "reclaimPolicy", str_at(s, &["reclaimPolicy"]), &["Delete", "Retain"]);
    one_of(errors, "volumeBindingMode", str_at(s, &["volumeBindingMode"]), &["Immediate", "WaitForFirstConsumer"]);
    topologies(errors, items(s, &["allowedTopologies"]));
}

/// Where volumes of a class may be: alternatives, none of them twice.
fn topologies(errors: &mut Vec<FieldError>, terms: &[Value]) {
    // What a term says, in whatever order it says it.
    let meaning = |term: &Value| -> BTreeMap<String, BTreeSet<String>> {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let all = items(term, &["matchLabelExpressions"]).iter();
        all.map(|e| (text(&e["key"]), items(e, &["values"]).iter().map(text).collect())).collect()
    };
    for (i, term) in terms.iter().enumerate() {
        let list = items(term, &["matchLabelExpressions"]);
        for (j, e) in list.iter().enumerate() {
            let path = format!("allowedTopologies[{i}].matchLabelExpressions[{j}]");
            let (key, values) = (str_at(e, &["key"]), items(e, &["values"]));
            if values.is_empty() {
                errors.push(FieldError::required(format!("{path}.values"), ""));
            }
            for (k, value) in values.iter().enumerate().filter(|(k, v)| values[..*k].contains(v)) {
                errors.push(FieldError::duplicate(format!("{path}.values[{k}]"), value.clone()));
            }
            named(errors, &format!("{path}.key"), key, qualified_name);
            if list[..j].iter().any(|o| str_at(o, &["key"]) == key) {
                errors.push(FieldError::duplicate(format!("{path}.key"), key));
            }
        }
        if terms[..i].iter().any(|o| meaning(o) == meaning(term)) {
            errors.push(FieldError::duplicate(format!("allowedTopologies[{i}].matchLabelExpressions"), ""));
        }
    }
}

/// What a class tells its driver.
pub fn parameters(errors: &mut Vec<FieldError>, map: Option<&serde_json::Map<String, Value>>) {
    let Some(map) = map else { return };
    if map.len() > MAX_PARAMETERS {
        errors.push(FieldError::too_long("parameters", MAX_PARAMETERS));
        return;
    }
    if map.keys().any(String::is_empty) {
        errors.push(FieldError::invalid("parameters", "", "field can not be empty."));
    }
    if map.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum::<usize>() > MAX_PARAMETER_BYTES {
        errors.push(FieldError::too_long("parameters", MAX_PARAMETER_BYTES));
    }
}

/// Ways to use a volume.
pub fn access_modes(errors: &mut Vec<FieldError>, path: &str, modes: &[Value]) {
    for mode in modes {
        one_of(errors, path, mode.as_str().unwrap_or_default(), &MODES);
    }
    let other = |m: &Value| m != "ReadWriteOncePod" && MODES.iter().any(|known| m == known);
    if modes.iter().any(other) && modes.iter().any(|m| m == "ReadWriteOncePod") {
        errors.push(FieldError::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

fn positive(errors: &mut Vec<FieldError>, path: String, v: &Value) {
    if let Some(q) = crate::admission::pod_resources::quantity(v).filter(|q| q.sign() <= 0) {
        errors.push(FieldError::invalid(path, q.to_string(), "must be greater than zero"));
    }
}

fn basic(errors: &mut Vec<FieldError>, path: String, v: &Value) {
    if let Some(q) = crate::admission::pod_resources::quantity(v).filter(|q| q.sign() < 0) {
        errors.push(FieldError::invalid(path, q.value(), "must be a valid resource quantity"));
    }
}

/// Fields of a volume's spec that are not where its bytes are.
const NOT_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn sources(spec: &Value) -> Vec<&str> {
    let fields = spec.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null()).map(|(k, _)| k.as_str());
    fields.filter(|k| !NOT_SOURCES.contains(k)).collect()
}

fn check_volume(errors: &mut Vec<FieldError>, v: &Value) {
    let spec = at(v, &["spec"]).unwrap_or(&Value::Null);
    let modes = items(spec, &["accessModes"]);
    if modes.is_empty() {
        errors.push(FieldError::required("spec.accessModes", ""));
    }
    access_modes(errors, "spec.accessModes", modes);
    let capacity = map_at(spec, &["capacity"]).filter(|c| !c.is_empty());
    match capacity {
        None => {
            errors.push(FieldError::required("spec.capacity", ""));
            errors.push(FieldError::not_supported("spec.capacity", spec["capacity"].clone(), &["storage"]));
        }
        Some(c) if c.len() > 1 || !c.contains_key("storage") => {
            errors.push(FieldError::not_supported("spec.capacity", Value::Object(c.clone()), &["storage"]));
        }
        Some(_) => {}
    }
    for (name, amount) in capacity.into_iter().flatten() {
        basic(errors, format!("spec.capacity[{name}]"), amount);
        positive(errors, format!("spec.capacity[{name}]"), amount);
    }
    let policy = str_at(spec, &["persistentVolumeReclaimPolicy"]);
    one_of(errors, "spec.persistentVolumeReclaimPolicy", policy, &["Delete", "Recycle", "Retain"]);
    node_affinity(errors, spec);
    if let Some(kind) = exactly_one(errors, "spec", spec, &NOT_SOURCES) {
        source(errors, "spec", kind, &spec[kind], true);
    }
    if at(spec, &["local"]).is_some() && at(spec, &["nodeAffinity"]).is_none() {
        errors.push(FieldError::required("spec.nodeAffinity", "Local volume requires node affinity"));
    }
    if let Some(iscsi) = at(spec, &["iscsi"]) {
        let (name, portal) = (str_at(v, &["metadata", "name"]), str_at(iscsi, &["targetPortal"]));
        iscsi_names(errors, "spec.iscsi.targetportal", portal, name, iscsi);
    }
    let root = |path: &str| path.starts_with('/') && path.split('/').all(|part| part.is_empty() || part == ".");
    if root(str_at(spec, &["hostPath", "path"])) && policy == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden("spec.persistentVolumeReclaimPolicy", detail));
    }
    optional_named(errors, "spec.storageClassName", str_at(spec, &["storageClassName"]), dns_subdomain);
    one_of(errors, "spec.volumeMode", str_at(spec, &["volumeMode"]), &["Block", "Filesystem"]);
    if let Some(class) = at(spec, &["volumeAttributesClassName"]).and_then(Value::as_str) {
        let path = "spec.volumeAttributesClassName";
        if class.is_empty() {
            errors.push(FieldError::required(path, "an empty string is disallowed"));
        } else {
            named(errors, path, class, dns_subdomain);
        }
        if at(spec, &["csi"]).is_none() {
            let detail = "has to be specified when using volumeAttributesClassName";
            errors.push(FieldError::required("spec.csi", detail));
        }
    }
}

/// The nodes that can reach a volume.
fn node_affinity(errors: &mut Vec<FieldError>, spec: &Value) {
    let Some(affinity) = at(spec, &["nodeAffinity"]) else { return };
    match at(affinity, &["required"]) {
        None => {
            errors.push(FieldError::required("spec.nodeAffinity.required", "must specify required node constraints"))
        }
        Some(selector) => node_selector(errors, "spec.nodeAffinity.required", selector),
    }
}

/// Labels of nodes that have new names.
const RENAMED_LABELS: [(&str, &str); 5] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// A node affinity in which old names of labels that became new ones are new already.
fn renamed(old: &Value, new: &Value) -> Value {
    let mut out = old.clone();
    let path = "/required/nodeSelectorTerms";
    let terms = out.pointer_mut(path).and_then(Value::as_array_mut);
    for (t, term) in terms.into_iter().flatten().enumerate() {
        for list in ["matchExpressions", "matchFields"] {
            super::tree::each_indexed(term, list, |e, expression| {
                let now =
                    new.pointer(&format!("{path}/{t}/{list}/{e}/key")).and_then(Value::as_str).unwrap_or_default();
                if RENAMED_LABELS.iter().any(|(before, after)| *before == str_at(expression, &["key"]) && *after == now)
                {
                    set(expression, "key", now);
                }
            });
        }
    }
    out
}

fn volume_fixed(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    if sub.is_some() {
        return;
    }
    let (n, o) = (&new["spec"], &old["spec"]);
    let place =
        |spec: &Value| -> Value { sources(spec).into_iter().map(|k| (k.to_owned(), spec[k].clone())).collect() };
    let (mut is, was) = (place(n), place(o));
    // A driver that learns to grow volumes may be told its secret later.
    if at(&was, &["csi"]).is_some() && at(&was, &["csi", "controllerExpandSecretRef"]).is_none() {
        within(&mut is, "csi", |csi| {
            super::tree::remove(csi, "controllerExpandSecretRef");
        });
    }
    if !same(Some(&is), Some(&was)) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        errors.push(FieldError::forbidden("spec.persistentvolumesource", detail));
    }
    immutable(errors, "volumeMode", n.get("volumeMode"), o.get("volumeMode"));
    if has(o, "nodeAffinity") && !same(n.get("nodeAffinity"), Some(&renamed(&o["nodeAffinity"], &n["nodeAffinity"]))) {
        let detail = format!("{IMMUTABLE}, except for updating from beta label to GA");
        errors.push(FieldError::invalid("nodeAffinity", n["nodeAffinity"].clone(), detail));
    }
    if has(o, "volumeAttributesClassName") && !has(n, "volumeAttributesClassName") {
        let detail = "update from non-nil value to nil is forbidden";
        errors.push(FieldError::forbidden("spec.volumeAttributesClassName", detail));
    }
}

/// A claim's spec, in claims and in templates for them.
pub fn claim_spec(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    let modes = items(spec, &["accessModes"]);
    if modes.is_empty() {
        errors.push(FieldError::required(format!("{path}.accessModes"), "at least 1 access mode is required"));
    }
    access_modes(errors, &format!("{path}.accessModes"), modes);
    if let Some(s) = at(spec, &["selector"]) {
        label_selector(errors, &format!("{path}.selector"), s);
    }
    match at(spec, &["resources", "requests", "storage"]) {
        None => errors.push(FieldError::required(format!("{path}.resources[storage]"), "")),
        Some(amount) => positive(errors, format!("{path}.resources[storage]"), amount),
    }
    optional_named(errors, &format!("{path}.storageClassName"), str_at(spec, &["storageClassName"]), dns_subdomain);
    one_of(errors, &format!("{path}.volumeMode"), str_at(spec, &["volumeMode"]), &["Block", "Filesystem"]);
    for field in ["dataSource", "dataSourceRef"] {
        if let Some(source) = at(spec, &[field]) {
            data_source(errors, &format!("{path}.{field}"), source);
        }
    }
    let (old, new) = (at(spec, &["dataSource"]), at(spec, &["dataSourceRef"]));
    let shown = format!("{path}.dataSource");
    let abroad = new.is_some_and(|r| !str_at(r, &["namespace"]).is_empty());
    if old.is_some() && abroad {
        errors.push(FieldError::invalid(path, shown, "may not be specified when dataSourceRef.namespace is specified"));
    } else if old.is_some() && new.is_some() && !same(old, new) {
        errors.push(FieldError::invalid(path, shown, "must match dataSourceRef"));
    }
    let class = str_at(spec, &["volumeAttributesClassName"]);
    optional_named(errors, &format!("{path}.volumeAttributesClassName"), class, dns_subdomain);
}

/// What a new volume is filled from.
fn data_source(errors: &mut Vec<FieldError>, path: &str, source: &Value) {
    for part in ["name", "kind"] {
        required(errors, &format!("{path}.{part}"), str_at(source, &[part]));
    }
    let (group, kind) = (str_at(source, &["apiGroup"]), str_at(source, &["kind"]));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(path, kind, detail));
    }
    optional_named(errors, &format!("{path}.apiGroup"), group, dns_subdomain);
    optional_named(errors, &format!("{path}.namespace"), str_at(source, &["namespace"]), dns_label);
}

/// A claim's status: amounts, and how far its growth has come.
fn claim_status(errors: &mut Vec<FieldError>, new: &Value) {
    for (name, amount) in map_at(new, &["status", "capacity"]).into_iter().flatten() {
        basic(errors, format!("status.capacity[{name}]"), amount);
    }
    let key = |errors: &mut Vec<FieldError>, path: &str, name: &str| {
        let before = errors.len();
        named(errors, path, name, qualified_name);
        if errors.len() == before && native(name) && name != "storage" {
            errors.push(FieldError::not_supported(path, name, &["storage"]));
        }
        errors.len() == before
    };
    let path = "status.allocatedResourceStatus";
    for (name, stage) in map_at(new, &["status", "allocatedResourceStatuses"]).into_iter().flatten() {
        key(errors, path, name);
        if !RESIZE.iter().any(|known| stage == known) {
            errors.push(FieldError::not_supported(path, name.as_str(), &RESIZE));
        }
    }
    let path = "status.allocatedResources";
    for (name, amount) in map_at(new, &["status", "allocatedResources"]).into_iter().flatten() {
        if key(errors, path, name) {
            basic(errors, format!("{path}[{name}]"), amount);
        }
    }
}

fn claim_fixed(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    if sub.is_some() {
        claim_status(errors, new);
        return;
    }
    let note = |v: &Value| str_at(v, &["metadata", "annotations", BETA_CLASS]).to_owned();
    let (is, was) = (str_at(new, &["spec", "storageClassName"]), note(old));
    let mut rest = new["spec"].clone();
    // Binding fills in the volume, and a class that was left to the default, or named by the old annotation.
    if str_at(old, &["spec", "volumeName"]).is_empty() {
        keep(&mut rest, &old["spec"], "volumeName");
    }
    let fills = !has(&old["spec"], "storageClassName") && has(&new["spec"], "storageClassName");
    let moved = fills && !was.is_empty() && is == was && (note(new).is_empty() || note(new) == was);
    if !moved && note(new) != was {
        errors.push(FieldError::invalid(format!("metadata.annotations.{BETA_CLASS}"), note(new), IMMUTABLE));
    }
    if fills && (was.is_empty() || is == was) {
        keep(&mut rest, &old["spec"], "storageClassName");
    }
    if str_at(new, &["status", "phase"]) == "Bound" {
        if let Some(had) = at(old, &["spec", "resources", "requests", "storage"]).cloned() {
            set(object(object(&mut rest, "resources"), "requests"), "storage", had);
        }
        if has(&rest, "volumeAttributesClassName") {
            keep(&mut rest, &old["spec"], "volumeAttributesClassName");
        }
    }
    if !same(Some(&rest), old.get("spec")) {
        let detail =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(FieldError::forbidden("spec", detail));
    }
    let amount = |v: &Value, path: &[&str]| at(v, path).and_then(Value::as_str).and_then(|t| Quantity::parse(t).ok());
    let storage = ["spec", "resources", "requests", "storage"];
    if let (Some(wanted), Some(had)) = (amount(new, &storage), amount(old, &storage)) {
        let capacity = amount(old, &["status", "capacity", "storage"]).map_or(0, |q| q.milli());
        if wanted.milli() < had.milli() && wanted.milli() <= capacity {
            let path = "spec.resources.requests.storage";
            errors.push(FieldError::forbidden(path, "field can not be less than status.capacity"));
        }
    }
    immutable(errors, "volumeMode", at(new, &["spec", "volumeMode"]), at(old, &["spec", "volumeMode"]));
    let class = |v: &Value| at(v, &["spec", "volumeAttributesClassName"]).cloned();
    let lost = match (class(old), class(new)) {
        (Some(_), None) => "update from non-nil value to nil is forbidden",
        (Some(before), Some(now)) if before != now && now == "" => {
            "update from non-nil value to an empty string is forbidden"
        }
        _ => return,
    };
    errors.push(FieldError::forbidden("spec.volumeAttributesClassName", lost));
}

/// Templates for claims inside other objects.
pub fn claim_templates(spec: &mut Value) {
    each(spec, "volumeClaimTemplates", |c| {
        default(c, "apiVersion", "v1");
        default(c, "kind", "PersistentVolumeClaim");
        within(c, "spec", claim_defaults);
        default(object(c, "status"), "phase", "Pending");
    });
}

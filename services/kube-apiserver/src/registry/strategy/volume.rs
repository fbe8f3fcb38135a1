//! Volumes that outlive pods: PersistentVolume, PersistentVolumeClaim and StorageClass.

use apimachinery::quantity::Quantity;
use serde_json::{Value, json};

use super::checks::{
    IMMUTABLE, dns_subdomain, immutable, label_selector, named, one_of, optional_named, qualified_name,
};
use super::kind::Kind;
use super::scheduling_checks::node_term;
use super::tree::{at, default, each, has, items, keep, map_at, object, same, set, str_at, within};
use crate::errors::FieldError;

/// Ways to use a volume; the last excludes the others.
const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const MAX_PARAMETERS: usize = 512;

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
    for (i, term) in items(s, &["allowedTopologies"]).iter().enumerate() {
        for (j, e) in items(term, &["matchLabelExpressions"]).iter().enumerate() {
            let path = format!("allowedTopologies[{i}].matchLabelExpressions[{j}]");
            named(errors, &format!("{path}.key"), str_at(e, &["key"]), qualified_name);
            if items(e, &["values"]).is_empty() {
                errors.push(FieldError::required(format!("{path}.values"), ""));
            }
        }
    }
}

/// What a class tells its driver.
pub fn parameters(errors: &mut Vec<FieldError>, map: Option<&serde_json::Map<String, Value>>) {
    let Some(map) = map else { return };
    if map.len() > MAX_PARAMETERS {
        errors.push(FieldError::too_long("parameters", MAX_PARAMETERS));
    }
    if map.keys().any(String::is_empty) {
        errors.push(FieldError::invalid("parameters", "", "field can not be empty."));
    }
}

fn access_modes(errors: &mut Vec<FieldError>, path: &str, modes: &[Value]) {
    for mode in modes {
        one_of(errors, path, mode.as_str().unwrap_or_default(), &MODES);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        errors.push(FieldError::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

fn positive(errors: &mut Vec<FieldError>, path: String, v: &Value) {
    let text = v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    if Quantity::parse(&text).is_ok_and(|q| q.sign() <= 0) {
        errors.push(FieldError::invalid(path, text, "must be greater than zero"));
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
        None => errors.push(FieldError::required("spec.capacity", "")),
        Some(c) if c.len() > 1 || !c.contains_key("storage") => {
            errors.push(FieldError::not_supported("spec.capacity", Value::Object(c.clone()), &["storage"]));
        }
        Some(_) => {}
    }
    for (name, amount) in capacity.into_iter().flatten() {
        positive(errors, format!("spec.capacity[{name}]"), amount);
    }
    let policy = str_at(spec, &["persistentVolumeReclaimPolicy"]);
    one_of(errors, "spec.persistentVolumeReclaimPolicy", policy, &["Delete", "Recycle", "Retain"]);
    for (i, term) in items(spec, &["nodeAffinity", "required", "nodeSelectorTerms"]).iter().enumerate() {
        node_term(errors, &format!("spec.nodeAffinity.required.nodeSelectorTerms[{i}]"), term);
    }
    if at(spec, &["nodeAffinity"]).is_some() && at(spec, &["nodeAffinity", "required"]).is_none() {
        errors.push(FieldError::required("spec.nodeAffinity.required", "must specify required node constraints"));
    }
    source(errors, spec);
    optional_named(errors, "spec.storageClassName", str_at(spec, &["storageClassName"]), dns_subdomain);
    one_of(errors, "spec.volumeMode", str_at(spec, &["volumeMode"]), &["Block", "Filesystem"]);
    if str_at(spec, &["hostPath", "path"]) == "/" && policy == "Recycle" {
        errors.push(FieldError::forbidden(
            "spec.persistentVolumeReclaimPolicy",
            "may not be 'recycle' for a hostPath mount of '/'",
        ));
    }
}

/// Where the bytes are: exactly one place, well described.
fn source(errors: &mut Vec<FieldError>, spec: &Value) {
    let kinds = sources(spec);
    match kinds.as_slice() {
        [] => errors.push(FieldError::required("spec", "must specify a volume type")),
        [_] => {}
        [_, second, ..] => {
            errors.push(FieldError::forbidden(format!("spec.{second}"), "may not specify more than 1 volume type"));
        }
    }
    let needed: [(&str, &[&str]); 5] = [
        ("hostPath", &["path"]),
        ("local", &["path"]),
        ("nfs", &["server", "path"]),
        ("csi", &["driver", "volumeHandle"]),
        ("iscsi", &["targetPortal", "iqn"]),
    ];
    for (kind, fields) in needed {
        let Some(inner) = at(spec, &[kind]) else { continue };
        for field in fields {
            if str_at(inner, &[field]).is_empty() {
                errors.push(FieldError::required(format!("spec.{kind}.{field}"), ""));
            }
        }
        let path = str_at(inner, &["path"]);
        if matches!(kind, "hostPath" | "local") && path.split('/').any(|p| p == "..") {
            errors.push(FieldError::invalid(format!("spec.{kind}.path"), path, "must not contain '..'"));
        }
        if kind == "nfs" && !path.is_empty() && !path.starts_with('/') {
            errors.push(FieldError::invalid("spec.nfs.path", path, "must be an absolute path"));
        }
    }
    if at(spec, &["local"]).is_some() && at(spec, &["nodeAffinity"]).is_none() {
        errors.push(FieldError::required("metadata.annotations", "Local volume requires node affinity"));
    }
}

fn volume_fixed(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    if sub.is_some() {
        return;
    }
    let (n, o) = (&new["spec"], &old["spec"]);
    let place =
        |spec: &Value| -> Value { sources(spec).into_iter().map(|k| (k.to_owned(), spec[k].clone())).collect() };
    if !same(Some(&place(n)), Some(&place(o))) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        errors.push(FieldError::forbidden("spec.persistentvolumesource", detail));
    }
    immutable(errors, "spec.volumeMode", n.get("volumeMode"), o.get("volumeMode"));
    if has(o, "nodeAffinity") && !same(n.get("nodeAffinity"), o.get("nodeAffinity")) {
        errors.push(FieldError::invalid("spec.nodeAffinity", n["nodeAffinity"].clone(), IMMUTABLE));
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
        Some(amount) => positive(errors, format!("{path}.resources.requests[storage]"), amount),
    }
    optional_named(errors, &format!("{path}.storageClassName"), str_at(spec, &["storageClassName"]), dns_subdomain);
    one_of(errors, &format!("{path}.volumeMode"), str_at(spec, &["volumeMode"]), &["Block", "Filesystem"]);
    for field in ["dataSource", "dataSourceRef"] {
        let Some(source) = at(spec, &[field]) else { continue };
        for part in ["name", "kind"] {
            if str_at(source, &[part]).is_empty() {
                errors.push(FieldError::required(format!("{path}.{field}.{part}"), ""));
            }
        }
        let (group, kind) = (str_at(source, &["apiGroup"]), str_at(source, &["kind"]));
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(FieldError::invalid(format!("{path}.{field}"), kind, detail));
        }
    }
    if at(spec, &["dataSource"]).is_some() && !same(at(spec, &["dataSource"]), at(spec, &["dataSourceRef"])) {
        errors.push(FieldError::invalid(
            format!("{path}.dataSource"),
            spec["dataSource"].clone(),
            "must match dataSourceRef",
        ));
    }
}

fn claim_fixed(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    if sub.is_some() {
        return;
    }
    let bound = str_at(old, &["status", "phase"]) == "Bound";
    let mut rest = new["spec"].clone();
    // Binding fills in the volume, and a class that was left to the default.
    if str_at(old, &["spec", "volumeName"]).is_empty() {
        keep(&mut rest, &old["spec"], "volumeName");
    }
    if !has(&old["spec"], "storageClassName") {
        keep(&mut rest, &old["spec"], "storageClassName");
    }
    if bound {
        let requests = at(old, &["spec", "resources", "requests"]).cloned().unwrap_or(json!({}));
        set(object(&mut rest, "resources"), "requests", requests);
    }
    keep(&mut rest, &old["spec"], "volumeAttributesClassName");
    if !same(Some(&rest), old.get("spec")) {
        let detail =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(FieldError::forbidden("spec", detail));
    }
    let amount = |v: &Value, path: &[&str]| at(v, path).and_then(Value::as_str).and_then(|t| Quantity::parse(t).ok());
    let storage = ["spec", "resources", "requests", "storage"];
    if let (Some(wanted), Some(had)) = (amount(new, &storage), amount(old, &storage)) {
        let capacity = amount(old, &["status", "capacity", "storage"]).map_or(i128::MIN, |q| q.milli());
        if wanted.milli() < had.milli() && wanted.milli() < capacity {
            let path = "spec.resources.requests.storage";
            errors.push(FieldError::forbidden(path, "field can not be less than status.capacity"));
        }
    }
    immutable(errors, "spec.volumeMode", at(new, &["spec", "volumeMode"]), at(old, &["spec", "volumeMode"]));
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

//! What makes the volumes of a pod well formed.

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::checks::{dns_label, dns_subdomain, required, required_named};
use super::container_checks::{field_ref, local_path};
use super::tree::{at, bool_at, has, int_at, items, str_at};
use super::volume::claim_spec;
use crate::errors::FieldError;

/// The volumes of a pod by name, with whether they may be used as raw devices.
pub type Volumes<'a> = BTreeMap<&'a str, bool>;

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const DOWNWARD_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Checks them all.
pub fn volumes<'a>(errors: &mut Vec<FieldError>, path: &str, spec: &'a Value) -> Volumes<'a> {
    let mut known = Volumes::new();
    for (i, v) in items(spec, &["volumes"]).iter().enumerate() {
        let path = format!("{path}[{i}]");
        let name = str_at(v, &["name"]);
        required_named(errors, &format!("{path}.name"), name, dns_label);
        let raw = has(v, "persistentVolumeClaim") || has(v, "ephemeral");
        if !name.is_empty() && known.insert(name, raw).is_some() {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        let fields = v.as_object().into_iter().flatten().filter(|(k, x)| *k != "name" && !x.is_null());
        let sources: Vec<&String> = fields.map(|(k, _)| k).collect();
        match sources.as_slice() {
            [] => errors.push(FieldError::required(path, "must specify a volume type")),
            [one] => source(errors, &format!("{path}.{one}"), one, &v[one.as_str()]),
            [_, second, ..] => errors
                .push(FieldError::forbidden(format!("{path}.{second}"), "may not specify more than 1 volume type")),
        }
    }
    known
}

/// Fields a source cannot do without.
const NEEDED: [(&str, &[&str]); 12] = [
    ("configMap", &["name"]),
    ("csi", &["driver"]),
    ("fc", &[]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("hostPath", &["path"]),
    ("image", &["reference"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("nfs", &["server", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("rbd", &["image"]),
    ("secret", &["secretName"]),
];

fn source(errors: &mut Vec<FieldError>, path: &str, kind: &str, source: &Value) {
    let needed = NEEDED.iter().find(|(k, _)| *k == kind).map_or(&[][..], |(_, fields)| fields);
    for field in needed {
        required(errors, &format!("{path}.{field}"), str_at(source, &[field]));
    }
    mode(errors, &format!("{path}.defaultMode"), source.get("defaultMode"));
    match kind {
        "configMap" | "secret" => key_paths(errors, path, source),
        "downwardAPI" => downward(errors, path, source),
        "projected" => {
            for (i, s) in items(source, &["sources"]).iter().enumerate() {
                projection(errors, &format!("{path}.sources[{i}]"), s);
            }
        }
        "hostPath" => {
            let host = str_at(source, &["path"]);
            if host.split('/').any(|part| part == "..") {
                errors.push(FieldError::invalid(format!("{path}.path"), host, "must not contain '..'"));
            }
            let kind = str_at(source, &["type"]);
            super::checks::one_of(errors, &format!("{path}.type"), kind, &HOST_PATH_TYPES);
        }
        "nfs" if !str_at(source, &["path"]).is_empty() && !str_at(source, &["path"]).starts_with('/') => {
            errors.push(FieldError::invalid(
                format!("{path}.path"),
                str_at(source, &["path"]),
                "must be an absolute path",
            ));
        }
        "emptyDir" => {
            let limit = at(source, &["sizeLimit"]).and_then(Value::as_str);
            if let Some(text) = limit.filter(|t| Quantity::parse(t).is_ok_and(|q| q.sign() < 0)) {
                let detail = format!("SizeLimit field must be a valid resource quantity: {text}");
                errors.push(FieldError::forbidden(format!("{path}.sizeLimit"), detail));
            }
        }
        "ephemeral" => match at(source, &["volumeClaimTemplate", "spec"]) {
            None => errors.push(FieldError::required(format!("{path}.volumeClaimTemplate"), "")),
            Some(claim) => claim_spec(errors, &format!("{path}.volumeClaimTemplate.spec"), claim),
        },
        "csi" => optional_secret(errors, path, source),
        _ => {}
    }
}

fn optional_secret(errors: &mut Vec<FieldError>, path: &str, csi: &Value) {
    if let Some(secret) = at(csi, &["nodePublishSecretRef"]) {
        required_named(errors, &format!("{path}.nodePublishSecretRef.name"), str_at(secret, &["name"]), dns_subdomain);
    }
}

fn projection(errors: &mut Vec<FieldError>, path: &str, s: &Value) {
    let kinds: Vec<&String> =
        s.as_object().into_iter().flatten().filter(|(_, x)| !x.is_null()).map(|(k, _)| k).collect();
    if kinds.is_empty() {
        errors.push(FieldError::required(path, "must specify at least one volume type"));
    }
    for second in kinds.iter().skip(1) {
        let detail = "may not specify more than 1 volume type";
        errors.push(FieldError::forbidden(format!("{path}.{second}"), detail));
    }
    for kind in ["configMap", "secret"] {
        if let Some(inner) = at(s, &[kind]) {
            let path = format!("{path}.{kind}");
            required(errors, &format!("{path}.name"), str_at(inner, &["name"]));
            key_paths(errors, &path, inner);
        }
    }
    if let Some(inner) = at(s, &["downwardAPI"]) {
        downward(errors, &format!("{path}.downwardAPI"), inner);
    }
    if let Some(token) = at(s, &["serviceAccountToken"]) {
        service_account_token(errors, &format!("{path}.serviceAccountToken"), token);
    }
}

fn service_account_token(errors: &mut Vec<FieldError>, path: &str, token: &Value) {
    let seconds = int_at(token, &["expirationSeconds"]).unwrap_or(3600);
    let detail = match seconds {
        i64::MIN..600 => "may not specify a duration less than 10 minutes",
        n if n > 1 << 32 => "may not specify a duration larger than 2^32 seconds",
        _ => "",
    };
    if !detail.is_empty() {
        errors.push(FieldError::invalid(format!("{path}.expirationSeconds"), seconds, detail));
    }
    required(errors, &format!("{path}.path"), str_at(token, &["path"]));
}

fn key_paths(errors: &mut Vec<FieldError>, path: &str, source: &Value) {
    for (i, item) in items(source, &["items"]).iter().enumerate() {
        let path = format!("{path}.items[{i}]");
        required(errors, &format!("{path}.key"), str_at(item, &["key"]));
        file(errors, &path, item);
    }
}

/// Where in the volume something comes to lie.
fn file(errors: &mut Vec<FieldError>, path: &str, item: &Value) {
    match str_at(item, &["path"]) {
        "" => errors.push(FieldError::required(format!("{path}.path"), "")),
        p if p.starts_with("..") && !p.starts_with("../") && p != ".." => {
            errors.push(FieldError::invalid(format!("{path}.path"), p, "must not start with '..'"));
        }
        p => local_path(errors, &format!("{path}.path"), p),
    }
    mode(errors, &format!("{path}.mode"), item.get("mode"));
}

fn downward(errors: &mut Vec<FieldError>, path: &str, source: &Value) {
    for (i, item) in items(source, &["items"]).iter().enumerate() {
        let path = format!("{path}.items[{i}]");
        file(errors, &path, item);
        match (at(item, &["fieldRef"]), at(item, &["resourceFieldRef"])) {
            (Some(_), Some(_)) => {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(path, "resource", detail));
            }
            (Some(r), None) => {
                field_ref(errors, &format!("{path}.fieldRef.fieldPath"), str_at(r, &["fieldPath"]), &DOWNWARD_FIELDS);
            }
            (None, Some(r)) => {
                required(errors, &format!("{path}.resourceFieldRef.containerName"), str_at(r, &["containerName"]));
                super::container_checks::resource_ref(errors, &format!("{path}.resourceFieldRef"), r);
            }
            (None, None) => errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required")),
        }
    }
}

fn mode(errors: &mut Vec<FieldError>, path: &str, v: Option<&Value>) {
    if let Some(n) = v.and_then(Value::as_i64).filter(|n| !(0..=0o777).contains(n)) {
        errors.push(FieldError::invalid(path, n, "must be a number between 0 and 0777 (octal), both inclusive"));
    }
}

/// What a container mounts, and which raw devices it sees.
pub fn mounts(errors: &mut Vec<FieldError>, path: &str, c: &Value, known: &Volumes<'_>) {
    let list = items(c, &["volumeMounts"]);
    for (i, m) in list.iter().enumerate() {
        let path = format!("{path}.volumeMounts[{i}]");
        mount(errors, &path, m, c, known);
        let place = str_at(m, &["mountPath"]);
        if !place.is_empty() && list[..i].iter().any(|o| str_at(o, &["mountPath"]) == place) {
            errors.push(FieldError::invalid(format!("{path}.mountPath"), place, "must be unique"));
        }
        let devices = items(c, &["volumeDevices"]);
        if devices.iter().any(|d| str_at(d, &["name"]) == str_at(m, &["name"])) {
            let detail = "must not already exist in volumeDevices";
            errors.push(FieldError::invalid(format!("{path}.name"), str_at(m, &["name"]), detail));
        }
        if !place.is_empty() && devices.iter().any(|d| str_at(d, &["devicePath"]) == place) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(format!("{path}.mountPath"), place, detail));
        }
    }
    let devices = items(c, &["volumeDevices"]);
    for (i, d) in devices.iter().enumerate() {
        let path = format!("{path}.volumeDevices[{i}]");
        let (name, place) = (str_at(d, &["name"]), str_at(d, &["devicePath"]));
        match known.get(name) {
            _ if name.is_empty() => errors.push(FieldError::required(format!("{path}.name"), "")),
            None => errors.push(FieldError::not_found(format!("{path}.name"), name)),
            Some(false) => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(format!("{path}.name"), name, detail));
            }
            Some(true) => {}
        }
        if list.iter().any(|m| str_at(m, &["name"]) == name) {
            let detail = "must not already exist in volumeMounts";
            errors.push(FieldError::invalid(format!("{path}.name"), name, detail));
        }
        if place.is_empty() {
            errors.push(FieldError::required(format!("{path}.devicePath"), ""));
        } else if devices[..i].iter().any(|o| str_at(o, &["devicePath"]) == place) {
            errors.push(FieldError::invalid(format!("{path}.devicePath"), place, "must be unique"));
        } else if place.split('/').any(|p| p == "..") {
            let detail = "can not contain backsteps ('..')";
            errors.push(FieldError::invalid(format!("{path}.devicePath"), place, detail));
        }
    }
}

fn mount(errors: &mut Vec<FieldError>, path: &str, m: &Value, c: &Value, known: &Volumes<'_>) {
    let name = str_at(m, &["name"]);
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    } else if !known.contains_key(name) {
        errors.push(FieldError::not_found(format!("{path}.name"), name));
    }
    required(errors, &format!("{path}.mountPath"), str_at(m, &["mountPath"]));
    let (sub, expr) = (str_at(m, &["subPath"]), str_at(m, &["subPathExpr"]));
    if !sub.is_empty() && !expr.is_empty() {
        let detail = "subPathExpr and subPath are mutually exclusive";
        errors.push(FieldError::invalid(format!("{path}.subPathExpr"), expr, detail));
    }
    for (field, value) in [("subPath", sub), ("subPathExpr", expr)] {
        local_path(errors, &format!("{path}.{field}"), value);
    }
    let (propagation, path_of) = (str_at(m, &["mountPropagation"]), format!("{path}.mountPropagation"));
    let modes = ["Bidirectional", "HostToContainer", "None"];
    super::checks::optional_one_of(errors, &path_of, propagation, &modes);
    if propagation == "Bidirectional" && !bool_at(c, &["securityContext", "privileged"]) {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(FieldError::forbidden(path_of, detail));
    }
    let recursive = str_at(m, &["recursiveReadOnly"]);
    if matches!(recursive, "Enabled" | "IfPossible") {
        if !bool_at(m, &["readOnly"]) {
            let detail = "may only be specified when readOnly is true";
            errors.push(FieldError::forbidden(format!("{path}.recursiveReadOnly"), detail));
        }
        if !matches!(propagation, "" | "None") {
            let detail = "may only be specified when mountPropagation is None or not specified";
            errors.push(FieldError::forbidden(format!("{path}.recursiveReadOnly"), detail));
        }
    } else if !matches!(recursive, "" | "Disabled") {
        let known = ["Disabled", "Enabled", "IfPossible"];
        errors.push(FieldError::not_supported(format!("{path}.recursiveReadOnly"), recursive, &known));
    }
}

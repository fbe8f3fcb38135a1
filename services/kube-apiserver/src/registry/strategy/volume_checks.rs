//! What makes the volumes of a pod well formed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::checks::{dns_label, dns_subdomain, labels, required, required_named};
use super::container_checks::{field_ref, local_path};
use super::source_checks::{exactly_one, iscsi_names, source};
use super::tree::{at, bool_at, has, int_at, items, str_at};
use super::volume::claim_spec;
use crate::errors::FieldError;

/// The volumes of a pod by name, with whether they may be used as raw devices.
pub type Volumes<'a> = BTreeMap<&'a str, bool>;

const DOWNWARD_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Checks them all; `pod` is the metadata of the pod they belong to, none in templates.
pub fn volumes<'a>(errors: &mut Vec<FieldError>, path: &str, spec: &'a Value, pod: Option<&Value>) -> Volumes<'a> {
    let mut known = Volumes::new();
    let pod_name = pod.map_or("", |metadata| str_at(metadata, &["name"]));
    let made: Vec<String> = items(spec, &["volumes"])
        .iter()
        .filter(|v| has(v, "ephemeral") && !pod_name.is_empty())
        .map(|v| format!("{pod_name}-{}", str_at(v, &["name"])))
        .collect();
    for (i, v) in items(spec, &["volumes"]).iter().enumerate() {
        let path = format!("{path}[{i}]");
        let before = errors.len();
        let name = str_at(v, &["name"]);
        if let Some(kind) = exactly_one(errors, &path, v, &["name"]) {
            one_source(errors, &path, kind, v, spec, pod);
        }
        required_named(errors, &format!("{path}.name"), name, dns_label);
        if known.contains_key(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        // A volume with a mistake in it is as good as missing to those that mount it.
        if errors.len() == before {
            known.insert(name, has(v, "persistentVolumeClaim") || has(v, "ephemeral"));
        }
        let claim = str_at(v, &["persistentVolumeClaim", "claimName"]);
        if made.iter().any(|m| m == claim) {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            errors.push(FieldError::invalid(format!("{path}.persistentVolumeClaim.claimName"), claim, detail));
        }
    }
    known
}

fn one_source(errors: &mut Vec<FieldError>, path: &str, kind: &str, v: &Value, spec: &Value, pod: Option<&Value>) {
    let (name, inner) = (str_at(v, &["name"]), &v[kind]);
    source(errors, path, kind, inner, false);
    let at_path = format!("{path}.{kind}");
    match kind {
        "emptyDir" => {
            let limit = at(inner, &["sizeLimit"]).and_then(crate::admission::pod_resources::quantity);
            if limit.is_some_and(|q| q.sign() < 0) {
                let detail = "SizeLimit field must be a valid resource quantity";
                errors.push(FieldError::forbidden(format!("{at_path}.sizeLimit"), detail));
            }
        }
        "iscsi" => iscsi_names(errors, &format!("{path}.name"), name, name, inner),
        "configMap" | "secret" => {
            mode(errors, &format!("{at_path}.defaultMode"), inner.get("defaultMode"));
            key_paths(errors, &at_path, inner);
        }
        "downwardAPI" => {
            mode(errors, &format!("{at_path}.defaultMode"), inner.get("defaultMode"));
            downward(errors, &at_path, inner);
        }
        "projected" => {
            mode(errors, &format!("{at_path}.defaultMode"), inner.get("defaultMode"));
            projected(errors, &at_path, inner);
            if pod.is_some() && str_at(spec, &["serviceAccountName"]).is_empty() {
                for (i, _) in items(inner, &["sources"]).iter().enumerate().filter(|(_, s)| has(s, TOKEN)) {
                    let detail = "must not be specified when serviceAccountName is not set";
                    errors.push(FieldError::forbidden(format!("{at_path}.sources[{i}].{TOKEN}"), detail));
                }
            }
        }
        "ephemeral" => ephemeral(errors, path, name, inner, pod.map_or("", |metadata| str_at(metadata, &["name"]))),
        "image" => {
            if pod.is_some() {
                required(errors, &format!("{at_path}.reference"), str_at(inner, &["reference"]));
            }
            let (policy, known) = (str_at(inner, &["pullPolicy"]), ["Always", "IfNotPresent", "Never"]);
            super::checks::required_one_of(errors, &format!("{at_path}.pullPolicy"), policy, &known);
        }
        _ => {}
    }
}

const TOKEN: &str = "serviceAccountToken";

/// A volume that is claimed for the pod, and named after both.
fn ephemeral(errors: &mut Vec<FieldError>, path: &str, name: &str, source: &Value, pod: &str) {
    let template_path = format!("{path}.ephemeral.volumeClaimTemplate");
    match at(source, &["volumeClaimTemplate"]) {
        None => errors.push(FieldError::required(template_path, "")),
        Some(template) => {
            template_metadata(errors, &format!("{template_path}.metadata"), &template["metadata"]);
            let spec = at(template, &["spec"]).unwrap_or(&Value::Null);
            claim_spec(errors, &format!("{template_path}.spec"), spec);
        }
    }
    if !pod.is_empty() && !name.is_empty() {
        let claim = format!("{pod}-{name}");
        for problem in dns_subdomain(&claim) {
            let detail = format!("PVC name {claim:?}: {problem}");
            errors.push(FieldError::invalid(format!("{path}.name"), name, detail));
        }
    }
}

/// Metadata of what is made from a template: labels and annotations, and nothing else.
pub fn template_metadata(errors: &mut Vec<FieldError>, path: &str, metadata: &Value) {
    super::checks::annotations(errors, &format!("{path}.annotations"), metadata.get("annotations"));
    labels(errors, &format!("{path}.labels"), metadata.get("labels"));
    let set = |v: &Value| !matches!(v, Value::Null) && v != "" && v.as_array().is_none_or(|l| !l.is_empty());
    for (field, value) in metadata.as_object().into_iter().flatten() {
        if !matches!(field.as_str(), "annotations" | "labels") && set(value) {
            errors.push(FieldError::forbidden(format!("{path}.{field}"), "cannot be set"));
        }
    }
}

/// Several sources in one folder, so no two files may have the same path.
fn projected(errors: &mut Vec<FieldError>, path: &str, volume: &Value) {
    let mut taken = BTreeSet::new();
    let mut take = |errors: &mut Vec<FieldError>, file: &str, shown: &str| {
        if !file.is_empty() && !taken.insert(file.to_owned()) {
            errors.push(FieldError::invalid(path, shown, "conflicting duplicate paths"));
        }
    };
    for (i, s) in items(volume, &["sources"]).iter().enumerate() {
        let at_source = format!("{path}.sources[{i}]");
        for kind in ["secret", "configMap"] {
            let Some(inner) = at(s, &[kind]) else { continue };
            let name = str_at(inner, &["name"]);
            required(errors, &format!("{at_source}.{kind}.name"), name);
            key_paths(errors, &format!("{at_source}.{kind}"), inner);
            items(inner, &["items"]).iter().for_each(|item| take(errors, str_at(item, &["path"]), name));
        }
        if let Some(inner) = at(s, &["downwardAPI"]) {
            downward(errors, &format!("{at_source}.downwardAPI"), inner);
            for item in items(inner, &["items"]) {
                let file = str_at(item, &["path"]);
                take(errors, file, file);
            }
        }
        if let Some(token) = at(s, &[TOKEN]) {
            service_account_token(errors, path, &format!("{at_source}.{TOKEN}"), token);
        }
        if let Some(bundle) = at(s, &["clusterTrustBundle"]) {
            trust_bundle(errors, &format!("{at_source}.clusterTrustBundle"), bundle);
            let file = str_at(bundle, &["path"]);
            take(errors, file, file);
        }
        if s.as_object().is_some_and(|m| m.values().filter(|v| !v.is_null()).count() > 1) {
            errors.push(FieldError::forbidden(at_source, "may not specify more than 1 volume type per source"));
        }
    }
}

fn trust_bundle(errors: &mut Vec<FieldError>, path: &str, bundle: &Value) {
    match (at(bundle, &["name"]), at(bundle, &["signerName"])) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(path, bundle.clone(), "only one of name and signerName may be used"));
        }
        (Some(name), None) => {
            let name = name.as_str().unwrap_or_default();
            if name.is_empty() {
                errors.push(FieldError::required(format!("{path}.name"), "must be a valid object name"));
            }
            // Bundles of a signer have its name before a colon.
            let own = name.rsplit_once(':').map_or(name, |(_, rest)| rest);
            for problem in dns_subdomain(own) {
                let detail = format!("not a valid clustertrustbundlename: {problem}");
                errors.push(FieldError::invalid(format!("{path}.name"), name, detail));
            }
            if let Some(selector) = at(bundle, &["labelSelector"]) {
                let detail = "labelSelector must be unset if name is specified";
                errors.push(FieldError::invalid(format!("{path}.labelSelector"), selector.clone(), detail));
            }
        }
        (None, Some(signer)) => {
            let signer = signer.as_str().unwrap_or_default();
            super::certificate::signer_name(errors, &format!("{path}.signerName"), signer);
            if let Some(selector) = at(bundle, &["labelSelector"]) {
                super::checks::label_selector(errors, &format!("{path}.labelSelector"), selector);
            }
        }
        (None, None) => errors.push(FieldError::required(path, "either name or signerName must be specified")),
    }
    file_path(errors, &format!("{path}.path"), str_at(bundle, &["path"]));
}

/// A token's path is judged at the volume, as clients know it.
fn service_account_token(errors: &mut Vec<FieldError>, volume: &str, path: &str, token: &Value) {
    let seconds = int_at(token, &["expirationSeconds"]).unwrap_or(3600);
    let detail = match seconds {
        i64::MIN..600 => "may not specify a duration less than 10 minutes",
        n if n > 1 << 32 => "may not specify a duration larger than 2^32 seconds",
        _ => "",
    };
    if !detail.is_empty() {
        errors.push(FieldError::invalid(format!("{path}.expirationSeconds"), seconds, detail));
    }
    file_path(errors, &format!("{volume}.path"), str_at(token, &["path"]));
}

fn key_paths(errors: &mut Vec<FieldError>, path: &str, source: &Value) {
    for (i, item) in items(source, &["items"]).iter().enumerate() {
        let path = format!("{path}.items[{i}]");
        required(errors, &format!("{path}.key"), str_at(item, &["key"]));
        file_path(errors, &format!("{path}.path"), str_at(item, &["path"]));
        mode(errors, &format!("{path}.mode"), item.get("mode"));
    }
}

/// Where in the volume something comes to lie.
fn file_path(errors: &mut Vec<FieldError>, path: &str, file: &str) {
    required(errors, path, file);
    local_path(errors, path, file);
    // Names with two dots in front are the kubelet's own. That `..` itself leads outside has been said.
    if file.starts_with("..") && !file.starts_with("../") {
        errors.push(FieldError::invalid(path, file, "must not start with '..'"));
    }
}

/// Files about the pod itself. Mistakes are reported at the volume, not at the file.
fn downward(errors: &mut Vec<FieldError>, path: &str, source: &Value) {
    for item in items(source, &["items"]) {
        file_path(errors, &format!("{path}.path"), str_at(item, &["path"]));
        match (at(item, &["fieldRef"]), at(item, &["resourceFieldRef"])) {
            (Some(r), other) => {
                field_ref(errors, &format!("{path}.fieldRef"), r, &DOWNWARD_FIELDS);
                if other.is_some() {
                    let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                    errors.push(FieldError::invalid(path, "resource", detail));
                }
            }
            (None, Some(r)) => {
                super::container_checks::resource_ref(errors, &format!("{path}.resourceFieldRef"), r, true);
            }
            (None, None) => errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required")),
        }
        mode(errors, &format!("{path}.mode"), item.get("mode"));
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
    let devices = items(c, &["volumeDevices"]);
    for (i, m) in list.iter().enumerate() {
        let at_mount = format!("{path}.volumeMounts[{i}]");
        let (name, place) = (str_at(m, &["name"]), str_at(m, &["mountPath"]));
        if name.is_empty() {
            errors.push(FieldError::required(format!("{at_mount}.name"), ""));
        }
        if !known.contains_key(name) {
            errors.push(FieldError::not_found(format!("{at_mount}.name"), name));
        }
        required(errors, &format!("{at_mount}.mountPath"), place);
        if list[..i].iter().any(|o| str_at(o, &["mountPath"]) == place) {
            errors.push(FieldError::invalid(format!("{at_mount}.mountPath"), place, "must be unique"));
        }
        if devices.iter().any(|d| str_at(d, &["name"]) == name) {
            let detail = "must not already exist in volumeDevices";
            errors.push(FieldError::invalid(format!("{at_mount}.name"), name, detail));
        }
        if devices.iter().any(|d| str_at(d, &["devicePath"]) == place) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(format!("{at_mount}.mountPath"), place, detail));
        }
        mount(errors, &format!("{path}.volumeMounts"), &at_mount, m, c);
    }
    for (i, d) in devices.iter().enumerate() {
        device(errors, &format!("{path}.volumeDevices[{i}]"), d, &devices[..i], list, known);
    }
}

fn device(
    errors: &mut Vec<FieldError>,
    path: &str,
    d: &Value,
    before: &[Value],
    mounts: &[Value],
    known: &Volumes<'_>,
) {
    let (name, place) = (str_at(d, &["name"]), str_at(d, &["devicePath"]));
    let (at_name, at_place) = (format!("{path}.name"), format!("{path}.devicePath"));
    if name.is_empty() {
        errors.push(FieldError::required(at_name.clone(), ""));
    } else if before.iter().any(|o| str_at(o, &["name"]) == name) {
        errors.push(FieldError::invalid(at_name.clone(), name, "must be unique"));
    }
    match known.get(name) {
        None => errors.push(FieldError::not_found(at_name.clone(), name)),
        Some(false) => {
            let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            errors.push(FieldError::invalid(at_name.clone(), name, detail));
        }
        Some(true) => {}
    }
    required(errors, &at_place, place);
    if before.iter().any(|o| str_at(o, &["devicePath"]) == place) {
        errors.push(FieldError::invalid(at_place.clone(), place, "must be unique"));
    }
    if place.split('/').any(|p| p == "..") {
        errors.push(FieldError::invalid(at_place.clone(), place, "can not contain backsteps ('..')"));
    }
    if mounts.iter().any(|m| str_at(m, &["name"]) == name) {
        errors.push(FieldError::invalid(at_name, name, "must not already exist in volumeMounts"));
    }
    if mounts.iter().any(|m| str_at(m, &["mountPath"]) == place) {
        let detail = "must not already exist as a path in volumeMounts";
        errors.push(FieldError::invalid(at_place, place, detail));
    }
}

/// How something is mounted. Most of it is reported at the list of mounts, as clients know it.
fn mount(errors: &mut Vec<FieldError>, list: &str, path: &str, m: &Value, c: &Value) {
    let (sub, expr) = (str_at(m, &["subPath"]), str_at(m, &["subPathExpr"]));
    local_path(errors, &format!("{list}.subPath"), sub);
    if !sub.is_empty() && !expr.is_empty() {
        let detail = "subPathExpr and subPath are mutually exclusive";
        errors.push(FieldError::invalid(format!("{path}.subPathExpr"), expr, detail));
    }
    local_path(errors, &format!("{list}.subPathExpr"), expr);
    let (propagation, place) = (str_at(m, &["mountPropagation"]), format!("{list}.mountPropagation"));
    let modes = ["Bidirectional", "HostToContainer", "None"];
    super::checks::optional_one_of(errors, &place, propagation, &modes);
    if propagation == "Bidirectional" && !bool_at(c, &["securityContext", "privileged"]) {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(FieldError::forbidden(place, detail));
    }
    let (recursive, place) = (str_at(m, &["recursiveReadOnly"]), format!("{list}.recursiveReadOnly"));
    if matches!(recursive, "Enabled" | "IfPossible") {
        if !bool_at(m, &["readOnly"]) {
            errors.push(FieldError::forbidden(place.clone(), "may only be specified when readOnly is true"));
        }
        if !matches!(propagation, "" | "None") {
            let detail = "may only be specified when mountPropagation is None or not specified";
            errors.push(FieldError::forbidden(place, detail));
        }
    } else {
        let known = ["Disabled", "Enabled", "IfPossible"];
        super::checks::optional_one_of(errors, &place, recursive, &known);
    }
}

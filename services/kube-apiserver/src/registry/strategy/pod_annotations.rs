//! Annotations that mean something to pods: mirrors of static pods, the cost of deletion, and the old spelling of security profiles.

use serde_json::Value;

use super::container_checks::local_path;
use super::tree::{at, has, items, map_at, str_at};
use crate::errors::FieldError;

/// A kubelet's copy of a pod that it runs by itself.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const LOCALHOST: &str = "localhost/";
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// The annotations of a pod or a template whose spec this is.
pub fn check(errors: &mut Vec<FieldError>, path: &str, metadata: &Value, spec: &Value) {
    for (key, value) in map_at(metadata, &["annotations"]).into_iter().flatten() {
        let (value, at_key) = (value.as_str().unwrap_or_default(), format!("{path}[{key}]"));
        if key == MIRROR && str_at(spec, &["nodeName"]).is_empty() {
            let detail = "must set spec.nodeName if mirror pod annotation is set";
            errors.push(FieldError::invalid(at_key.clone(), value, detail));
        }
        if key == DELETION_COST && !is_cost(value) {
            errors.push(FieldError::invalid(at_key.clone(), value, "must be a 32bit integer"));
        }
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            seccomp(errors, &format!("{path}.{key}"), value);
        }
        if let Some(name) = key.strip_prefix(APPARMOR) {
            if !containers(spec).any(|(_, c)| str_at(c, &["name"]) == name) {
                errors.push(FieldError::invalid(at_key.clone(), name, "container not found"));
            }
            if !matches!(value, "" | "runtime/default" | "unconfined") && !value.starts_with(LOCALHOST) {
                errors.push(FieldError::invalid(at_key, value, format!("invalid AppArmor profile name: {value:?}")));
            }
        }
    }
}

/// An integer as strict readers take it: no plus sign, no zeros in front.
fn is_cost(text: &str) -> bool {
    text.parse::<i32>().is_ok_and(|n| n.to_string() == text)
}

fn containers(spec: &Value) -> impl Iterator<Item = (String, &Value)> {
    LISTS.into_iter().flat_map(move |list| {
        items(spec, &[list]).iter().enumerate().map(move |(i, c)| (format!("{list}[{i}].securityContext"), c))
    })
}

fn seccomp(errors: &mut Vec<FieldError>, path: &str, profile: &str) {
    match profile.strip_prefix(LOCALHOST) {
        Some(file) => local_path(errors, path, file),
        None if matches!(profile, "runtime/default" | "docker/default" | "unconfined") => {}
        None => errors.push(FieldError::invalid(path, profile, "must be a valid seccomp profile")),
    }
}

/// On creation, an annotation and the field that took its place say the same.
pub fn agree(errors: &mut Vec<FieldError>, path: &str, metadata: &Value, spec: &Value) {
    let note = |key: &str| at(metadata, &["annotations", key]).and_then(Value::as_str);
    let pod_context = at(spec, &["securityContext"]).unwrap_or(&Value::Null);
    if let (Some(profile), Some(note)) = (at(pod_context, &["seccompProfile"]), note(SECCOMP_POD)) {
        same(errors, &format!("{path}.securityContext.seccompProfile"), profile, note, "seccomp");
    }
    let windows = str_at(spec, &["os", "name"]) == "windows";
    for (place, c) in containers(spec) {
        let name = str_at(c, &["name"]);
        let own = |field: &str| at(c, &["securityContext", field]);
        if let (Some(profile), Some(note)) = (own("seccompProfile"), note(&format!("{SECCOMP_CONTAINER}{name}"))) {
            same(errors, &format!("{path}.{place}.seccompProfile"), profile, note, "seccomp");
        }
        let profile = own("appArmorProfile").or_else(|| at(pod_context, &["appArmorProfile"]));
        if let (Some(profile), Some(note), false) = (profile, note(&format!("{APPARMOR}{name}")), windows) {
            same(errors, &format!("{path}.{place}.appArmorProfile"), profile, note, "apparmor");
        }
    }
}

fn same(errors: &mut Vec<FieldError>, path: &str, profile: &Value, note: &str, what: &str) {
    let fits = match str_at(profile, &["type"]) {
        "Unconfined" => note == "unconfined",
        "RuntimeDefault" => note == "runtime/default" || (what == "seccomp" && note == "docker/default"),
        "Localhost" => note.starts_with(LOCALHOST),
        _ => true,
    };
    if !fits {
        let detail = format!("{what} type in annotation and field must match");
        errors.push(FieldError::forbidden(format!("{path}.type"), detail));
    } else if let Some(file) = note.strip_prefix(LOCALHOST)
        && str_at(profile, &["type"]) == "Localhost"
        && file != str_at(profile, &["localhostProfile"])
    {
        let detail = format!("{what} profile in annotation and field must match");
        errors.push(FieldError::forbidden(format!("{path}.localhostProfile"), detail));
    }
}

/// Some annotations stay as they were made.
pub fn check_update(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    let (is, was) = (&new["metadata"]["annotations"], &old["metadata"]["annotations"]);
    let fixed = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        _ if key.starts_with(APPARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, before) in was.as_object().into_iter().flatten().filter(|(k, v)| is.get(k.as_str()) != Some(*v)) {
        if let Some(what) = fixed(key).filter(|_| before.is_string()) {
            let detail = format!("may not remove or update {what}");
            errors.push(FieldError::forbidden(format!("metadata.annotations[{key}]"), detail));
        }
    }
    for (key, _) in is.as_object().into_iter().flatten().filter(|(k, _)| !has(was, k)) {
        if let Some(what) = fixed(key) {
            errors.push(FieldError::forbidden(format!("metadata.annotations[{key}]"), format!("may not add {what}")));
        }
    }
    check(errors, "metadata.annotations", &new["metadata"], &new["spec"]);
}

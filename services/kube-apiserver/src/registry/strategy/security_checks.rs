//! What makes security contexts well formed, of pods and of containers.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks::{one_of, optional_one_of};
use super::tree::{at, bool_at, has, int_at, items, str_at};
use crate::errors::FieldError;

const SYSCTL: &str = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const SYSCTL_MAX: usize = 253;

/// The pod's context and what it shares with the host.
pub fn pod(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    let context = at(spec, &["securityContext"]).unwrap_or(&Value::Null);
    let at_path = format!("{path}.securityContext");
    ids(errors, &at_path, context, &["runAsUser", "runAsGroup", "fsGroup"]);
    for (i, group) in items(context, &["supplementalGroups"]).iter().enumerate() {
        id(errors, &format!("{at_path}.supplementalGroups[{i}]"), group.as_i64());
    }
    let policies = ["Always", "OnRootMismatch"];
    optional_one_of(
        errors,
        &format!("{at_path}.fsGroupChangePolicy"),
        str_at(context, &["fsGroupChangePolicy"]),
        &policies,
    );
    let policy = str_at(context, &["supplementalGroupsPolicy"]);
    optional_one_of(errors, &format!("{at_path}.supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    profiles(errors, &at_path, context);
    sysctls(errors, &at_path, context);
    if bool_at(spec, &["shareProcessNamespace"]) && bool_at(spec, &["hostPID"]) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(format!("{path}.shareProcessNamespace"), true, detail));
    }
    if at(spec, &["hostUsers"]).is_some_and(|v| v == false) {
        for field in ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|f| bool_at(spec, &[f])) {
            let detail = "when `hostUsers` is false";
            errors.push(FieldError::forbidden(format!("{path}.{field}"), detail));
        }
    }
}

/// A container's context.
pub fn container(errors: &mut Vec<FieldError>, path: &str, context: &Value) {
    ids(errors, path, context, &["runAsUser", "runAsGroup"]);
    optional_one_of(errors, &format!("{path}.procMount"), str_at(context, &["procMount"]), &["Default", "Unmasked"]);
    profiles(errors, path, context);
    if at(context, &["allowPrivilegeEscalation"]).is_none_or(|v| v != false) {
        return;
    }
    let added = items(context, &["capabilities", "add"]);
    if bool_at(context, &["privileged"]) {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(FieldError::invalid(path, context.clone(), detail));
    }
    if added.iter().any(|c| c == "CAP_SYS_ADMIN") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.push(FieldError::invalid(path, context.clone(), detail));
    }
}

fn ids(errors: &mut Vec<FieldError>, path: &str, context: &Value, fields: &[&str]) {
    for field in fields {
        id(errors, &format!("{path}.{field}"), int_at(context, &[field]));
    }
}

fn id(errors: &mut Vec<FieldError>, path: &str, n: Option<i64>) {
    if let Some(n) = n.filter(|n| !(0..=i64::from(i32::MAX)).contains(n)) {
        errors.push(FieldError::invalid(path, n, "must be between 0 and 2147483647, inclusive"));
    }
}

/// Seccomp and AppArmor have the same shape.
fn profiles(errors: &mut Vec<FieldError>, path: &str, context: &Value) {
    let known = ["Localhost", "RuntimeDefault", "Unconfined"];
    for (field, other) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let Some(profile) = at(context, &[field]) else { continue };
        let path = format!("{path}.{field}");
        let (kind, file) = (str_at(profile, &["type"]), str_at(profile, &["localhostProfile"]));
        if kind.is_empty() {
            errors.push(FieldError::required(format!("{path}.type"), format!("type is required when {field} is set")));
            continue;
        }
        one_of(errors, &format!("{path}.type"), kind, &known);
        let path = format!("{path}.localhostProfile");
        match kind {
            "Localhost" if file.is_empty() => {
                errors.push(FieldError::required(path, format!("must be set when {other} type is Localhost")));
            }
            "Localhost" if field == "seccompProfile" => super::container_checks::local_path(errors, &path, file),
            "Localhost" => {}
            _ if has(profile, "localhostProfile") => {
                let detail = format!("can only be set when {other} type is Localhost");
                errors.push(FieldError::invalid(path, file, detail));
            }
            _ => {}
        }
    }
}

fn sysctls(errors: &mut Vec<FieldError>, path: &str, context: &Value) {
    let good = |part: &str| {
        let b = part.as_bytes();
        b.first().is_some_and(u8::is_ascii_alphanumeric)
            && b.last().is_some_and(u8::is_ascii_alphanumeric)
            && b.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_".contains(c))
    };
    let mut seen = BTreeSet::new();
    for (i, s) in items(context, &["sysctls"]).iter().enumerate() {
        let path = format!("{path}.sysctls[{i}].name");
        let name = str_at(s, &["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if name.len() > SYSCTL_MAX || !name.split(['.', '/']).all(good) {
            errors.push(FieldError::invalid(path, name, SYSCTL));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
}

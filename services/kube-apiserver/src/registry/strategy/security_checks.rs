//! What makes security contexts well formed, of pods and of containers.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks::{one_of, optional_one_of};
use super::tree::{at, bool_at, has, int_at, items, str_at};
use crate::errors::FieldError;

const SYSCTL: &str = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const SYSCTL_MAX: usize = 253;
/// A path of the host without its end.
const PROFILE_MAX: usize = 4095;
/// Parameters of the kernel that every network, and every space of shared memory, has for itself.
const OF_NETWORK: [&str; 1] = ["net."];
const OF_IPC: [&str; 4] = ["kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue."];

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
    let labels = str_at(context, &["seLinuxChangePolicy"]);
    optional_one_of(errors, &format!("{at_path}.seLinuxChangePolicy"), labels, &["MountOption", "Recursive"]);
    profiles(errors, &at_path, context);
    sysctls(errors, &at_path, context, spec);
    if bool_at(spec, &["shareProcessNamespace"]) && bool_at(spec, &["hostPID"]) {
        // The server's own form of a pod has this field in the security context, and that is what clients read.
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(format!("{at_path}.shareProcessNamespace"), true, detail));
    }
    if at(spec, &["hostUsers"]).is_some_and(|v| v == false) {
        for field in ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|f| bool_at(spec, &[f])) {
            let detail = "when `hostUsers` is false";
            errors.push(FieldError::forbidden(format!("{path}.{field}"), detail));
        }
    }
}

/// A container's context.
pub fn container(errors: &mut Vec<FieldError>, path: &str, context: &Value, host_users: bool) {
    ids(errors, path, context, &["runAsUser", "runAsGroup"]);
    let proc = str_at(context, &["procMount"]);
    optional_one_of(errors, &format!("{path}.procMount"), proc, &["Default", "Unmasked"]);
    if host_users && proc == "Unmasked" {
        let detail = "`hostUsers` must be false to use `Unmasked`";
        errors.push(FieldError::invalid(format!("{path}.procMount"), proc, detail));
    }
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

/// A user's or group's number.
pub fn id(errors: &mut Vec<FieldError>, path: &str, n: Option<i64>) {
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
        match (kind, has(profile, "localhostProfile")) {
            ("Localhost", false) => {
                errors.push(FieldError::required(path, format!("must be set when {other} type is Localhost")));
            }
            ("Localhost", true) if other == "seccomp" => super::container_checks::local_path(errors, &path, file),
            ("Localhost", true) => {
                if file.trim() != file {
                    errors.push(FieldError::invalid(path.clone(), file, "must not be padded with whitespace"));
                } else if file.is_empty() {
                    errors.push(FieldError::required(path.clone(), "must be set when AppArmor type is Localhost"));
                }
                if file.len() > PROFILE_MAX {
                    errors.push(FieldError::too_long(path, PROFILE_MAX));
                }
            }
            (_, true) => {
                let shown = if other == "seccomp" { profile.clone() } else { file.into() };
                let detail = format!("can only be set when {other} type is Localhost");
                errors.push(FieldError::invalid(path, shown, detail));
            }
            _ => {}
        }
    }
}

fn sysctls(errors: &mut Vec<FieldError>, path: &str, context: &Value, spec: &Value) {
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
            errors.push(FieldError::required(path.clone(), ""));
        } else if name.len() > SYSCTL_MAX || !name.split(['.', '/']).all(good) {
            errors.push(FieldError::invalid(path.clone(), name, SYSCTL));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(path.clone(), name));
        }
        let dotted = name.replace('/', ".");
        let within = |list: &[&str]| list.iter().any(|p| dotted.starts_with(p));
        for (shared, own) in [("hostNetwork", within(&OF_NETWORK)), ("hostIPC", within(&OF_IPC))] {
            if own && bool_at(spec, &[shared]) {
                let detail = format!("may not be specified when '{shared}' is true");
                errors.push(FieldError::invalid(path.clone(), name, detail));
            }
        }
    }
}

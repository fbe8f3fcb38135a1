//! Checks the restricted level adds to the baseline, in upstream's order.

use serde_json::Value;

use super::baseline;
use super::policy::{Check, Finding, Version};
use super::spec::{containers, has_own_users, is_windows, name, named, plural, quoted, set, which};
use crate::registry::strategy::tree::{at, int_at, items, str_at};

/// The checks.
pub const CHECKS: &[Check] = &[privilege_escalation, capabilities, volumes, run_as_non_root, run_as_user, seccomp];

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Baseline checks that would only say again what one of these says.
pub fn replaces(version: Version) -> Vec<Check> {
    let mut list: Vec<Check> = vec![baseline::host_path_volumes];
    if version.since(22) {
        list.push(baseline::capabilities);
    }
    if version.since(19) {
        list.push(baseline::seccomp);
    }
    list
}

fn privilege_escalation(_: &Value, spec: &Value, version: Version) -> Option<Finding> {
    if !version.since(8) || (version.since(25) && is_windows(spec)) {
        return None;
    }
    let list = which(spec, |c| at(c, &["securityContext", "allowPrivilegeEscalation"]).is_none_or(|v| v != false));
    let detail = || format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&list));
    (!list.is_empty()).then(|| Finding::new("allowPrivilegeEscalation != false", detail()))
}

fn capabilities(_: &Value, spec: &Value, version: Version) -> Option<Finding> {
    if !version.since(22) || (version.since(25) && is_windows(spec)) {
        return None;
    }
    let keeps = |c: &Value| !items(c, &["securityContext", "capabilities", "drop"]).iter().any(|d| d == "ALL");
    let extra = |c: &Value| -> Vec<String> {
        let added = items(c, &["securityContext", "capabilities", "add"]).iter().filter_map(Value::as_str);
        added.filter(|a| *a != "NET_BIND_SERVICE").map(str::to_owned).collect()
    };
    let mut details = Vec::new();
    let list = which(spec, keeps);
    if !list.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&list)));
    }
    let list = which(spec, |c| !extra(c).is_empty());
    if !list.is_empty() {
        let all: Vec<String> = containers(spec).flat_map(extra).collect();
        let all = set(all.iter().map(String::as_str).collect());
        details.push(format!("{} must not include {} in securityContext.capabilities.add", named(&list), quoted(&all)));
    }
    (!details.is_empty()).then(|| Finding::new("unrestricted capabilities", details.join("; ")))
}

fn volumes(_: &Value, spec: &Value, _: Version) -> Option<Finding> {
    let source = |v: &Value| -> Option<String> {
        let fields = v.as_object()?.iter().filter(|(k, x)| *k != "name" && !x.is_null());
        let kinds: Vec<&String> = fields.map(|(k, _)| k).collect();
        kinds.iter().find(|k| !VOLUMES.contains(&k.as_str())).map(|k| (*k).clone())
    };
    let bad: Vec<(&str, String)> =
        items(spec, &["volumes"]).iter().filter_map(|v| Some((name(v), source(v)?))).collect();
    if bad.is_empty() {
        return None;
    }
    let names: Vec<&str> = bad.iter().map(|(n, _)| *n).collect();
    let kinds = set(bad.iter().map(|(_, k)| k.as_str()).collect());
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(&kinds)
    );
    Some(Finding::new("restricted volume types", detail))
}

fn run_as_non_root(_: &Value, spec: &Value, version: Version) -> Option<Finding> {
    if version.since(35) && has_own_users(spec) {
        return None;
    }
    let says = |o: &Value| at(o, &["securityContext", "runAsNonRoot"]).and_then(Value::as_bool);
    let pod = says(spec);
    let explicit = which(spec, |c| says(c) == Some(false));
    if pod == Some(false) || !explicit.is_empty() {
        let mut setters = Vec::new();
        if pod == Some(false) {
            setters.push("pod".to_owned());
        }
        if !explicit.is_empty() {
            setters.push(named(&explicit));
        }
        let detail = format!("{} must not set securityContext.runAsNonRoot=false", setters.join(" and "));
        return Some(Finding::new("runAsNonRoot != true", detail));
    }
    let silent = which(spec, |c| pod != Some(true) && says(c).is_none());
    let detail = || format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent));
    (!silent.is_empty()).then(|| Finding::new("runAsNonRoot != true", detail()))
}

fn run_as_user(_: &Value, spec: &Value, version: Version) -> Option<Finding> {
    if !version.since(23) || (version.since(35) && has_own_users(spec)) {
        return None;
    }
    let root = |o: &Value| int_at(o, &["securityContext", "runAsUser"]) == Some(0);
    let mut setters = Vec::new();
    if root(spec) {
        setters.push("pod".to_owned());
    }
    let list = which(spec, root);
    if !list.is_empty() {
        setters.push(named(&list));
    }
    let detail = || format!("{} must not set runAsUser=0", setters.join(" and "));
    (!setters.is_empty()).then(|| Finding::new("runAsUser=0", detail()))
}

fn seccomp(_: &Value, spec: &Value, version: Version) -> Option<Finding> {
    if !version.since(19) || (version.since(25) && is_windows(spec)) {
        return None;
    }
    let kind = |o: &Value| str_at(o, &["securityContext", "seccompProfile", "type"]).to_owned();
    let fine = |k: &str| matches!(k, "RuntimeDefault" | "Localhost");
    let wrong = |o: &Value| !kind(o).is_empty() && !fine(&kind(o));
    let mut setters = Vec::new();
    if wrong(spec) {
        setters.push("pod".to_owned());
    }
    let list = which(spec, wrong);
    if !list.is_empty() {
        setters.push(named(&list));
    }
    if !setters.is_empty() {
        let kinds: Vec<String> = std::iter::once(spec).chain(containers(spec)).filter(|o| wrong(o)).map(kind).collect();
        let kinds = set(kinds.iter().map(String::as_str).collect());
        let who = setters.join(" and ");
        let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&kinds));
        return Some(Finding::new("seccompProfile", detail));
    }
    let silent = which(spec, |c| !fine(&kind(spec)) && kind(c).is_empty());
    let detail = || {
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            named(&silent)
        )
    };
    (!silent.is_empty()).then(|| Finding::new("seccompProfile", detail()))
}

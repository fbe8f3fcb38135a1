//! What a pod's operating system allows: Linux pods say nothing about Windows, and Windows pods nothing that only Linux has.

use serde_json::Value;

use super::checks::{dns_subdomain, named};
use super::tree::{at, bool_at, has, items, str_at};
use crate::errors::FieldError;

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
/// Fields of a pod that Windows does not have; the last ones may be there and empty.
const LINUX_POD: [&str; 4] = ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
const LINUX_POD_CONTEXT: [&str; 11] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
const LINUX_CONTEXT: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];
const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";
const NOT_ON_LINUX: &str = "windows options cannot be set for a linux pod";
/// The longest credential specification, KiB.
const CREDENTIAL_KIB: usize = 64;
const DOMAIN_MAX: usize = 256;
const USER_MAX: usize = 104;

/// Everything about the operating system of a pod's spec.
pub fn os(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    host_process(errors, path, spec);
    let context = at(spec, &["securityContext"]).unwrap_or(&Value::Null);
    if let Some(options) = at(context, &["windowsOptions"]) {
        windows_options(errors, &format!("{path}.securityContext.windowsOptions"), options);
    }
    for (place, own) in contexts(spec) {
        if let Some(options) = at(own, &["windowsOptions"]) {
            windows_options(errors, &format!("{path}.{place}.windowsOptions"), options);
        }
    }
    let Some(os) = at(spec, &["os"]) else { return };
    match str_at(os, &["name"]) {
        "" => errors.push(FieldError::required(format!("{path}.os.name"), "cannot be empty")),
        "linux" => {
            if has(context, "windowsOptions") {
                errors.push(FieldError::forbidden(format!("{path}.securityContext.windowsOptions"), NOT_ON_LINUX));
            }
            for (place, _) in contexts(spec).filter(|(_, own)| has(own, "windowsOptions")) {
                errors.push(FieldError::forbidden(format!("{path}.{place}.windowsOptions"), NOT_ON_LINUX));
            }
        }
        "windows" => windows(errors, path, spec, context),
        other => errors.push(FieldError::not_supported(format!("{path}.os"), other, &["linux", "windows"])),
    }
}

/// Security contexts of containers, with their places.
fn contexts(spec: &Value) -> impl Iterator<Item = (String, &Value)> {
    LISTS.into_iter().flat_map(move |list| {
        let all = items(spec, &[list]).iter().enumerate();
        all.filter_map(move |(i, c)| Some((format!("{list}[{i}].securityContext"), at(c, &["securityContext"])?)))
    })
}

fn windows(errors: &mut Vec<FieldError>, path: &str, spec: &Value, context: &Value) {
    // A false for what the host shares is no request.
    let asked = |v: &Value, field: &str| match v.get(field) {
        None | Some(Value::Null) => false,
        Some(Value::Bool(on)) => *on || !matches!(field, "hostPID" | "hostIPC"),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(_) => true,
    };
    for field in LINUX_POD.into_iter().filter(|f| asked(spec, f)) {
        errors.push(FieldError::forbidden(format!("{path}.{field}"), NOT_ON_WINDOWS));
    }
    for field in LINUX_POD_CONTEXT.into_iter().filter(|f| asked(context, f)) {
        errors.push(FieldError::forbidden(format!("{path}.securityContext.{field}"), NOT_ON_WINDOWS));
    }
    for (place, own) in contexts(spec) {
        for field in LINUX_CONTEXT.into_iter().filter(|f| asked(own, f)) {
            errors.push(FieldError::forbidden(format!("{path}.{place}.{field}"), NOT_ON_WINDOWS));
        }
    }
}

/// Containers that are processes of a Windows host: all of a pod or none, and in the host's network.
fn host_process(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    let of = |context: &Value| at(context, &["windowsOptions", "hostProcess"]).and_then(Value::as_bool);
    let pod = at(spec, &["securityContext"]).and_then(of);
    let (mut all, mut on) = (0, 0);
    for list in LISTS {
        for (i, c) in items(spec, &[list]).iter().enumerate() {
            let own = at(c, &["securityContext"]).and_then(of);
            if let (Some(pod), Some(own)) = (pod, own)
                && pod != own
            {
                let detail = format!("pod hostProcess value must be identical if both are specified, was {pod}");
                let place = format!("{path}.{list}[{i}].securityContext.windowsOptions.hostProcess");
                errors.push(FieldError::invalid(place, own, detail));
            }
            all += 1;
            on += i32::from(own.or(pod).unwrap_or_default());
        }
    }
    if on == 0 {
        return;
    }
    if on != all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(path, "", detail));
    }
    if !bool_at(spec, &["hostNetwork"]) {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(format!("{path}.hostNetwork"), false, detail));
    }
}

fn windows_options(errors: &mut Vec<FieldError>, path: &str, options: &Value) {
    if let Some(name) = at(options, &["gmsaCredentialSpecName"]).and_then(Value::as_str) {
        named(errors, &format!("{path}.gmsaCredentialSpecName"), name, dns_subdomain);
    }
    if let Some(text) = at(options, &["gmsaCredentialSpec"]).and_then(Value::as_str) {
        let detail = match text.len() {
            0 => "gmsaCredentialSpec cannot be an empty string".to_owned(),
            n if n > CREDENTIAL_KIB * 1024 => format!("gmsaCredentialSpec size must be under {CREDENTIAL_KIB} KiB"),
            _ => String::new(),
        };
        if !detail.is_empty() {
            errors.push(FieldError::invalid(format!("{path}.gmsaCredentialSpec"), text, detail));
        }
    }
    if let Some(name) = at(options, &["runAsUserName"]).and_then(Value::as_str) {
        let problems = user_name(name).into_iter();
        errors.extend(problems.map(|d| FieldError::invalid(format!("{path}.runAsUserName"), name, d)));
    }
}

/// What is wrong with `[DOMAIN\]USER`.
fn user_name(name: &str) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    if name.is_empty() {
        return one("runAsUserName cannot be an empty string");
    }
    if name.chars().any(char::is_control) {
        return one("runAsUserName cannot contain control characters");
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts.as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return one("runAsUserName cannot contain more than one backslash"),
    };
    let mut problems = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= DOMAIN_MAX {
            problems.push(format!("runAsUserName's Domain length must be under {DOMAIN_MAX} characters"));
        }
        let short = (1..=15).contains(&domain.chars().count())
            && !domain.starts_with('.')
            && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|']);
        if !short && !dns_subdomain(&domain.to_ascii_lowercase()).is_empty() {
            problems.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned());
        }
    }
    if user.is_empty() {
        problems.push("runAsUserName's User cannot be empty".to_owned());
    } else if user.len() > USER_MAX {
        problems.push(format!("runAsUserName's User length must not be longer than {USER_MAX} characters"));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        problems.push("runAsUserName's User cannot contain only periods or spaces".to_owned());
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        let list = r#""/\:;|=,+*?<>@[]"#;
        problems.push(format!("runAsUserName's User cannot contain the following characters: {list}"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names() {
        for good in ["Administrator", r"DOM\user", r"corp.example.com\user name"] {
            assert_eq!(user_name(good), [""; 0], "{good}");
        }
        for (bad, why) in [
            ("", "cannot be an empty string"),
            (r"a\b\c", "more than one backslash"),
            (r".x\u", "NetBios"),
            ("..", "only periods or spaces"),
            ("a@b", "following characters"),
            (r"d\", "User cannot be empty"),
        ] {
            assert!(user_name(bad).iter().any(|d| d.contains(why)), "{bad}");
        }
    }
}

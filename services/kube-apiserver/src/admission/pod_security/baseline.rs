//! Checks of the baseline level, in upstream's order: by the name of the check.

use serde_json::Value;

use super::policy::{Check, Finding, Version};
use super::spec::{containers, has_own_users, name, named, plural, quoted, set, which};
use crate::registry::strategy::tree::{at, bool_at, int_at, items, map_at, str_at};

/// The checks. Those the restricted level sharpens are public.
pub const CHECKS: &[Check] = &[
    app_armor,
    capabilities,
    host_namespaces,
    host_path_volumes,
    host_ports,
    probe_hosts,
    privileged,
    proc_mount,
    se_linux,
    seccomp,
    sysctls,
    windows_host_process,
];

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Parameters that concern the pod alone, with the release since which they are taken to.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn app_armor(metadata: &Value, spec: &Value, _: Version) -> Option<Finding> {
    let unconfined = |o: &Value| {
        let kind = str_at(o, &["securityContext", "appArmorProfile", "type"]);
        !matches!(kind, "" | "RuntimeDefault" | "Localhost")
    };
    let mut bad = Vec::new();
    let kind_of = |o: &Value| str_at(o, &["securityContext", "appArmorProfile", "type"]).to_owned();
    if unconfined(spec) {
        bad.push(format!("pod must not set AppArmor profile type to {:?}", kind_of(spec)));
    }
    let list = which(spec, unconfined);
    if !list.is_empty() {
        let kinds: Vec<String> = containers(spec).filter(|c| unconfined(c)).map(kind_of).collect();
        let kinds = set(kinds.iter().map(String::as_str).collect());
        bad.push(format!("{} must not set AppArmor profile type to {}", named(&list), quoted(&kinds)));
    }
    let mut notes: Vec<String> = map_at(metadata, &["annotations"])
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            let fine = value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
            (key.starts_with(APP_ARMOR) && !fine).then(|| format!("{key}={value:?}"))
        })
        .collect();
    notes.sort();
    if !notes.is_empty() {
        let text = notes.join(", ");
        bad.push(format!("{} {text}", plural("annotation", "annotations", notes.len())));
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", bad.len());
    (!bad.is_empty()).then(|| Finding::new(reason, bad.join(", ")))
}

/// Capabilities beyond what container engines give by default.
pub fn capabilities(_: &Value, spec: &Value, _: Version) -> Option<Finding> {
    let forbidden = |c: &Value| -> Vec<String> {
        let added = items(c, &["securityContext", "capabilities", "add"]).iter().filter_map(Value::as_str);
        added.filter(|a| !CAPABILITIES.contains(a)).map(str::to_owned).collect()
    };
    let list = which(spec, |c| !forbidden(c).is_empty());
    if list.is_empty() {
        return None;
    }
    let all: Vec<String> = containers(spec).flat_map(forbidden).collect();
    let all = set(all.iter().map(String::as_str).collect());
    let detail = format!("{} must not include {} in securityContext.capabilities.add", named(&list), quoted(&all));
    Some(Finding::new("non-default capabilities", detail))
}

fn host_namespaces(_: &Value, spec: &Value, _: Version) -> Option<Finding> {
    let used: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|f| bool_at(spec, &[f]))
        .map(|f| format!("{f}=true"))
        .collect();
    (!used.is_empty()).then(|| Finding::new("host namespaces", used.join(", ")))
}

/// Volumes that are a part of the host.
pub fn host_path_volumes(_: &Value, spec: &Value, _: Version) -> Option<Finding> {
    let volumes = items(spec, &["volumes"]).iter().filter(|v| at(v, &["hostPath"]).is_some());
    let list: Vec<&str> = volumes.map(name).collect();
    let detail = || format!("{} {}", plural("volume", "volumes", list.len()), quoted(&list));
    (!list.is_empty()).then(|| Finding::new("hostPath volumes", detail()))
}

fn host_ports(_: &Value, spec: &Value, _: Version) -> Option<Finding> {
    let ports = |c: &Value| -> Vec<i64> {
        items(c, &["ports"]).iter().filter_map(|p| int_at(p, &["hostPort"])).filter(|n| *n != 0).collect()
    };
    let list = which(spec, |c| !ports(c).is_empty());
    if list.is_empty() {
        return None;
    }
    let mut texts: Vec<String> = containers(spec).flat_map(ports).map(|n| n.to_string()).collect();
    texts.sort();
    texts.dedup();
    let uses = plural("uses", "use", list.len());
    let word = plural("hostPort", "hostPorts", texts.len());
    Some(Finding::new("hostPort", format!("{} {uses} {word} {}", named(&list), texts.join(", "))))
}

/// A probe that asks another host is a way round network rules.
fn probe_hosts(_: &Value, spec: &Value, version: Version) -> Option<Finding> {
    if !version.since(34) {
        return None;
    }
    let handlers = [
        &["livenessProbe"][..],
        &["readinessProbe"],
        &["startupProbe"],
        &["lifecycle", "postStart"],
        &["lifecycle", "preStop"],
    ];
    let hosts = |c: &Value| -> Vec<String> {
        let all = handlers.iter().filter_map(|path| at(c, path));
        let texts = all.flat_map(|h| ["httpGet", "tcpSocket"].map(|kind| str_at(h, &[kind, "host"]).to_owned()));
        texts.filter(|t| !t.is_empty()).collect()
    };
    let list = set(which(spec, |c| !hosts(c).is_empty()));
    if list.is_empty() {
        return None;
    }
    let found: Vec<String> = containers(spec).flat_map(hosts).collect();
    let found = set(found.iter().map(String::as_str).collect());
    let uses = plural("uses", "use", list.len());
    let word = plural("probe or lifecycle host", "probe or lifecycle hosts", found.len());
    Some(Finding::new("probe or lifecycle host", format!("{} {uses} {word} {}", named(&list), quoted(&found))))
}

fn privileged(_: &Value, spec: &Value, _: Version) -> Option<Finding> {
    let list = which(spec, |c| bool_at(c, &["securityContext", "privileged"]));
    let detail = || format!("{} must not set securityContext.privileged=true", named(&list));
    (!list.is_empty()).then(|| Finding::new("privileged", detail()))
}

fn proc_mount(_: &Value, spec: &Value, version: Version) -> Option<Finding> {
    if version.since(35) && has_own_users(spec) {
        return None;
    }
    let kind = |c: &Value| str_at(c, &["securityContext", "procMount"]).to_owned();
    let bad = |c: &Value| !matches!(kind(c).as_str(), "" | "Default");
    let list = which(spec, bad);
    if list.is_empty() {
        return None;
    }
    let kinds: Vec<String> = containers(spec).filter(|c| bad(c)).map(kind).collect();
    let kinds = set(kinds.iter().map(String::as_str).collect());
    let detail = format!("{} must not set securityContext.procMount to {}", named(&list), quoted(&kinds));
    Some(Finding::new("procMount", detail))
}

fn se_linux(_: &Value, spec: &Value, version: Version) -> Option<Finding> {
    let option = |o: &Value, field: &str| str_at(o, &["securityContext", "seLinuxOptions", field]).to_owned();
    let fine_type = |t: &str| {
        matches!(t, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (version.since(31) && t == "container_engine_t")
    };
    let bad =
        |o: &Value| !fine_type(&option(o, "type")) || !option(o, "user").is_empty() || !option(o, "role").is_empty();
    let mut setters = Vec::new();
    if bad(spec) {
        setters.push("pod".to_owned());
    }
    let list = which(spec, bad);
    if !list.is_empty() {
        setters.push(named(&list));
    }
    if setters.is_empty() {
        return None;
    }
    let places: Vec<&Value> = std::iter::once(spec).chain(containers(spec)).collect();
    let types: Vec<String> = places.iter().map(|o| option(o, "type")).filter(|t| !fine_type(t)).collect();
    let types = set(types.iter().map(String::as_str).collect());
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    for field in ["user", "role"] {
        if places.iter().any(|o| !option(o, field).is_empty()) {
            data.push(format!("{field} may not be set"));
        }
    }
    let who = setters.join(" and ");
    Some(Finding::new(
        "seLinuxOptions",
        format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")),
    ))
}

/// Seccomp switched off by name.
pub fn seccomp(metadata: &Value, spec: &Value, version: Version) -> Option<Finding> {
    if !version.since(19) {
        return seccomp_annotations(metadata);
    }
    let unconfined = |o: &Value| str_at(o, &["securityContext", "seccompProfile", "type"]) == "Unconfined";
    let mut setters = Vec::new();
    if unconfined(spec) {
        setters.push("pod".to_owned());
    }
    let list = which(spec, unconfined);
    if !list.is_empty() {
        setters.push(named(&list));
    }
    let detail =
        || format!("{} must not set securityContext.seccompProfile.type to \"Unconfined\"", setters.join(" and "));
    (!setters.is_empty()).then(|| Finding::new("seccompProfile", detail()))
}

fn seccomp_annotations(metadata: &Value) -> Option<Finding> {
    let ours = |key: &str| {
        key == "seccomp.security.alpha.kubernetes.io/pod"
            || key.starts_with("container.seccomp.security.alpha.kubernetes.io/")
    };
    let notes = map_at(metadata, &["annotations"]).into_iter().flatten();
    let mut bad: Vec<String> = notes
        .filter(|(key, value)| ours(key) && *value == "unconfined")
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    bad.sort();
    (!bad.is_empty()).then(|| {
        Finding::new(
            "seccompProfile",
            format!("forbidden {} {}", plural("annotation", "annotations", bad.len()), bad.join(", ")),
        )
    })
}

fn sysctls(_: &Value, spec: &Value, version: Version) -> Option<Finding> {
    let fine = |name: &str| SYSCTLS.iter().any(|(n, since)| *n == name && version.since(*since));
    let list = items(spec, &["securityContext", "sysctls"]).iter();
    let bad: Vec<&str> = list.map(name).filter(|n| !fine(n)).collect();
    (!bad.is_empty()).then(|| Finding::new("forbidden sysctls", bad.join(", ")))
}

fn windows_host_process(_: &Value, spec: &Value, _: Version) -> Option<Finding> {
    let wants = |o: &Value| bool_at(o, &["securityContext", "windowsOptions", "hostProcess"]);
    let mut setters = Vec::new();
    if wants(spec) {
        setters.push("pod".to_owned());
    }
    let list = which(spec, wants);
    if !list.is_empty() {
        setters.push(named(&list));
    }
    let detail = || format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters.join(" and "));
    (!setters.is_empty()).then(|| Finding::new("hostProcess", detail()))
}

//! What is said of pods and of templates of them.

use super::{node_label, storage, whole_bytes};
use crate::registry::strategy::tree::{at, int_at, items, map_at, str_at};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Annotations that nothing reads any more.
const ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
    ("security.alpha.kubernetes.io/unsafe-sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
];

/// Volumes that were, or soon will have been.
const VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// In which there is no part of a byte.
const BYTES: &[&str] = &["memory", "ephemeral-storage"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const NO_MATCH: &str = "a null labelSelector results in matching no pod";

/// Everything there is to say of a pod (`prefix` empty) or of a template below `prefix`, which ends in a dot.
pub fn say(out: &mut Vec<String>, prefix: &str, pod: &Value) {
    let spec = &pod["spec"];
    let path = format!("{prefix}spec");
    nodes(out, &path, spec);
    let annotations = map_at(pod, &["metadata", "annotations"]);
    let annotated = |key: &str| annotations.is_some_and(|a| a.contains_key(key));
    let found = ANNOTATIONS.iter().filter(|(key, _)| annotated(key));
    out.extend(found.map(|(key, why)| format!("{prefix}metadata.annotations[{key}]: {why}")));
    volumes(out, &path, spec);
    repeated(out, &path, spec, "hostAliases", "ip");
    repeated(out, &path, spec, "imagePullSecrets", "name");
    for (i, secret) in items(spec, &["imagePullSecrets"]).iter().enumerate() {
        if str_at(secret, &["name"]).is_empty() {
            out.push(format!("{path}.imagePullSecrets[{i}].name: invalid empty name \"\""));
        }
    }
    whole_bytes(out, &format!("{path}.overhead"), at(spec, &["overhead"]), BYTES);
    // The backslashes are upstream's.
    let mut seccomp = |security: &Value, key: &str| {
        if at(security, &["securityContext", "seccompProfile"]).is_none() && annotated(key) {
            out.push(format!(
                r#"{prefix}metadata.annotations[{key}]: non-functional in v1.27+; use the \"seccompProfile\" field instead"#
            ));
        }
    };
    seccomp(spec, "seccomp.security.alpha.kubernetes.io/pod");
    for (_, c) in containers(&path, spec) {
        seccomp(c, &format!("container.seccomp.security.alpha.kubernetes.io/{}", str_at(c, &["name"])));
    }
    for (path, c) in containers(&path, spec) {
        container(out, &path, c);
    }
    ports(out, &path, spec);
    if int_at(spec, &["terminationGracePeriodSeconds"]).is_some_and(|n| n < 0) {
        out.push(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    affinity(out, &path, spec);
}

fn containers<'a>(path: &str, spec: &'a Value) -> Vec<(String, &'a Value)> {
    let lists = ["initContainers", "containers", "ephemeralContainers"].into_iter();
    lists
        .flat_map(|list| items(spec, &[list]).iter().enumerate().map(move |(i, c)| (list, i, c)))
        .map(|(list, i, c)| (format!("{path}.{list}[{i}]"), c))
        .collect()
}

/// Labels of nodes that have better ones.
fn nodes(out: &mut Vec<String>, path: &str, spec: &Value) {
    for key in map_at(spec, &["nodeSelector"]).into_iter().flat_map(|m| m.keys()) {
        out.extend(node_label(key).map(|why| format!("{path}.nodeSelector[{key}]: {why}")));
    }
    let terms = |out: &mut Vec<String>, path: String, term: &Value| {
        for (i, expression) in items(term, &["matchExpressions"]).iter().enumerate() {
            let key = str_at(expression, &["key"]);
            out.extend(node_label(key).map(|why| format!("{path}.matchExpressions[{i}].key: {key} is {why}")));
        }
    };
    let affinity = &spec["affinity"]["nodeAffinity"];
    for (i, term) in items(affinity, &[REQUIRED, "nodeSelectorTerms"]).iter().enumerate() {
        terms(out, format!("{path}.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms[{i}]"), term);
    }
    for (i, wish) in items(affinity, &[PREFERRED]).iter().enumerate() {
        terms(out, format!("{path}.affinity.nodeAffinity.{PREFERRED}[{i}].preference"), &wish["preference"]);
    }
    for (i, spread) in items(spec, &["topologySpreadConstraints"]).iter().enumerate() {
        let (path, key) = (format!("{path}.topologySpreadConstraints[{i}]"), str_at(spread, &["topologyKey"]));
        out.extend(node_label(key).map(|why| format!("{path}.topologyKey: {key} is {why}")));
        if at(spread, &["labelSelector"]).is_none() {
            out.push(format!("{path}.labelSelector: {NO_MATCH}"));
        }
    }
}

fn affinity(out: &mut Vec<String>, path: &str, spec: &Value) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let wishes = &spec["affinity"][kind];
        for (i, term) in items(wishes, &[REQUIRED]).iter().enumerate() {
            if at(term, &["labelSelector"]).is_none() {
                out.push(format!("{path}.affinity.{kind}.{REQUIRED}[{i}].labelSelector: {NO_MATCH}"));
            }
        }
        for (i, wish) in items(wishes, &[PREFERRED]).iter().enumerate() {
            if at(wish, &["podAffinityTerm", "labelSelector"]).is_none() {
                out.push(format!("{path}.affinity.{kind}.{PREFERRED}[{i}].podAffinityTerm.labelSelector: {NO_MATCH}"));
            }
        }
    }
}

fn volumes(out: &mut Vec<String>, path: &str, spec: &Value) {
    for (i, volume) in items(spec, &["volumes"]).iter().enumerate() {
        let path = format!("{path}.volumes[{i}]");
        let found = VOLUMES.iter().filter(|(kind, _)| at(volume, &[kind]).is_some());
        // Upstream names the field as its own types do.
        out.extend(found.map(|(kind, why)| {
            let field = if *kind == "storageos" { "storageOS" } else { *kind };
            format!("{path}.{field}: {why}")
        }));
        if let Some(claim) = at(volume, &["ephemeral", "volumeClaimTemplate", "spec"]) {
            storage(out, &format!("{path}.ephemeral.volumeClaimTemplate.spec"), claim);
        }
    }
}

/// Values that a list has twice.
fn repeated(out: &mut Vec<String>, path: &str, spec: &Value, list: &str, key: &str) {
    let mut seen = BTreeSet::new();
    for (i, item) in items(spec, &[list]).iter().enumerate() {
        let value = str_at(item, &[key]);
        if !seen.insert(value) {
            out.push(format!("{path}.{list}[{i}].{key}: duplicate {key} {value:?}"));
        }
    }
}

fn container(out: &mut Vec<String>, path: &str, c: &Value) {
    for resource in BYTES {
        for kind in ["limits", "requests"] {
            whole_bytes(out, &format!("{path}.resources.{kind}"), at(c, &["resources", kind]), &[resource]);
        }
    }
    let mut seen = BTreeSet::new();
    for (i, variable) in items(c, &["env"]).iter().enumerate() {
        let (name, value) = (str_at(variable, &["name"]), str_at(variable, &["value"]));
        // A value that is made of the one before is meant to follow it.
        let own = format!("$({name})");
        let hides = at(variable, &["valueFrom"]).is_some() || value == own || !value.contains(&own);
        if !seen.insert(name) && hides {
            out.push(format!(
                "{path}.env[{i}]: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
}

/// Ports of a pod's containers that are the same, or could be.
fn ports(out: &mut Vec<String>, path: &str, spec: &Value) {
    let mut known: BTreeMap<(i64, &str), Vec<(String, &Value)>> = BTreeMap::new();
    let number = |port: &Value, field: &str| int_at(port, &[field]).unwrap_or(0);
    for (path, c) in containers(path, spec) {
        for (i, port) in items(c, &["ports"]).iter().enumerate() {
            let here = format!("{path}.ports[{i}]");
            let (ip, host) = (str_at(port, &["hostIP"]), number(port, "hostPort"));
            let others = known.entry((number(port, "containerPort"), str_at(port, &["protocol"]))).or_default();
            for (there, other) in others.iter() {
                let (other_ip, other_host) = (str_at(other, &["hostIP"]), number(other, "hostPort"));
                let what = match () {
                    () if ip == other_ip && host == other_host => "duplicate",
                    () if host == 0 || other_host == 0 => "overlapping",
                    () if host == other_host && ip.is_empty() != other_ip.is_empty() => "dangerously ambiguous",
                    () => continue,
                };
                out.push(format!("{here}: {what} port definition with {there}"));
            }
            others.push((here, port));
        }
    }
}

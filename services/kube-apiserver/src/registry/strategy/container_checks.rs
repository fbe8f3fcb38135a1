//! What makes a container well formed.

use std::collections::BTreeSet;

use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::checks::{
    config_key, dns_label, dns_subdomain, env_var_name, named, one_of, optional_named, port, port_name, qualified_name,
    required_named, required_one_of,
};
use super::probe_checks::{handler, probe};
use super::tree::{at, bool_at, has, int_at, items, str_at};
use super::volume_checks::{Volumes, mounts};
use crate::errors::FieldError;

/// What a container is judged by besides itself.
pub struct Scope<'a> {
    /// Volumes of the pod.
    pub volumes: &'a Volumes<'a>,
    /// The pod uses the host's network, so host ports must equal container ports.
    pub host_network: bool,
    /// How long the pod has to stop, seconds.
    pub grace: i64,
    /// Resource claims of the pod by name.
    pub claims: &'a BTreeSet<&'a str>,
}

/// One container of any of the three lists.
pub fn container(errors: &mut Vec<FieldError>, path: &str, c: &Value, list: &str, scope: &Scope<'_>) {
    required_named(errors, &format!("{path}.name"), str_at(c, &["name"]), dns_label);
    image(errors, path, str_at(c, &["image"]));
    let pull = ["Always", "IfNotPresent", "Never"];
    required_one_of(errors, &format!("{path}.imagePullPolicy"), str_at(c, &["imagePullPolicy"]), &pull);
    let message = str_at(c, &["terminationMessagePolicy"]);
    required_one_of(errors, &format!("{path}.terminationMessagePolicy"), message, &["FallbackToLogsOnError", "File"]);
    ports(errors, path, c, scope.host_network);
    environment(errors, path, c);
    mounts(errors, path, c, scope.volumes);
    resources(errors, &format!("{path}.resources"), at(c, &["resources"]).unwrap_or(&Value::Null));
    claims(errors, path, c, scope.claims);
    resize_policy(errors, path, c);
    if let Some(context) = at(c, &["securityContext"]) {
        super::security_checks::container(errors, &format!("{path}.securityContext"), context);
    }
    life(errors, path, c, list, scope.grace);
}

fn claims(errors: &mut Vec<FieldError>, path: &str, c: &Value, known: &BTreeSet<&str>) {
    let list = items(c, &["resources", "claims"]);
    for (i, claim) in list.iter().enumerate() {
        let path = format!("{path}.resources.claims[{i}]");
        let name = str_at(claim, &["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if list[..i].contains(claim) {
            errors.push(FieldError::duplicate(path, name));
        } else if !known.contains(name) {
            errors.push(FieldError::not_found(path, name));
        }
    }
}

fn resize_policy(errors: &mut Vec<FieldError>, path: &str, c: &Value) {
    let list = items(c, &["resizePolicy"]);
    for (i, p) in list.iter().enumerate() {
        let path = format!("{path}.resizePolicy");
        let name = str_at(p, &["resourceName"]);
        one_of(errors, &path, name, &["cpu", "memory"]);
        if list[..i].iter().any(|o| str_at(o, &["resourceName"]) == name) {
            errors.push(FieldError::duplicate(path.clone(), name));
        }
        one_of(errors, &path, str_at(p, &["restartPolicy"]), &["NotRequired", "RestartContainer"]);
    }
}

fn image(errors: &mut Vec<FieldError>, path: &str, image: &str) {
    let path = format!("{path}.image");
    if image.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if image.trim() != image {
        errors.push(FieldError::invalid(path, image, "must not have leading or trailing whitespace"));
    }
}

fn ports(errors: &mut Vec<FieldError>, path: &str, c: &Value, host_network: bool) {
    let mut names = BTreeSet::new();
    for (i, p) in items(c, &["ports"]).iter().enumerate() {
        let path = format!("{path}.ports[{i}]");
        let name = str_at(p, &["name"]);
        if !name.is_empty() {
            named(errors, &format!("{path}.name"), name, port_name);
            if !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
        let number = int_at(p, &["containerPort"]).unwrap_or(0);
        if number == 0 {
            errors.push(FieldError::required(format!("{path}.containerPort"), ""));
        } else {
            port(errors, &format!("{path}.containerPort"), number);
        }
        let host = int_at(p, &["hostPort"]).unwrap_or(0);
        if host != 0 {
            port(errors, &format!("{path}.hostPort"), host);
            if host_network && host != number {
                errors.push(FieldError::invalid(
                    format!("{path}.hostPort"),
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
        }
        required_one_of(errors, &format!("{path}.protocol"), str_at(p, &["protocol"]), &["SCTP", "TCP", "UDP"]);
    }
}

fn environment(errors: &mut Vec<FieldError>, path: &str, c: &Value) {
    for (i, e) in items(c, &["env"]).iter().enumerate() {
        let path = format!("{path}.env[{i}]");
        required_named(errors, &format!("{path}.name"), str_at(e, &["name"]), env_var_name);
        if let Some(from) = at(e, &["valueFrom"]) {
            let plain = !str_at(e, &["value"]).is_empty();
            value_from(errors, &format!("{path}.valueFrom"), from, plain);
        }
    }
    for (i, e) in items(c, &["envFrom"]).iter().enumerate() {
        let path = format!("{path}.envFrom[{i}]");
        optional_named(errors, &format!("{path}.prefix"), str_at(e, &["prefix"]), env_var_name);
        let given: Vec<&str> = ["configMapRef", "secretRef"].into_iter().filter(|k| has(e, k)).collect();
        match given.as_slice() {
            [] => errors.push(FieldError::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")),
            [one] => {
                let name = str_at(e, &[one, "name"]);
                required_named(errors, &format!("{path}.{one}.name"), name, dns_subdomain);
            }
            _ => errors.push(FieldError::invalid(path, "", "may not have more than one field specified at a time")),
        }
    }
}

fn value_from(errors: &mut Vec<FieldError>, path: &str, from: &Value, plain: bool) {
    let sources = from.as_object().map_or(0, |m| m.values().filter(|v| !v.is_null()).count());
    let problem = match sources {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if plain => "may not be specified when `value` is not empty",
        1 => "",
        _ => "may not have more than one field specified at a time",
    };
    if !problem.is_empty() {
        errors.push(FieldError::invalid(path, "", problem));
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(r) = at(from, &[source]) {
            optional_named(errors, &format!("{path}.{source}.name"), str_at(r, &["name"]), dns_subdomain);
            required_named(errors, &format!("{path}.{source}.key"), str_at(r, &["key"]), config_key);
        }
    }
    if let Some(r) = at(from, &["fieldRef"]) {
        field_ref(errors, &format!("{path}.fieldRef.fieldPath"), str_at(r, &["fieldPath"]), &ENV_FIELDS);
    }
    if let Some(r) = at(from, &["resourceFieldRef"]) {
        resource_ref(errors, &format!("{path}.resourceFieldRef"), r);
    }
}

/// The resources of a container that it can be told about.
const TOLD: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// A reference to a container's own resources.
pub fn resource_ref(errors: &mut Vec<FieldError>, path: &str, r: &Value) {
    let name = str_at(r, &["resource"]);
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.resource"), ""));
        return;
    }
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|p| name.starts_with(p));
    if !huge {
        one_of(errors, &format!("{path}.resource"), name, &TOLD);
    }
    let divisor = str_at(r, &["divisor"]);
    let allowed: &[&str] = match name.split_once('.').map(|(_, n)| n) {
        Some("cpu") => &["", "0", "1m", "1"],
        _ => &["", "0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"],
    };
    if !allowed.contains(&divisor) {
        let words = match name.split_once('.').map(|(_, n)| n) {
            Some("cpu") => "only divisor's values 1m and 1 are supported with the cpu resource",
            Some("memory") => {
                "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource"
            }
            _ => {
                "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the local ephemeral storage resource"
            }
        };
        errors.push(FieldError::invalid(format!("{path}.divisor"), divisor, words));
    }
}

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The downward API's field paths; `metadata.labels['x']` and `metadata.annotations['x']` are always possible.
pub fn field_ref(errors: &mut Vec<FieldError>, path: &str, field: &str, allowed: &[&str]) {
    if field.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let subscript =
        ["metadata.labels['", "metadata.annotations['"].iter().any(|p| field.starts_with(p)) && field.ends_with("']");
    if !subscript && !allowed.contains(&field) {
        errors.push(FieldError::not_supported(path, field, allowed));
    }
}

/// A path that stays below its root.
pub fn local_path(errors: &mut Vec<FieldError>, path: &str, value: &str) {
    if value.starts_with('/') {
        errors.push(FieldError::invalid(path, value, "must be a relative path"));
    }
    if value.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, value, "must not contain '..'"));
    }
}

/// Requests and limits, of a container or a pod.
pub fn resources(errors: &mut Vec<FieldError>, path: &str, r: &Value) {
    let limits = quantities(errors, &format!("{path}.limits"), r.get("limits"));
    let requests = quantities(errors, &format!("{path}.requests"), r.get("requests"));
    for (name, request, text) in &requests {
        let limit = limits.iter().find(|(n, _, _)| n == name);
        match limit {
            Some((_, limit, shown)) if request > limit => {
                let detail = format!("must be less than or equal to {name} limit of {shown}");
                errors.push(FieldError::invalid(format!("{path}.requests"), text.clone(), detail));
            }
            None if !overcommits(name) => {
                errors.push(FieldError::required(
                    format!("{path}.limits"),
                    "Limit must be set for non overcommitable resources",
                ));
            }
            Some((_, limit, shown)) if !overcommits(name) && request != limit => {
                let detail = format!("must be equal to {name} limit of {shown}");
                errors.push(FieldError::invalid(format!("{path}.requests"), text.clone(), detail));
            }
            _ => {}
        }
    }
    let names = || limits.iter().chain(&requests).map(|(name, ..)| name.as_str());
    let huge = names().any(|n| n.starts_with("hugepages-"));
    if huge && !names().any(|n| matches!(n, "cpu" | "memory")) {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
}

fn overcommits(resource: &str) -> bool {
    let native = !resource.contains('/')
        || resource.split('/').next().is_some_and(|p| p == "kubernetes.io" || p.ends_with(".kubernetes.io"));
    native && !resource.starts_with("hugepages-")
}

/// Standard resources by name, everything else with a domain before it.
fn resource_name(errors: &mut Vec<FieldError>, path: &str, name: &str) {
    named(errors, path, name, qualified_name);
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        let detail = "must be a standard resource type or fully qualified";
        errors.push(FieldError::invalid(path, name, detail));
        errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
    }
}

fn quantities(errors: &mut Vec<FieldError>, path: &str, list: Option<&Value>) -> Vec<(String, i128, String)> {
    let mut out = Vec::new();
    for (name, value) in list.and_then(Value::as_object).into_iter().flatten() {
        resource_name(errors, &format!("{path}[{name}]"), name);
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match Quantity::parse(&text) {
            Ok(q) if q.milli() < 0 => {
                errors.push(FieldError::invalid(format!("{path}[{name}]"), text, "must be greater than or equal to 0"));
            }
            Ok(q) => out.push((name.clone(), q.milli(), q.to_string())),
            Err(_) => {
                let detail =
                    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
                errors.push(FieldError::invalid(format!("{path}[{name}]"), text, detail));
            }
        }
    }
    out
}

fn life(errors: &mut Vec<FieldError>, path: &str, c: &Value, list: &str, grace: i64) {
    let restart = str_at(c, &["restartPolicy"]);
    let sidecar = list == "initContainers" && restart == "Always";
    restart_rules(errors, path, c, list);
    let runs_on = list == "containers" || sidecar;
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(value) = at(c, &[name]) else { continue };
        let path = format!("{path}.{name}");
        if !runs_on {
            let detail = match list {
                "initContainers" => "may not be set for init containers without restartPolicy=Always",
                _ => "cannot be set for an Ephemeral Container",
            };
            errors.push(FieldError::forbidden(path, detail));
        } else if name == "lifecycle" {
            for hook in ["postStart", "preStop"] {
                if let Some(h) = at(value, &[hook]) {
                    let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
                    handler(errors, &format!("{path}.{hook}"), h, &kinds, grace);
                }
            }
        } else {
            probe(errors, &path, value, name, grace);
        }
    }
    if list == "ephemeralContainers" {
        for field in ["ports", "resources", "resizePolicy"] {
            let set = at(c, &[field]).is_some_and(|v| {
                v.as_array().map_or_else(|| v.as_object().is_some_and(|m| !m.is_empty()), |l| !l.is_empty())
            });
            if set {
                errors
                    .push(FieldError::forbidden(format!("{path}.{field}"), "cannot be set for an Ephemeral Container"));
            }
        }
    }
}

/// A container's own restart policy, and exit codes that make exceptions.
fn restart_rules(errors: &mut Vec<FieldError>, path: &str, c: &Value, list: &str) {
    let restart = str_at(c, &["restartPolicy"]);
    let rules = items(c, &["restartPolicyRules"]);
    if list == "ephemeralContainers" && !restart.is_empty() {
        errors.push(FieldError::forbidden(format!("{path}.restartPolicy"), "cannot be set for an Ephemeral Container"));
    } else if !restart.is_empty() {
        one_of(errors, &format!("{path}.restartPolicy"), restart, &["Always", "Never", "OnFailure"]);
    }
    if !rules.is_empty() && restart.is_empty() {
        let detail = "must specify restartPolicy when restart rules are used";
        errors.push(FieldError::required(format!("{path}.restartPolicy"), detail));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = format!("{path}.restartPolicyRules[{i}]");
        // RestartAllContainers is behind a feature gate that is off at this level.
        one_of(errors, &format!("{path}.action"), str_at(rule, &["action"]), &["Restart"]);
        match at(rule, &["exitCodes"]) {
            None => errors.push(FieldError::required(format!("{path}.exitCodes"), "must be specified")),
            Some(codes) => {
                one_of(errors, &format!("{path}.exitCodes.operator"), str_at(codes, &["operator"]), &["In", "NotIn"]);
            }
        }
    }
}

/// A port number or the name of one.
pub fn port_or_name(errors: &mut Vec<FieldError>, path: &str, v: Option<&Value>) {
    match v {
        Some(Value::Number(n)) => port(errors, path, n.as_i64().unwrap_or(0)),
        Some(Value::String(s)) => named(errors, path, s, port_name),
        _ => port(errors, path, 0),
    }
}

/// Whether a pod asks for the host's network.
pub fn host_network(spec: &Value) -> bool {
    bool_at(spec, &["hostNetwork"])
}

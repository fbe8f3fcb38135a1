//! What makes a container well formed.

use std::collections::BTreeSet;

use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::checks::{dns_label, env_var_name, named, non_negative, one_of, port, port_name, required_one_of};
use super::tree::{at, bool_at, has, int_at, items, map_at, str_at};
use crate::errors::FieldError;

/// Names that must be unique over all containers of the pod, and the volumes they may mount.
pub struct Scope<'a> {
    /// Volume names of the pod.
    pub volumes: &'a BTreeSet<&'a str>,
    /// The pod uses the host's network, so host ports must equal container ports.
    pub host_network: bool,
}

/// One container of any of the three lists.
pub fn container(errors: &mut Vec<FieldError>, path: &str, c: &Value, list: &str, scope: &Scope<'_>) {
    let name = str_at(c, &["name"]);
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    } else {
        named(errors, &format!("{path}.name"), name, dns_label);
    }
    image(errors, path, str_at(c, &["image"]));
    required_one_of(
        errors,
        &format!("{path}.imagePullPolicy"),
        str_at(c, &["imagePullPolicy"]),
        &["Always", "IfNotPresent", "Never"],
    );
    required_one_of(
        errors,
        &format!("{path}.terminationMessagePolicy"),
        str_at(c, &["terminationMessagePolicy"]),
        &["FallbackToLogsOnError", "File"],
    );
    ports(errors, path, c, scope.host_network);
    environment(errors, path, c);
    mounts(errors, path, c, scope.volumes);
    resources(errors, &format!("{path}.resources"), at(c, &["resources"]).unwrap_or(&Value::Null));
    life(errors, path, c, list);
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
        let name = str_at(e, &["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else {
            named(errors, &format!("{path}.name"), name, env_var_name);
        }
        let Some(from) = map_at(e, &["valueFrom"]) else { continue };
        let path = format!("{path}.valueFrom");
        let sources = from.values().filter(|v| !v.is_null()).count();
        if sources == 0 {
            errors.push(FieldError::invalid(path.clone(), "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"));
        } else if sources > 1 {
            errors.push(FieldError::invalid(path.clone(), "", "may not have more than one field specified at a time"));
        }
        if !str_at(e, &["value"]).is_empty() && sources > 0 {
            errors.push(FieldError::invalid(path.clone(), "", "may not be specified when `value` is not empty"));
        }
        for source in ["configMapKeyRef", "secretKeyRef"] {
            if let Some(r) = from.get(source).filter(|r| r.is_object())
                && str_at(r, &["key"]).is_empty()
            {
                errors.push(FieldError::required(format!("{path}.{source}.key"), ""));
            }
        }
        if let Some(r) = from.get("fieldRef").filter(|r| r.is_object()) {
            field_ref(errors, &format!("{path}.fieldRef.fieldPath"), str_at(r, &["fieldPath"]), &ENV_FIELDS);
        }
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

fn mounts(errors: &mut Vec<FieldError>, path: &str, c: &Value, volumes: &BTreeSet<&str>) {
    let mut seen = BTreeSet::new();
    for (i, m) in items(c, &["volumeMounts"]).iter().enumerate() {
        let path = format!("{path}.volumeMounts[{i}]");
        let name = str_at(m, &["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if !volumes.contains(name) {
            errors.push(FieldError::not_found(format!("{path}.name"), name));
        }
        let mount = str_at(m, &["mountPath"]);
        if mount.is_empty() {
            errors.push(FieldError::required(format!("{path}.mountPath"), ""));
        } else if !seen.insert(mount) {
            errors.push(FieldError::invalid(format!("{path}.mountPath"), mount, "must be unique"));
        }
        let (sub, expr) = (str_at(m, &["subPath"]), str_at(m, &["subPathExpr"]));
        if !sub.is_empty() && !expr.is_empty() {
            errors.push(FieldError::invalid(
                format!("{path}.subPathExpr"),
                expr,
                "subPathExpr and subPath are mutually exclusive",
            ));
        }
        for (field, value) in [("subPath", sub), ("subPathExpr", expr)] {
            local_path(errors, &format!("{path}.{field}"), value);
        }
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
}

fn overcommits(resource: &str) -> bool {
    let native = !resource.contains('/')
        || resource.split('/').next().is_some_and(|p| p == "kubernetes.io" || p.ends_with(".kubernetes.io"));
    native && !resource.starts_with("hugepages-")
}

fn quantities(errors: &mut Vec<FieldError>, path: &str, list: Option<&Value>) -> Vec<(String, i128, String)> {
    let mut out = Vec::new();
    for (name, value) in list.and_then(Value::as_object).into_iter().flatten() {
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

fn life(errors: &mut Vec<FieldError>, path: &str, c: &Value, list: &str) {
    let restart = str_at(c, &["restartPolicy"]);
    let sidecar = list == "initContainers" && restart == "Always";
    if list == "initContainers" && !restart.is_empty() {
        one_of(errors, &format!("{path}.restartPolicy"), restart, &["Always", "Never", "OnFailure"]);
    }
    let runs_on = list == "containers" || sidecar;
    for name in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
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
                    handler(errors, &format!("{path}.{hook}"), h, &["exec", "httpGet", "tcpSocket", "sleep"]);
                }
            }
        } else {
            probe(errors, &path, value, name);
        }
    }
}

fn probe(errors: &mut Vec<FieldError>, path: &str, p: &Value, name: &str) {
    handler(errors, path, p, &["exec", "httpGet", "tcpSocket", "grpc"]);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        non_negative(errors, &format!("{path}.{field}"), p.get(field));
    }
    if name != "readinessProbe" && int_at(p, &["successThreshold"]).is_some_and(|n| n != 1) {
        errors.push(FieldError::invalid(
            format!("{path}.successThreshold"),
            p["successThreshold"].clone(),
            "must be 1",
        ));
    }
    if let Some(n) = int_at(p, &["terminationGracePeriodSeconds"]).filter(|n| *n <= 0) {
        errors.push(FieldError::invalid(format!("{path}.terminationGracePeriodSeconds"), n, "must be greater than 0"));
    }
}

fn handler(errors: &mut Vec<FieldError>, path: &str, h: &Value, kinds: &[&str]) {
    let set: Vec<&&str> = kinds.iter().filter(|k| has(h, k)).collect();
    match set.len() {
        0 => errors.push(FieldError::required(path, "must specify a handler type")),
        1 => {}
        _ => {
            errors.push(FieldError::forbidden(format!("{path}.{}", set[1]), "may not specify more than 1 handler type"))
        }
    }
    if has(h, "exec") && items(h, &["exec", "command"]).is_empty() {
        errors.push(FieldError::required(format!("{path}.exec.command"), ""));
    }
    for kind in ["httpGet", "tcpSocket"] {
        if let Some(target) = at(h, &[kind]) {
            port_or_name(errors, &format!("{path}.{kind}.port"), target.get("port"));
        }
    }
    if has(h, "httpGet") {
        one_of(errors, &format!("{path}.httpGet.scheme"), str_at(h, &["httpGet", "scheme"]), &["HTTP", "HTTPS"]);
    }
    if let Some(n) = int_at(h, &["grpc", "port"]) {
        port(errors, &format!("{path}.grpc.port"), n);
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

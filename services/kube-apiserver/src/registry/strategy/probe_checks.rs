//! What makes probes and lifecycle hooks well formed: both ask something of a container in the same ways.

use serde_json::Value;

use super::checks::{non_negative, one_of, port};
use super::container_checks::port_or_name;
use super::tree::{at, has, int_at, items, str_at};
use crate::errors::FieldError;

/// A probe; `name` is the field it stands in, `grace` how long the pod has to stop.
pub fn probe(errors: &mut Vec<FieldError>, path: &str, p: &Value, name: &str, grace: i64) {
    handler(errors, path, p, &["exec", "httpGet", "tcpSocket", "grpc"], grace);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        non_negative(errors, &format!("{path}.{field}"), p.get(field));
    }
    let success = int_at(p, &["successThreshold"]).unwrap_or(1);
    if name != "readinessProbe" && success != 1 {
        errors.push(FieldError::invalid(format!("{path}.successThreshold"), success, "must be 1"));
    }
    if let Some(n) = int_at(p, &["terminationGracePeriodSeconds"]) {
        let path = format!("{path}.terminationGracePeriodSeconds");
        if n <= 0 {
            errors.push(FieldError::invalid(path.clone(), n, "must be greater than 0"));
        }
        if name == "readinessProbe" {
            errors.push(FieldError::invalid(path, n, "must not be set for readinessProbes"));
        }
    }
}

/// What is done: exactly one of the kinds.
pub fn handler(errors: &mut Vec<FieldError>, path: &str, h: &Value, kinds: &[&str], grace: i64) {
    let set: Vec<&&str> = kinds.iter().filter(|k| has(h, k)).collect();
    match set.as_slice() {
        [] => errors.push(FieldError::required(path, "must specify a handler type")),
        [_] => {}
        [_, second, ..] => {
            let detail = "may not specify more than 1 handler type";
            errors.push(FieldError::forbidden(format!("{path}.{second}"), detail));
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
    if let Some(get) = at(h, &["httpGet"]) {
        http_get(errors, &format!("{path}.httpGet"), get);
    }
    if let Some(grpc) = at(h, &["grpc"]) {
        port(errors, &format!("{path}.grpc.port"), int_at(grpc, &["port"]).unwrap_or(0));
    }
    if let Some(n) = int_at(h, &["sleep", "seconds"]).filter(|n| !(0..=grace).contains(n)) {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(FieldError::invalid(format!("{path}.sleep.seconds"), n, detail));
    }
}

fn http_get(errors: &mut Vec<FieldError>, path: &str, get: &Value) {
    if str_at(get, &["path"]).is_empty() {
        errors.push(FieldError::required(format!("{path}.path"), ""));
    }
    one_of(errors, &format!("{path}.scheme"), str_at(get, &["scheme"]), &["HTTP", "HTTPS"]);
    for header in items(get, &["httpHeaders"]) {
        let name = str_at(header, &["name"]);
        let token = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if name.is_empty() || !name.bytes().all(token) {
            let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            errors.push(FieldError::invalid(format!("{path}.httpHeaders"), name, detail));
        }
    }
}

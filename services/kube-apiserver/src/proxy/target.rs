//! Which kubelet path a pod's subresource stands for. Pure.

use crate::errors::{ApiError, FieldError};
use crate::server::query::Query;
use apimachinery::meta;
use serde_json::{Value, json};
use std::num::{IntErrorKind, ParseIntError};

/// Query parameters of pods/log that the kubelet understands.
const LOG_OPTIONS: &[&str] =
    &["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"];

/// The container meant: the one named, the pod's default, or its only one.
pub fn container<'a>(pod: &'a Value, wanted: &'a str) -> Result<&'a str, ApiError> {
    let names = |field: &str| -> Vec<&'a str> {
        pod["spec"][field].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = meta::name(pod);
    if !wanted.is_empty() {
        let known = main.iter().chain(&init).chain(&ephemeral).any(|n| *n == wanted);
        return if known {
            Ok(wanted)
        } else {
            Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {pod_name}")))
        };
    }
    match main.as_slice() {
        [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {pod_name}"))),
        [only] if init.is_empty() => Ok(only),
        [first, ..] => {
            if let Some(default) =
                meta::annotation(pod, "kubectl.kubernetes.io/default-container").filter(|d| main.contains(d))
            {
                return Ok(default);
            }
            if main.len() == 1 {
                return Ok(first);
            }
            let mut text =
                format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", main.join(" "));
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(text))
        }
    }
}

/// Numbers must be numbers, and two ways to say since exclude each other.
///
/// # Errors
/// What is no number, as Go's reader of numbers puts it.
pub fn check_log_options(query: &Query) -> Result<Vec<FieldError>, ApiError> {
    let mut errors = Vec::new();
    for (option, least) in [("tailLines", 0), ("sinceSeconds", 1), ("limitBytes", 1)] {
        let text = query.get(option);
        if text.is_empty() {
            continue;
        }
        let number: i64 = text.parse().map_err(|why: ParseIntError| {
            let long = matches!(why.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow);
            let why = if long { "value out of range" } else { "invalid syntax" };
            ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
        })?;
        if number < least {
            let detail = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            errors.push(FieldError::invalid(option, number, detail));
        }
    }
    if query.has("sinceSeconds") && query.has("sinceTime") {
        errors.push(FieldError::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    Ok(errors)
}

/// `/containerLogs/<namespace>/<pod>/<container>?…`
pub fn log_path(namespace: &str, pod: &str, container: &str, query: &Query) -> String {
    let options = LOG_OPTIONS.iter().filter(|o| query.has(o)).map(|o| (*o, query.get(o)));
    with_query(format!("/containerLogs/{namespace}/{pod}/{container}"), options)
}

/// `/exec/<namespace>/<pod>/<container>?…` and the same for attach. The kubelet's names for the streams are its own.
pub fn stream_path(sub: &str, namespace: &str, pod: &str, container: &str, query: &Query) -> String {
    let streams = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
    let wanted = streams.iter().filter(|(option, _)| query.flag(option)).map(|(_, theirs)| (*theirs, "1"));
    let options: Vec<(&str, &str)> = wanted.chain(query.all("command").map(|c| ("command", c))).collect();
    with_query(format!("/{sub}/{namespace}/{pod}/{container}"), options.into_iter())
}

/// `/portForward/<namespace>/<pod>?…`
pub fn port_forward_path(namespace: &str, pod: &str, query: &Query) -> String {
    with_query(format!("/portForward/{namespace}/{pod}"), query.all("ports").map(|p| ("port", p)))
}

fn with_query<'a>(path: String, options: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<String> = options.map(|(key, value)| format!("{key}={}", escape(value))).collect();
    if pairs.is_empty() { path } else { format!("{path}?{}", pairs.join("&")) }
}

pub fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// What admission sees of a connection to a pod: the options as an object.
pub fn options(sub: &str, query: &Query) -> Value {
    let mut options = json!({"apiVersion": "v1"});
    options["kind"] = json!(match sub {
        "exec" => "PodExecOptions",
        "attach" => "PodAttachOptions",
        _ => "PodPortForwardOptions",
    });
    if sub == "portforward" {
        let ports: Vec<i64> = query.all("ports").flat_map(|p| p.split(',')).filter_map(|p| p.parse().ok()).collect();
        options["ports"] = json!(ports);
        return options;
    }
    for stream in ["stdin", "stdout", "stderr", "tty"] {
        if query.flag(stream) {
            options[stream] = json!(true);
        }
    }
    if query.has("container") {
        options["container"] = json!(query.get("container"));
    }
    if sub == "exec" {
        options["command"] = json!(query.all("command").collect::<Vec<_>>());
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let query = Query::parse(Some("follow=true&tailLines=5&container=c&pretty=1"));
        assert_eq!(log_path("n", "p", "c", &query), "/containerLogs/n/p/c?follow=true&tailLines=5");
        let query = Query::parse(Some("command=sh&command=-c&command=echo%20a&stdin=true&stdout=true&tty=false"));
        assert_eq!(
            stream_path("exec", "n", "p", "c", &query),
            "/exec/n/p/c?input=1&output=1&command=sh&command=-c&command=echo%20a"
        );
    }

    #[test]
    fn log_options() {
        let check = |query: &str| {
            let errors = check_log_options(&Query::parse(Some(query)));
            errors.map(|e| e.iter().map(ToString::to_string).collect::<Vec<_>>()).map_err(|e| (e.code(), e.to_string()))
        };
        let syntax = |text| Err((400, format!("strconv.ParseInt: parsing \"{text}\": invalid syntax")));
        assert_eq!(check("tailLines=5&limitBytes=1"), Ok(vec![]));
        assert_eq!(check("tailLines=x"), syntax("x"));
        assert_eq!(
            check("tailLines=-1"),
            Ok(vec!["tailLines: Invalid value: -1: must be greater than or equal to 0".into()])
        );
    }

    #[test]
    fn containers() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&one, ""), Ok("a"));
        assert!(container(&one, "b").is_err());
        let mut two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&two, "i"), Ok("i"));
        let error = container(&two, "").expect_err("ambiguous").to_string();
        assert_eq!(
            error,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        two["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "b"});
        assert_eq!(container(&two, ""), Ok("b"));
    }

    #[test]
    fn admission_sees_what_is_asked_for() {
        let query = Query::parse(Some("command=sh&command=-c&stdin=true&tty=false&container=c"));
        let want = json!({"apiVersion": "v1", "kind": "PodExecOptions", "stdin": true, "container": "c", "command": ["sh", "-c"]});
        assert_eq!(options("exec", &query), want);
        let want = json!({"apiVersion": "v1", "kind": "PodPortForwardOptions", "ports": [80, 443]});
        assert_eq!(options("portforward", &Query::parse(Some("ports=80,443"))), want);
    }
}

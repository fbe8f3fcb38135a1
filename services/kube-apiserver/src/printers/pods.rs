//! Pods. The Status column condenses phase, conditions and container states into the one word people look for.

use apimachinery::meta;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, age, name, or_none, since};
use super::{AGE, NAME, Printer, text, wide};
use crate::registry::strategy::tree::{at, bool_at, int_at, items, str_at};

pub static PRINTERS: &[Printer] = &[Printer {
    group: "",
    plural: "pods",
    columns: &[
        NAME,
        text("Ready"),
        text("Status"),
        text("Restarts"),
        AGE,
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ],
    cells: row,
}];

fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match &summary.last_restart {
        Some(when) if summary.restarts > 0 => format!("{} ({} ago)", summary.restarts, since(when, now)),
        _ => summary.restarts.to_string(),
    };
    let ip = items(pod, &["status", "podIPs"]).first().map_or("", |ip| str_at(ip, &["ip"]));
    let ip = if ip.is_empty() { or_none(pod, &["status", "podIP"]) } else { json!(ip) };
    vec![
        name(pod),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        age(pod, now),
        ip,
        or_none(pod, &["spec", "nodeName"]),
        or_none(pod, &["status", "nominatedNodeName"]),
        json!(gates(pod)),
    ]
}

fn gates(pod: &Value) -> String {
    let gates = items(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let met = gates.iter().filter(|g| meta::is_condition_true(pod, str_at(g, &["conditionType"]))).count();
    format!("{met}/{}", gates.len())
}

struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<String>,
}

impl Summary {
    fn count(&mut self, status: &Value) {
        self.restarts += int_at(status, &["restartCount"]).unwrap_or(0);
        let when = str_at(status, &["lastState", "terminated", "finishedAt"]);
        // RFC 3339 in UTC sorts as text.
        if !when.is_empty() && self.last_restart.as_deref().is_none_or(|last| last < when) {
            self.last_restart = Some(when.to_owned());
        }
    }
}

fn is_sidecar(pod: &Value, status: &Value) -> bool {
    let name = str_at(status, &["name"]);
    items(pod, &["spec", "initContainers"])
        .iter()
        .any(|c| str_at(c, &["name"]) == name && str_at(c, &["restartPolicy"]) == "Always")
}

fn summarize(pod: &Value) -> Summary {
    let phase = str_at(pod, &["status", "phase"]);
    let sidecars =
        items(pod, &["spec", "initContainers"]).iter().filter(|c| str_at(c, &["restartPolicy"]) == "Always").count();
    let mut s = Summary {
        ready: 0,
        total: items(pod, &["spec", "containers"]).len() + sidecars,
        reason: match str_at(pod, &["status", "reason"]) {
            "" => phase.to_owned(),
            reason => reason.to_owned(),
        },
        restarts: 0,
        last_restart: None,
    };
    if meta::condition(pod, "PodScheduled").is_some_and(|c| str_at(c, &["reason"]) == "SchedulingGated") {
        s.reason = "SchedulingGated".to_owned();
    }
    let initializing = init_containers(pod, &mut s);
    if !initializing || meta::is_condition_true(pod, "Initialized") {
        main_containers(pod, &mut s);
    }
    if meta::deletion_timestamp(pod).is_some() {
        if str_at(pod, &["status", "reason"]) == "NodeLost" {
            s.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Failed" | "Succeeded") {
            s.reason = "Terminating".to_owned();
        }
    }
    s
}

/// Whether the pod is still at its init containers; then the reason says at which, and why it does not go on.
fn init_containers(pod: &Value, s: &mut Summary) -> bool {
    for (i, status) in items(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
        s.count(status);
        let terminated = at(status, &["state", "terminated"]);
        if terminated.is_some_and(|t| int_at(t, &["exitCode"]) == Some(0)) {
            continue;
        }
        if is_sidecar(pod, status) && bool_at(status, &["started"]) {
            s.ready += usize::from(bool_at(status, &["ready"]));
            continue;
        }
        let waiting = str_at(status, &["state", "waiting", "reason"]);
        s.reason = match terminated {
            Some(t) => format!("Init:{}", ending(t)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{i}/{}", items(pod, &["spec", "initContainers"]).len()),
        };
        return true;
    }
    false
}

fn main_containers(pod: &Value, s: &mut Summary) {
    // What plain init containers did no longer matters; sidecars are counted with the rest.
    s.restarts = 0;
    s.last_restart = None;
    for status in items(pod, &["status", "initContainerStatuses"]).iter().filter(|c| is_sidecar(pod, c)) {
        s.count(status);
    }
    let mut running = false;
    for status in items(pod, &["status", "containerStatuses"]).iter().rev() {
        s.count(status);
        let waiting = str_at(status, &["state", "waiting", "reason"]);
        if !waiting.is_empty() {
            s.reason = waiting.to_owned();
        } else if let Some(terminated) = at(status, &["state", "terminated"]) {
            s.reason = ending(terminated);
        } else if bool_at(status, &["ready"]) && at(status, &["state", "running"]).is_some() {
            running = true;
            s.ready += 1;
        }
    }
    if s.reason == "Completed" && running {
        s.reason = if meta::is_condition_true(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
    }
}

fn ending(terminated: &Value) -> String {
    match (str_at(terminated, &["reason"]), int_at(terminated, &["signal"]).unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", int_at(terminated, &["exitCode"]).unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// The row condition that lets clients grey out pods that have run to their end.
pub fn completed(pod: &Value) -> Option<Value> {
    let (reason, message) = match str_at(pod, &["status", "phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

//! A pod's status, computed from its specification, what the runtime has, what the probes say and why the kubelet itself
//! holds something back. Pure: the same inputs give the same status, and times of transitions are kept.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::patch;
use crate::observed::{Instance, Observed, State};
use crate::pod::{Container, Pod, QosClass};
use crate::sync::plan::{Health, init_restarts, restarts};
use crate::sync::resize::{Resize, shown};
use crate::sync::resources;

/// Why a container is not running, in the words of `state.waiting`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// CamelCase reason such as `ImagePullBackOff`.
    pub reason: String,
    /// Explanation.
    pub message: String,
}

/// Why the kubelet itself ended a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// CamelCase reason such as `Evicted`.
    pub reason: String,
    /// Explanation.
    pub message: String,
    /// Whether the node did it for its own sake, which the condition DisruptionTarget tells.
    pub disruption: bool,
}

/// Everything that the status depends on.
#[derive(Debug)]
pub struct Input<'a> {
    /// The pod with the status that the API server has.
    pub pod: &'a Pod,
    /// The runtime's view.
    pub observed: &'a Observed,
    /// The probes' view.
    pub health: &'a Health,
    /// Containers that the kubelet could not start, by name.
    pub waiting: &'a HashMap<String, Waiting>,
    /// Termination messages by container id.
    pub messages: &'a HashMap<String, String>,
    /// Nothing of the pod will run again.
    pub terminal: bool,
    /// Set when the kubelet itself ended the pod.
    pub failure: Option<&'a Failure>,
    /// Addresses of the node, the primary one first.
    pub host_ips: &'a [String],
    /// How a change of its resources stands.
    pub resize: &'a Resize,
    /// RFC 3339.
    pub now: &'a str,
}

/// The status to publish.
pub fn status(input: &Input<'_>) -> Value {
    let pod = input.pod;
    let mut status = Map::new();
    let init: Vec<Value> = pod.spec.init_containers.iter().map(|c| container_status(input, c, true)).collect();
    let main: Vec<Value> = pod.spec.containers.iter().map(|c| container_status(input, c, false)).collect();
    let extra: Vec<Value> = pod.spec.ephemeral_containers.iter().map(|c| ephemeral_status(input, c)).collect();
    let phase = settled_phase(input, &init, &main);
    status.insert("phase".into(), phase.into());
    status.insert("conditions".into(), conditions(input, phase, &init, &main));
    addresses(input, &mut status);
    let start_time = pod.status["startTime"].as_str().unwrap_or(input.now);
    status.insert("startTime".into(), start_time.into());
    // Of a pod that was turned away no container ever was.
    let turned_away = input.failure.is_some() && *input.observed == Observed::default() && !has_history(pod);
    if turned_away {
        status.extend([("qosClass".to_owned(), pod.status["qosClass"].clone())]);
        failure_fields(input, &mut status);
        return Value::Object(status);
    }
    if !init.is_empty() {
        status.insert("initContainerStatuses".into(), init.into());
    }
    status.insert("containerStatuses".into(), main.into());
    if !extra.is_empty() {
        status.insert("ephemeralContainerStatuses".into(), extra.into());
    }
    let qos = match pod.qos() {
        QosClass::Guaranteed => "Guaranteed",
        QosClass::Burstable => "Burstable",
        QosClass::BestEffort => "BestEffort",
    };
    status.insert("qosClass".into(), pod.status["qosClass"].as_str().unwrap_or(qos).into());
    failure_fields(input, &mut status);
    if pod.metadata.generation > 0 {
        status.insert("observedGeneration".into(), pod.metadata.generation.into());
    }
    Value::Object(status)
}

/// Why the pod ended: what the kubelet decided, or what others wrote before.
fn failure_fields(input: &Input<'_>, status: &mut Map<String, Value>) {
    if let Some(failure) = input.failure {
        status.insert("reason".into(), failure.reason.as_str().into());
        status.insert("message".into(), failure.message.as_str().into());
        return;
    }
    for field in ["reason", "message"] {
        if let Some(text) = input.pod.status[field].as_str() {
            status.insert(field.into(), text.into());
        }
    }
}

/// Whether any container of the pod was published with an id.
fn has_history(pod: &Pod) -> bool {
    let all =
        pod.status["containerStatuses"].as_array().into_iter().chain(pod.status["initContainerStatuses"].as_array());
    all.flatten().any(|s| s["containerID"].as_str().is_some_and(|id| !id.is_empty()))
}

fn addresses(input: &Input<'_>, status: &mut Map<String, Value>) {
    let pod = input.pod;
    let list = |ips: &[String]| -> Value { ips.iter().map(|ip| json!({"ip": ip})).collect() };
    if let Some(first) = input.host_ips.first() {
        status.insert("hostIP".into(), first.as_str().into());
        status.insert("hostIPs".into(), list(input.host_ips));
    }
    let from_sandbox = input.observed.sandboxes.first().map(|s| s.ips.clone()).unwrap_or_default();
    let ips = if pod.spec.host_network && !input.observed.sandboxes.is_empty() {
        input.host_ips.to_vec()
    } else {
        from_sandbox
    };
    if let Some(first) = ips.first() {
        status.insert("podIP".into(), first.as_str().into());
        status.insert("podIPs".into(), list(&ips));
    } else if let Some(ip) = pod.status["podIP"].as_str() {
        // An ended pod keeps the address it had.
        status.insert("podIP".into(), ip.into());
        status.insert("podIPs".into(), pod.status["podIPs"].clone());
    }
}

/// Whether the status says that nothing of the pod will run again.
pub fn is_over(status: &Value) -> bool {
    matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// Holds back the end of a pod while anything of it still runs: others act on the phase, and a replacement must not run
/// beside what it replaces.
pub fn hold_end(status: &mut Value, input: &Input<'_>) {
    let runs = input.observed.containers.iter().any(|c| c.state == State::Running);
    if !runs || !is_over(status) || matches!(input.pod.phase(), "Succeeded" | "Failed") {
        return;
    }
    status["phase"] = match input.pod.phase() {
        "" => "Pending".into(),
        phase => phase.into(),
    };
    for field in ["reason", "message"] {
        status.as_object_mut().map(|fields| fields.remove(field));
    }
}

/// Bytes of the termination messages of a pod's containers together.
const MESSAGES: usize = 12 * 1024;

// ---- containers -----------------------------------------------------------------------------------------------------

/// Ephemeral containers are never ready and never started in the sense of probes.
fn ephemeral_status(input: &Input<'_>, container: &Container) -> Value {
    let mut status = container_status(input, container, false);
    status["ready"] = false.into();
    if let Some(fields) = status.as_object_mut() {
        fields.remove("started");
    }
    if status["state"]["waiting"]["reason"] == "PodInitializing" {
        status["state"] = waiting("ContainerCreating", "");
    }
    status
}

fn container_status(input: &Input<'_>, container: &Container, init: bool) -> Value {
    let mut instances = input.observed.instances(&container.name);
    let latest = instances.next();
    let previous = instances.find(|c| c.state == State::Exited);
    let held = input.waiting.get(&container.name);
    let mut status = json!({
        "name": container.name, "image": container.image, "imageID": "", "ready": false, "restartCount": 0,
        "started": false, "state": {}, "lastState": {},
    });
    let Some(current) = latest else {
        return without_instance(input, container, held, status);
    };
    status["restartCount"] = current.restart_count.into();
    status["containerID"] = container_id(&current.id).into();
    status["image"] = if current.image.is_empty() { container.image.as_str() } else { current.image.as_str() }.into();
    status["imageID"] = current.image_ref.as_str().into();
    // An older runtime does not say; then the kubelet sends the pod's signal itself.
    if let Some(signal) = current.stop_signal.as_deref().or_else(|| container.stop_signal()) {
        status["stopSignal"] = signal.into();
    }
    match (current.state, held) {
        (State::Running, _) => {
            status["state"] = json!({"running": {"startedAt": time(current.started_at)}});
            status["started"] = input.health.started.contains(&current.id).into();
            let settled = resources::changed(input.pod, container, current).is_empty();
            let (given, has) = shown(container, settled, published(input.pod, &container.name));
            status["resources"] = has;
            if !given.is_null() {
                status["allocatedResources"] = given;
            }
            let done_by_running = !init || container.is_sidecar();
            status["ready"] = (done_by_running && input.health.ready.contains(&current.id)).into();
            set_last(input, &mut status, previous);
        }
        (_, Some(held)) if !input.terminal => {
            status["state"] = waiting(&held.reason, &held.message);
            set_last(input, &mut status, Some(current).filter(|c| c.state == State::Exited).or(previous));
        }
        (State::Exited, _) => {
            status["state"] = json!({"terminated": terminated(input, current)});
            status["ready"] = (init && !container.is_sidecar() && current.exit_code == 0).into();
            set_last(input, &mut status, previous);
        }
        (State::Created | State::Unknown, _) => {
            status["state"] = waiting(creating(input), "");
            set_last(input, &mut status, previous);
        }
    }
    status
}

/// The runtime has no record: the container was never made, or its record is lost.
fn without_instance(input: &Input<'_>, container: &Container, held: Option<&Waiting>, mut status: Value) -> Value {
    let known = published(input.pod, &container.name);
    if let Some(known) = known.filter(|k| k["containerID"].as_str().is_some_and(|id| !id.is_empty())) {
        // It ran once; keep its history and say that its end was not seen.
        status["restartCount"] = known["restartCount"].clone();
        for field in ["containerID", "imageID", "image"] {
            status[field] = known[field].clone();
        }
        if known["state"]["terminated"].is_object() {
            status["state"] = known["state"].clone();
            status["lastState"] = known["lastState"].clone();
            status["ready"] = known["ready"].clone();
            return status;
        }
        let lost = json!({"terminated": {
            "exitCode": 137, "reason": "ContainerStatusUnknown",
            "message": "The container could not be located when the pod was terminated",
            "startedAt": Value::Null, "finishedAt": Value::Null,
        }});
        if input.terminal {
            status["state"] = lost;
            return status;
        }
        if known["state"]["running"].is_object() {
            status["lastState"] = lost;
        }
    }
    status["state"] = match held {
        Some(held) => waiting(&held.reason, &held.message),
        None => waiting(creating(input), ""),
    };
    status
}

/// Upstream says the same of init containers and of those that wait for them.
fn creating(input: &Input<'_>) -> &'static str {
    if input.pod.spec.init_containers.is_empty() { "ContainerCreating" } else { "PodInitializing" }
}

fn waiting(reason: &str, message: &str) -> Value {
    if message.is_empty() {
        json!({"waiting": {"reason": reason}})
    } else {
        json!({"waiting": {"reason": reason, "message": message}})
    }
}

fn set_last(input: &Input<'_>, status: &mut Value, last: Option<&Instance>) {
    if let Some(last) = last {
        status["lastState"] = json!({"terminated": terminated(input, last)});
    }
}

fn terminated(input: &Input<'_>, c: &Instance) -> Value {
    let reason = match (c.reason.as_str(), c.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let mut value = json!({
        "exitCode": c.exit_code, "reason": reason, "finishedAt": time(c.finished_at), "containerID": container_id(&c.id),
    });
    if c.started_at > 0 {
        value["startedAt"] = time(c.started_at);
    }
    let message = input.messages.get(&c.id).map_or(c.message.as_str(), String::as_str);
    let message = &message[..message.floor_char_boundary(MESSAGES / input.pod.every_container().count().max(1))];
    if !message.is_empty() {
        value["message"] = message.into();
    }
    value
}

fn container_id(id: &str) -> String {
    format!("containerd://{id}")
}

fn time(nanoseconds: i64) -> Value {
    if nanoseconds <= 0 {
        return Value::Null;
    }
    jiff::Timestamp::from_second(nanoseconds / 1_000_000_000).map_or(Value::Null, |t| t.to_string().into())
}

fn published<'a>(pod: &'a Pod, name: &str) -> Option<&'a Value> {
    ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"]
        .iter()
        .filter_map(|list| pod.status[*list].as_array())
        .flatten()
        .find(|s| s["name"] == name)
}

// ---- phase ----------------------------------------------------------------------------------------------------------

/// A phase never leaves Succeeded or Failed.
fn settled_phase(input: &Input<'_>, init: &[Value], main: &[Value]) -> &'static str {
    match input.pod.phase() {
        "Succeeded" => return "Succeeded",
        "Failed" => return "Failed",
        _ => {}
    }
    if input.failure.is_some() {
        return "Failed";
    }
    phase(input.pod, init, main, input.terminal)
}

fn exit_code(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The phase that the container statuses add up to.
pub fn phase(pod: &Pod, init: &[Value], main: &[Value], terminal: bool) -> &'static str {
    let began = main.iter().any(|s| !s["state"]["waiting"].is_object() || s["lastState"]["terminated"].is_object());
    for (container, status) in pod.spec.init_containers.iter().zip(init) {
        if container.is_sidecar() {
            continue;
        }
        let code = status["state"]["terminated"]["exitCode"].as_i64();
        match code {
            Some(0) => {}
            Some(code) if terminal || !init_restarts(pod, container, exit_code(code)) => return "Failed",
            _ if began => {}
            _ if terminal => return "Failed",
            _ => return "Pending",
        }
    }
    let (mut running, mut waiting, mut stopped, mut succeeded, mut again) = (0, 0, 0, 0, false);
    for (container, status) in pod.spec.containers.iter().zip(main) {
        if status["state"]["running"].is_object() {
            running += 1;
        } else if let Some(code) = status["state"]["terminated"]["exitCode"].as_i64() {
            stopped += 1;
            succeeded += usize::from(code == 0);
            again |= restarts(pod, container, exit_code(code));
        } else if status["lastState"]["terminated"].is_object() {
            stopped += 1;
            again = true;
        } else {
            waiting += 1;
        }
    }
    if terminal {
        return if waiting == 0 && running == 0 && stopped == succeeded { "Succeeded" } else { "Failed" };
    }
    match (running, waiting, stopped) {
        (_, w, _) if w > 0 => "Pending",
        (r, _, _) if r > 0 => "Running",
        (_, _, s) if s > 0 && again => "Running",
        (_, _, s) if s > 0 && succeeded == s => "Succeeded",
        (_, _, s) if s > 0 => "Failed",
        _ => "Pending",
    }
}

// ---- conditions -----------------------------------------------------------------------------------------------------

fn initialized(input: &Input<'_>) -> bool {
    let pod = input.pod;
    if pod.spec.containers.iter().any(|c| input.observed.latest(&c.name).is_some()) {
        return true;
    }
    pod.spec.init_containers.iter().all(|c| init_done(input, c))
}

fn init_done(input: &Input<'_>, container: &Container) -> bool {
    input.observed.latest(&container.name).is_some_and(|latest| {
        if container.is_sidecar() {
            input.health.started.contains(&latest.id)
        } else {
            latest.state == State::Exited && latest.exit_code == 0
        }
    })
}

struct Verdict {
    status: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes(reason: &'static str) -> Verdict {
        Verdict { status: true, reason, message: String::new() }
    }

    fn no(reason: &'static str, message: String) -> Verdict {
        Verdict { status: false, reason, message }
    }
}

fn conditions(input: &Input<'_>, phase: &str, init: &[Value], main: &[Value]) -> Value {
    let pod = input.pod;
    let usable = input.observed.ready_sandbox().is_some_and(|s| pod.spec.host_network || !s.ips.is_empty());
    let sandbox = if usable { Verdict::yes("") } else { Verdict::no("", String::new()) };
    let init_verdict = match phase {
        "Succeeded" => Verdict::yes("PodCompleted"),
        _ if initialized(input) => Verdict::yes(""),
        _ => Verdict::no(
            "ContainersNotInitialized",
            named("incomplete", pod.spec.init_containers.iter().filter(|c| !init_done(input, c))),
        ),
    };
    let containers = containers_ready(input, phase, init, main);
    let ready = ready(pod, &containers);
    let mut list: Vec<Value> = Vec::new();
    let verdicts = [
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", init_verdict),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", Verdict::yes("")),
    ];
    for (kind, verdict) in verdicts {
        list.push(condition(input, kind, &verdict));
    }
    if let Some(failure) = input.failure.filter(|f| f.disruption) {
        let message = failure.message.clone();
        let verdict = Verdict { status: true, reason: patch::BY_KUBELET, message };
        list.push(condition(input, "DisruptionTarget", &verdict));
    }
    for (kind, reason, message) in input.resize.conditions() {
        list.push(condition(input, kind, &Verdict { status: true, reason, message }));
    }
    // A disruption is told for ever; the kubelet's other conditions go when they no longer hold.
    let stays = |c: &&Value| {
        !list.iter().any(|n| n["type"] == c["type"]) && (!patch::is_ours(c) || c["type"] == "DisruptionTarget")
    };
    let foreign: Vec<Value> =
        pod.status["conditions"].as_array().into_iter().flatten().filter(stays).cloned().collect();
    list.extend(foreign);
    list.into()
}

fn containers_ready(input: &Input<'_>, phase: &str, init: &[Value], main: &[Value]) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::no("PodCompleted", String::new()),
        "Failed" => return Verdict::no("PodFailed", String::new()),
        _ => {}
    }
    let pod = input.pod;
    let sidecars = pod.spec.init_containers.iter().zip(init).filter(|(c, _)| c.is_sidecar());
    let unready: Vec<&Container> = sidecars
        .chain(pod.spec.containers.iter().zip(main))
        .filter(|(_, s)| s["ready"] != true)
        .map(|(c, _)| c)
        .collect();
    if unready.is_empty() {
        Verdict::yes("")
    } else {
        Verdict::no("ContainersNotReady", named("unready", unready.into_iter()))
    }
}

fn ready(pod: &Pod, containers: &Verdict) -> Verdict {
    if !containers.status {
        return Verdict::no(containers.reason, containers.message.clone());
    }
    for gate in &pod.spec.readiness_gates {
        let open = pod.status["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|c| c["type"] == gate.condition_type.as_str() && c["status"] == "True");
        if !open {
            let message = format!(
                "corresponding condition of pod readiness gate {:?} does not exist or is not True.",
                gate.condition_type
            );
            return Verdict::no("ReadinessGatesNotReady", message);
        }
    }
    Verdict::yes("")
}

fn named<'a>(what: &str, containers: impl Iterator<Item = &'a Container>) -> String {
    let names: Vec<&str> = containers.map(|c| c.name.as_str()).collect();
    format!("containers with {what} status: [{}]", names.join(" "))
}

/// Keeps the transition time unless the status flips.
fn condition(input: &Input<'_>, kind: &str, verdict: &Verdict) -> Value {
    let status = if verdict.status { "True" } else { "False" };
    let old = input.pod.status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind);
    let since =
        old.filter(|c| c["status"] == status).and_then(|c| c["lastTransitionTime"].as_str()).unwrap_or(input.now);
    let mut condition =
        json!({"type": kind, "status": status, "lastProbeTime": Value::Null, "lastTransitionTime": since});
    if !verdict.reason.is_empty() {
        condition["reason"] = verdict.reason.into();
    }
    if !verdict.message.is_empty() {
        condition["message"] = verdict.message.as_str().into();
    }
    if input.pod.metadata.generation > 0 {
        condition["observedGeneration"] = input.pod.metadata.generation.into();
    }
    condition
}

#[cfg(test)]
#[path = "compute_tests.rs"]
mod tests;

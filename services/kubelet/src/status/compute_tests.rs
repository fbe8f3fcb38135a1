use serde_json::json;

use super::*;
use crate::observed::Sandbox;

struct Case {
    pod: Pod,
    observed: Observed,
    health: Health,
    waiting: HashMap<String, Waiting>,
    terminal: bool,
}

impl Case {
    fn new(spec: Value) -> Case {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1}, "spec": spec});
        Case {
            pod: Pod::from_value(&pod).unwrap(),
            observed: Observed::default(),
            health: Health::default(),
            waiting: HashMap::new(),
            terminal: false,
        }
    }

    fn sandbox(mut self) -> Case {
        let sandbox =
            Sandbox { id: "s".into(), attempt: 0, ready: true, ips: vec!["10.244.0.5".into()], created_at: 1 };
        self.observed.sandboxes.push(sandbox);
        self
    }

    fn container(mut self, name: &str, count: u32, state: State, exit_code: i32) -> Case {
        self.observed.containers.push(Instance {
            id: format!("{name}{count}"),
            name: name.into(),
            sandbox_id: "s".into(),
            restart_count: count,
            state,
            created_at: i64::from(count) + 1,
            started_at: 1_000_000_000,
            finished_at: if state == State::Exited { 2_000_000_000 } else { 0 },
            exit_code,
            reason: String::new(),
            message: String::new(),
            image: "img".into(),
            image_ref: "sha256:1".into(),
            hash: String::new(),
            message_file: None,
            message_from_logs: false,
            log_path: String::new(),
            stop_signal: None,
            resources: None,
        });
        self.observed.sort();
        self
    }

    fn healthy(mut self, id: &str) -> Case {
        self.health.started.insert(id.into());
        self.health.ready.insert(id.into());
        self
    }

    fn held(mut self, name: &str, reason: &str) -> Case {
        self.waiting.insert(name.into(), Waiting { reason: reason.into(), message: "why".into() });
        self
    }

    fn status(&self) -> Value {
        status(&Input {
            pod: &self.pod,
            observed: &self.observed,
            health: &self.health,
            waiting: &self.waiting,
            messages: &HashMap::new(),
            terminal: self.terminal,
            failure: None,
            host_ips: &["192.0.2.1".to_owned()],
            resize: &crate::sync::resize::Resize::default(),
            now: "2026-01-01T00:00:00Z",
        })
    }
}

fn condition_status<'a>(status: &'a Value, kind: &str) -> &'a str {
    let list = status["conditions"].as_array().unwrap();
    list.iter().find(|c| c["type"] == kind).unwrap()["status"].as_str().unwrap()
}

#[test]
fn a_fresh_pod_is_pending_and_says_what_it_waits_for() {
    let status = Case::new(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]})).status();
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["initContainerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(condition_status(&status, "Initialized"), "False");
    assert_eq!(condition_status(&status, "PodReadyToStartContainers"), "False");
    assert_eq!(condition_status(&status, "PodScheduled"), "True");
    assert_eq!(status["hostIP"], "192.0.2.1");
    assert!(status.get("podIP").is_none());
}

#[test]
fn a_running_healthy_pod_is_ready() {
    let status = Case::new(json!({"containers": [{"name": "c"}]}))
        .sandbox()
        .container("c", 0, State::Running, 0)
        .healthy("c0")
        .status();
    assert_eq!(status["phase"], "Running");
    assert_eq!(condition_status(&status, "Ready"), "True");
    assert_eq!(status["podIPs"], json!([{"ip": "10.244.0.5"}]));
    let container = &status["containerStatuses"][0];
    assert_eq!(container["state"]["running"]["startedAt"], "1970-01-01T00:00:01Z");
    assert_eq!((&container["containerID"], &container["started"]), (&json!("containerd://c0"), &json!(true)));
}

#[test]
fn the_containers_of_a_pod_share_the_room_for_messages() {
    let containers: Vec<Value> = (0..4).map(|n| json!({"name": format!("c{n}")})).collect();
    let mut case = Case::new(json!({"containers": containers})).container("c0", 0, State::Exited, 1);
    // A letter of two bytes stands where the room ends.
    case.observed.containers[0].message = format!("{}é", "x".repeat(3071));
    let message = case.status()["containerStatuses"][0]["state"]["terminated"]["message"].clone();
    assert_eq!(message.as_str().map(str::len), Some(3071));
}

#[test]
fn the_stop_signal_is_the_runtimes_word_or_the_pods() {
    let spec = |signal: Value| json!({"containers": [{"name": "a", "lifecycle": {"stopSignal": signal}}]});
    let mut case = Case::new(spec("SIGUSR1".into())).sandbox().container("a", 0, State::Running, 0);
    assert_eq!(case.status()["containerStatuses"][0]["stopSignal"], "SIGUSR1");
    case.observed.containers[0].stop_signal = Some("SIGINT".into());
    assert_eq!(case.status()["containerStatuses"][0]["stopSignal"], "SIGINT");
    let without = Case::new(spec(Value::Null)).sandbox().container("a", 0, State::Running, 0);
    assert!(without.status()["containerStatuses"][0]["stopSignal"].is_null());
}

#[test]
fn readiness_gates_hold_back_ready_only() {
    let spec = json!({"containers": [{"name": "c"}], "readinessGates": [{"conditionType": "x/y"}]});
    let mut case = Case::new(spec).sandbox().container("c", 0, State::Running, 0).healthy("c0");
    let status = case.status();
    assert_eq!((condition_status(&status, "ContainersReady"), condition_status(&status, "Ready")), ("True", "False"));
    case.pod.status = json!({"conditions": [{"type": "x/y", "status": "True"}]});
    let status = case.status();
    assert_eq!(condition_status(&status, "Ready"), "True");
    assert_eq!(condition_status(&status, "x/y"), "True", "others' conditions stay");
}

#[test]
fn a_crash_loop_waits_with_its_last_state_and_the_pod_stays_running() {
    let status = Case::new(json!({"containers": [{"name": "c"}]}))
        .sandbox()
        .container("c", 2, State::Exited, 3)
        .held("c", "CrashLoopBackOff")
        .status();
    let container = &status["containerStatuses"][0];
    assert_eq!(status["phase"], "Running");
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(container["restartCount"], 2);
    assert_eq!(condition_status(&status, "Ready"), "False");
}

#[test]
fn phases_follow_policy_and_exit_codes() {
    for (policy, codes, expected) in [
        ("Never", [0, 0], "Succeeded"),
        ("Never", [0, 1], "Failed"),
        ("OnFailure", [0, 0], "Succeeded"),
        ("OnFailure", [0, 1], "Running"),
        ("Always", [0, 0], "Running"),
    ] {
        let case = Case::new(json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}))
            .sandbox()
            .container("a", 0, State::Exited, codes[0])
            .container("b", 0, State::Exited, codes[1]);
        assert_eq!(case.status()["phase"], expected, "{policy} {codes:?}");
    }
}

#[test]
fn a_completed_pod_is_initialized_but_not_ready() {
    let status = Case::new(json!({"restartPolicy": "Never", "containers": [{"name": "c"}]}))
        .sandbox()
        .container("c", 0, State::Exited, 0)
        .status();
    let list = status["conditions"].as_array().unwrap();
    let ready = list.iter().find(|c| c["type"] == "Ready").unwrap();
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("PodCompleted")));
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
}

#[test]
fn a_failed_init_container_fails_a_never_pod() {
    let spec =
        |policy| json!({"restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "c"}]});
    let case = |policy| Case::new(spec(policy)).sandbox().container("i", 0, State::Exited, 1).status()["phase"].clone();
    assert_eq!(case("Never"), "Failed");
    assert_eq!(case("Always"), "Pending");
}

#[test]
fn a_deleted_pod_ends_failed_or_succeeded_and_never_returns() {
    let mut case = Case::new(json!({"containers": [{"name": "c"}]})).sandbox().container("c", 0, State::Exited, 137);
    case.terminal = true;
    assert_eq!(case.status()["phase"], "Failed");
    case.pod.status = json!({"phase": "Succeeded"});
    assert_eq!(case.status()["phase"], "Succeeded");
}

#[test]
fn transition_times_change_only_with_the_status() {
    let mut case =
        Case::new(json!({"containers": [{"name": "c"}]})).sandbox().container("c", 0, State::Running, 0).healthy("c0");
    let old = "2020-01-01T00:00:00Z";
    case.pod.status = json!({"conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": old},
        {"type": "Initialized", "status": "False", "lastTransitionTime": old},
    ]});
    let status = case.status();
    let list = status["conditions"].as_array().unwrap();
    let time = |kind: &str| list.iter().find(|c| c["type"] == kind).unwrap()["lastTransitionTime"].clone();
    assert_eq!(time("Ready"), old);
    assert_eq!(time("Initialized"), "2026-01-01T00:00:00Z");
}

#[test]
fn a_lost_record_keeps_its_history() {
    let mut case = Case::new(json!({"containers": [{"name": "c"}]}));
    case.pod.status = json!({"containerStatuses": [
        {"name": "c", "restartCount": 2, "containerID": "containerd://x", "state": {"running": {}}, "image": "img", "imageID": "i"}
    ]});
    let container = &case.status()["containerStatuses"][0];
    assert_eq!(container["restartCount"], 2);
    assert_eq!(container["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
    case.terminal = true;
    assert_eq!(case.status()["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
}

#[test]
fn a_pod_is_not_over_while_its_sidecar_runs() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "c"}],
        "initContainers": [{"name": "side", "restartPolicy": "Always"}]});
    let mut case =
        Case::new(spec).sandbox().container("side", 0, State::Running, 0).container("c", 0, State::Exited, 0);
    case.pod.status = json!({"phase": "Running"});
    let (resize, messages) = (crate::sync::resize::Resize::default(), HashMap::new());
    let input = Input {
        pod: &case.pod,
        observed: &case.observed,
        health: &case.health,
        waiting: &case.waiting,
        messages: &messages,
        terminal: false,
        failure: None,
        host_ips: &[],
        resize: &resize,
        now: "2026-01-01T00:00:00Z",
    };
    let mut status = status(&input);
    assert!(is_over(&status));
    hold_end(&mut status, &input);
    assert_eq!(status["phase"], "Running");
}

#[test]
fn ephemeral_containers_have_statuses_of_their_own() {
    let spec = json!({"containers": [{"name": "c"}], "ephemeralContainers": [{"name": "debug"}]});
    let case = Case::new(spec).sandbox().container("c", 0, State::Running, 0).healthy("c0");
    let waits = case.status();
    assert_eq!(waits["ephemeralContainerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
    let status = case.container("debug", 0, State::Running, 0).status();
    let debug = &status["ephemeralContainerStatuses"][0];
    assert!(debug["state"]["running"].is_object() && debug["ready"] == false);
    assert_eq!(condition_status(&status, "Ready"), "True", "they take no part in readiness");
}

#[test]
fn what_the_kubelet_ended_for_its_own_sake_is_a_disruption() {
    let case = Case::new(json!({"containers": [{"name": "c"}]}));
    let failure = Failure { reason: "Evicted".into(), message: "low".into(), disruption: true };
    let (resize, messages) = (crate::sync::resize::Resize::default(), HashMap::new());
    let status = status(&Input {
        pod: &case.pod,
        observed: &case.observed,
        health: &case.health,
        waiting: &case.waiting,
        messages: &messages,
        terminal: true,
        failure: Some(&failure),
        host_ips: &[],
        resize: &resize,
        now: "2026-01-01T00:00:00Z",
    });
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("Evicted")));
    assert!(status.get("containerStatuses").is_none(), "nothing of it ever was");
    assert_eq!(condition_status(&status, "DisruptionTarget"), "True");
}

use serde_json::json;

use super::*;
use crate::observed::Sandbox;

fn pod(spec: serde_json::Value) -> Pod {
    Pod::from_value(&json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})).unwrap()
}

fn sandbox(id: &str, attempt: u32, ready: bool) -> Sandbox {
    Sandbox { id: id.into(), attempt, ready, ips: vec!["10.0.0.1".into()], created_at: i64::from(attempt) + 1 }
}

fn instance(id: &str, name: &str, sandbox: &str, count: u32, state: State, exit_code: i32) -> Instance {
    Instance {
        id: id.into(),
        name: name.into(),
        sandbox_id: sandbox.into(),
        restart_count: count,
        state,
        created_at: 10 + i64::from(count),
        started_at: 10,
        finished_at: if state == State::Exited { 20 } else { 0 },
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: String::new(),
        image_ref: String::new(),
        hash: String::new(),
        message_file: None,
        message_from_logs: false,
        log_path: String::new(),
        stop_signal: None,
        resources: None,
    }
}

fn observed(sandboxes: Vec<Sandbox>, containers: Vec<Instance>) -> Observed {
    let mut observed = Observed { sandboxes, containers };
    observed.sort();
    observed
}

fn names(plan: &Plan) -> Vec<(&str, u32)> {
    plan.start.iter().map(|s| (s.name.as_str(), s.attempt)).collect()
}

#[test]
fn a_new_pod_gets_a_sandbox_and_its_first_init_container_only() {
    let pod = pod(json!({"initContainers": [{"name": "i1"}, {"name": "i2"}], "containers": [{"name": "c"}]}));
    let plan = plan(&pod, &Observed::default(), &Health::default());
    assert_eq!(plan.new_sandbox, Some(0));
    assert_eq!(names(&plan), [("i1", 0)]);
    assert!(!plan.initialized);
}

#[test]
fn init_containers_run_in_order_and_then_all_others() {
    let pod =
        pod(json!({"initContainers": [{"name": "i1"}, {"name": "i2"}], "containers": [{"name": "a"}, {"name": "b"}]}));
    let done = |id: &str, name: &str| instance(id, name, "s", 0, State::Exited, 0);
    let first = plan(&pod, &observed(vec![sandbox("s", 0, true)], vec![done("1", "i1")]), &Health::default());
    assert_eq!((names(&first), first.new_sandbox), (vec![("i2", 0)], None));
    let running = instance("2", "i2", "s", 0, State::Running, 0);
    let wait = plan(&pod, &observed(vec![sandbox("s", 0, true)], vec![done("1", "i1"), running]), &Health::default());
    assert!(wait.start.is_empty() && !wait.initialized);
    let all =
        plan(&pod, &observed(vec![sandbox("s", 0, true)], vec![done("1", "i1"), done("2", "i2")]), &Health::default());
    assert_eq!(names(&all), [("a", 0), ("b", 0)]);
    assert!(all.initialized);
}

#[test]
fn a_failed_init_container_restarts_unless_the_policy_is_never() {
    let failed = observed(vec![sandbox("s", 0, true)], vec![instance("1", "i", "s", 2, State::Exited, 1)]);
    let spec = |policy: &str| json!({"restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "c"}]});
    assert_eq!(names(&plan(&pod(spec("OnFailure")), &failed, &Health::default())), [("i", 3)]);
    assert!(plan(&pod(spec("Never")), &failed, &Health::default()).start.is_empty());
}

#[test]
fn restart_policy_decides_about_ended_containers() {
    for (policy, code, restarted) in
        [("Always", 0, true), ("Always", 1, true), ("OnFailure", 0, false), ("OnFailure", 1, true), ("Never", 1, false)]
    {
        let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "c"}]}));
        let seen = observed(vec![sandbox("s", 0, true)], vec![instance("1", "c", "s", 0, State::Exited, code)]);
        let plan = plan(&pod, &seen, &Health::default());
        assert_eq!(!plan.start.is_empty(), restarted, "{policy} {code}");
        if restarted {
            assert_eq!(plan.start[0].ended_at, Some(20));
        }
    }
}

#[test]
fn a_lost_sandbox_is_replaced_and_everything_starts_again_in_it() {
    let pod = pod(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]}));
    let seen = observed(
        vec![sandbox("s", 0, false)],
        vec![instance("1", "i", "s", 0, State::Exited, 0), instance("2", "c", "s", 4, State::Running, 0)],
    );
    let plan = plan(&pod, &seen, &Health::default());
    assert_eq!(plan.new_sandbox, Some(1));
    assert_eq!(names(&plan), [("i", 1)]);
    assert_eq!(plan.kill.len(), 1);
}

#[test]
fn a_never_pod_ends_with_its_sandbox() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "c"}, {"name": "d"}]}));
    let seen = observed(vec![sandbox("s", 0, false)], vec![instance("2", "c", "s", 0, State::Exited, 255)]);
    let plan = plan(&pod, &seen, &Health::default());
    assert_eq!((plan.new_sandbox, plan.start.len()), (None, 0));
}

#[test]
fn condemned_and_changed_containers_are_killed_and_restarted() {
    let pod = pod(json!({"containers": [{"name": "c", "image": "v2"}]}));
    let mut running = instance("1", "c", "s", 0, State::Running, 0);
    let mut health = Health::default();
    health.failed.insert("1".into(), FailedProbe::Liveness);
    let seen = observed(vec![sandbox("s", 0, true)], vec![running.clone()]);
    let probe = plan(&pod, &seen, &health);
    assert_eq!(probe.kill[0].reason, KillReason::Probe(FailedProbe::Liveness));
    assert_eq!(names(&probe), [("c", 1)]);
    running.hash = "older".into();
    let changed = plan(&pod, &observed(vec![sandbox("s", 0, true)], vec![running]), &Health::default());
    assert_eq!(changed.kill[0].reason, KillReason::Changed);
}

#[test]
fn a_sidecar_holds_back_the_rest_until_it_has_started() {
    let pod = pod(json!({
        "initContainers": [{"name": "side", "restartPolicy": "Always"}, {"name": "i"}], "containers": [{"name": "c"}]
    }));
    let seen = observed(vec![sandbox("s", 0, true)], vec![instance("1", "side", "s", 0, State::Running, 0)]);
    assert!(plan(&pod, &seen, &Health::default()).start.is_empty());
    let mut health = Health::default();
    health.started.insert("1".into());
    assert_eq!(names(&plan(&pod, &seen, &health)), [("i", 0)]);
    // It is restarted while the main container runs, which does not stop for it.
    let ended = observed(
        vec![sandbox("s", 0, true)],
        vec![
            instance("1", "side", "s", 0, State::Exited, 1),
            instance("2", "i", "s", 0, State::Exited, 0),
            instance("3", "c", "s", 0, State::Running, 0),
        ],
    );
    let again = plan(&pod, &ended, &Health::default());
    assert_eq!(names(&again), [("side", 1)]);
    assert!(again.initialized);
}

#[test]
fn old_instances_and_empty_sandboxes_are_collected() {
    let pod = pod(json!({"containers": [{"name": "c"}]}));
    let seen = observed(
        vec![sandbox("old", 0, false), sandbox("s", 1, true)],
        vec![
            instance("0", "c", "old", 0, State::Exited, 1),
            instance("1", "c", "s", 1, State::Exited, 1),
            instance("2", "c", "s", 2, State::Running, 0),
        ],
    );
    let plan = plan(&pod, &seen, &Health::default());
    assert_eq!(plan.remove, ["0"]);
    assert_eq!(plan.remove_sandboxes, ["old"]);
}

#[test]
fn counts_go_on_from_the_published_status_when_records_are_lost() {
    let mut pod = pod(json!({"containers": [{"name": "c"}]}));
    pod.status = json!({"containerStatuses": [{"name": "c", "restartCount": 3, "containerID": "containerd://x"}]});
    assert_eq!(names(&plan(&pod, &Observed::default(), &Health::default())), [("c", 4)]);
}

#[test]
fn ephemeral_containers_start_once_in_a_pod_that_runs() {
    let mut pod =
        pod(json!({"containers": [{"name": "c"}], "ephemeralContainers": [{"name": "e", "targetContainerName": "c"}]}));
    assert_eq!(names(&plan(&pod, &Observed::default(), &Health::default())), [("c", 0)]);
    let running = instance("1", "c", "s", 0, State::Running, 0);
    let seen = observed(vec![sandbox("s", 0, true)], vec![running.clone()]);
    let first = plan(&pod, &seen, &Health::default());
    assert_eq!((names(&first), first.start[0].target.as_deref()), (vec![("e", 0)], Some("1")));
    let ended = observed(vec![sandbox("s", 0, true)], vec![running, instance("2", "e", "s", 0, State::Exited, 1)]);
    assert!(plan(&pod, &ended, &Health::default()).start.is_empty());
    pod.status = json!({"ephemeralContainerStatuses": [{"name": "e", "containerID": "containerd://2"}]});
    assert!(plan(&pod, &seen, &Health::default()).start.is_empty(), "its record is lost, not its history");
}

#[test]
fn a_containers_own_rules_come_before_the_pods_policy() {
    let rule = |operator: &str| json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": [42]}}]);
    for (container, code, restarted) in [
        (json!({"restartPolicy": "Never", "restartPolicyRules": rule("In")}), 42, true),
        (json!({"restartPolicy": "Never", "restartPolicyRules": rule("In")}), 1, false),
        (json!({"restartPolicy": "Never", "restartPolicyRules": rule("NotIn")}), 1, true),
        (json!({"restartPolicy": "OnFailure"}), 0, false),
        (json!({"restartPolicy": "Always"}), 0, true),
        (json!({}), 1, false),
    ] {
        let pod = pod(json!({"restartPolicy": "Never", "containers": [container]}));
        assert_eq!(restarts(&pod, &pod.spec.containers[0], code), restarted, "{container} {code}");
    }
}

#[test]
fn other_amounts_are_given_while_running_unless_the_container_wants_a_restart() {
    let resources = json!({"limits": {"memory": "2Mi"}});
    let with = |policy: serde_json::Value| {
        let pod = pod(json!({"containers": [{"name": "c", "resources": resources, "resizePolicy": policy}]}));
        let mut running = instance("1", "c", "s", 0, State::Running, 0);
        running.resources = Some(crate::observed::Amounts { shares: 2, quota: 0, memory: 1 << 20 });
        plan(&pod, &observed(vec![sandbox("s", 0, true)], vec![running]), &Health::default())
    };
    let live = with(json!([]));
    assert_eq!((live.resize, live.kill.len()), (vec!["1".to_owned()], 0));
    let restarted = with(json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]));
    assert_eq!(restarted.kill[0].reason, KillReason::Resize);
    assert_eq!(names(&restarted), [("c", 1)]);
}

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Observed, Plan, Step, plan};

fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().unwrap()
}

fn deployment(replicas: i64) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "d", "generation": 1},
        "spec": {
            "replicas": replicas, "revisionHistoryLimit": 2, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": template("v1"),
        },
    })
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

/// A ReplicaSet whose status says that all its pods run and `available` of them are available.
fn set(name: &str, image: &str, replicas: i64, available: i64) -> Value {
    let mut template = template(image);
    template["metadata"]["labels"]["pod-template-hash"] = name.into();
    json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "creationTimestamp": name, "resourceVersion": "1",
                     "ownerReferences": [{"uid": "d", "controller": true}]},
        "spec": {"replicas": replicas, "template": template},
        "status": {"replicas": replicas, "readyReplicas": available, "availableReplicas": available},
    })
}

fn with_sizes(mut set: Value, desired: i64, max: i64) -> Value {
    set["metadata"]["annotations"] = json!({
        "deployment.kubernetes.io/desired-replicas": desired.to_string(),
        "deployment.kubernetes.io/max-replicas": max.to_string(),
    });
    set
}

fn decide(deployment: &Value, sets: &[Value]) -> Plan {
    plan(Observed { deployment, sets: sets.to_vec(), pods: &[], now: now() })
}

/// The sizes after the plan, for sets named `a`, `b`, …
fn sizes(sets: &[Value], plan: &Plan) -> Vec<i64> {
    let changed = |name: &Value| {
        plan.steps.iter().find_map(|step| match step {
            Step::Patch { name: n, to, .. } if *name == json!(n) => Some(*to),
            _ => None,
        })
    };
    let size = |set: &Value| changed(&set["metadata"]["name"]).unwrap_or(set["spec"]["replicas"].as_i64().unwrap());
    sets.iter().map(size).collect()
}

#[test]
fn proportional_scaling() {
    struct Case {
        replicas: i64,
        surge: Value,
        /// (image, size) of each set; the Deployment's image is v2.
        sets: &'static [(&'static str, i64)],
        before: (i64, i64),
        after: &'static [i64],
    }
    let cases = [
        // The conformance suite's: a stuck rollout of 10, scaled to 30.
        Case { replicas: 30, surge: json!(3), sets: &[("v1", 8), ("v2", 5)], before: (10, 13), after: &[20, 13] },
        Case { replicas: 5, surge: json!(3), sets: &[("v1", 8), ("v2", 5)], before: (10, 13), after: &[5, 3] },
        Case { replicas: 0, surge: json!(3), sets: &[("v1", 8), ("v2", 5)], before: (10, 13), after: &[0, 0] },
        // Three sets; the largest takes what rounding leaves.
        Case {
            replicas: 12,
            surge: json!(0),
            sets: &[("v0", 5), ("v1", 3), ("v2", 2)],
            before: (10, 10),
            after: &[6, 4, 2],
        },
        Case {
            replicas: 10,
            surge: json!(2),
            sets: &[("v0", 1), ("v1", 1), ("v2", 1)],
            before: (3, 5),
            after: &[2, 2, 8],
        },
        // One active set takes all.
        Case { replicas: 7, surge: json!(3), sets: &[("v1", 0), ("v2", 5)], before: (5, 8), after: &[0, 7] },
    ];
    for (index, case) in cases.iter().enumerate() {
        let mut web = deployment(case.replicas);
        web["spec"]["template"] = template("v2");
        web["spec"]["strategy"]["rollingUpdate"]["maxSurge"] = case.surge.clone();
        let named = case.sets.iter().zip(["a", "b", "c"]);
        let sets: Vec<Value> = named
            .map(|((image, size), name)| with_sizes(set(name, image, *size, 0), case.before.0, case.before.1))
            .collect();
        let got = sizes(&sets, &decide(&web, &sets));
        assert_eq!(got, case.after, "case {index}");
    }
}

#[test]
fn fences_round_as_upstream() {
    // (replicas, surge, unavailable, size of the new set at once, size of the old one after the first shrink)
    let cases = [
        (10, json!("25%"), json!("25%"), 3, 8),
        (4, json!("25%"), json!("25%"), 1, 3),
        (1, json!("25%"), json!("25%"), 1, 1),
        (3, json!(0), json!("10%"), 0, 2),
        (2, json!("100%"), json!(0), 2, 2),
    ];
    for (replicas, surge, unavailable, new, old) in cases {
        let mut web = deployment(replicas);
        web["spec"]["template"] = template("v2");
        web["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        let first = [set("a", "v1", replicas, replicas)];
        let step = decide(&web, &first).steps.remove(0);
        let Step::Create(created) = step else { panic!("{step:?}") };
        assert_eq!(created["spec"]["replicas"], new, "{surge} of {replicas}");

        let second = [set("a", "v1", replicas, replicas), set("b", "v2", new, 0)];
        assert_eq!(sizes(&second, &decide(&web, &second)), [old, new], "{unavailable} of {replicas}");
    }
}

/// Plays ReplicaSet controller and kubelet: sizes are reached at once, one new pod becomes available per round.
fn roll(deployment: &mut Value, sets: &mut Vec<Value>, rounds: usize, check: impl Fn(i64, i64)) {
    for round in 0..rounds {
        let plan = decide(deployment, sets);
        for step in plan.steps {
            match step {
                Step::Create(mut new) => {
                    let size = new["spec"]["replicas"].clone();
                    new["metadata"]["uid"] = format!("u{round}").into();
                    new["metadata"]["creationTimestamp"] = format!("c{round}").into();
                    new["status"] = json!({"replicas": size, "availableReplicas": 0});
                    sets.push(new);
                }
                Step::Patch { name, patch, to, .. } => {
                    let set = sets.iter_mut().find(|s| s["metadata"]["name"] == name.as_str()).unwrap();
                    set["metadata"]["annotations"] = patch["metadata"]["annotations"].clone();
                    set["spec"]["replicas"] = to.into();
                    set["status"]["replicas"] = to.into();
                    let available = set["status"]["availableReplicas"].as_i64().unwrap().min(to);
                    set["status"]["availableReplicas"] = available.into();
                }
                Step::Delete { name, .. } => sets.retain(|s| s["metadata"]["name"] != name.as_str()),
                Step::Annotate { key, value } => apimachinery::meta::set_annotation(deployment, key, &value),
            }
        }
        if let Some(status) = plan.status {
            deployment["status"] = status;
        }
        let sum = |pointer: &str| sets.iter().map(|s| s.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)).sum();
        check(sum("/spec/replicas"), sum("/status/availableReplicas"));
        for set in sets.iter_mut() {
            let status = &mut set["status"];
            if status["availableReplicas"].as_i64() < status["replicas"].as_i64() {
                status["availableReplicas"] = (status["availableReplicas"].as_i64().unwrap() + 1).into();
                break;
            }
        }
    }
}

fn condition<'a>(deployment: &'a Value, kind: &str) -> &'a Value {
    deployment["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap()
}

#[test]
fn a_rolling_update_stays_between_its_fences_and_ends() {
    let (mut web, mut sets) = (deployment(10), Vec::new());
    roll(&mut web, &mut sets, 20, |total, _| assert!(total <= 13));
    assert_eq!(condition(&web, "Progressing")["reason"], "NewReplicaSetAvailable");
    assert_eq!(web["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");

    web["spec"]["template"] = template("v2");
    web["metadata"]["generation"] = 2.into();
    roll(&mut web, &mut sets, 40, |total, available| {
        assert!(total <= 13, "{total} pods");
        assert!(available >= 8, "{available} available");
    });
    assert_eq!(sets.iter().map(|s| s["spec"]["replicas"].as_i64().unwrap()).collect::<Vec<_>>(), [0, 10]);
    assert_eq!(condition(&web, "Progressing")["reason"], "NewReplicaSetAvailable");
    assert_eq!(condition(&web, "Available")["status"], "True");
    assert_eq!(web["status"]["observedGeneration"], 2);
    assert_eq!(web["status"]["updatedReplicas"], 10);
    assert!(web["status"].get("unavailableReplicas").is_none());
    assert_eq!(web["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");

    // Back to the first template: its ReplicaSet is used again, as revision 3.
    web["spec"]["template"] = template("v1");
    roll(&mut web, &mut sets, 40, |_, _| {});
    assert_eq!(sets.len(), 2);
    let notes = &sets[0]["metadata"]["annotations"];
    assert_eq!(notes["deployment.kubernetes.io/revision"], "3");
    assert_eq!(notes["deployment.kubernetes.io/revision-history"], "1");

    // Old revisions beyond the limit of two go.
    for image in ["v3", "v4", "v5"] {
        web["spec"]["template"] = template(image);
        roll(&mut web, &mut sets, 40, |_, _| {});
    }
    assert_eq!(sets.len(), 3);

    let settled = decide(&web, &sets);
    assert!(settled.steps.is_empty() && settled.status.is_none() && settled.next.is_none(), "{settled:?}");
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut web = deployment(2);
    web["spec"]["strategy"] = json!({"type": "Recreate"});
    web["spec"]["template"] = template("v2");
    let running = [set("a", "v1", 2, 2)];
    assert_eq!(sizes(&running, &decide(&web, &running)), [0]);

    let stopped = [set("a", "v1", 0, 0)];
    let pod = std::sync::Arc::new(json!({
        "metadata": {"name": "p", "ownerReferences": [{"uid": "a", "controller": true}],
                     "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": "Running"},
    }));
    let waiting = plan(Observed { deployment: &web, sets: stopped.to_vec(), pods: &[pod], now: now() });
    assert!(waiting.steps.is_empty(), "{waiting:?}");
    let Some(Step::Create(new)) = decide(&web, &stopped).steps.into_iter().next() else { panic!("no new set") };
    assert_eq!(new["spec"]["replicas"], 2);
}

#[test]
fn a_pause_holds_the_template_but_not_the_size() {
    let mut web = deployment(4);
    web["spec"]["paused"] = true.into();
    web["spec"]["template"] = template("v2");
    let sets = [with_sizes(set("a", "v1", 2, 2), 2, 3)];
    let paused = decide(&web, &sets);
    assert_eq!(sizes(&sets, &paused), [4]);
    assert!(!paused.steps.iter().any(|s| matches!(s, Step::Create(_))));
    let status = paused.status.unwrap();
    assert!(status["conditions"].as_array().unwrap().iter().any(|c| c["reason"] == "DeploymentPaused"));
}

#[test]
fn a_rollout_that_stands_still_is_reported() {
    let mut web = deployment(2);
    let sets = [with_sizes(set("a", "v1", 2, 1), 2, 3)];
    web["status"] = json!({"replicas": 2, "updatedReplicas": 2, "readyReplicas": 1, "availableReplicas": 1,
        "conditions": [{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
                        "lastUpdateTime": "2026-01-01T23:55:00Z"}]});
    let waiting = decide(&web, &sets);
    assert_eq!(waiting.next.map(|d| d.as_secs()), Some(301), "600 s limit, 300 s gone");

    web["status"]["conditions"][0]["lastUpdateTime"] = "2026-01-01T23:49:00Z".into();
    let status = decide(&web, &sets).status.unwrap();
    let progressing = &status["conditions"][0];
    assert_eq!((&progressing["status"], &progressing["reason"]), (&json!("False"), &json!("ProgressDeadlineExceeded")));
}

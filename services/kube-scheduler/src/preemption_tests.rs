use std::sync::Arc;

use serde_json::{Value, json};

use super::{NoPlan, Plan, plan};
use crate::cache::Cache;
use crate::cycle::{Task, Turn, feasible};
use crate::pod::Pod;
use crate::testing::{ask, cluster, node, pod, profile};

/// A pod with a priority that asks for cpu and started at a second.
fn prior(name: &str, priority: i64, cpu: &str, started: i64, change: impl Fn(&mut Value)) -> Pod {
    pod(name, |p| {
        ask(p, cpu);
        p["spec"]["priority"] = priority.into();
        p["status"]["startTime"] = format!("2026-01-01T00:00:{started:02}Z").into();
        change(p);
    })
}

fn put(cache: &mut Cache, pod: &Pod, node: &str) {
    cache.set_pod(Arc::new(pod.placed_on(node)));
}

fn preempt(cache: &mut Cache, pod: &Pod) -> Result<Plan, NoPlan> {
    let profile = profile();
    let task = Task { pod, profile: &profile, defaults: &[] };
    let refusal = feasible(&task, cache, &mut Turn::default()).unwrap_err();
    let before = cache.pods();
    let plan = plan(&task, cache, &refusal, &mut Turn::default());
    assert_eq!(cache.pods(), before, "a plan changes nothing");
    plan
}

fn victims(plan: &Plan) -> Vec<&str> {
    plan.victims.iter().map(|pod| &*pod.name).collect()
}

fn budget(cache: &mut Cache, app: &str, allowed: i64) {
    let budget = json!({"metadata": {"namespace": "n", "name": app}, "status": {"disruptionsAllowed": allowed},
                        "spec": {"selector": {"matchLabels": {"app": app}}}});
    cache.budgets.set(&serde_json::from_value(budget).unwrap());
}

fn app(name: &str) -> impl Fn(&mut Value) {
    let name = name.to_owned();
    move |p| p["metadata"]["labels"] = json!({"app": name})
}

#[test]
fn only_as_many_leave_as_must_and_the_important_ones_stay() {
    // Four cores: (name, priority, cpu, started), what the newcomer of priority 100 asks for, and who leaves.
    type Placed = (&'static str, i64, &'static str, i64);
    let cases: &[(&[Placed], &str, &[&str])] = &[
        (&[("a", 1, "2", 1), ("b", 2, "2", 1)], "2", &["a"]),
        (&[("a", 1, "1", 1), ("b", 2, "1", 1), ("c", 3, "2", 1)], "2", &["b", "a"]),
        // Of equals the one that started last.
        (&[("old", 1, "2", 1), ("new", 1, "2", 9)], "1", &["new"]),
        // One large one spares two small ones only if it is not more important.
        (&[("large", 1, "2", 1), ("small", 1, "1", 2), ("tiny", 1, "1", 3)], "2", &["small", "tiny"]),
        // Nobody of the same priority leaves.
        (&[("equal", 100, "2", 1), ("low", 0, "2", 1)], "2", &["low"]),
    ];
    for (placed, asked, expected) in cases {
        let mut cache = cluster(&[node("n1", "4", |_| {})]);
        for (name, priority, cpu, started) in *placed {
            put(&mut cache, &prior(name, *priority, cpu, *started, |_| {}), "n1");
        }
        let plan = preempt(&mut cache, &prior("p", 100, asked, 0, |_| {})).unwrap();
        assert_eq!(victims(&plan), *expected, "{placed:?}");
    }
}

#[test]
fn the_gentlest_node_is_taken() {
    type Placed = (&'static str, &'static str, i64, &'static str, i64);
    // Two nodes of two cores; the newcomer asks for both.
    let cases: &[(&str, &[Placed], &str)] = &[
        ("lower highest victim", &[("a", "n1", 5, "2", 1), ("b", "n2", 3, "2", 1)], "n2"),
        (
            "smaller sum",
            &[("a", "n1", 3, "1", 1), ("b", "n1", 3, "1", 1), ("c", "n2", 3, "1", 1), ("d", "n2", 1, "1", 1)],
            "n2",
        ),
        ("fewer", &[("a", "n1", 3, "1", 1), ("b", "n1", 3, "1", 1), ("c", "n2", 3, "2", 1)], "n2"),
        ("started later", &[("a", "n1", 3, "2", 1), ("b", "n2", 3, "2", 9)], "n2"),
    ];
    for (what, placed, expected) in cases {
        let mut cache = cluster(&[node("n1", "2", |_| {}), node("n2", "2", |_| {})]);
        for (name, node, priority, cpu, started) in *placed {
            put(&mut cache, &prior(name, *priority, cpu, *started, |_| {}), node);
        }
        let plan = preempt(&mut cache, &prior("p", 100, "2", 0, |_| {})).unwrap();
        assert_eq!(&*plan.node, *expected, "{what}");
    }
}

#[test]
fn budgets_are_kept_if_that_is_possible() {
    let mut cache = cluster(&[node("n1", "2", |_| {}), node("n2", "2", |_| {})]);
    budget(&mut cache, "kept", 0);
    put(&mut cache, &prior("kept", 1, "2", 1, app("kept")), "n1");
    put(&mut cache, &prior("free", 50, "2", 1, app("free")), "n2");
    let plan = preempt(&mut cache, &prior("p", 100, "2", 0, |_| {})).unwrap();
    assert_eq!((&*plan.node, victims(&plan)), ("n2", vec!["free"]), "although it is more important");

    // On one node the protected pod comes back first.
    let mut cache = cluster(&[node("n1", "2", |_| {})]);
    budget(&mut cache, "kept", 1);
    for (name, label) in [("k1", "kept"), ("k2", "kept"), ("f", "free")] {
        put(&mut cache, &prior(name, 1, if name == "f" { "1" } else { "500m" }, 1, app(label)), "n1");
    }
    let plan = preempt(&mut cache, &prior("p", 100, "1", 0, |_| {})).unwrap();
    assert_eq!(victims(&plan), ["f"]);

    // If nothing else helps, the budget is broken.
    let plan = preempt(&mut cache, &prior("p", 100, "2", 0, |_| {})).unwrap();
    assert_eq!((plan.victims.len(), plan.violations), (3, 1));
}

#[test]
fn rules_about_other_pods_hold_while_victims_are_chosen() {
    // The newcomer must be alone; one of the two placed pods is the reason that it cannot come.
    let mut cache = cluster(&[node("n1", "4", |_| {})]);
    put(&mut cache, &prior("friend", 1, "1", 1, app("friend")), "n1");
    put(&mut cache, &prior("foe", 50, "1", 1, app("foe")), "n1");
    let lonely = |p: &mut Value| {
        p["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "foe"}}}]);
    };
    let plan = preempt(&mut cache, &prior("p", 100, "1", 0, lonely)).unwrap();
    assert_eq!(victims(&plan), ["foe"]);
}

#[test]
fn refusals_in_upstreams_words() {
    let taint = |n: &mut Value| n["spec"]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}]);
    let mut cache = cluster(&[node("n1", "2", |_| {}), node("n2", "2", taint), node("n3", "1", |_| {})]);
    put(&mut cache, &prior("equal", 100, "2", 1, |_| {}), "n1");
    let why = |cache: &mut Cache, pod: &Pod| preempt(cache, pod).unwrap_err().why;
    assert_eq!(
        why(&mut cache, &prior("p", 100, "2", 0, |_| {})),
        "0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.",
    );
    let never = prior("p", 1000, "2", 0, |p| p["spec"]["preemptionPolicy"] = "Never".into());
    assert_eq!(why(&mut cache, &never), "not eligible due to preemptionPolicy=Never.");

    let leaving = prior("leaving", 1, "2", 1, |p| {
        p["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        p["status"]["conditions"] = json!([{"type": "DisruptionTarget", "reason": "PreemptionByScheduler"}]);
    });
    let mut cache = cluster(&[node("n1", "2", |_| {})]);
    put(&mut cache, &leaving, "n1");
    let waiting = prior("p", 100, "2", 0, |p| p["status"]["nominatedNodeName"] = "n1".into());
    assert_eq!(why(&mut cache, &waiting), "not eligible due to a terminating pod on the nominated node.");
}

#[test]
fn a_cleared_node_is_kept_for_whom_it_was_cleared() {
    let mut cache = cluster(&[node("n1", "2", |_| {})]);
    let first = Arc::new(prior("first", 100, "2", 0, |_| {}));
    cache.nominate(&first, "n1");
    let profile = profile();
    let try_one = |cache: &mut Cache, priority: i64| {
        let pod = prior("other", priority, "1", 0, |_| {});
        let task = Task { pod: &pod, profile: &profile, defaults: &[] };
        feasible(&task, cache, &mut Turn::default()).is_ok()
    };
    assert!(!try_one(&mut cache, 50) && !try_one(&mut cache, 100));
    assert!(try_one(&mut cache, 101), "a more important pod may have it");
    assert_eq!(cache.pods(), 0, "looking changed nothing");
    cache.denominate("first");
    assert!(try_one(&mut cache, 50));
}

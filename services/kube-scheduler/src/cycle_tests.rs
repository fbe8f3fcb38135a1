use std::collections::BTreeMap;

use apimachinery::selector::LabelSelector;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::testing::{ask, cluster, node, place, pod, run};

fn spread(max_skew: i64, key: &str, when: &str) -> Value {
    json!([{"maxSkew": max_skew, "topologyKey": key, "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": "web"}}}])
}

#[test]
fn refusals_in_upstreams_words() {
    type Change = fn(&mut Value);
    let cases: &[(Change, Change, &str)] = &[
        (|_| {}, |p| ask(p, "3"), "0/1 nodes are available: 1 Insufficient cpu."),
        (
            |_| {},
            |p| {
                p["spec"]["containers"] =
                    json!([{"resources": {"requests": {"cpu": "3", "memory": "5Gi", "x.io/gpu": "1"}}}])
            },
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Insufficient x.io/gpu.",
        ),
        (|n| n["status"]["allocatable"]["pods"] = "0".into(), |_| {}, "0/1 nodes are available: 1 Too many pods."),
        (
            |n| n["spec"]["unschedulable"] = true.into(),
            |_| {},
            "0/1 nodes are available: 1 node(s) were unschedulable.",
        ),
        (
            |n| n["spec"]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}]),
            |_| {},
            "0/1 nodes are available: 1 node(s) had untolerated taint(s).",
        ),
        (
            |_| {},
            |p| p["spec"]["nodeSelector"] = json!({"disk": "ssd"}),
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        ),
        (
            |_| {},
            |p| p["spec"]["topologySpreadConstraints"] = spread(1, "zone", "DoNotSchedule"),
            "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label).",
        ),
        (
            |_| {},
            |p| {
                p["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
                    json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}]);
            },
            "0/1 nodes are available: 1 node(s) didn't match pod affinity rules.",
        ),
    ];
    for (change_node, change_pod, message) in cases {
        let mut cache = cluster(&[node("a", "2", change_node)]);
        assert_eq!(run(&mut cache, &pod("p", change_pod), &[]).unwrap_err().message(), *message);
    }
    let nobody = run(&mut Cache::default(), &pod("p", |_| {}), &[]).unwrap_err();
    assert_eq!(nobody.message(), "no nodes available to schedule pods");
}

#[test]
fn host_ports_and_anti_affinity_keep_apart() {
    let port = |p: &mut Value| p["spec"]["containers"] = json!([{"ports": [{"hostPort": 80}]}]);
    let away = |p: &mut Value| {
        p["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]);
    };
    type Change = fn(&mut Value);
    let cases: [(Change, Change, &str); 3] = [
        (port, port, "1 node(s) didn't have free ports for the requested pod ports"),
        (|_| {}, away, "1 node(s) didn't match pod anti-affinity rules"),
        (away, |_| {}, "1 node(s) didn't satisfy existing pods anti-affinity rules"),
    ];
    for (placed, newcomer, reason) in cases {
        let mut cache = cluster(&[node("a", "2", |_| {})]);
        place(&mut cache, &pod("placed", placed), "a");
        let refused = run(&mut cache, &pod("p", newcomer), &[]).unwrap_err();
        assert_eq!(refused.message(), format!("0/1 nodes are available: {reason}."));
        cache.set_node(node("b", "2", |_| {}));
        assert_eq!(run(&mut cache, &pod("p", newcomer), &[]).as_deref(), Ok("b"));
    }
}

#[test]
fn affinity_follows_and_the_first_of_a_group_may_start() {
    let near = |p: &mut Value| {
        p["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]);
    };
    let mut cache = cluster(&[node("a", "2", |_| {}), node("b", "2", |_| {})]);
    let first = run(&mut cache, &pod("first", near), &[]).unwrap();
    place(&mut cache, &pod("first", near), &first);
    for number in 0..4 {
        let name = format!("p{number}");
        assert_eq!(run(&mut cache, &pod(&name, near), &[]).unwrap(), first);
        place(&mut cache, &pod(&name, near), &first);
    }
}

#[test]
fn replicas_of_a_workload_spread_without_being_asked() {
    let workload = [LabelSelector::parse("app=web").unwrap()];
    for nodes in 2..=4 {
        // The first node is much larger: resources alone would attract every replica.
        let offers: Vec<_> =
            (0..nodes).map(|n| node(&format!("n{n}"), if n == 0 { "64" } else { "4" }, |_| {})).collect();
        let mut cache = cluster(&offers);
        let mut used = BTreeMap::<String, usize>::new();
        for replica in 0..nodes {
            let replica = pod(&format!("p{replica}"), |p| ask(p, "100m"));
            let chosen = run(&mut cache, &replica, &workload).unwrap();
            *used.entry(chosen.clone()).or_default() += 1;
            place(&mut cache, &replica, &chosen);
        }
        assert_eq!(used.len(), nodes, "{used:?}");
    }
}

#[test]
fn hard_spreading_never_exceeds_its_skew() {
    let zones = ["a", "a", "b", "c"];
    let offers: Vec<_> = zones
        .iter()
        .enumerate()
        .map(|(n, zone)| node(&format!("n{n}"), "64", |o| o["metadata"]["labels"]["zone"] = (*zone).into()))
        .collect();
    let mut cache = cluster(&offers);
    let mut counts = BTreeMap::from([("a", 0), ("b", 0), ("c", 0)]);
    for number in 0..12 {
        let replica =
            pod(&format!("p{number}"), |p| p["spec"]["topologySpreadConstraints"] = spread(1, "zone", "DoNotSchedule"));
        let chosen = run(&mut cache, &replica, &[]).unwrap();
        let zone = zones[chosen[1..].parse::<usize>().unwrap()];
        *counts.get_mut(zone).unwrap() += 1;
        place(&mut cache, &replica, &chosen);
        let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        assert!(most - least <= 1, "{counts:?}");
    }
    assert_eq!(counts.values().copied().collect::<Vec<i32>>(), [4, 4, 4]);
}

#[test]
fn wishes_decide_between_feasible_nodes() {
    type Change = fn(&mut Value);
    let cases: &[(&str, Change, Change)] = &[
        ("less used", |n| n["status"]["allocatable"]["cpu"] = "1".into(), |p| ask(p, "500m")),
        ("not discouraged", |n| n["spec"]["taints"] = json!([{"key": "k", "effect": "PreferNoSchedule"}]), |_| {}),
        (
            "preferred by label",
            |_| {},
            |p| {
                p["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = json!([
                    {"weight": 5, "preference": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["good"]}]}}]);
            },
        ),
    ];
    for (what, worse, change_pod) in cases {
        let mut cache = cluster(&[node("good", "4", |_| {}), node("worse", "4", worse)]);
        assert_eq!(run(&mut cache, &pod("p", change_pod), &[]).as_deref(), Ok("good"), "{what}");
    }
}

/// Many random pods on random nodes: a plain recount of the rules must agree that each placement was allowed and that
/// each refusal was right.
#[test]
fn agrees_with_a_plain_recount() {
    let mut random = SmallRng::seed_from_u64(7);
    for _ in 0..20 {
        let sizes: Vec<i64> = (0..random.random_range(1..8)).map(|_| random.random_range(1..9) * 500).collect();
        let tainted: Vec<bool> = sizes.iter().map(|_| random.random_bool(0.3)).collect();
        let fast: Vec<bool> = sizes.iter().map(|_| random.random_bool(0.5)).collect();
        let offers: Vec<_> = (0..sizes.len())
            .map(|n| {
                node(&format!("n{n}"), &format!("{}m", sizes[n]), |o| {
                    if tainted[n] {
                        o["spec"]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}]);
                    }
                    o["metadata"]["labels"]["disk"] = if fast[n] { "ssd" } else { "hdd" }.into();
                })
            })
            .collect();
        let mut cache = cluster(&offers);
        let mut used = vec![0_i64; sizes.len()];
        for number in 0..40 {
            let (asked, tolerant, picky) =
                (random.random_range(1..10) * 100, random.random_bool(0.5), random.random_bool(0.5));
            let newcomer = pod(&format!("p{number}"), |p| {
                ask(p, &format!("{asked}m"));
                if tolerant {
                    p["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
                }
                if picky {
                    p["spec"]["nodeSelector"] = json!({"disk": "ssd"});
                }
            });
            let allowed = |n: usize| used[n] + asked <= sizes[n] && (tolerant || !tainted[n]) && (!picky || fast[n]);
            match run(&mut cache, &newcomer, &[]) {
                Ok(name) => {
                    let chosen: usize = name[1..].parse().unwrap();
                    assert!(allowed(chosen), "{name} for {asked}m");
                    used[chosen] += asked;
                    place(&mut cache, &newcomer, &name);
                }
                Err(_) => assert!(!(0..sizes.len()).any(allowed), "{asked}m would have fitted"),
            }
        }
    }
}

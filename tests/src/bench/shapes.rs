//! What is measured: the shapes of upstream's scheduler_perf at 5,000 nodes, as nodes and pods.

use serde_json::{Value, json};

/// A workload.
pub struct Shape {
    /// Upstream's name of the test case.
    pub name: &'static str,
    /// Nodes, unless given.
    pub nodes: usize,
    /// Pods that are there before, unless given.
    pub before: usize,
    /// Pods that are measured, unless given.
    pub measured: usize,
    /// What upstream demands on average, in pods per second; 0 if nothing.
    pub floor: f64,
    /// Changes the plain pod with this number.
    pub pod: fn(&mut Value, usize),
    /// The same for the pods that are there before.
    pub before_pod: fn(&mut Value, usize),
}

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// All shapes.
pub const SHAPES: [Shape; 10] = [
    shape("SchedulingBasic", 1000, 10_000, 270.0, plain, plain),
    shape("SchedulingPodAntiAffinity", 1000, 2000, 60.0, away, away),
    shape("SchedulingPodAffinity", 5000, 5000, 35.0, near, near),
    shape("SchedulingPreferredPodAffinity", 5000, 5000, 90.0, rather_near, plain),
    shape("SchedulingPreferredPodAntiAffinity", 5000, 5000, 90.0, rather_away, plain),
    shape("SchedulingNodeAffinity", 5000, 10_000, 220.0, in_zone, in_zone),
    shape("TopologySpreading", 5000, 5000, 85.0, spread, plain),
    shape("PreferredTopologySpreading", 5000, 5000, 125.0, rather_spread, plain),
    shape("Unschedulable", 100, 10_000, 140.0, plain, too_large),
    shape("PreemptionAsync", 20_000, 5000, 160.0, important, filling),
];

const fn shape(
    name: &'static str,
    before: usize,
    measured: usize,
    floor: f64,
    pod: fn(&mut Value, usize),
    before_pod: fn(&mut Value, usize),
) -> Shape {
    Shape { name, nodes: 5000, before, measured, floor, pod, before_pod }
}

/// A node as upstream's benchmarks have them, in one of three zones.
pub fn node(number: usize) -> Value {
    let name = format!("bench-node-{number}");
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {HOSTNAME: name, ZONE: format!("zone{}", number % 3)}},
        "status": {
            "allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"},
            "capacity": {"cpu": "4", "memory": "32Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Hollow"}],
        },
    })
}

/// A pod of a shape.
pub fn pod(name: &str, number: usize, change: fn(&mut Value, usize)) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{name}-{number}"), "namespace": "bench", "uid": format!("{name}-{number}"), "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "pause", "image": "registry.k8s.io/pause:3.10",
            "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}},
        }]},
    });
    change(&mut pod, number);
    pod
}

fn plain(_: &mut Value, _: usize) {}

fn too_large(pod: &mut Value, _: usize) {
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "9".into();
}

/// The name of the only class of important pods.
pub const IMPORTANT: &str = "bench-important";

/// Needs the room of three that fill.
fn important(pod: &mut Value, _: usize) {
    pod["spec"]["priorityClassName"] = IMPORTANT.into();
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "3".into();
}

fn filling(pod: &mut Value, _: usize) {
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "900m".into();
}

fn term(key: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"color": "blue"}}})
}

fn colored<'a>(pod: &'a mut Value, kind: &str) -> &'a mut Value {
    pod["metadata"]["labels"]["color"] = "blue".into();
    &mut pod["spec"]["affinity"][kind]
}

fn away(pod: &mut Value, _: usize) {
    colored(pod, "podAntiAffinity")["requiredDuringSchedulingIgnoredDuringExecution"] = json!([term(HOSTNAME)]);
}

fn near(pod: &mut Value, _: usize) {
    colored(pod, "podAffinity")["requiredDuringSchedulingIgnoredDuringExecution"] = json!([term(ZONE)]);
}

fn rather_near(pod: &mut Value, _: usize) {
    let wish = json!([{"weight": 1, "podAffinityTerm": term(HOSTNAME)}]);
    colored(pod, "podAffinity")["preferredDuringSchedulingIgnoredDuringExecution"] = wish;
}

fn rather_away(pod: &mut Value, _: usize) {
    let wish = json!([{"weight": 1, "podAffinityTerm": term(HOSTNAME)}]);
    colored(pod, "podAntiAffinity")["preferredDuringSchedulingIgnoredDuringExecution"] = wish;
}

fn in_zone(pod: &mut Value, _: usize) {
    pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!({
        "nodeSelectorTerms": [{"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["zone0", "zone1"]}]}]});
}

fn constraint(pod: &mut Value, when: &str) {
    pod["metadata"]["labels"]["color"] = "blue".into();
    pod["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": when,
        "labelSelector": {"matchLabels": {"color": "blue"}}}]);
}

fn spread(pod: &mut Value, _: usize) {
    constraint(pod, "DoNotSchedule");
}

fn rather_spread(pod: &mut Value, _: usize) {
    constraint(pod, "ScheduleAnyway");
}

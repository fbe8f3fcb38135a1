//! The managers together on a machine of two NUMA nodes, read from files like the kernel's.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::config::{MemoryReservation, PolicyOptions};

const GIB: i128 = 1 << 30;

/// Four CPUs and 8 GiB on each node; CPU 0 and 1 GiB of node 0 are reserved.
fn machine(name: &str, policy: &str, scope: &str) -> (Allocation, PathBuf) {
    let base = std::env::temp_dir().join(format!("kubelet-numa-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&base);
    let write = |name: String, text: String| {
        let path = base.join("sys").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("cpu/online".into(), "0-7\n".into());
    for (node, cpus) in [(0, "0-3"), (1, "4-7")] {
        write(format!("node/node{node}/cpulist"), format!("{cpus}\n"));
        write(format!("node/node{node}/distance"), "10 21\n".into());
        write(format!("node/node{node}/meminfo"), format!("Node {node} MemTotal:       {} kB\n", 8 << 20));
    }
    for cpu in 0..8 {
        write(format!("cpu/cpu{cpu}/topology/physical_package_id"), (cpu / 4).to_string());
    }
    fs::create_dir_all(base.join("root")).unwrap();
    let reserved = MemoryReservation { numa_node: 0, limits: [("memory".to_owned(), "1Gi".to_owned())].into() };
    let config = KubeletConfiguration {
        cpu_manager_policy: "static".into(),
        memory_manager_policy: "Static".into(),
        topology_manager_policy: policy.into(),
        topology_manager_scope: scope.into(),
        reserved_system_cpus: "0".into(),
        options: PolicyOptions { reserved_memory: vec![reserved], ..PolicyOptions::default() },
        ..KubeletConfiguration::default()
    };
    (Allocation::restore(&base.join("root"), &config, &base.join("sys"), GIB).unwrap(), base)
}

/// A pod of containers with these CPUs and GiB.
fn pod(uid: &str, containers: &[(u32, u32)]) -> Pod {
    let container = |(n, (cpu, gib)): (usize, &(u32, u32))| -> Value {
        json!({"name": format!("c{n}"), "resources": {"limits": {"cpu": cpu.to_string(), "memory": format!("{gib}Gi")}}})
    };
    let containers: Vec<Value> = containers.iter().enumerate().map(container).collect();
    Pod::from_value(&json!({"metadata": {"uid": uid}, "spec": {"containers": containers}})).unwrap()
}

/// What each container of a pod got: its CPUs and the nodes of its memory; or why the pod is refused.
async fn outcome(given: &Allocation, pod: &Pod) -> String {
    if let Err(failure) = given.admit(pod, &|_| true).await {
        return failure.reason;
    }
    let uid = &pod.metadata.uid;
    let one = |c: &Container| {
        let nodes: Vec<String> = given.memory.nodes(uid, &c.name).ids().map(|n| n.to_string()).collect();
        format!("{} on {}", given.cpus.exclusive(uid, &c.name), nodes.join("+"))
    };
    pod.spec.containers.iter().map(one).collect::<Vec<_>>().join("; ")
}

type Row = (&'static str, &'static str, &'static [(&'static [(u32, u32)], &'static str)]);

#[tokio::test]
async fn cpus_and_memory_come_from_nodes_that_fit_together() {
    const REFUSED: &str = "TopologyAffinityError";
    let rows: &[Row] = &[
        ("best-effort", "container", &[(&[(4, 1)], "4-7 on 1"), (&[(3, 1)], "1-3 on 0")]),
        ("best-effort", "container", &[(&[(4, 9)], "4-7 on 0+1")]),
        ("restricted", "container", &[(&[(4, 9)], REFUSED), (&[(5, 9)], "1,4-7 on 0+1")]),
        ("single-numa-node", "container", &[(&[(4, 1)], "4-7 on 1"), (&[(4, 1)], REFUSED), (&[(3, 7)], "1-3 on 0")]),
        ("single-numa-node", "container", &[(&[(2, 1), (2, 1)], "1-2 on 0; 4-5 on 1")]),
        ("single-numa-node", "pod", &[(&[(2, 1), (2, 1)], "4-5 on 1; 6-7 on 1"), (&[(2, 1), (2, 1)], REFUSED)]),
    ];
    for (number, (policy, scope, pods)) in rows.iter().enumerate() {
        let (given, base) = machine(&number.to_string(), policy, scope);
        for (count, (containers, expected)) in pods.iter().enumerate() {
            let got = outcome(&given, &pod(&format!("p{count}"), containers)).await;
            assert_eq!(&got, expected, "{policy}, {scope}, pod {count}");
        }
        fs::remove_dir_all(base).unwrap();
    }
}

#[tokio::test]
async fn a_refused_pod_keeps_nothing_and_what_is_given_back_is_given_again() {
    let (given, base) = machine("again", "single-numa-node", "pod");
    let (first, second) = (pod("a", &[(4, 8)]), pod("b", &[(4, 8)]));
    assert_eq!(outcome(&given, &first).await, "4-7 on 1");
    assert_eq!(outcome(&given, &second).await, "TopologyAffinityError");
    assert_eq!(given.cpus.exclusive("b", "c0").to_string(), "");
    given.forget("a");
    assert_eq!(outcome(&given, &second).await, "4-7 on 1");
    fs::remove_dir_all(base).unwrap();
}

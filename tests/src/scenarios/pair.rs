//! A second machine joins: pods run on both and reach each other, and both answer for logs and exec.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use qemu::{down, up};

use super::workload;
use crate::context::Context;

const CLUSTER: &str = "e2epair";

/// The scenario, on a cluster of its own.
pub fn run(context: &Context) -> Result<()> {
    down::down(CLUSTER)?;
    let cluster = up::start(CLUSTER, context.cluster.driver, 2, &context.artifacts)?;
    let pair = Context { cluster, artifacts: context.artifacts.clone() };
    let outcome = on_both(&pair);
    down::down(CLUSTER)?;
    outcome
}

fn on_both(pair: &Context) -> Result<()> {
    let image = pair.artifacts.image.test_web.display().to_string();
    for node in &pair.cluster.nodes {
        pair.cortenctl(&["-e", &format!("127.0.0.1:{}", node.machine_port), "image", "import", &image])?;
    }
    workload::bring_up(pair)?;
    let pods = pair.get("pods -l app=web")?;
    let placed: Vec<(&str, &str)> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pod| Some((pod["metadata"]["name"].as_str()?, pod["spec"]["nodeName"].as_str()?)))
        .collect();
    let nodes: BTreeSet<&str> = placed.iter().map(|(_, node)| *node).collect();
    ensure!(nodes.len() == 2, "the replicas are not spread: {placed:?}");
    workload::reachable(pair)?;
    for (name, node) in placed {
        let log = pair.kubectl(&format!("logs {name}"))?;
        ensure!(log.contains("GET /"), "log from {node}: {log:?}");
        let host = pair.kubectl(&format!("exec {name} -- /test-web env HOSTNAME"))?;
        ensure!(host.trim() == name, "exec on {node}: {host:?}");
    }
    workload::take_down(pair)
}

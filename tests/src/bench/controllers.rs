//! Workloads of many replicas up and down again, on nodes without machines: how long it takes and what the processes hold.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use client::resource::{DEPLOYMENTS, NAMESPACES};
use client::{Client, ListParams, Patch};
use serde_json::json;

use super::hollow;
use super::stack::{Stack, System};

/// From binding to Running.
pub const START: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(900);
pub const NAMESPACE: &str = "bench";
/// The allocator gives freed pages back within a few seconds.
const REST: Duration = Duration::from_secs(5);

/// Runs `pods` pods of `deployments` Deployments on so many nodes, then none.
pub async fn run(corten: &Path, nodes: usize, pods: usize, deployments: usize) -> Result<()> {
    let mut stack = Stack::start_api(corten, &[], &[]).await?;
    stack.start_system(System::Scheduler)?;
    stack.start_system(System::ControllerManager)?;
    let client = stack.client()?;
    hollow::register(std::slice::from_ref(&client), nodes).await?;
    let living = tokio::spawn(hollow::live(stack.client()?, nodes, START));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    client.create(NAMESPACES, None, &namespace).await?;
    println!("{nodes} nodes, {pods} pods of {deployments} Deployments");
    report(&stack, "idle");
    let begun = Instant::now();
    let each = pods / deployments;
    for number in 0..deployments {
        client.create(DEPLOYMENTS, Some(NAMESPACE), &deployment(number, each)).await?;
    }
    until_available(&client, each * deployments, begun).await?;
    println!("  all available after {:.1} s", begun.elapsed().as_secs_f64());
    report(&stack, "with all of them");
    tokio::time::sleep(REST).await;
    report(&stack, "and at rest");
    let begun = Instant::now();
    for number in 0..deployments {
        let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
        client.patch(DEPLOYMENTS, Some(NAMESPACE), &format!("web-{number}"), None, &none).await?;
    }
    until_available(&client, 0, begun).await?;
    println!("  none left after {:.1} s", begun.elapsed().as_secs_f64());
    tokio::time::sleep(REST).await;
    report(&stack, "afterwards");
    living.abort();
    Ok(())
}

pub fn deployment(number: usize, replicas: usize) -> serde_json::Value {
    let labels = json!({"app": format!("web-{number}")});
    let container = json!({"name": "c", "image": "example.com/c:1", "env": [{"name": "A", "value": "b"}],
        "ports": [{"name": "http", "containerPort": 80}],
        "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "64Mi"}},
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}}});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": format!("web-{number}")},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}},
    })
}

/// Waits until so many replicas are there and available.
pub async fn until_available(client: &Client, wanted: usize, begun: Instant) -> Result<()> {
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        ticks.tick().await;
        let all = client.list(DEPLOYMENTS, Some(NAMESPACE), &ListParams::default()).await?.items;
        let sum = |field: &str| all.iter().filter_map(|d| d["status"][field].as_u64()).sum::<u64>();
        let (there, available) = (sum("replicas"), sum("availableReplicas"));
        if there == wanted as u64 && available == there {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{there} replicas, {available} available, not {wanted}");
    }
}

pub fn report(stack: &Stack, when: &str) {
    for ((name, [resident, own]), (_, seconds)) in stack.memory_in_detail().iter().zip(stack.processor()) {
        println!(
            "  {when:<18} {name:<24} {resident:>5} MiB resident, its own {own:>5} MiB, {seconds:>7.2} s of processor"
        );
    }
}

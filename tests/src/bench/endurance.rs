//! What lasts: pods that come and go for minutes, and nodes that die together.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use client::follow::{News, follow};
use client::resource::{DEPLOYMENTS, NAMESPACES, NODES, PODS, SERVICEACCOUNTS};
use client::{Client, DeleteParams, ListParams};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::controllers::{NAMESPACE, START, deployment, report, until_available};
use super::hollow::{self, Bound};
use super::stack::{Stack, System};

/// Between two lines.
const LINE: Duration = Duration::from_secs(10);
/// More than this means a memory that is not flat, MiB per minute, once everything has been used for a while.
const SLOPE_MAX: f64 = 5.0;
/// Seconds that a pod stays on a node that fell silent.
const TOLERATED: u64 = 5;
const LOSS_PATIENCE: Duration = Duration::from_secs(1800);

/// Of each process what is resident, and what of that is its own, MiB.
type Memory = Vec<(&'static str, [u64; 2])>;

async fn start(corten: &Path, nodes: usize) -> Result<(Stack, Client)> {
    let mut stack = Stack::start_api(corten, &[], &[]).await?;
    stack.start_system(System::Scheduler)?;
    stack.start_system(System::ControllerManager)?;
    let client = stack.client()?;
    hollow::register(std::slice::from_ref(&client), nodes).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    client.create(NAMESPACES, None, &namespace).await?;
    // Pods made before the controller's would be refused.
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    match client.create(SERVICEACCOUNTS, Some(NAMESPACE), &account).await {
        Err(error) if !error.is_already_exists() => Err(error.into()),
        _ => Ok((stack, client)),
    }
}

/// Makes `rate` pods in a second and deletes each after its life, for so long.
pub async fn churn(corten: &Path, nodes: usize, rate: u32, length: Duration, life: Duration) -> Result<()> {
    let (stack, client) = start(corten, nodes).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(hollow::live(stack.client()?, nodes, START));
    let (sender, mut news) = mpsc::channel(256);
    tasks.spawn(follow(stack.client()?, PODS, "spec.nodeName!=", sender, |news: News<Bound>| news));
    println!("{nodes} nodes, {rate} pods in a second for {} s, each lives {} s", length.as_secs(), life.as_secs());
    println!(
        "  from creation until a pod is seen Running, which includes {} ms of a hollow kubelet",
        START.as_millis()
    );
    let failed = Arc::new(AtomicUsize::new(0));
    let (mut made, mut ran, mut number) = (HashMap::new(), Vec::new(), 0_usize);
    let mut turns = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    let mut lines = tokio::time::interval(LINE);
    lines.tick().await;
    let begun = Instant::now();
    let mut samples: Vec<(f64, Memory)> = Vec::new();
    while begun.elapsed() < length {
        tokio::select! {
            _ = turns.tick() => {
                let name = format!("churn-{number}");
                number += 1;
                made.insert(name.clone(), Instant::now());
                tasks.spawn(one(client.clone(), name, life, Arc::clone(&failed)));
                while tasks.try_join_next().is_some() {}
            }
            told = news.recv() => if let Some(News::Applied(pod)) = told
                && &*pod.status.phase == "Running"
                && let Some(since) = made.remove(&*pod.metadata.name)
            {
                ran.push(since.elapsed());
            },
            _ = lines.tick() => {
                let memory = stack.memory_in_detail();
                line(begun.elapsed(), number, made.len(), &mut ran, &memory);
                samples.push((begun.elapsed().as_secs_f64() / 60.0, memory));
            }
        }
    }
    report(&stack, "at the end");
    let failed = failed.load(Ordering::Relaxed);
    ensure!(failed == 0, "{failed} requests failed");
    flat(&samples)
}

async fn one(client: Client, name: String, life: Duration, failed: Arc<AtomicUsize>) {
    let container =
        json!({"name": "c", "image": "example.com/c:1", "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "churn"}},
                     "spec": {"containers": [container]}});
    let made = client.create(PODS, Some(NAMESPACE), &pod).await;
    tokio::time::sleep(life).await;
    let gone = client.delete(PODS, Some(NAMESPACE), &name, &DeleteParams::default()).await;
    for error in [made.err(), gone.err()].into_iter().flatten() {
        eprintln!("{name}: {error}");
        failed.fetch_add(1, Ordering::Relaxed);
    }
}

fn line(at: Duration, made: usize, waiting: usize, ran: &mut Vec<Duration>, memory: &[(&'static str, [u64; 2])]) {
    ran.sort();
    let part = |percent: usize| ran.get(ran.len() * percent / 100).map_or(0, Duration::as_millis);
    let memory: Vec<String> = memory.iter().map(|(name, [resident, own])| format!("{name} {resident}/{own}")).collect();
    println!(
        "  {:>4} s: {made} made, {waiting} not yet Running; {} ran: p50 {} ms, p99 {} ms; MiB resident/own: {}",
        at.as_secs(),
        ran.len(),
        part(50),
        part(99),
        memory.join(", ")
    );
    ran.clear();
}

/// The memory of each process does not grow in the second half.
fn flat(samples: &[(f64, Memory)]) -> Result<()> {
    let half = &samples[samples.len() / 2..];
    let Some((_, processes)) = half.first() else { return Ok(()) };
    let mut wrong = Vec::new();
    for (i, (name, _)) in processes.iter().enumerate() {
        let points: Vec<(f64, f64)> = half.iter().map(|(at, all)| (*at, all[i].1[1] as f64)).collect();
        let slope = slope(&points);
        println!("  {name}: {slope:+.1} MiB of its own in a minute");
        if slope > SLOPE_MAX {
            wrong.push(format!("{name} grows by {slope:.1} MiB in a minute"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// Least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let sum = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>();
    let (x, y, xy, xx) = (sum(|p| p.0), sum(|p| p.1), sum(|p| p.0 * p.1), sum(|p| p.0 * p.0));
    let divisor = count * xx - x * x;
    if divisor == 0.0 { 0.0 } else { (count * xy - x * y) / divisor }
}

/// Lets a share of the nodes die under a Deployment and waits until all of it runs on the others.
pub async fn loss(corten: &Path, nodes: usize, pods: usize, percent: usize) -> Result<()> {
    let (stack, client) = start(corten, nodes).await?;
    let lost = Arc::new(AtomicUsize::new(0));
    let living = tokio::spawn(hollow::live_but(stack.client()?, nodes, START, Arc::clone(&lost)));
    let mut wanted = deployment(0, pods);
    let tolerations = ["not-ready", "unreachable"].map(|why| {
        json!({"key": format!("node.kubernetes.io/{why}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATED})
    });
    wanted["spec"]["template"]["spec"]["tolerations"] = json!(tolerations);
    client.create(DEPLOYMENTS, Some(NAMESPACE), &wanted).await?;
    let begun = Instant::now();
    until_available(&client, pods, begun).await?;
    println!("{nodes} nodes, {pods} pods available after {:.1} s", begun.elapsed().as_secs_f64());
    report(&stack, "before the loss");
    let dead = nodes * percent / 100;
    lost.store(dead, Ordering::Relaxed);
    let begun = Instant::now();
    println!("{dead} nodes die");
    let (done, ended) = oneshot::channel();
    let watching = tokio::spawn(watch(stack.client()?, dead, pods, begun, done));
    let outcome = tokio::time::timeout(LOSS_PATIENCE, ended).await;
    watching.abort();
    living.abort();
    report(&stack, "after the loss");
    ensure!(outcome.is_ok(), "the pods were not all available elsewhere after {} s", LOSS_PATIENCE.as_secs());
    println!("  all pods run on living nodes after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Prints how far it is, and tells when all dead nodes are tainted and the Deployment is whole on the others.
async fn watch(client: Client, dead: usize, pods: usize, begun: Instant, done: oneshot::Sender<()>) {
    let mut ticks = tokio::time::interval(LINE);
    loop {
        ticks.tick().await;
        let Ok(all) = client.list(NODES, None, &ListParams::default()).await else { continue };
        let tainted = |effect: &str| {
            let has = |node: &&Value| {
                let taints = node["spec"]["taints"].as_array().into_iter().flatten();
                taints.clone().any(|t| t["key"] == "node.kubernetes.io/unreachable" && t["effect"] == effect)
            };
            all.items.iter().filter(has).count()
        };
        let Ok(found) = client.get(DEPLOYMENTS, Some(NAMESPACE), "web-0").await else { continue };
        let available = found["status"]["availableReplicas"].as_u64().unwrap_or(0);
        let (no_schedule, no_execute) = (tainted("NoSchedule"), tainted("NoExecute"));
        println!(
            "  {:>4} s: {no_schedule} nodes take no pods, {no_execute} evict theirs, {available} pods are available",
            begun.elapsed().as_secs()
        );
        if no_execute >= dead && available >= pods as u64 {
            let _ = done.send(());
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes() {
        assert!((slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) - 2.0).abs() < 1e-9);
        assert!(slope(&[(0.0, 4.0), (1.0, 4.0)]).abs() < 1e-9);
        assert!(slope(&[(1.0, 4.0)]).abs() < 1e-9);
        assert!(flat(&[(0.0, vec![("p", [9, 1])]), (1.0, vec![("p", [9, 1])]), (2.0, vec![("p", [9, 21])])]).is_err());
    }
}

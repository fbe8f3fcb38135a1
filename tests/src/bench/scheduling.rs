//! Pods per second from the first create to the last binding, through a real API server, store and scheduler.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use client::follow::{Identity, News, Part, follow};
use client::resource::{NAMESPACES, PODS, SERVICEACCOUNTS};
use client::{Client, Resource};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::hollow::{create_all, register};
use super::shapes::{IMPORTANT, Shape, pod};
use super::sizes::Sizes;
use super::stack::Stack;

/// Clients, each with a connection of its own, as many users have.
const CONNECTIONS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(600);
const PRIORITYCLASSES: Resource<'static> =
    Resource::new("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", false);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Placed {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    namespace: Box<str>,
    name: Box<str>,
    uid: Box<str>,
    resource_version: Box<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Box<str>,
}

impl Part for Placed {
    fn identity(&self) -> Identity {
        let Metadata { namespace, name, uid, resource_version } = self.metadata.clone();
        Identity { namespace, name, uid, resource_version }
    }

    fn version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// Measures a shape on a stack of its own, or on the cluster of a kubeconfig.
pub async fn run(shape: &Shape, sizes: &Sizes, kubeconfig: Option<&Path>, corten: &Path) -> Result<()> {
    let stack = match kubeconfig {
        Some(_) => None,
        None => Some(Stack::start(corten).await?),
    };
    let client = || match (&stack, kubeconfig) {
        (Some(stack), _) => stack.client(),
        (None, path) => Ok(Client::from_kubeconfig(path.context("a kubeconfig")?)?),
    };
    let clients: Vec<Client> = (0..CONNECTIONS).map(|_| client()).collect::<Result<_>>()?;
    let (nodes, before, measured) = sizes.of(shape);
    register(&clients, nodes).await?;
    create_all(&clients, 1, |_| {
        (NAMESPACES, None, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}}))
    })
    .await?;
    // What a controller manager would have made.
    create_all(&clients, 1, |_| {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        (SERVICEACCOUNTS, Some("bench"), account)
    })
    .await?;
    create_all(&clients, 1, |_| {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1000,
                           "metadata": {"name": IMPORTANT}});
        (PRIORITYCLASSES, None, class)
    })
    .await?;
    let (sender, mut news) = mpsc::channel(256);
    let watching = tokio::spawn(follow(client()?, PODS, "metadata.namespace=bench", sender, |news: News<Placed>| news));
    let (before_pod, measured_pod) = (shape.before_pod, shape.pod);
    let bound_before = if shape.name == "Unschedulable" { 0 } else { before };
    let creating =
        create_all(&clients, before, move |n| (PODS, Some("bench"), without_uid(pod("before", n, before_pod))));
    tokio::try_join!(creating, until_bound(&mut news, "before-", bound_before))?;

    let used = stack.as_ref().map(Stack::processor);
    let start = Instant::now();
    let creating = async {
        let done = create_all(&clients, measured, move |n| {
            (PODS, Some("bench"), without_uid(pod("measured", n, measured_pod)))
        });
        done.await.map(|()| start.elapsed())
    };
    let (created, bound) = tokio::try_join!(creating, until_bound(&mut news, "measured-", measured))?;
    let elapsed = start.elapsed();
    watching.abort();
    report(shape, (nodes, before, measured), (created, elapsed), &bound);
    if let (Some(stack), Some(used)) = (&stack, used) {
        report_stack(stack, &used).await?;
    }
    Ok(())
}

/// The server makes uids; the one in the template is for decisions without a server.
fn without_uid(mut pod: serde_json::Value) -> serde_json::Value {
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.remove("uid");
    }
    pod
}

/// Waits until so many pods of a kind have a node; returns when each got it.
async fn until_bound(news: &mut mpsc::Receiver<News<Placed>>, kind: &str, count: usize) -> Result<Vec<Instant>> {
    let mut bound = std::collections::HashSet::new();
    let mut times = Vec::new();
    let waiting = async {
        while times.len() < count {
            let Some(told) = news.recv().await else { break };
            if let News::Applied(pod) = told
                && pod.metadata.name.starts_with(kind)
                && !pod.spec.node_name.is_empty()
                && bound.insert(pod.metadata.uid)
            {
                times.push(Instant::now());
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await;
    ensure!(in_time.is_ok() && times.len() == count, "only {} of {count} pods {kind}* were bound", times.len());
    Ok(times)
}

#[expect(clippy::cast_precision_loss, reason = "rates for people")]
fn report(
    shape: &Shape,
    (nodes, before, measured): (usize, usize, usize),
    (created, elapsed): (Duration, Duration),
    bound: &[Instant],
) {
    let rate = measured as f64 / elapsed.as_secs_f64();
    // Upstream's average: pods that were bound in each second.
    let mut seconds = vec![0_usize; usize::try_from(elapsed.as_secs()).unwrap_or(0) + 1];
    if let Some(first) = bound.first() {
        for at in bound {
            let second = usize::try_from(at.duration_since(*first).as_secs()).unwrap_or(0);
            if let Some(count) = seconds.get_mut(second) {
                *count += 1;
            }
        }
    }
    println!("{}: {nodes} nodes, {before} pods before, {measured} measured", shape.name);
    println!("  created after {:.2} s, all bound after {:.2} s", created.as_secs_f64(), elapsed.as_secs_f64());
    println!("  {rate:.0} pods/s; upstream's floor {}, {:.1} times", shape.floor, rate / shape.floor.max(1.0));
    println!("  bound in each second: {seconds:?}");
}

async fn report_stack(stack: &Stack, before: &[(&'static str, f64)]) -> Result<()> {
    for ((name, memory), ((_, now), (_, then))) in stack.memory().iter().zip(stack.processor().iter().zip(before)) {
        println!("  {name:<16} {memory:>6} MiB resident, {:>6.2} s of processor while measured", now - then);
    }
    let metrics = stack.scheduler()?.get_text("/metrics").await.context("the scheduler's metrics")?;
    if let Some(bound) = quantile(&metrics, 0.99) {
        println!("  p99 of attempts: at most {:.1} ms", bound * 1000.0);
    }
    Ok(())
}

/// The upper bound of the bucket in which the quantile of successful attempts lies, in seconds.
fn quantile(metrics: &str, share: f64) -> Option<f64> {
    let prefix =
        "scheduler_scheduling_attempt_duration_seconds_bucket{profile=\"default-scheduler\",result=\"scheduled\",le=\"";
    let buckets: Vec<(f64, f64)> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix(prefix)?.split_once("\"} "))
        .filter_map(|(bound, count)| Some((bound.replace("+Inf", "inf").parse().ok()?, count.parse().ok()?)))
        .collect();
    let (_, total) = *buckets.last()?;
    buckets.iter().find(|(_, count)| *count >= total * share).map(|(bound, _)| *bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_come_from_buckets() {
        let line = |le: &str, count: u32| {
            format!(
                "scheduler_scheduling_attempt_duration_seconds_bucket{{profile=\"default-scheduler\",result=\"scheduled\",le=\"{le}\"}} {count}\n"
            )
        };
        let text = line("0.001", 90) + &line("0.002", 99) + &line("+Inf", 100);
        assert_eq!(quantile(&text, 0.5), Some(0.001));
        assert_eq!(quantile(&text, 0.99), Some(0.002));
        assert_eq!(quantile("", 0.99), None);
    }
}

//! Nodes without machines: they register, renew their Lease, and report pods Running a moment after they were bound (or done,
//! if they are not to be started again) and gone when they are deleted.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use client::follow::{Identity, News, Part, follow};
use client::resource::{LEASES, NAMESPACES, NODES, PODS};
use client::{Client, DeleteParams, Patch};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::shapes::node;

/// Requests under way at once.
const CONCURRENCY: usize = 64;
const LEASE_PERIOD: Duration = Duration::from_secs(10);
/// Renewals under way at once.
const RENEWALS_MAX: usize = 16;

/// What a hollow kubelet reads of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Bound {
    pub metadata: Metadata,
    pub spec: Spec,
    pub status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    namespace: Box<str>,
    pub name: Box<str>,
    uid: Box<str>,
    resource_version: Box<str>,
    deletion_timestamp: Option<Box<str>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    node_name: Box<str>,
    restart_policy: Box<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub phase: Box<str>,
}

impl Part for Bound {
    fn identity(&self) -> Identity {
        let Metadata { namespace, name, uid, resource_version, .. } = self.metadata.clone();
        Identity { namespace, name, uid, resource_version }
    }

    fn version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// Creates an object for each number, many at a time; what exists already is kept.
pub async fn create_all<F>(clients: &[Client], count: usize, create: F) -> Result<()>
where
    F: Fn(usize) -> (client::Resource<'static>, Option<&'static str>, serde_json::Value) + Send + Sync + 'static,
{
    let create = Arc::new(create);
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for worker in 0..CONCURRENCY {
        let (client, create, next) = (clients[worker % clients.len()].clone(), Arc::clone(&create), Arc::clone(&next));
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<(), anyhow::Error>(());
                }
                let (resource, namespace, object) = create(number);
                match client.create(resource, namespace, &object).await {
                    Err(error) if error.is_already_exists() => {}
                    other => drop(other.with_context(|| format!("creating a {}", resource.kind))?),
                }
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.context("a worker")??;
    }
    Ok(())
}

/// Registers nodes, and the namespace of their Leases.
pub async fn register(clients: &[Client], nodes: usize) -> Result<()> {
    let namespace = |name: &'static str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    create_all(clients, 1, move |_| (NAMESPACES, None, namespace("kube-node-lease"))).await?;
    create_all(clients, nodes, |number| (NODES, None, node(number))).await?;
    // New nodes are tainted until a controller has seen that they are ready; there need not be one.
    let ready = stream::iter(0..nodes).map(|number| {
        let patch = Patch::Merge(json!({"spec": {"taints": null}}));
        let client = &clients[number % clients.len()];
        async move { client.patch(NODES, None, &format!("bench-node-{number}"), None, &patch).await }
    });
    ready.buffer_unordered(CONCURRENCY).try_collect::<Vec<_>>().await.context("readiness of nodes")?;
    create_all(clients, nodes, |number| {
        let name = format!("bench-node-{number}");
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
                           "spec": {"holderIdentity": name, "leaseDurationSeconds": 40}});
        (LEASES, Some("kube-node-lease"), lease)
    })
    .await
}

/// Lives as `nodes` kubelets until it is dropped: `delay` passes between binding and Running.
pub async fn live(client: Client, nodes: usize, delay: Duration) {
    live_but(client, nodes, delay, Arc::default()).await;
}

/// The same, but the first `lost` of them are dead: they renew nothing, start nothing and end nothing.
pub async fn live_but(client: Client, nodes: usize, delay: Duration, lost: Arc<AtomicUsize>) {
    let requests = Arc::new(Semaphore::new(CONCURRENCY));
    let (sender, mut news) = mpsc::channel(256);
    let mut tasks = JoinSet::new();
    tasks.spawn(follow(client.clone(), PODS, "spec.nodeName!=", sender, |news: News<Bound>| news));
    tasks.spawn(renew(client.clone(), nodes, Arc::clone(&lost)));
    let dead = |node: &str| {
        let number = node.rsplit_once('-').and_then(|(_, number)| number.parse::<usize>().ok());
        number.is_some_and(|number| number < lost.load(Ordering::Relaxed))
    };
    let mut started = HashSet::new();
    while let Some(told) = news.recv().await {
        match told {
            News::Applied(pod) if dead(&pod.spec.node_name) => {}
            News::Applied(pod) if pod.metadata.deletion_timestamp.is_some() => {
                tasks.spawn(remove(client.clone(), pod, Arc::clone(&requests)));
            }
            News::Applied(pod) if &*pod.status.phase == "Pending" && started.insert(pod.metadata.uid.clone()) => {
                tasks.spawn(run_pod(client.clone(), pod, delay, Arc::clone(&requests)));
            }
            News::Gone(id) => drop(started.remove(&id.uid)),
            News::Applied(_) | News::Synced => {}
        }
        // The ends of finished tasks would pile up otherwise.
        while tasks.try_join_next().is_some() {}
    }
}

/// Behind nothing else, as with real kubelets: one whose renewals wait for its pods, or for those of others, would be given up.
async fn renew(client: Client, nodes: usize, lost: Arc<AtomicUsize>) {
    if nodes == 0 {
        return std::future::pending().await;
    }
    let mut turns = tokio::time::interval(LEASE_PERIOD / u32::try_from(nodes).unwrap_or(u32::MAX));
    let mut renewals = JoinSet::new();
    for number in (0..nodes).cycle() {
        turns.tick().await;
        if number >= lost.load(Ordering::Relaxed) {
            renewals.spawn(renew_one(client.clone(), format!("bench-node-{number}")));
        }
        while renewals.len() > RENEWALS_MAX {
            renewals.join_next().await;
        }
        while renewals.try_join_next().is_some() {}
    }
}

async fn renew_one(client: Client, name: String) {
    let patch = Patch::Merge(json!({"spec": {"renewTime": apimachinery::time::now_rfc3339_micro()}}));
    if let Err(error) = client.patch(LEASES, Some("kube-node-lease"), &name, None, &patch).await {
        eprintln!("lease of {name}: {error}");
    }
}

async fn run_pod(client: Client, pod: Bound, delay: Duration, requests: Arc<Semaphore>) {
    tokio::time::sleep(delay).await;
    let _permit = requests.acquire().await;
    let now = apimachinery::time::now_rfc3339();
    let done = &*pod.spec.restart_policy == "Never";
    let (phase, is_ready) = if done { ("Succeeded", "False") } else { ("Running", "True") };
    let ready = |kind: &str| json!({"type": kind, "status": is_ready, "lastTransitionTime": now});
    let status = json!({"phase": phase, "startTime": now, "podIP": "192.0.2.1", "podIPs": [{"ip": "192.0.2.1"}],
                        "conditions": [ready("Initialized"), ready("ContainersReady"), ready("Ready")]});
    let patch = Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}));
    let namespace = Some(&*pod.metadata.namespace);
    match client.patch(PODS, namespace, &pod.metadata.name, Some("status"), &patch).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => {
            eprintln!("status of {} on {}: {error}", pod.metadata.name, pod.spec.node_name);
        }
        _ => {}
    }
}

async fn remove(client: Client, pod: Bound, requests: Arc<Semaphore>) {
    let _permit = requests.acquire().await;
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        uid: Some(pod.metadata.uid.to_string()),
        ..DeleteParams::default()
    };
    match client.delete(PODS, Some(&pod.metadata.namespace), &pod.metadata.name, &params).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => {
            eprintln!("removing {}: {error}", pod.metadata.name);
        }
        _ => {}
    }
}

//! node-lifecycle-controller: says Unknown of nodes that fell silent, and keeps the taints that follow from conditions.

mod plan;
mod zones;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use apimachinery::meta;
use client::resource::{LEASES, NODES, PODS};
use client::{Change, Client, Informer, Patch, WorkQueue};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::warn;

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::pods;
use crate::worker::{self, Next};

use zones::{Eviction, Limits};

const WORKERS: usize = 4;
/// Where kubelets renew the leases of their nodes.
const LEASES_OF_NODES: &str = "kube-node-lease";

struct Controller {
    client: Client,
    events: Events,
    nodes: Informer,
    pods: Informer,
    /// When each node last gave a sign of life, by this process's clock: nodes' clocks are never compared.
    heard: Mutex<HashMap<String, Instant>>,
    /// Silent nodes whose pods are known to be not ready.
    marked: Mutex<HashSet<String>>,
    limits: Mutex<Limits>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let leases = context.informers.get(LEASES);
    let controller = Arc::new(Controller {
        nodes: context.informers.get(NODES),
        pods: context.informers.get(PODS),
        client: context.client,
        events: context.events,
        heard: Mutex::default(),
        marked: Mutex::default(),
        limits: Mutex::default(),
    });
    for informer in [&leases, &controller.nodes, &controller.pods] {
        informer.synced().await;
    }
    let queue = WorkQueue::new();
    let (this, to) = (Arc::clone(&controller), queue.clone());
    worker::on_change(&controller.nodes, move |change| {
        let name = meta::name(change.object()).to_owned();
        if let Some((reason, what)) = plan::arrival(&change) {
            let message = format!("Node {name} event: {what} Controller");
            this.events.note(change.object(), "Normal", reason, message);
        }
        if plan::is_sign_of_life(&change) {
            this.heard.lock().insert(name.clone(), Instant::now());
        }
        // A node that comes or goes changes what may happen to the silent ones.
        if plan::readiness_changed(&change) {
            let silent = this.nodes.list().into_iter().filter(|node| !meta::is_condition_true(node, "Ready"));
            silent.for_each(|node| to.add(meta::name(&node).to_owned()));
        }
        to.add(name);
    });
    let (this, to) = (Arc::clone(&controller), queue.clone());
    worker::on_change(&leases, move |change| {
        if let Change::Applied { new, .. } = &change
            && meta::namespace(new) == LEASES_OF_NODES
        {
            let name = meta::name(new).to_owned();
            this.heard.lock().insert(name.clone(), Instant::now());
            // The deadline moves with the lease; an early look costs nothing and moves it.
            to.add(name);
        }
    });
    worker::run("node-lifecycle", queue, WORKERS, |name| sync(&controller, name)).await;
}

async fn sync(controller: &Controller, name: String) -> Result<Next, Error> {
    let Some(node) = controller.nodes.get("", &name) else {
        controller.heard.lock().remove(&name);
        controller.marked.lock().remove(&name);
        return Ok(Next::Done);
    };
    let silence = controller.heard.lock().entry(name.clone()).or_insert_with(Instant::now).elapsed();
    let left = plan::grace(&node).saturating_sub(silence);
    let now = Timestamp::now();
    let mut node = Value::clone(&node);
    if left.is_zero()
        && let Some(conditions) = plan::unknown_conditions(&node, now)
    {
        warn!("node {name} has been silent for {} s", silence.as_secs());
        let patch = Patch::Strategic(json!({"status": {"conditions": conditions}}));
        match ignore_not_found(controller.client.patch(NODES, None, &name, Some("status"), &patch).await)? {
            Some(patched) => node = patched,
            None => return Ok(Next::Done),
        }
        controller.events.note(&node, "Normal", "NodeNotReady", format!("Node {name} status is now: NodeNotReady"));
    }
    let eviction = match plan::is_to_be_emptied(&node) {
        None => Eviction::Now,
        Some(begun) => controller.limits.lock().ask(&node, &controller.nodes.list(), begun, Instant::now()),
    };
    if let Some(taints) = plan::taints(&node, eviction, now) {
        // Taints are one list for all writers: the version makes sure that nobody's is lost.
        let metadata = json!({"resourceVersion": meta::resource_version(&node)});
        let patch = Patch::Merge(json!({"metadata": metadata, "spec": {"taints": taints}}));
        ignore_not_found(controller.client.patch(NODES, None, &name, None, &patch).await)?;
    }
    let is_unknown = meta::condition(&node, "Ready").is_some_and(|ready| ready["status"] == "Unknown");
    if !is_unknown {
        controller.marked.lock().remove(&name);
    } else if !controller.marked.lock().contains(&name) {
        controller.mark_pods_not_ready(&name, now).await?;
        controller.marked.lock().insert(name);
    }
    let deadline = (!left.is_zero()).then_some(left);
    let later = match eviction {
        Eviction::Later(wait) => Some(wait),
        Eviction::Now | Eviction::Never => None,
    };
    Ok([deadline, later].into_iter().flatten().min().map_or(Next::Done, Next::After))
}

impl Controller {
    /// Nobody reports these pods' readiness any more; Services must not send anything there.
    async fn mark_pods_not_ready(&self, node: &str, now: Timestamp) -> Result<(), Error> {
        for pod in pods::on_node(&self.pods, node).filter(|pod| pods::is_ready(pod)) {
            let condition =
                json!({"type": "Ready", "status": "False", "lastTransitionTime": apimachinery::time::rfc3339(now)});
            let patch =
                Patch::Strategic(json!({"metadata": {"uid": meta::uid(&pod)}, "status": {"conditions": [condition]}}));
            let namespace = Some(meta::namespace(&pod));
            ignore_not_found(self.client.patch(PODS, namespace, meta::name(&pod), Some("status"), &patch).await)?;
            self.events.note(&pod, "Warning", "NodeNotReady", "Node is not ready".to_owned());
        }
        Ok(())
    }
}

//! pod-garbage-collector-controller: removes pods that no kubelet will ever finish: those of vanished nodes, those that
//! end without ever having had a node, and the oldest finished ones when there are too many.

mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::{meta, time};
use client::resource::{NODES, PODS};
use client::{Change, Client, DeleteParams, Informer, Patch, WorkQueue};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::info;

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::worker::{self, Next};
use crate::{object, pods};

/// A node may vanish for a moment, when it is deleted and registers again.
const NODE_ABSENT_FOR: Duration = Duration::from_secs(40);
/// Finished pods that may stay, as upstream.
const FINISHED_MAX: usize = 12_500;
/// The queue's key for the count of finished pods; no pod's key lacks a slash.
const FINISHED: &str = "finished";

struct Controller {
    client: Client,
    nodes: Informer,
    pods: Informer,
    /// Since when a node that pods name has not been there.
    absent: Mutex<HashMap<String, Instant>>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        nodes: context.informers.get(NODES),
        pods: context.informers.get(PODS),
        client: context.client,
        absent: Mutex::default(),
    });
    controller.nodes.synced().await;
    controller.pods.synced().await;
    let queue = WorkQueue::new();
    let (this, to) = (Arc::clone(&controller), queue.clone());
    worker::on_change(&controller.nodes, move |change| {
        let name = meta::name(change.object());
        if matches!(change, Change::Applied { .. }) {
            this.absent.lock().remove(name);
            return;
        }
        pods::on_node(&this.pods, name).for_each(|pod| to.add(meta::key(&pod)));
    });
    let (this, to) = (Arc::clone(&controller), queue.clone());
    worker::on_change(&controller.pods, move |change| {
        let Change::Applied { old, new } = &change else { return };
        let node = object::text(new, "/spec/nodeName");
        if node.is_empty() && pods::is_terminating(new) || !node.is_empty() && this.nodes.get("", node).is_none() {
            to.add(meta::key(new));
        }
        if pods::is_finished(new) && !old.as_ref().is_some_and(|old| pods::is_finished(old)) {
            to.add(FINISHED.to_owned());
        }
    });
    worker::run("pod-garbage-collector", queue, 4, |key| sync(&controller, key)).await;
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    if key == FINISHED {
        for pod in plan::surplus(controller.pods.each(), FINISHED_MAX) {
            controller.remove(&pod).await?;
        }
        return Ok(Next::Done);
    }
    let (namespace, name) = meta::split_key(&key);
    let Some(pod) = controller.pods.get(namespace, name) else { return Ok(Next::Done) };
    let node = object::text(&pod, "/spec/nodeName");
    if node.is_empty() {
        if pods::is_terminating(&pod) {
            controller.fail(&pod, Vec::new()).await?;
            controller.remove(&pod).await?;
        }
        return Ok(Next::Done);
    }
    if controller.nodes.get("", node).is_some() {
        return Ok(Next::Done);
    }
    let absent_for = controller.absent.lock().entry(node.to_owned()).or_insert_with(Instant::now).elapsed();
    if absent_for < NODE_ABSENT_FOR {
        return Ok(Next::After(NODE_ABSENT_FOR - absent_for));
    }
    if ignore_not_found(controller.client.get(NODES, None, node).await)?.is_some() {
        return Ok(Next::Done);
    }
    info!("pod {key} is removed: its node {node} no longer exists");
    let lost = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists", "lastTransitionTime": time::rfc3339(Timestamp::now()),
    });
    controller.fail(&pod, vec![lost]).await?;
    controller.remove(&pod).await?;
    Ok(Next::Done)
}

impl Controller {
    /// Owners must see that the pod did not succeed.
    async fn fail(&self, pod: &Value, conditions: Vec<Value>) -> Result<(), Error> {
        if pods::is_finished(pod) {
            return Ok(());
        }
        let status = json!({"phase": "Failed", "conditions": conditions});
        let patch = Patch::Strategic(json!({"metadata": {"uid": meta::uid(pod)}, "status": status}));
        let namespace = Some(meta::namespace(pod));
        ignore_not_found(self.client.patch(PODS, namespace, meta::name(pod), Some("status"), &patch).await)?;
        Ok(())
    }

    async fn remove(&self, pod: &Value) -> Result<(), Error> {
        let at_once = DeleteParams {
            grace_period_seconds: Some(0),
            uid: Some(meta::uid(pod).to_owned()),
            ..DeleteParams::default()
        };
        let deleted = self.client.delete(PODS, Some(meta::namespace(pod)), meta::name(pod), &at_once).await;
        ignore_not_found(deleted)?;
        Ok(())
    }
}

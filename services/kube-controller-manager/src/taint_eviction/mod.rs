//! taint-eviction-controller: deletes pods from nodes whose NoExecute taints they do not tolerate, or no longer.

mod plan;

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::{meta, time};
use client::resource::{NODES, PODS};
use client::{Change, Client, DeleteParams, Informer, Patch, WorkQueue};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::worker::{self, Next};
use crate::{clock, object, pods};

const WORKERS: usize = 8;

struct Controller {
    client: Client,
    events: Events,
    nodes: Informer,
    pods: Informer,
    /// Pods, by uid, that are to go later unless the taint goes, and since when the taint is known.
    doomed: Mutex<HashMap<String, Timestamp>>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        nodes: context.informers.get(NODES),
        pods: context.informers.get(PODS),
        client: context.client,
        events: context.events,
        doomed: Mutex::default(),
    });
    controller.nodes.synced().await;
    controller.pods.synced().await;
    let queue = WorkQueue::new();
    let (this, to) = (Arc::clone(&controller), queue.clone());
    worker::on_change(&controller.nodes, move |change| {
        let Change::Applied { old, new } = &change else { return };
        let before = old.as_ref().map(|old| plan::executing(old)).unwrap_or_default();
        if plan::executing(new) != before {
            pods::on_node(&this.pods, meta::name(new)).for_each(|pod| to.add(meta::key(&pod)));
        }
    });
    let (this, to) = (Arc::clone(&controller), queue.clone());
    worker::on_change(&controller.pods, move |change| match &change {
        Change::Deleted(pod) => {
            this.doomed.lock().remove(meta::uid(pod));
        }
        Change::Applied { old, new } => {
            let placed = |pod: &Value| (pod["spec"]["nodeName"].clone(), pod["spec"]["tolerations"].clone());
            if old.as_ref().is_none_or(|old| placed(old) != placed(new)) {
                to.add(meta::key(new));
            }
        }
    });
    worker::run("taint-eviction", queue, WORKERS, |key| sync(&controller, key)).await;
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(pod) = controller.pods.get(namespace, name) else { return Ok(Next::Done) };
    if meta::deletion_timestamp(&pod).is_some() || pods::is_finished(&pod) {
        return Ok(Next::Done);
    }
    let node = controller.nodes.get("", object::text(&pod, "/spec/nodeName"));
    let taints = node.as_ref().map(|node| plan::executing(node)).unwrap_or_default();
    let now = Timestamp::now();
    let uid = meta::uid(&pod).to_owned();
    let Some(patience) = plan::patience(&taints, object::list(&pod, "/spec/tolerations")) else {
        if controller.doomed.lock().remove(&uid).is_some() {
            let message = format!("Cancelling deletion of Pod {key}");
            controller.events.note(&pod, "Normal", "TaintManagerEviction", message);
        }
        return Ok(Next::Done);
    };
    let since = *controller.doomed.lock().entry(uid).or_insert_with(|| plan::oldest(&taints).unwrap_or(now));
    let left = clock::until(now, clock::plus(since, patience));
    if !left.is_zero() {
        return Ok(Next::After(left));
    }
    controller.evict(&pod, now).await?;
    Ok(Next::Done)
}

impl Controller {
    async fn evict(&self, pod: &Value, now: Timestamp) -> Result<(), Error> {
        let (namespace, name) = (meta::namespace(pod), meta::name(pod));
        let message = format!("Marking for deletion Pod {namespace}/{name}");
        self.events.note(pod, "Normal", "TaintManagerEviction", message);
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": time::rfc3339(now),
        });
        let patch =
            Patch::Strategic(json!({"metadata": {"uid": meta::uid(pod)}, "status": {"conditions": [condition]}}));
        ignore_not_found(self.client.patch(PODS, Some(namespace), name, Some("status"), &patch).await)?;
        let only_this = DeleteParams { uid: Some(meta::uid(pod).to_owned()), ..DeleteParams::default() };
        ignore_not_found(self.client.delete(PODS, Some(namespace), name, &only_this).await)?;
        Ok(())
    }
}

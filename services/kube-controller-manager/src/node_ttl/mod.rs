//! ttl-controller: tells each node how long its kubelet may answer from its cache of ConfigMaps and Secrets, in seconds; the
//! more nodes there are, the longer.

mod plan;

use std::sync::Arc;

use apimachinery::meta;
use client::resource::NODES;
use client::{Change, Patch, WorkQueue};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::worker::{self, Next};

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// Runs the controller.
pub async fn run(context: Context) {
    let nodes = context.informers.get(NODES);
    nodes.synced().await;
    let queue = WorkQueue::new();
    let step = Arc::new(Mutex::new(plan::Step::default()));
    let (all, to, now) = (nodes.clone(), queue.clone(), Arc::clone(&step));
    worker::on_change(&nodes, move |change| {
        if now.lock().follow(all.list().len()) {
            all.list().iter().for_each(|node| to.add(meta::name(node).to_owned()));
        }
        if matches!(change, Change::Applied { .. }) {
            to.add(meta::name(change.object()).to_owned());
        }
    });
    let sync = async |name: String| -> Result<Next, Error> {
        let Some(node) = nodes.get("", &name) else { return Ok(Next::Done) };
        let seconds = step.lock().seconds().to_string();
        if meta::annotation(&node, ANNOTATION) != Some(seconds.as_str()) {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION: seconds}}}));
            ignore_not_found(context.client.patch(NODES, None, &name, None, &patch).await)?;
        }
        Ok(Next::Done)
    };
    worker::run("ttl", queue, 1, sync).await;
}

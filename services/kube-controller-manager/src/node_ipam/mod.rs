//! node-ipam-controller: gives every node a pod range of its own from `--cluster-cidr`.

pub mod plan;

use std::collections::HashMap;

use apimachinery::meta;
use client::resource::NODES;
use client::{Patch, WorkQueue};
use parking_lot::Mutex;
use serde_json::json;
use tracing::info;

use crate::context::Context;
use crate::error::Error;
use crate::object;
use crate::worker::{self, Next};

/// Runs the controller; without a network there is nothing to give.
pub async fn run(context: Context) {
    if context.cluster_cidrs.is_empty() {
        info!("no --cluster-cidr: nodes get no pod ranges here");
        return context.shutdown.wait().await;
    }
    let nodes = context.informers.get(NODES);
    nodes.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&nodes, move |change| to.add(meta::name(change.object()).to_owned()));
    // Given but perhaps not yet shown by the informer; one worker, so nobody gives at the same time.
    let given: Mutex<HashMap<String, Vec<String>>> = Mutex::default();
    let sync = async |name: String| -> Result<Next, Error> {
        let Some(node) = nodes.get("", &name) else {
            given.lock().remove(&name);
            return Ok(Next::Done);
        };
        if !object::list(&node, "/spec/podCIDRs").is_empty() {
            return Ok(Next::Done);
        }
        let taken: Vec<String> = {
            let given = given.lock();
            let others = given.iter().filter(|(other, _)| **other != name).flat_map(|(_, ranges)| ranges.clone());
            nodes.list().iter().flat_map(|n| plan::ranges_of(n)).chain(others).collect()
        };
        let Some(ranges) = plan::choose(&context.cluster_cidrs, &taken) else {
            let message = format!("Node {name} status is now: CIDRNotAvailable");
            context.events.note(&node, "Normal", "CIDRNotAvailable", message);
            return Err(Error::Object(format!("node {name}: every range of --cluster-cidr is taken")));
        };
        given.lock().insert(name.clone(), ranges.clone());
        // The version keeps two controller managers from giving the same node two ranges.
        let version = meta::resource_version(&node);
        let patch =
            json!({"metadata": {"resourceVersion": version}, "spec": {"podCIDR": ranges[0], "podCIDRs": ranges}});
        context.client.patch(NODES, None, &name, None, &Patch::Strategic(patch)).await?;
        info!("node {name} gets {}", ranges.join(", "));
        Ok(Next::Done)
    };
    worker::run("node-ipam", queue, 1, sync).await;
}

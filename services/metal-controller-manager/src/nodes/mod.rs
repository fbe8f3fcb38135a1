//! What Nodes say about their machines: a provider ID for each, and for kubelets that wait for a cloud provider the
//! addresses and the end of their wait.

mod plan;

use apimachinery::meta;
use client::{Client, Informer, InformerParams, Patch, resource};
use tracing::{info, warn};

/// Brings every Node up to date, at the start and at every change.
pub async fn run(client: &Client) {
    let nodes = Informer::start(client.clone(), resource::NODES, InformerParams::default());
    let mut changes = nodes.subscribe();
    while let Some(change) = changes.recv().await {
        let client::Change::Applied { new: node, .. } = change else { continue };
        for (subresource, patch) in plan::plan(&node) {
            let name = meta::name(&node);
            match client.patch(resource::NODES, None, name, subresource, &Patch::Strategic(patch)).await {
                Ok(_) => info!("node {name} is described"),
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                // The kubelet's next status brings the Node back.
                Err(error) => warn!("node {name}: {error}"),
            }
        }
    }
}

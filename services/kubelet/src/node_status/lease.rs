//! The node's lease: a small object that is renewed often, so that the large one need not be.

use std::sync::Arc;
use std::time::Duration;

use client::resource;
use daemon::Shutdown;
use serde_json::{Value, json};

use crate::shared::Shared;

const NAMESPACE: &str = "kube-node-lease";
const PERIOD: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);

/// Renews until the end.
pub async fn renew(shared: Arc<Shared>, shutdown: Shutdown) {
    let mut held: Option<Value> = None;
    loop {
        let pause = match once(&shared, held.take()).await {
            Ok(lease) => {
                held = Some(lease);
                PERIOD
            }
            Err(error) => {
                tracing::debug!(%error, "lease not renewed");
                RETRY
            }
        };
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn once(shared: &Shared, held: Option<Value>) -> Result<Value, client::Error> {
    let name = &shared.node_name;
    let api = &shared.client;
    let found = match held {
        Some(lease) => Some(lease),
        None => match api.get(resource::LEASES, Some(NAMESPACE), name).await {
            Ok(lease) => Some(lease),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        },
    };
    let now = apimachinery::time::now_rfc3339_micro();
    let seconds = shared.config.node_lease_duration_seconds;
    if let Some(mut lease) = found {
        lease["spec"]["renewTime"] = now.into();
        lease["spec"]["holderIdentity"] = name.as_str().into();
        lease["spec"]["leaseDurationSeconds"] = seconds.into();
        return api.update(resource::LEASES, Some(NAMESPACE), name, &lease).await;
    }
    // Owned by the node, so that it goes with it.
    let node = api.get(resource::NODES, None, name).await?;
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}]);
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": owner},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": seconds, "renewTime": now},
    });
    api.create(resource::LEASES, Some(NAMESPACE), &lease).await
}

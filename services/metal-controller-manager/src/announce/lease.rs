//! This machine's Lease among the announcers: renewed while there is something to announce, taken back at the end.

use apimachinery::meta;
use client::{Client, DeleteParams, resource};
use serde_json::{Value, json};

/// Label of every announcer's Lease.
pub const LABEL: &str = "corten.dev/announcer";

/// The Lease as this process last wrote it.
#[derive(Debug)]
pub struct Own {
    client: Client,
    node: String,
    held: Option<Value>,
}

impl Own {
    /// Not written yet.
    pub fn new(client: Client, node: &str) -> Self {
        Own { client, node: node.to_owned(), held: None }
    }

    fn name(&self) -> String {
        format!("announcer-{}", self.node)
    }

    /// Whether there is one to take back.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Writes the time into the Lease; makes it first if need be.
    pub async fn renew(&mut self) -> Result<(), client::Error> {
        let name = self.name();
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let namespace = Some(crate::NAMESPACE);
        let found = match self.held.take() {
            Some(lease) => Some(lease),
            None => match self.client.get(resource::LEASES, namespace, &name).await {
                Ok(lease) => Some(lease),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            },
        };
        let lease = match found {
            Some(mut lease) => {
                lease["spec"]["renewTime"] = now.into();
                self.client.update(resource::LEASES, namespace, &name, &lease).await?
            }
            None => self.client.create(resource::LEASES, namespace, &self.fresh(&name, &now).await?).await?,
        };
        self.held = Some(lease);
        Ok(())
    }

    /// It goes with its Node.
    async fn fresh(&self, name: &str, now: &str) -> Result<Value, client::Error> {
        let node = self.client.get(resource::NODES, None, &self.node).await?;
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": meta::uid(&node)});
        Ok(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": crate::NAMESPACE, "labels": {LABEL: "true"}, "ownerReferences": [owner]},
            "spec": {"holderIdentity": self.node, "leaseDurationSeconds": 15, "renewTime": now},
        }))
    }

    /// Tells the others at once, instead of by silence, that this machine announces nothing more.
    pub async fn give_up(&mut self) {
        if self.held.take().is_some() {
            let (name, params) = (self.name(), DeleteParams::default());
            if let Err(error) = self.client.delete(resource::LEASES, Some(crate::NAMESPACE), &name, &params).await {
                tracing::warn!("giving the announcer's Lease back: {error}");
            }
        }
    }
}

//! The node's own object: registered once, its status kept true, its lease renewed.
//!
//! [`machine`] reads the hardware's facts, [`object`] computes the Node (pure), this file sends it.

mod lease;
pub mod machine;
pub mod object;

use std::sync::Arc;
use std::time::Duration;

use client::{Patch, resource};
use daemon::Shutdown;
use daemon::backoff::Backoff;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Flags;
use crate::shared::Shared;
pub use lease::renew;

/// While the node is not ready, the runtime is asked this often: power-on to Ready is what users wait for.
const EAGER: Duration = Duration::from_millis(250);
const CALM: Duration = Duration::from_secs(10);

/// Keeps the Node object current until the end.
pub async fn run(shared: Arc<Shared>, flags: Flags, network: watch::Sender<bool>, shutdown: Shutdown) {
    let mut pressure = shared.pressure.clone();
    let mut devices = shared.allocation.devices.changes();
    let mut node = Reporter { shared, flags, network, registered: false, sent: None };
    let mut failures = Backoff::new(EAGER, CALM);
    loop {
        let pause = match node.round().await {
            Ok(ready) => {
                failures.reset();
                if ready { node.shared.config.node_status_update_frequency.0 } else { EAGER }
            }
            Err(error) => {
                tracing::warn!(%error, "node status not sent");
                failures.next_delay()
            }
        };
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(pause) => {}
            Ok(()) = pressure.changed() => {}
            Ok(()) = devices.changed() => {}
        }
    }
}

struct Reporter {
    shared: Arc<Shared>,
    flags: Flags,
    network: watch::Sender<bool>,
    registered: bool,
    sent: Option<(Instant, Value)>,
}

impl Reporter {
    /// Looks, and sends what changed; says whether the node is ready.
    async fn round(&mut self) -> Result<bool, client::Error> {
        let facts = self.facts().await;
        let network = facts.network.is_ok();
        self.network.send_if_modified(|old| std::mem::replace(old, network) != network);
        let ready = facts.runtime.is_ok() && network;
        if !self.registered {
            self.register(&facts).await?;
            self.shared.csi.announce().await?;
            self.registered = true;
        }
        let mut wanted = object::status(&facts);
        // An unchanged status is sent now and then, so that its heartbeat times stay believable.
        let heartbeat = self.shared.config.node_status_report_frequency.0;
        let due = match &self.sent {
            Some((at, old)) => at.elapsed() >= heartbeat || object::differs(old, &wanted),
            None => true,
        };
        if !due {
            return Ok(ready);
        }
        let name = &self.shared.node_name;
        let current = match self.shared.client.get(resource::NODES, None, name).await {
            Err(error) if error.is_not_found() => {
                self.registered = false;
                return Err(error);
            }
            other => other?,
        };
        object::keep_transitions(&mut wanted, &current["status"]);
        let mut body = json!({"status": wanted});
        if body["status"].get("volumesInUse").is_none() {
            // What is only left out stays as it is.
            body["status"]["volumesInUse"] = Value::Null;
        }
        self.shared.client.patch(resource::NODES, None, name, Some("status"), &Patch::Strategic(body)).await?;
        self.sent = Some((Instant::now(), wanted));
        Ok(ready)
    }

    async fn facts(&self) -> object::Facts {
        let cri = &self.shared.cri;
        let answer = cri.status().await;
        let find = |kind: &str| -> Result<(), String> {
            let conditions = match &answer {
                Err(error) => return Err(format!("container runtime is down: {error}")),
                Ok(answer) => answer.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default(),
            };
            match conditions.iter().find(|c| c.r#type == kind) {
                Some(c) if c.status => Ok(()),
                Some(c) => Err(format!("container runtime {}: {} {}", kind.to_lowercase(), c.reason, c.message)),
                None => Err(format!("container runtime does not report {kind}")),
            }
        };
        let (runtime, network) = (find("RuntimeReady"), find("NetworkReady"));
        let images = if runtime.is_ok() { cri.images().await.unwrap_or_default() } else { Vec::new() };
        let answer = answer.unwrap_or_default();
        self.shared.handlers.lock().clone_from(&answer.runtime_handlers);
        let config = &self.shared.config;
        let pressure = *self.shared.pressure.borrow();
        let (mut capacity, mut allocatable) = self.shared.allocation.devices.amounts();
        capacity.append(&mut self.shared.machine.capacity(config));
        allocatable.append(&mut self.shared.machine.allocatable(config));
        object::Facts {
            now: apimachinery::time::now_rfc3339(),
            name: self.shared.node_name.clone(),
            ips: self.shared.host_ips.clone(),
            capacity,
            allocatable,
            machine: self.shared.machine.clone(),
            pressure,
            volumes_in_use: self.shared.csi.in_use(),
            shutting_down: self.shared.shutting_down.load(std::sync::atomic::Ordering::Relaxed),
            port: config.port,
            runtime_version: cri.version().await.unwrap_or_default(),
            handlers: answer.runtime_handlers,
            groups_policy: answer.features.map(|f| f.supplemental_groups_policy),
            images_max: usize::try_from(config.node_status_max_images).ok(),
            images: images
                .into_iter()
                .map(|i| object::Image { names: i.repo_digests.into_iter().chain(i.repo_tags).collect(), size: i.size })
                .collect(),
            runtime,
            network,
        }
    }

    /// Creates the Node, or gives an existing one the labels that a kubelet keeps.
    async fn register(&self, facts: &object::Facts) -> Result<(), client::Error> {
        let config = &self.shared.config;
        let mut node = object::node(facts, &self.flags.node_labels, &self.flags.register_with_taints);
        if !config.register_with_taints.is_empty() {
            let flags = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
            let all: Vec<Value> = flags.into_iter().chain(config.register_with_taints.iter().cloned()).collect();
            node["spec"]["taints"] = all.into();
        }
        if !config.provider_id.is_empty() {
            node["spec"]["providerID"] = config.provider_id.as_str().into();
        }
        if !config.register_node {
            self.shared.client.get(resource::NODES, None, &facts.name).await?;
            return Ok(());
        }
        match self.shared.client.create(resource::NODES, None, &node).await {
            Ok(_) => {
                tracing::info!(node = %facts.name, "registered");
                Ok(())
            }
            Err(error) if error.is_already_exists() => {
                let labels = json!({"metadata": {"labels": node["metadata"]["labels"]}});
                let patched =
                    self.shared.client.patch(resource::NODES, None, &facts.name, None, &Patch::Merge(labels)).await;
                patched.map(drop)
            }
            Err(error) => Err(error),
        }
    }
}

//! What all parts of the kubelet share: configuration, connections and the node's facts. No behaviour.

use std::path::PathBuf;
use std::sync::Arc;

use client::{Client, EventRecorder, Informer};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use crate::cgroups::Cgroups;
use crate::config::KubeletConfiguration;
use crate::images::Images;
use crate::node_status::Machine;
use crate::objects::Objects;
use crate::pod::Pod;
use crate::probes::tally::Tally;
use crate::runtime::Cri;
use crate::status::Publisher;
use crate::sync::fields::Surroundings;
use crate::tokens::Tokens;

/// Shared state; one for the process.
#[derive(Debug)]
pub struct Shared {
    /// The configuration file.
    pub config: KubeletConfiguration,
    /// The node's name.
    pub node_name: String,
    /// The node's addresses.
    pub host_ips: Vec<String>,
    /// Folder of pods' state.
    pub root: PathBuf,
    /// The API server.
    pub client: Client,
    /// The runtime.
    pub cri: Cri,
    /// ConfigMaps and Secrets.
    pub objects: Objects,
    /// Service-account tokens.
    pub tokens: Tokens,
    /// Image presence and pulls.
    pub images: Images,
    /// Services, for variables.
    pub services: Informer,
    /// The pods of this node.
    pub pods: Informer,
    /// Events.
    pub recorder: EventRecorder,
    /// Where pod statuses go.
    pub publisher: Publisher,
    /// Ids of containers about which the runtime had news.
    pub container_events: broadcast::Sender<String>,
    /// Whether pods can get a network.
    pub network_ready: watch::Receiver<bool>,
    /// Hardware and kernel.
    pub machine: Machine,
    /// Pod cgroups, if there are any.
    pub cgroups: Option<Cgroups>,
    /// How probes went.
    pub probe_tally: Tally,
}

impl Shared {
    /// Records an event about a pod without waiting for it.
    pub fn event(self: &Arc<Self>, pod: &Pod, warning: bool, reason: &'static str, message: impl Into<String>) {
        let object = reference(pod);
        let (shared, message) = (Arc::clone(self), message.into());
        let kind = if warning { "Warning" } else { "Normal" };
        tokio::spawn(async move { shared.recorder.event(&object, kind, reason, &message).await });
    }

    /// What the pod's fields can refer to.
    pub fn surroundings(&self, pod: &Pod, sandbox_ips: &[String]) -> Surroundings {
        Surroundings {
            node_name: self.node_name.clone(),
            host_ips: self.host_ips.clone(),
            pod_ips: if pod.spec.host_network { self.host_ips.clone() } else { sandbox_ips.to_vec() },
            allocatable: self.machine.allocatable_amounts(self.config.max_pods),
        }
    }
}

fn reference(pod: &Pod) -> Value {
    let m = &pod.metadata;
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": m.name, "namespace": m.namespace, "uid": m.uid, "resourceVersion": m.resource_version},
    })
}

//! What all parts of the kubelet share: configuration, connections and the node's facts. No behaviour.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use client::{Client, EventRecorder, Informer};
use cri_api::v1;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use crate::actions::Target;
use crate::admission;
use crate::admitted::Admitted;
use crate::allocation::Allocation;
use crate::allocation::claims::Claims;
use crate::certificates::Serving;
use crate::cgroups::Cgroups;
use crate::config::KubeletConfiguration;
use crate::images::Images;
use crate::node_status::machine::{Machine, Pressure};
use crate::node_status::object;
use crate::objects::Objects;
use crate::pod::Pod;
use crate::probes::tally::Tally;
use crate::runtime::Cri;
use crate::status::Publisher;
use crate::sync::fields::Surroundings;
use crate::sync::resources::NodeFacts;
use crate::sync::security::NodeSecurity;
use crate::tokens::Tokens;
use crate::volumes::csi::Csi;
use crate::volumes::trust_bundle::TrustBundles;

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
    /// Labels the node is registered with.
    pub node_labels: Vec<String>,
    /// The node's own object.
    pub node: Informer,
    /// Pods that were let in, with the resources they were given.
    pub admitted: Admitted,
    /// Devices, CPUs and memory that containers have for themselves.
    pub allocation: Allocation,
    /// Dynamic resources.
    pub claims: Arc<Claims>,
    /// The runtime.
    pub cri: Cri,
    /// ConfigMaps and Secrets.
    pub objects: Objects,
    /// Volumes of CSI drivers.
    pub csi: Arc<Csi>,
    /// Trust anchors.
    pub trust_bundles: TrustBundles,
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
    /// What runs short on the node.
    pub pressure: watch::Receiver<Pressure>,
    /// What the runtime's handlers can, as it said last.
    pub handlers: Mutex<Vec<v1::RuntimeHandler>>,
    /// Whether the static pods are known: before that nothing may be taken for a leftover.
    pub static_pods_read: AtomicBool,
    /// Whether the machine is being switched off: no pod is let in any more.
    pub shutting_down: AtomicBool,
    /// Hardware and kernel.
    pub machine: Machine,
    /// Pod cgroups, if there are any.
    pub cgroups: Option<Cgroups>,
    /// The certificate of the kubelet's server, where the cluster issues it.
    pub serving: Arc<Serving>,
    /// How probes went.
    pub probe_tally: Tally,
}

impl Shared {
    /// Records an event about a pod without waiting for it.
    pub fn event(self: &Arc<Self>, pod: &Pod, warning: bool, reason: impl Into<String>, message: impl Into<String>) {
        self.record(reference(pod), warning, reason.into(), message.into());
    }

    /// The same about one of its containers.
    pub fn container_event(
        self: &Arc<Self>,
        pod: &Pod,
        container: &str,
        warning: bool,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) {
        let mut object = reference(pod);
        object["fieldPath"] = pod.field_path(container).into();
        self.record(object, warning, reason.into(), message.into());
    }

    fn record(self: &Arc<Self>, object: Value, warning: bool, reason: String, message: String) {
        let shared = Arc::clone(self);
        let kind = if warning { "Warning" } else { "Normal" };
        tokio::spawn(async move { shared.recorder.event(&object, kind, &reason, &message).await });
    }

    /// Where hooks of a pod's container go.
    pub fn target(&self, pod: &Pod, id: &str, sandbox_ips: &[String]) -> Target {
        let ip = if pod.spec.host_network { self.host_ips.first() } else { sandbox_ips.first() };
        Target { id: id.to_owned(), ip: ip.cloned().unwrap_or_default() }
    }

    /// What the pod's fields can refer to.
    pub fn surroundings(&self, pod: &Pod, sandbox_ips: &[String]) -> Surroundings {
        Surroundings {
            node_name: self.node_name.clone(),
            host_ips: self.host_ips.clone(),
            pod_ips: if pod.spec.host_network { self.host_ips.clone() } else { sandbox_ips.to_vec() },
            allocatable: self.machine.allocatable(&self.config),
        }
    }

    /// What containers' resources depend on.
    pub fn node_facts(&self) -> NodeFacts {
        let config = &self.config;
        NodeFacts {
            memory: self.machine.memory,
            cgroup2: self.machine.cgroup2,
            single_process_oom: config.single_process_oom_kill.unwrap_or(!self.machine.cgroup2),
            cpu_quota: config.cpu_cfs_quota,
            swap: (config.memory_swap.swap_behavior == "LimitedSwap").then_some(self.machine.swap),
        }
    }

    /// What the node decides about containers' security.
    pub fn node_security(&self) -> NodeSecurity {
        NodeSecurity { seccomp_default: self.config.seccomp_default, seccomp_folder: self.root.join("seccomp") }
    }

    /// Whether the runtime mounts read-only recursively. Handlers of runtime classes are taken to be like the default one.
    pub fn recursive_read_only(&self) -> bool {
        let handlers = self.handlers.lock();
        let default = handlers.iter().find(|h| h.name.is_empty());
        default.and_then(|h| h.features).is_some_and(|f| f.recursive_read_only_mounts)
    }

    /// What admission knows of the node.
    ///
    /// # Errors
    /// The node's object is not there yet, and pods from the API server must not be judged without its labels.
    pub fn node_view(&self, pod: &Pod) -> Result<admission::Node, String> {
        let name = self.node_name.clone();
        let object = self.node.get("", &name);
        if object.is_none() && !pod.is_static() {
            return Err(format!("node {name:?} is not known yet"));
        }
        let own = object::own_labels(&name, &self.node_labels);
        let mut view = admission::Node {
            name,
            labels: own.into_iter().filter_map(|(k, v)| Some((k, v.as_str()?.to_owned()))).collect(),
            allocatable: self.machine.allocatable(&self.config),
            unsafe_sysctls: self.config.allowed_unsafe_sysctls.clone(),
            apparmor: self.machine.apparmor,
            pressure: *self.pressure.borrow(),
            shutting_down: self.shutting_down.load(Ordering::Relaxed),
            ..admission::Node::default()
        };
        let Some(object) = object else { return Ok(view) };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
            view.labels.insert(key.clone(), text(value));
        }
        for (key, value) in object["status"]["allocatable"].as_object().into_iter().flatten() {
            // Of the amounts that the kubelet itself measures its own word is the newest.
            // Devices of plugins are counted where they are given out.
            if !self.allocation.devices.manages(key) {
                view.allocatable.entry(key.clone()).or_insert_with(|| text(value));
            }
        }
        let taints = object["spec"]["taints"].as_array().into_iter().flatten();
        view.taints = taints.map(|t| (text(&t["key"]), text(&t["value"]), text(&t["effect"]))).collect();
        Ok(view)
    }
}

fn reference(pod: &Pod) -> Value {
    let m = &pod.metadata;
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": m.name, "namespace": m.namespace, "uid": m.uid, "resourceVersion": m.resource_version},
    })
}

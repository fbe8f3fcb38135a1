//! What the node, its pods and their containers use: gathered here once for the statistics summary ([`summary`]) and for
//! the metrics that say the same in another form.

mod host;
pub mod summary;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use cri_api::v1;
use serde_json::Value;

use super::Refusal;
use crate::observed::labels;
use crate::pod::Pod;
use crate::shared::Shared;
use crate::volumes::csi;

pub use host::{Disk, Host};

/// Processor and memory use of a cgroup. Nothing where the runtime does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// When it was measured, in nanoseconds since 1970.
    pub time: i64,
    /// Nanoseconds of processor time since the start.
    pub cpu: Option<u64>,
    /// Billionths of a processor, lately.
    pub nano_cores: Option<u64>,
    /// Bytes, caches that can be given up not counted.
    pub working_set: Option<u64>,
    /// Bytes, everything.
    pub memory: Option<u64>,
    /// Bytes of anonymous memory.
    pub rss: Option<u64>,
    /// Bytes below the limit.
    pub available: Option<u64>,
    /// Page faults, all and those that read from disk.
    pub faults: Option<(u64, u64)>,
    /// Bytes in swap.
    pub swap: Option<u64>,
}

/// One network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Bytes and errors received.
    pub received: (u64, u64),
    /// Bytes and errors sent.
    pub sent: (u64, u64),
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUse {
    /// Its name in the pod.
    pub name: String,
    /// Runtime id.
    pub id: String,
    /// Image name.
    pub image: String,
    /// RFC 3339; empty if it is not known.
    pub started_at: String,
    /// Processor and memory.
    pub usage: Usage,
    /// Bytes and inodes of its writable layer.
    pub layer: Option<(u64, u64)>,
    /// Bytes and inodes of its logs.
    pub logs: (u64, u64),
}

/// One volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeUse {
    /// Its name in the pod.
    pub name: String,
    /// The claim it is made from.
    pub claim: Option<String>,
    /// Whether it counts as the pod's ephemeral storage.
    pub ephemeral: bool,
    /// Bytes and inodes of its files.
    pub used: (u64, u64),
    /// The file system it lies on.
    pub disk: Disk,
}

/// One pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUse {
    /// Pod name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Pod uid.
    pub uid: String,
    /// Runtime id of the sandbox.
    pub sandbox: String,
    /// RFC 3339; empty if it is not known.
    pub started_at: String,
    /// All of its cgroup.
    pub usage: Usage,
    /// Its interfaces; none with the host's network.
    pub interfaces: Vec<Interface>,
    /// Number of processes.
    pub processes: Option<u64>,
    /// Its containers that run.
    pub containers: Vec<ContainerUse>,
    /// Its volumes on disk.
    pub volumes: Vec<VolumeUse>,
}

/// Asks the runtime about every pod that runs.
///
/// # Errors
/// The runtime does not answer.
pub async fn pods(shared: &Arc<Shared>) -> Result<Vec<PodUse>, Refusal> {
    let call = shared.cri.api.runtime.clone().list_pod_sandbox_stats(v1::ListPodSandboxStatsRequest::default()).await;
    let mut pods: Vec<PodUse> = match call {
        Ok(answer) => answer.into_inner().stats.into_iter().filter_map(pod).collect(),
        // A runtime that cannot count a single pod as a whole, as when pods have no cgroup of their own, refuses for all.
        Err(error) => {
            tracing::debug!(error = error.message(), "the runtime counts no pods, only containers");
            by_pod(shared.cri.stats().await.map_err(Refusal::internal)?)
        }
    };
    pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    for pod in &mut pods {
        if let Some(object) = shared.pods.get(&pod.namespace, &pod.name) {
            complete(pod, &object);
        }
    }
    let mut told = HashMap::new();
    for pod in &pods {
        told.insert(pod.uid.clone(), shared.csi.stats(&pod.uid).await);
    }
    let shared = Arc::clone(shared);
    // Sizes of folders are found by looking at every file.
    let measured = tokio::task::spawn_blocking(move || {
        for pod in &mut pods {
            measure(pod, &shared, told.get(&pod.uid).unwrap_or(&HashMap::new()));
        }
        pods
    });
    measured.await.map_err(|e| Refusal::internal(e.to_string()))
}

fn value(number: Option<v1::UInt64Value>) -> Option<u64> {
    number.map(|n| n.value)
}

fn usage(cpu: Option<v1::CpuUsage>, memory: Option<v1::MemoryUsage>, swap: Option<v1::SwapUsage>) -> Usage {
    let (cpu, memory) = (cpu.unwrap_or_default(), memory.unwrap_or_default());
    Usage {
        time: cpu.timestamp.max(memory.timestamp),
        cpu: value(cpu.usage_core_nano_seconds),
        nano_cores: value(cpu.usage_nano_cores),
        working_set: value(memory.working_set_bytes),
        memory: value(memory.usage_bytes),
        rss: value(memory.rss_bytes),
        available: value(memory.available_bytes).filter(|n| *n > 0),
        faults: value(memory.page_faults).zip(value(memory.major_page_faults)),
        swap: swap.and_then(|s| value(s.swap_usage_bytes)),
    }
}

fn pod(stats: v1::PodSandboxStats) -> Option<PodUse> {
    let attributes = stats.attributes?;
    let metadata = attributes.metadata?;
    let linux = stats.linux.unwrap_or_default();
    let network = linux.network.unwrap_or_default();
    let interfaces = network.default_interface.into_iter().chain(network.interfaces);
    Some(PodUse {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        sandbox: attributes.id,
        usage: usage(linux.cpu, linux.memory, None),
        interfaces: interfaces.map(interface).collect(),
        processes: linux.process.and_then(|p| value(p.process_count)),
        containers: linux.containers.into_iter().filter_map(container).collect(),
        ..PodUse::default()
    })
}

/// Containers put together by the pods they say they belong to.
fn by_pod(stats: Vec<v1::ContainerStats>) -> Vec<PodUse> {
    let mut pods: HashMap<String, PodUse> = HashMap::new();
    for one in stats {
        let Some(attributes) = &one.attributes else { continue };
        let label = |name: &str| attributes.labels.get(name).cloned().unwrap_or_default();
        let pod = pods.entry(label(labels::POD_UID)).or_insert_with(|| PodUse {
            name: label(labels::POD_NAME),
            namespace: label(labels::POD_NAMESPACE),
            uid: label(labels::POD_UID),
            ..PodUse::default()
        });
        pod.containers.extend(container(one));
    }
    pods.into_values().collect()
}

fn interface(i: v1::NetworkInterfaceUsage) -> Interface {
    let number = |n| value(n).unwrap_or(0);
    Interface {
        name: i.name,
        received: (number(i.rx_bytes), number(i.rx_errors)),
        sent: (number(i.tx_bytes), number(i.tx_errors)),
    }
}

fn container(stats: v1::ContainerStats) -> Option<ContainerUse> {
    let attributes = stats.attributes?;
    let layer = stats.writable_layer.map(|l| (value(l.used_bytes).unwrap_or(0), value(l.inodes_used).unwrap_or(0)));
    Some(ContainerUse {
        name: attributes.labels.get(labels::CONTAINER_NAME)?.clone(),
        id: attributes.id,
        usage: usage(stats.cpu, stats.memory, stats.swap),
        layer,
        ..ContainerUse::default()
    })
}

/// Adds what only the pod's object knows.
fn complete(pod: &mut PodUse, object: &Value) {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let status = &object["status"];
    pod.started_at = text(&status["startTime"]);
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let statuses: HashMap<&str, &Value> = lists
        .iter()
        .filter_map(|l| status[*l].as_array())
        .flatten()
        .filter_map(|s| Some((s["name"].as_str()?, s)))
        .collect();
    for container in &mut pod.containers {
        if let Some(status) = statuses.get(container.name.as_str()) {
            container.started_at = text(&status["state"]["running"]["startedAt"]);
            container.image = text(&status["image"]);
        }
    }
    for volume in object["spec"]["volumes"].as_array().into_iter().flatten() {
        let ephemeral = ["emptyDir", "configMap", "secret", "downwardAPI", "projected"];
        let claim = volume["persistentVolumeClaim"]["claimName"].as_str().map(str::to_owned);
        let ephemeral =
            ephemeral.iter().any(|kind| volume.get(kind).is_some()) && volume["emptyDir"]["medium"] != "Memory";
        if ephemeral || claim.is_some() || volume.get("csi").is_some() {
            pod.volumes.push(VolumeUse { name: text(&volume["name"]), claim, ephemeral, ..VolumeUse::default() });
        }
    }
}

/// Adds the sizes of logs and volumes; volumes that are neither mounted here nor known by their drivers drop out.
fn measure(pod: &mut PodUse, shared: &Shared, told: &HashMap<String, csi::Stats>) {
    if let Some(object) = shared.pods.get(&pod.namespace, &pod.name)
        && let Ok(typed) = Pod::from_value(&object)
    {
        let logs = typed.log_directory();
        for container in &mut pod.containers {
            container.logs = host::folder(&Path::new(&logs).join(&container.name));
        }
    }
    let folder = shared.root.join("pods").join(&pod.uid).join("volumes");
    // Below the folder of the volume's kind.
    let kinds: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    pod.volumes.retain_mut(|volume| {
        if let Some(csi::Stats { bytes, inodes }) = told.get(&volume.name) {
            volume.used = (bytes[2], inodes[2]);
            volume.disk = Disk { capacity: bytes[0], available: bytes[1], inodes: inodes[0], inodes_free: inodes[1] };
            return true;
        }
        let Some(path) = kinds.iter().map(|k| k.join(&volume.name)).find(|p| p.exists()) else { return false };
        volume.used = host::folder(&path);
        volume.disk = Disk::of(&path).unwrap_or_default();
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pods_object_completes_what_the_runtime_knows() {
        let number = |value| Some(v1::UInt64Value { value });
        let attributes = v1::ContainerAttributes {
            id: "id".into(),
            labels: HashMap::from([(labels::CONTAINER_NAME.to_owned(), "c".to_owned())]),
            ..Default::default()
        };
        let cpu = Some(v1::CpuUsage { timestamp: 5, usage_core_nano_seconds: number(7), usage_nano_cores: None });
        let stats = v1::ContainerStats { attributes: Some(attributes), cpu, ..Default::default() };
        let metadata = v1::PodSandboxMetadata { name: "p".into(), namespace: "n".into(), ..Default::default() };
        let mut pod = pod(v1::PodSandboxStats {
            attributes: Some(v1::PodSandboxAttributes { metadata: Some(metadata), ..Default::default() }),
            linux: Some(v1::LinuxPodSandboxStats { containers: vec![stats], ..Default::default() }),
        })
        .unwrap();
        complete(
            &mut pod,
            &json!({
                "spec": {"volumes": [{"name": "e", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}},
                    {"name": "d", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "h", "hostPath": {}}]},
                "status": {"startTime": "t0", "containerStatuses": [{"name": "c", "image": "i", "state": {"running": {"startedAt": "t1"}}}]},
            }),
        );
        let container = &pod.containers[0];
        assert_eq!(
            (container.started_at.as_str(), container.image.as_str(), container.usage.cpu),
            ("t1", "i", Some(7))
        );
        assert_eq!(container.usage.time, 5);
        let volumes: Vec<_> = pod.volumes.iter().map(|v| (v.name.as_str(), v.ephemeral)).collect();
        assert_eq!(volumes, [("e", true), ("d", false)]);
    }

    #[test]
    fn containers_find_their_pods() {
        let of = |pod: &str, name: &str| {
            let pairs = [(labels::POD_UID, pod), (labels::POD_NAME, pod), (labels::CONTAINER_NAME, name)];
            let labels = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let attributes = Some(v1::ContainerAttributes { labels, ..Default::default() });
            v1::ContainerStats { attributes, ..Default::default() }
        };
        let mut pods = by_pod(vec![of("a", "x"), of("b", "y"), of("a", "z")]);
        pods.sort_by_key(|p| p.name.clone());
        let names: Vec<_> = pods.iter().map(|p| (p.name.as_str(), p.containers.len())).collect();
        assert_eq!(names, [("a", 2), ("b", 1)]);
    }
}

//! What containers are given of the node beside shares: devices, CPUs and memory of their own, from NUMA nodes that fit together.
//!
//! A pod is given everything at its admission, container by container; [`topology`] chooses the nodes. What was given is
//! in checkpoint files in upstream's formats, so it survives restarts and a change of the kubelet.

mod checkpoint;
pub mod claims;
pub mod cpus;
pub mod devices;
pub mod memory;
mod numa;
pub mod pod_resources;
#[cfg(test)]
mod tests;
pub mod topology;

use std::path::Path;
use std::sync::Arc;

use cri_api::v1;

use crate::config::KubeletConfiguration;
use crate::pod::{Container, Pod};
use crate::status::compute::Failure;
use cpus::Cpus;
use cpus::set::CpuSet;
use devices::{Devices, Reusable};
use memory::Memory;
use topology::{Hint, Hints, Numa, Policy};

/// Where the kernel tells of CPUs and NUMA nodes.
pub const SYSTEM: &str = "/sys/devices/system";
/// The number of combinations doubles with each node.
pub const NUMA_NODES_MAX: u32 = 8;

/// The managers together.
#[derive(Debug)]
pub struct Allocation {
    /// Device plugins.
    pub devices: Arc<Devices>,
    /// CPUs.
    pub cpus: Cpus,
    /// Memory.
    pub memory: Memory,
    policy: Policy,
    whole_pod: bool,
    numa: Numa,
    /// Two pods must not be promised the same.
    one_at_a_time: tokio::sync::Mutex<()>,
}

fn unexpected(error: &str) -> Failure {
    Failure {
        reason: "UnexpectedAdmissionError".into(),
        message: format!("Pod was rejected: Allocate failed due to {error}, which is unexpected"),
        disruption: false,
    }
}

fn misplaced() -> Failure {
    Failure {
        reason: "TopologyAffinityError".into(),
        message: "Pod was rejected: Resources cannot be allocated with Topology locality".into(),
        disruption: false,
    }
}

impl Allocation {
    /// Takes up what the checkpoints under `root` say. `reserved` are the bytes of memory that node allocatable keeps;
    /// `system` is where the kernel tells of the machine.
    ///
    /// # Errors
    /// The machine has more NUMA nodes than hints can be computed for, or a checkpoint does not fit the configuration.
    pub fn restore(root: &Path, config: &KubeletConfiguration, system: &Path, reserved: i128) -> Result<Self, String> {
        let option = |name: &str| config.options.topology_manager_policy_options.get(name).map(String::as_str);
        let numa = numa::read(&system.join("node"), option("prefer-closest-numa-nodes") == Some("true"));
        let policy = Policy::parse(&config.topology_manager_policy).unwrap_or_default();
        let most = option("max-allowable-numa-nodes").and_then(|n| n.parse().ok()).unwrap_or(NUMA_NODES_MAX);
        if policy != Policy::None && numa.all.count() > most {
            return Err(format!("unsupported on machines with more than {most} NUMA Nodes"));
        }
        Ok(Allocation {
            devices: Arc::new(Devices::restore(&root.join("device-plugins"))),
            cpus: Cpus::restore(root, config, system)?,
            memory: Memory::restore(root, config, system, reserved)?,
            policy,
            whole_pod: policy != Policy::None && config.topology_manager_scope == "pod",
            numa,
            one_at_a_time: tokio::sync::Mutex::default(),
        })
    }

    /// Gives a pod what its containers ask for, or nothing. `live` says which pods may still hold something.
    ///
    /// # Errors
    /// Why the pod fails.
    pub async fn admit(&self, pod: &Pod, live: &(dyn Fn(&str) -> bool + Sync)) -> Result<(), Failure> {
        let _turn = self.one_at_a_time.lock().await;
        self.devices.keep_only(live);
        self.cpus.keep_only(live);
        self.memory.keep_only(live);
        let given = self.give(pod).await;
        if given.is_err() {
            self.forget(&pod.metadata.uid);
        }
        given
    }

    async fn give(&self, pod: &Pod) -> Result<(), Failure> {
        let (mut devices, mut cpus, mut memory) = (Reusable::new(), CpuSet::default(), memory::Reusable::new());
        let whole = if self.whole_pod { Some(self.settle(&self.pod_hints(pod))?) } else { None };
        for container in pod.all_containers() {
            let hint = match whole {
                Some(hint) => hint,
                None => self.settle(&self.hints(pod, container, &devices, &cpus, &memory))?,
            };
            self.cpus.allocate(pod, container, hint.nodes, &mut cpus)?;
            self.memory.allocate(pod, container, hint, &mut memory)?;
            let given = self.devices.allocate(pod, container, hint.nodes, &mut devices).await;
            given.map_err(|e| unexpected(&e))?;
        }
        Ok(())
    }

    fn hints(
        &self,
        pod: &Pod,
        container: &Container,
        devices: &Reusable,
        cpus: &CpuSet,
        memory: &memory::Reusable,
    ) -> Vec<Hints> {
        let all = self.numa.all;
        let of_cpus = self.cpus.hints(pod, Some(container), cpus, all);
        vec![
            self.devices.hints(&pod.metadata.uid, container, devices, all),
            of_cpus.into_iter().map(|hints| ("cpu".to_owned(), Some(hints))).collect(),
            self.memory.hints(pod, Some(container), memory),
        ]
    }

    fn pod_hints(&self, pod: &Pod) -> Vec<Hints> {
        let all = self.numa.all;
        let of_cpus = self.cpus.hints(pod, None, &CpuSet::default(), all);
        vec![
            self.devices.pod_hints(pod, all),
            of_cpus.into_iter().map(|hints| ("cpu".to_owned(), Some(hints))).collect(),
            self.memory.hints(pod, None, &memory::Reusable::new()),
        ]
    }

    fn settle(&self, hints: &[Hints]) -> Result<Hint, Failure> {
        if self.policy == Policy::None {
            return Ok(Hint { nodes: None, preferred: false });
        }
        let (hint, admitted) = topology::merge(self.policy, &self.numa, hints);
        if admitted { Ok(hint) } else { Err(misplaced()) }
    }

    /// Takes back what a pod was given.
    pub fn forget(&self, uid: &str) {
        self.devices.keep_only(&|other| other != uid);
        self.cpus.keep_only(&|other| other != uid);
        self.memory.keep_only(&|other| other != uid);
    }

    /// Adds what a container was given to its configuration.
    ///
    /// # Errors
    /// A device plugin refused.
    pub async fn equip(&self, pod: &Pod, name: &str, config: &mut v1::ContainerConfig) -> Result<(), String> {
        if let Some(resources) = config.linux.as_mut().and_then(|l| l.resources.as_mut()) {
            resources.cpuset_cpus = self.cpus.allowed(&pod.metadata.uid, name).to_string();
            resources.cpuset_mems = CpuSet(self.memory.nodes(&pod.metadata.uid, name).ids().collect()).to_string();
        }
        self.devices.equip(&pod.metadata.uid, name, config).await
    }
}

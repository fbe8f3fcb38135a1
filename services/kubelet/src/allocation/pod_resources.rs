//! The podresources API v1 on a socket of the node: which devices, CPUs, memory and claims containers have for themselves.
//!
//! [`Service`] answers from snapshots; [`containers`] and [`devices`] compute (pure).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use cri_api::pod_resources as api;
use cri_api::pod_resources::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use daemon::Shutdown;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::cpus::set::CpuSet;
use super::devices::pool::Pool;
use super::memory::Block;
use crate::pod::Pod;
use crate::shared::Shared;

struct Service(Arc<Shared>);

/// Serves until the end.
///
/// # Errors
/// The socket cannot be made.
pub async fn serve(shared: Arc<Shared>, shutdown: Shutdown) -> daemon::Outcome {
    let folder = shared.root.join("pod-resources");
    let listener = listen(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Server::builder()
        .add_service(PodResourcesListerServer::new(Service(shared)))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.wait())
        .await?;
    Ok(())
}

fn listen(folder: &Path) -> io::Result<UnixListener> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o750))?;
    let socket = folder.join("kubelet.sock");
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}

/// NUMA nodes as messages; a negative number stands for no node.
fn nodes<'a>(ids: impl IntoIterator<Item = &'a i64>) -> Option<api::TopologyInfo> {
    let nodes: Vec<api::NumaNode> = ids.into_iter().filter(|n| **n >= 0).map(|n| api::NumaNode { id: *n }).collect();
    (!nodes.is_empty()).then_some(api::TopologyInfo { nodes })
}

fn numbers(cpus: &CpuSet) -> Vec<i64> {
    cpus.0.iter().filter_map(|cpu| i64::try_from(*cpu).ok()).collect()
}

/// CPUs, memory and dynamic resources that a container of a pod has for itself.
type Exclusive<'a> = dyn Fn(&str) -> (CpuSet, Vec<Block>, Vec<api::DynamicResource>) + Sync + 'a;

fn memory(blocks: Vec<Block>) -> Vec<api::ContainerMemory> {
    let one = |block: Block| {
        let at: Vec<i64> = block.nodes.iter().filter_map(|n| i64::try_from(*n).ok()).collect();
        api::ContainerMemory { memory_type: block.kind, size: block.size, topology: nodes(&at) }
    };
    blocks.into_iter().map(one).collect()
}

/// A pod's containers that last, with what they have.
fn containers(pod: &Pod, pool: &Pool, exclusive: &Exclusive<'_>) -> Vec<api::ContainerResources> {
    let one = |name: &str| {
        let mut devices = Vec::new();
        for held in pool.held_by(&pod.metadata.uid, name) {
            for id in held.ids() {
                let at = held.devices.iter().filter(|(_, ids)| ids.contains(&id)).map(|(node, _)| node);
                let topology = nodes(at);
                devices.push(api::ContainerDevices {
                    resource_name: held.resource.clone(),
                    device_ids: vec![id],
                    topology,
                });
            }
        }
        let (cpus, blocks, dynamic_resources) = exclusive(name);
        let (cpu_ids, memory) = (numbers(&cpus), memory(blocks));
        api::ContainerResources { name: name.to_owned(), devices, cpu_ids, memory, dynamic_resources }
    };
    pod.lasting_containers().map(|c| one(&c.name)).collect()
}

fn described(pod: &Pod, pool: &Pool, exclusive: &Exclusive<'_>) -> api::PodResources {
    api::PodResources {
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        containers: containers(pod, pool, exclusive),
    }
}

/// Every device that could be given to a container, held or not.
fn devices(pool: &Pool) -> Vec<api::ContainerDevices> {
    let all = pool.resources.iter().flat_map(|(name, r)| r.devices.iter().map(move |(id, d)| (name, id, d)));
    all.filter(|(_, _, d)| d.healthy)
        .map(|(name, id, d)| api::ContainerDevices {
            resource_name: name.clone(),
            device_ids: vec![id.clone()],
            topology: nodes(&d.nodes),
        })
        .collect()
}

impl Service {
    fn described(&self, pod: &Pod, pool: &Pool) -> api::PodResources {
        let (given, uid) = (&self.0.allocation, &pod.metadata.uid);
        described(pod, pool, &|name| {
            let claimed = self.0.claims.described(pod, name);
            (given.cpus.exclusive(uid, name), given.memory.blocks(uid, name), claimed)
        })
    }
}

#[tonic::async_trait]
impl PodResourcesLister for Service {
    async fn list(
        &self,
        _: Request<api::ListPodResourcesRequest>,
    ) -> Result<Response<api::ListPodResourcesResponse>, Status> {
        let pool = self.0.allocation.devices.snapshot();
        let pod_resources = self.0.admitted.pods().iter().map(|pod| self.described(pod, &pool)).collect();
        Ok(Response::new(api::ListPodResourcesResponse { pod_resources }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<api::AllocatableResourcesRequest>,
    ) -> Result<Response<api::AllocatableResourcesResponse>, Status> {
        let devices = devices(&self.0.allocation.devices.snapshot());
        let cpu_ids = numbers(&self.0.allocation.cpus.allocatable());
        let memory = memory(self.0.allocation.memory.allocatable());
        Ok(Response::new(api::AllocatableResourcesResponse { devices, cpu_ids, memory }))
    }

    async fn get(
        &self,
        call: Request<api::GetPodResourcesRequest>,
    ) -> Result<Response<api::GetPodResourcesResponse>, Status> {
        let call = call.into_inner();
        let pods = self.0.admitted.pods();
        let found =
            pods.iter().find(|p| p.metadata.name == call.pod_name && p.metadata.namespace == call.pod_namespace);
        let Some(pod) = found else {
            let text = format!("pod {} in namespace {} not found", call.pod_name, call.pod_namespace);
            return Err(Status::unknown(text));
        };
        let pool = self.0.allocation.devices.snapshot();
        Ok(Response::new(api::GetPodResourcesResponse { pod_resources: Some(self.described(pod, &pool)) }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::devices::pool::{Device, Held, Resource};
    use super::*;
    use serde_json::json;

    #[test]
    fn lasting_containers_are_told_with_their_devices() {
        let spec = json!({
            "initContainers": [{"name": "once"}, {"name": "side", "restartPolicy": "Always"}],
            "containers": [{"name": "main"}],
        });
        let pod = Pod::from_value(&json!({"metadata": {"uid": "u", "name": "p", "namespace": "n"}, "spec": spec}));
        let held = Held {
            uid: "u".into(),
            container: "main".into(),
            resource: "e.com/x".into(),
            devices: [(0, vec!["a".to_owned()]), (1, vec!["a".to_owned()]), (-1, vec!["b".to_owned()])].into(),
            answer: Vec::new(),
        };
        let block = Block { nodes: vec![0, 1], kind: "memory".into(), size: 5 };
        let given = |name: &str| match name {
            "main" => (CpuSet::parse("2-3").unwrap(), vec![block.clone()], Vec::new()),
            _ => (CpuSet::default(), Vec::new(), Vec::new()),
        };
        let told = described(&pod.unwrap(), &Pool { held: vec![held], ..Pool::default() }, &given);
        assert_eq!((told.containers[0].cpu_ids.len(), &told.containers[1].cpu_ids), (0, &vec![2, 3]));
        let names: Vec<&str> = told.containers.iter().map(|c| c.name.as_str()).collect();
        assert_eq!((told.name.as_str(), names), ("p", vec!["side", "main"]));
        let memory = &told.containers[1].memory[0];
        assert_eq!((memory.memory_type.as_str(), memory.size), ("memory", 5));
        assert_eq!(memory.topology.as_ref().map(|t| t.nodes.len()), Some(2));
        let main = &told.containers[1].devices;
        let at: Vec<usize> = main.iter().map(|d| d.topology.as_ref().map_or(0, |t| t.nodes.len())).collect();
        assert_eq!(at, [2, 0]);
        assert_eq!(main[0].device_ids, ["a"]);
    }

    #[test]
    fn only_healthy_devices_can_be_given() {
        let device = |healthy| Device { healthy, nodes: vec![0] };
        let both = [("a".to_owned(), device(true)), ("b".to_owned(), device(false))].into();
        let resource = Resource { devices: both, ..Resource::default() };
        let pool = Pool { resources: [("e.com/x".to_owned(), resource)].into(), ..Pool::default() };
        assert_eq!(devices(&pool).into_iter().map(|d| d.device_ids).collect::<Vec<_>>(), [["a"]]);
    }
}

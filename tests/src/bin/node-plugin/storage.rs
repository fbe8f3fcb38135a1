//! A storage driver that speaks CSI: volumes are folders in memory, mounted for real.

use std::collections::HashMap;
use std::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use cri_api::csi::node_server::{Node, NodeServer};
use cri_api::csi::node_service_capability::rpc::Type as Ability;
use cri_api::csi::node_service_capability::{self, Rpc};
use cri_api::csi::volume_usage::Unit;
use cri_api::csi::*;
use cri_api::registration::registration_server::{Registration, RegistrationServer};
use cri_api::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tonic::{Request, Response, Status};

use super::listen;

/// A storage driver for tests.
#[derive(Clone, Args)]
pub struct Arguments {
    /// The driver's name
    #[arg(long, default_value = "csi.test.corten.local")]
    name: String,
    /// The kubelet's folder
    #[arg(long, default_value = "/var/lib/kubelet")]
    kubelet: PathBuf,
}

/// Serves until the process ends.
pub async fn serve(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let own = arguments.kubelet.join("plugins").join(&arguments.name);
    std::fs::create_dir_all(&own)?;
    let endpoint = own.join("csi.sock");
    let registration = arguments.kubelet.join("plugins_registry").join(format!("{}-reg.sock", arguments.name));
    let driver = Driver { arguments, endpoint: endpoint.clone() };
    let node = tonic::transport::Server::builder().add_service(NodeServer::new(driver.clone()));
    let register = tonic::transport::Server::builder().add_service(RegistrationServer::new(driver));
    let serving = tokio::spawn(node.serve_with_incoming(listen(&endpoint)?));
    // Last: whoever finds it calls at once.
    register.serve_with_incoming(listen(&registration)?).await?;
    serving.await??;
    Ok(())
}

#[derive(Clone)]
struct Driver {
    arguments: Arguments,
    endpoint: PathBuf,
}

#[tonic::async_trait]
impl Registration for Driver {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".into(),
            name: self.arguments.name.clone(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: vec!["1.0.0".into()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        println!("{:?}", request.into_inner());
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

fn mounted(path: &str) -> bool {
    // The node's first process has the same mounts; of this one the node's proc file system knows nothing.
    let table = std::fs::read_to_string("/proc/1/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4) == Some(path))
}

/// A folder in memory with a file for each thing that the driver was told.
fn make(path: &str, told: &HashMap<String, String>) -> Result<(), Status> {
    if mounted(path) {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(failed)?;
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("size=16m,mode=0755")).map_err(failed)?;
    for (key, value) in told {
        let file = Path::new(path).join(key.replace('/', "_"));
        std::fs::write(&file, value).map_err(failed)?;
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
    }
    Ok(())
}

fn unmount(path: &str) -> Result<(), Status> {
    if mounted(path) {
        umount2(path, MntFlags::empty()).map_err(failed)?;
    }
    Ok(())
}

#[tonic::async_trait]
impl Node for Driver {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        println!("stage {}", request.volume_id);
        make(&request.staging_target_path, &request.volume_context)?;
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        println!("unstage {}", request.volume_id);
        unmount(&request.staging_target_path)?;
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        println!("publish {} at {}", request.volume_id, request.target_path);
        let target = request.target_path.as_str();
        let inline = request.volume_context.get("csi.storage.k8s.io/ephemeral").is_some_and(|e| e == "true");
        if inline {
            make(target, &request.volume_context)?;
        } else if !mounted(target) {
            std::fs::create_dir_all(target).map_err(failed)?;
            let staging = Some(request.staging_target_path.as_str());
            mount(staging, target, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(failed)?;
        }
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        println!("unpublish {}", request.volume_id);
        unmount(&request.target_path)?;
        let _ = std::fs::remove_dir(&request.target_path);
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let found = nix::sys::statvfs::statvfs(request.into_inner().volume_path.as_str()).map_err(failed)?;
        let usage = |all: u64, free: u64, size: u64, unit: Unit| {
            let number = |n: u64| i64::try_from(n * size).unwrap_or(i64::MAX);
            VolumeUsage { total: number(all), available: number(free), used: number(all - free), unit: unit.into() }
        };
        let bytes = usage(found.blocks(), found.blocks_free(), found.fragment_size(), Unit::Bytes);
        let inodes = usage(found.files(), found.files_free(), 1, Unit::Inodes);
        Ok(Response::new(NodeGetVolumeStatsResponse { usage: vec![bytes, inodes] }))
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let capacity_bytes = request.capacity_range.map_or(0, |r| r.required_bytes);
        println!("expand {} to {capacity_bytes}", request.volume_id);
        Ok(Response::new(NodeExpandVolumeResponse { capacity_bytes }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let all = [Ability::StageUnstageVolume, Ability::GetVolumeStats, Ability::ExpandVolume];
        let one = |ability: Ability| NodeServiceCapability {
            r#type: Some(node_service_capability::Type::Rpc(Rpc { r#type: ability.into() })),
        };
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities: all.into_iter().map(one).collect() }))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Result<Response<NodeGetInfoResponse>, Status> {
        let segments = HashMap::from([("topology.test.corten.local/zone".to_owned(), "z1".to_owned())]);
        Ok(Response::new(NodeGetInfoResponse {
            node_id: format!("node-of-{}", self.arguments.name),
            max_volumes_per_node: 7,
            accessible_topology: Some(Topology { segments }),
        }))
    }
}

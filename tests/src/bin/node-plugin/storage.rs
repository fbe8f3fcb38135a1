//! A storage driver that speaks CSI: volumes are folders in memory, mounted for real.

use std::collections::HashMap;
use std::error::Error;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use cri_api::csi::node_server::{Node, NodeServer};
use cri_api::csi::node_service_capability::rpc::Type as Ability;
use cri_api::csi::node_service_capability::{self, Rpc};
use cri_api::csi::volume_capability::AccessType;
use cri_api::csi::volume_usage::Unit;
use cri_api::csi::*;
use linux::loopdev::LoopDevice;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};
use tonic::{Request, Response, Status};

use super::{listen, registration};

const NAME: &str = "csi.test.corten.local";

/// The disk behind every block volume: a file of the host with a greeting.
pub struct Disk {
    number: u64,
    _device: LoopDevice,
    _file: tempfile::NamedTempFile,
}

impl Disk {
    /// Makes it; only outside of the node are there the means.
    pub fn new() -> Result<Disk, Box<dyn Error>> {
        const SIZE: usize = 4096;
        let mut content = b"hello from a disk".to_vec();
        content.resize(SIZE, 0);
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(&content)?;
        let device = linux::loopdev::attach_read_only(file.path(), false)?;
        Ok(Disk { number: std::fs::metadata(&device.path)?.rdev(), _device: device, _file: file })
    }
}

/// Serves until the process ends.
pub async fn serve(arguments: registration::Arguments, disk: Disk) -> Result<(), Box<dyn Error>> {
    let endpoint = registration::endpoint(&arguments, NAME)?;
    let server = tonic::transport::Server::builder().add_service(NodeServer::new(Driver { disk }));
    let serving = tokio::spawn(server.serve_with_incoming(listen(&endpoint)?));
    // Last: whoever finds it calls at once.
    registration::register(&arguments, "CSIPlugin", NAME, "1.0.0", &endpoint).await?;
    serving.await??;
    Ok(())
}

struct Driver {
    disk: Disk,
}

/// Takes a request apart and writes it down by its volume.
fn heard<T>(call: &str, request: Request<T>, volume: impl Fn(&T) -> &String) -> T {
    let request = request.into_inner();
    println!("{call} {}", volume(&request));
    request
}

/// What the files of a volume say: its attributes, and where else a value came from in front of its name.
fn told(context: &HashMap<String, String>, others: &[(&str, &HashMap<String, String>)]) -> HashMap<String, String> {
    let named = others.iter().flat_map(|(from, all)| all.iter().map(move |(k, v)| (format!("{from}.{k}"), v.clone())));
    context.clone().into_iter().chain(named).collect()
}

fn is_block(capability: Option<&VolumeCapability>) -> bool {
    matches!(capability.and_then(|c| c.access_type.as_ref()), Some(AccessType::Block(_)))
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
        let request = heard("stage", request, |r| &r.volume_id);
        let told =
            told(&request.volume_context, &[("attached", &request.publish_context), ("stage", &request.secrets)]);
        match is_block(request.volume_capability.as_ref()) {
            true => Ok(Response::new(Default::default())),
            false => make(&request.staging_target_path, &told).map(|()| Response::new(Default::default())),
        }
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let request = heard("unstage", request, |r| &r.volume_id);
        unmount(&request.staging_target_path).map(|()| Response::new(Default::default()))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = heard("publish", request, |r| &r.volume_id);
        let target = request.target_path.as_str();
        let inline = request.volume_context.get("csi.storage.k8s.io/ephemeral").is_some_and(|e| e == "true");
        if is_block(request.volume_capability.as_ref()) {
            let (kind, mode) = (SFlag::S_IFBLK, Mode::from_bits_truncate(0o660));
            match mknod(target, kind, mode, self.disk.number) {
                Err(Errno::EEXIST) => {}
                other => other.map_err(failed)?,
            }
        } else if inline {
            make(target, &told(&request.volume_context, &[("publish", &request.secrets)]))?;
        } else if !mounted(target) {
            std::fs::create_dir_all(target).map_err(failed)?;
            let staging = Some(request.staging_target_path.as_str());
            mount(staging, target, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(failed)?;
        }
        Ok(Response::new(Default::default()))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = heard("unpublish", request, |r| &r.volume_id);
        unmount(&request.target_path)?;
        let _ = std::fs::remove_dir(&request.target_path).or_else(|_| std::fs::remove_file(&request.target_path));
        Ok(Response::new(Default::default()))
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
        let request = heard("expand", request, |r| &r.volume_id);
        let capacity_bytes = request.capacity_range.map_or(0, |r| r.required_bytes);
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
            node_id: format!("node-of-{NAME}"),
            max_volumes_per_node: 7,
            accessible_topology: Some(Topology { segments }),
        }))
    }
}

//! One driver: its socket and the calls that the kubelet makes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cri_api::csi::node_client::NodeClient;
use cri_api::csi::node_service_capability::Type;
use cri_api::csi::node_service_capability::rpc::Type as Ability;
use cri_api::csi::{self, volume_usage::Unit};
use tonic::transport::Channel;

use crate::plugins::Plugin;
use crate::runtime::text;

/// Calls that format, copy or attach take their time.
const SLOW: Duration = Duration::from_secs(120);
const QUICK: Duration = Duration::from_secs(10);

/// A registered driver.
#[derive(Clone, Debug)]
pub struct Driver {
    /// Its name.
    pub name: String,
    /// Its socket.
    pub endpoint: PathBuf,
    /// What it can.
    pub abilities: Vec<Ability>,
    client: NodeClient<Channel>,
}

/// Bytes and inodes: all, free and used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes.
    pub bytes: [u64; 3],
    /// Inodes.
    pub inodes: [u64; 3],
}

fn limited<T>(message: T, limit: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    request
}

impl Driver {
    /// Asks a plugin what it can and which node it takes this one for.
    ///
    /// # Errors
    /// No version of the interface in common, or no answer.
    pub async fn connect(plugin: &Plugin) -> Result<(Driver, csi::NodeGetInfoResponse), String> {
        if !plugin.versions.iter().any(|v| v.trim_start_matches('v').split('.').next() == Some("1")) {
            return Err(format!(
                "{}: versions {:?} are not supported by CSI plugin registration, only 1.x is",
                plugin.name, plugin.versions
            ));
        }
        let mut client = NodeClient::new(cri_api::connect_unix(&plugin.endpoint));
        let info = client.node_get_info(limited(csi::NodeGetInfoRequest {}, QUICK)).await;
        let info = info.map_err(|e| format!("NodeGetInfo: {}", text(e)))?.into_inner();
        if info.node_id.is_empty() {
            return Err("NodeGetInfo: node_id: empty".into());
        }
        let able = client.node_get_capabilities(limited(csi::NodeGetCapabilitiesRequest {}, QUICK)).await;
        let able = able.map_err(|e| format!("NodeGetCapabilities: {}", text(e)))?.into_inner();
        let abilities = able.capabilities.into_iter().filter_map(|c| c.r#type).map(|Type::Rpc(rpc)| rpc.r#type());
        let driver = Driver {
            name: plugin.name.clone(),
            endpoint: plugin.endpoint.clone(),
            abilities: abilities.collect(),
            client,
        };
        Ok((driver, info))
    }

    /// Whether it can.
    pub fn can(&self, ability: Ability) -> bool {
        self.abilities.contains(&ability)
    }

    /// Makes the volume usable on the node.
    pub async fn stage(&self, request: csi::NodeStageVolumeRequest) -> Result<(), String> {
        self.client.clone().node_stage_volume(limited(request, SLOW)).await.map(drop).map_err(text)
    }

    /// Undoes [`Driver::stage`].
    pub async fn unstage(&self, handle: &str, staging: &Path) -> Result<(), String> {
        let request =
            csi::NodeUnstageVolumeRequest { volume_id: handle.to_owned(), staging_target_path: path(staging) };
        self.client.clone().node_unstage_volume(limited(request, SLOW)).await.map(drop).map_err(text)
    }

    /// Makes the volume usable for a pod.
    pub async fn publish(&self, request: csi::NodePublishVolumeRequest) -> Result<(), String> {
        self.client.clone().node_publish_volume(limited(request, SLOW)).await.map(drop).map_err(text)
    }

    /// Undoes [`Driver::publish`].
    pub async fn unpublish(&self, handle: &str, target: &Path) -> Result<(), String> {
        let request = csi::NodeUnpublishVolumeRequest { volume_id: handle.to_owned(), target_path: path(target) };
        self.client.clone().node_unpublish_volume(limited(request, SLOW)).await.map(drop).map_err(text)
    }

    /// Has the file system grow; gives the size that it has then.
    pub async fn expand(&self, request: csi::NodeExpandVolumeRequest) -> Result<i64, String> {
        let answer = self.client.clone().node_expand_volume(limited(request, SLOW)).await;
        answer.map(|a| a.into_inner().capacity_bytes).map_err(text)
    }

    /// How full the volume is.
    pub async fn stats(&self, handle: &str, target: &Path, staging: &Path) -> Result<Stats, String> {
        let request = csi::NodeGetVolumeStatsRequest {
            volume_id: handle.to_owned(),
            volume_path: path(target),
            staging_target_path: self.staging(staging),
        };
        let answer = self.client.clone().node_get_volume_stats(limited(request, QUICK)).await.map_err(text)?;
        let mut stats = Stats::default();
        for usage in answer.into_inner().usage {
            let numbers = [usage.total, usage.available, usage.used].map(|n| u64::try_from(n).unwrap_or(0));
            match usage.unit() {
                Unit::Bytes => stats.bytes = numbers,
                Unit::Inodes => stats.inodes = numbers,
                Unit::Unknown => {}
            }
        }
        Ok(stats)
    }

    /// The staging path, as it goes into requests: none for a driver that does not stage.
    pub fn staging(&self, staging: &Path) -> String {
        if self.can(Ability::StageUnstageVolume) { path(staging) } else { String::new() }
    }
}

/// A path as it goes into messages.
pub fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

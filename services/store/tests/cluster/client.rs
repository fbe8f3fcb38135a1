//! Clients of one member, and short forms of requests.

use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::cluster_client::ClusterClient;
use store_api::etcdserverpb::kv_client::KvClient;
use store_api::etcdserverpb::lease_client::LeaseClient;
use store_api::etcdserverpb::maintenance_client::MaintenanceClient;
use store_api::etcdserverpb::watch_client::WatchClient;
use store_api::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// All services of one member.
#[derive(Clone)]
pub struct Clients {
    pub kv: KvClient<Channel>,
    pub lease: LeaseClient<Channel>,
    pub cluster: ClusterClient<Channel>,
    pub maintenance: MaintenanceClient<Channel>,
    pub watch: WatchClient<Channel>,
}

impl Clients {
    pub fn new(channel: Channel) -> Self {
        Clients {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            watch: WatchClient::new(channel),
        }
    }

    /// Opens a watch; the sender keeps it open.
    pub async fn watch(
        &mut self,
        create: pb::WatchCreateRequest,
    ) -> Result<(mpsc::Sender<pb::WatchRequest>, Streaming<pb::WatchResponse>), tonic::Status> {
        let (sender, requests) = mpsc::channel(4);
        let first = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        sender.send(first).await.map_err(|_| tonic::Status::cancelled("closed"))?;
        let responses = self.watch.watch(ReceiverStream::new(requests)).await?;
        Ok((sender, responses.into_inner()))
    }
}

pub fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

pub fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

pub fn prefix(key: &str) -> pb::RangeRequest {
    let mut end = key.as_bytes().to_vec();
    *end.last_mut().unwrap() += 1;
    pb::RangeRequest { range_end: end.into(), ..get(key) }
}

//! The etcd v3 API as the server uses it: ranges, three transactions, watches, leases, compaction.

use super::connector::{Connector, Member};
use super::keys;
use super::timings::Timings;
use super::versions::Versions;
use crate::config::Config;
use crate::registry::Resource;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::kv_client::KvClient;
use store_api::etcdserverpb::lease_client::LeaseClient;
use store_api::etcdserverpb::watch_client::WatchClient;
pub use store_api::mvccpb::KeyValue as Entry;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// A call that takes longer has failed; watches are exempt.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Leases are shared by the objects of one minute, so that each event does not need its own.
const LEASE_SHARE: Duration = Duration::from_secs(60);

/// Why the store did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for is gone.
    #[error("the revision has been compacted")]
    Compacted,
    /// No member answers.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// A member took too long.
    #[error("timed out")]
    Timeout,
    /// The value is over the store's limit.
    #[error("request too large")]
    TooLarge,
    /// An object is there and cannot be decrypted or decoded.
    #[error("{0}")]
    Unreadable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<Status> for StoreError {
    fn from(status: Status) -> Self {
        let message = status.message();
        match status.code() {
            Code::OutOfRange if message.contains("compacted") => StoreError::Compacted,
            Code::Unavailable | Code::Cancelled | Code::Unknown => StoreError::Unavailable(daemon::chain(&status)),
            Code::DeadlineExceeded => StoreError::Timeout,
            Code::InvalidArgument | Code::ResourceExhausted if message.contains("too large") => StoreError::TooLarge,
            _ => StoreError::Other(message.to_string()),
        }
    }
}

/// One page of a range.
#[derive(Debug)]
pub struct Page {
    /// The entries, in key order.
    pub entries: Vec<Entry>,
    /// The store's revision when it answered.
    pub revision: i64,
    /// Whether more follow.
    pub more: bool,
    /// How many the whole range holds.
    pub count: i64,
}

/// A connection to the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    kv: KvClient<Channel>,
    versions: Versions,
    leases: LeaseClient<Channel>,
    watches: WatchClient<Channel>,
    root: Arc<str>,
    lease: Arc<Mutex<Option<(i64, Instant)>>>,
    timings: Arc<Timings>,
}

impl Store {
    /// Prepares connections; they are made when first needed.
    pub fn connect(config: &Config) -> Result<Self, String> {
        let members = config.etcd_servers.iter().map(|url| Member::parse(url)).collect::<Result<Vec<_>, _>>()?;
        let identity = config.etcd_certfile.as_deref().zip(config.etcd_keyfile.as_deref());
        let tls = match &config.etcd_cafile {
            Some(ca) => {
                let mut tls = daemon::tls::client_config(ca, identity).map_err(|e| e.to_string())?;
                // gRPC servers may refuse a handshake that does not settle on HTTP/2.
                Arc::make_mut(&mut tls).alpn_protocols = vec![b"h2".to_vec()];
                Some(tls)
            }
            None => None,
        };
        let connector = Connector::new(members, tls)?;
        let (calls, streams) = (channel(connector.clone()), channel(connector));
        let kv = KvClient::new(calls.clone()).max_decoding_message_size(usize::MAX);
        Ok(Self {
            versions: Versions::new(kv.clone()),
            kv,
            leases: LeaseClient::new(calls),
            watches: WatchClient::new(streams).max_decoding_message_size(usize::MAX),
            root: config.etcd_prefix.trim_end_matches('/').into(),
            lease: Arc::default(),
            timings: Arc::default(),
        })
    }

    /// How long calls have taken.
    pub fn timings(&self) -> &Timings {
        &self.timings
    }

    /// What a call comes to, with its time recorded.
    pub async fn timed<T>(
        &self,
        operation: &'static str,
        res: &Resource,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let result = call.await;
        self.timings.record(operation, res, begun.elapsed(), result.is_err());
        result
    }

    /// The full key of an object.
    pub fn key(&self, res: &Resource, namespace: &str, name: &str) -> Vec<u8> {
        format!("{}{}", self.prefix(res), keys::relative(res, namespace, name)).into_bytes()
    }

    /// The prefix of a resource's keys.
    pub fn prefix(&self, res: &Resource) -> String {
        keys::prefix(&self.root, res)
    }

    /// The newest state of one key.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Entry>, StoreError> {
        let request = pb::RangeRequest { key: key.to_vec().into(), ..Default::default() };
        Ok(self.range_once_more(request).await?.kvs.into_iter().next())
    }

    /// The revision of the newest state of one key; `None` if there is no such key.
    pub async fn version(&self, key: Vec<u8>) -> Result<Option<i64>, StoreError> {
        Ok(self.versions.of(key).await?.key)
    }

    /// The revision of the newest committed write anywhere.
    pub async fn revision(&self) -> Result<i64, StoreError> {
        // Any key will do: the header carries the revision.
        Ok(self.versions.of(self.root.as_bytes().to_vec()).await?.store)
    }

    /// Up to `limit` entries (0: all) from `start` on, below `prefix`, as of `revision` (0: newest).
    pub async fn page(&self, prefix: &str, start: &str, limit: i64, revision: i64) -> Result<Page, StoreError> {
        let request = pb::RangeRequest {
            key: format!("{prefix}{start}").into_bytes().into(),
            range_end: keys::range_end(prefix.as_bytes()).into(),
            limit,
            revision,
            ..Default::default()
        };
        let reply = self.range_once_more(request).await?;
        Ok(Page {
            entries: reply.kvs,
            revision: reply.header.map_or(0, |h| h.revision),
            more: reply.more,
            count: reply.count,
        })
    }

    /// A read does no harm twice: one lost connection is not worth an error.
    async fn range_once_more(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, StoreError> {
        match self.range(request.clone()).await {
            Err(StoreError::Unavailable(_)) => self.range(request).await,
            other => other,
        }
    }

    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, StoreError> {
        let mut kv = self.kv.clone();
        limited(kv.range(request)).await
    }

    /// Stores a key that must not exist; `None` if it does.
    pub async fn create(&self, key: &[u8], value: Vec<u8>, lease: i64) -> Result<Option<i64>, StoreError> {
        let compare = compare(key, pb::compare::CompareTarget::Create, pb::compare::TargetUnion::CreateRevision(0));
        let reply = self.txn(vec![compare], vec![put(key, value, lease)], vec![]).await?;
        Ok(reply.succeeded.then(|| revision_of(&reply)))
    }

    /// Replaces a key that must still be at `revision`; otherwise returns what is there.
    pub async fn swap(
        &self,
        key: &[u8],
        value: Vec<u8>,
        revision: i64,
        lease: i64,
    ) -> Result<Result<i64, Option<Entry>>, StoreError> {
        let reply = self.txn(vec![at_revision(key, revision)], vec![put(key, value, lease)], vec![get(key)]).await?;
        Ok(outcome(reply))
    }

    /// Removes a key that must still be at `revision`; otherwise returns what is there.
    pub async fn remove(&self, key: &[u8], revision: i64) -> Result<Result<i64, Option<Entry>>, StoreError> {
        let delete = pb::DeleteRangeRequest { key: key.to_vec().into(), ..Default::default() };
        let delete = pb::RequestOp { request: Some(pb::request_op::Request::RequestDeleteRange(delete)) };
        let reply = self.txn(vec![at_revision(key, revision)], vec![delete], vec![get(key)]).await?;
        Ok(outcome(reply))
    }

    /// Any transaction.
    pub async fn txn(
        &self,
        compare: Vec<pb::Compare>,
        success: Vec<pb::RequestOp>,
        failure: Vec<pb::RequestOp>,
    ) -> Result<pb::TxnResponse, StoreError> {
        let mut kv = self.kv.clone();
        limited(kv.txn(pb::TxnRequest { compare, success, failure })).await
    }

    /// Forgets history up to a revision.
    pub async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        let mut kv = self.kv.clone();
        limited(kv.compact(pb::CompactionRequest { revision, physical: false })).await.map(|_| ())
    }

    /// A lease that lasts at least `ttl` seconds, shared for a minute.
    pub async fn lease(&self, ttl: i64) -> Result<i64, StoreError> {
        if let Some((id, made)) = *self.lease.lock()
            && made.elapsed() < LEASE_SHARE
        {
            return Ok(id);
        }
        let request = pb::LeaseGrantRequest { ttl: ttl + LEASE_SHARE.as_secs().cast_signed(), id: 0 };
        let mut leases = self.leases.clone();
        let id = limited(leases.lease_grant(request)).await?.id;
        *self.lease.lock() = Some((id, Instant::now()));
        Ok(id)
    }

    /// Opens a watch stream that sends what `requests` yields.
    pub async fn watch(
        &self,
        requests: tokio_stream::wrappers::ReceiverStream<pb::WatchRequest>,
    ) -> Result<tonic::Streaming<pb::WatchResponse>, StoreError> {
        let mut watches = self.watches.clone();
        Ok(watches.watch(requests).await?.into_inner())
    }
}

fn channel(connector: Connector) -> Channel {
    // The connector decides where to go; the address only fills the :authority header.
    Endpoint::from_static("http://store")
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(Some(1 << 20))
        .initial_connection_window_size(Some(8 << 20))
        .connect_with_connector_lazy(connector)
}

/// What a call answers, within the limit of every call.
pub(super) async fn limited<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Ok(reply) => Ok(reply?.into_inner()),
        Err(_) => Err(StoreError::Timeout),
    }
}

/// A condition on one key.
pub fn compare(key: &[u8], target: pb::compare::CompareTarget, value: pb::compare::TargetUnion) -> pb::Compare {
    pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: target.into(),
        key: key.to_vec().into(),
        target_union: Some(value),
        ..Default::default()
    }
}

fn at_revision(key: &[u8], revision: i64) -> pb::Compare {
    compare(key, pb::compare::CompareTarget::Mod, pb::compare::TargetUnion::ModRevision(revision))
}

/// A write in a transaction.
pub fn put(key: &[u8], value: Vec<u8>, lease: i64) -> pb::RequestOp {
    let put = pb::PutRequest { key: key.to_vec().into(), value: Bytes::from(value), lease, ..Default::default() };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
}

/// A read in a transaction.
pub fn get(key: &[u8]) -> pb::RequestOp {
    let range = pb::RangeRequest { key: key.to_vec().into(), ..Default::default() };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(range)) }
}

/// What the first read of a transaction found.
pub fn first_entry(reply: pb::TxnResponse) -> Option<Entry> {
    match reply.responses.into_iter().next()?.response? {
        pb::response_op::Response::ResponseRange(range) => range.kvs.into_iter().next(),
        _ => None,
    }
}

fn revision_of(reply: &pb::TxnResponse) -> i64 {
    reply.header.as_ref().map_or(0, |h| h.revision)
}

fn outcome(reply: pb::TxnResponse) -> Result<i64, Option<Entry>> {
    if reply.succeeded { Ok(revision_of(&reply)) } else { Err(first_entry(reply)) }
}

//! The revisions that keys are at now, asked for many callers with one call to the store.
//!
//! A read of an object that the cache holds needs to know only whether that is still the newest. Callers who come while
//! a call is under way are answered by the next one, so every answer is of a moment after its question: linearizable.

use super::etcd::{StoreError, limited};
use parking_lot::Mutex;
use std::sync::Arc;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::kv_client::KvClient;
use tokio::sync::oneshot;
use tonic::transport::Channel;

/// etcd's default for `--max-txn-ops`.
const MOST: usize = 128;

/// What the store said of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The revision of the newest committed write anywhere.
    pub store: i64,
    /// The revision of the key's newest state; `None` if there is no such key.
    pub key: Option<i64>,
}

type Question = (Vec<u8>, oneshot::Sender<Result<Version, StoreError>>);

#[derive(Default)]
struct Desk {
    waiting: Vec<Question>,
    /// Somebody asks the store for those who wait.
    attended: bool,
}

/// Asks; cheap to clone.
#[derive(Clone)]
pub struct Versions {
    kv: KvClient<Channel>,
    desk: Arc<Mutex<Desk>>,
}

impl Versions {
    /// Nobody asks yet.
    pub fn new(kv: KvClient<Channel>) -> Self {
        Self { kv, desk: Arc::default() }
    }

    /// What `key` is at.
    ///
    /// # Errors
    /// The store does not answer; a lost connection was tried once more.
    pub async fn of(&self, key: Vec<u8>) -> Result<Version, StoreError> {
        let (answer, answered) = oneshot::channel();
        let attend = {
            let mut desk = self.desk.lock();
            desk.waiting.push((key, answer));
            !std::mem::replace(&mut desk.attended, true)
        };
        if attend {
            // A task of its own: the caller may go away, and others wait.
            tokio::spawn(attend_desk(self.kv.clone(), self.desk.clone()));
        }
        answered.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the server is ending".into())))
    }
}

async fn attend_desk(kv: KvClient<Channel>, desk: Arc<Mutex<Desk>>) {
    loop {
        let questions = {
            let mut desk = desk.lock();
            let next = desk.waiting.len().min(MOST);
            if next == 0 {
                desk.attended = false;
                return;
            }
            desk.waiting.drain(..next).collect::<Vec<_>>()
        };
        let (keys, callers): (Vec<_>, Vec<_>) = questions.into_iter().unzip();
        let mut answers = match ask(&kv, keys).await {
            Ok(versions) => versions.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); callers.len()],
        };
        for (caller, answer) in callers.into_iter().zip(answers.drain(..)) {
            // Who does not wait any more needs no answer.
            let _ = caller.send(answer);
        }
    }
}

/// One transaction that only reads; a read does no harm twice, so a lost connection is tried once more.
async fn ask(kv: &KvClient<Channel>, keys: Vec<Vec<u8>>) -> Result<Vec<Version>, StoreError> {
    let count = keys.len();
    let request = pb::TxnRequest { success: keys.into_iter().map(read).collect(), ..Default::default() };
    let reply = match limited(kv.clone().txn(request.clone())).await {
        Err(StoreError::Unavailable(_)) => limited(kv.clone().txn(request)).await?,
        other => other?,
    };
    let store = reply.header.as_ref().map_or(0, |header| header.revision);
    let versions: Vec<_> = reply.responses.into_iter().filter_map(|op| found(op, store)).collect();
    if versions.len() == count {
        Ok(versions)
    } else {
        Err(StoreError::Other("the store left reads unanswered".into()))
    }
}

fn read(key: Vec<u8>) -> pb::RequestOp {
    let range = pb::RangeRequest { key: key.into(), keys_only: true, ..Default::default() };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(range)) }
}

fn found(op: pb::ResponseOp, store: i64) -> Option<Version> {
    match op.response? {
        pb::response_op::Response::ResponseRange(range) => {
            Some(Version { store, key: range.kvs.first().map(|kv| kv.mod_revision) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use std::time::Duration;
    use store_api::etcdserverpb::kv_server::{Kv, KvServer};
    use tokio::net::TcpListener;
    use tokio::sync::{Semaphore, mpsc};
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request, Response, Status};

    /// Says how many keys each call asks for, and answers it when there is a permit: revision 7, a key's is its length.
    struct Slow {
        calls: mpsc::UnboundedSender<usize>,
        permits: Arc<Semaphore>,
    }

    #[tonic::async_trait]
    impl Kv for Slow {
        async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
            let request = request.into_inner();
            self.calls.send(request.success.len()).unwrap();
            self.permits.acquire().await.unwrap().forget();
            let answers = request.success.into_iter().map(|op| {
                let Some(pb::request_op::Request::RequestRange(range)) = op.request else { panic!("not a read") };
                assert!(range.keys_only);
                let length = i64::try_from(range.key.len()).unwrap();
                let found = store_api::mvccpb::KeyValue { key: range.key, mod_revision: length, ..Default::default() };
                let kvs = if length == 0 { vec![] } else { vec![found] };
                let range = pb::RangeResponse { kvs, ..Default::default() };
                pb::ResponseOp { response: Some(pb::response_op::Response::ResponseRange(range)) }
            });
            let header = Some(pb::ResponseHeader { revision: 7, ..Default::default() });
            Ok(Response::new(pb::TxnResponse { header, succeeded: true, responses: answers.collect() }))
        }

        async fn range(&self, _: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
            Err(Status::unimplemented("range"))
        }

        async fn put(&self, _: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
            Err(Status::unimplemented("put"))
        }

        async fn delete_range(
            &self,
            _: Request<pb::DeleteRangeRequest>,
        ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
            Err(Status::unimplemented("delete"))
        }

        async fn compact(&self, _: Request<pb::CompactionRequest>) -> Result<Response<pb::CompactionResponse>, Status> {
            Err(Status::unimplemented("compact"))
        }
    }

    #[tokio::test]
    async fn who_comes_during_a_call_shares_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (calls, mut called) = mpsc::unbounded_channel();
        let permits = Arc::new(Semaphore::new(0));
        let server = KvServer::new(Slow { calls, permits: permits.clone() });
        let serving = tonic::transport::Server::builder().add_service(server);
        tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        let versions = Versions::new(KvClient::new(channel));

        let first = tokio::spawn({
            let versions = versions.clone();
            async move { versions.of(vec![b'k'; 3]).await.unwrap() }
        });
        assert_eq!(called.recv().await, Some(1));
        let rest = tokio::spawn({
            let versions = versions.clone();
            async move { join_all((0..300).map(|length| versions.of(vec![b'k'; length]))).await }
        });
        while versions.desk.lock().waiting.len() < 300 {
            tokio::task::yield_now().await;
        }
        permits.add_permits(4);
        assert_eq!(first.await.unwrap(), Version { store: 7, key: Some(3) });
        for (length, version) in (0..).zip(rest.await.unwrap()) {
            assert_eq!(version.unwrap(), Version { store: 7, key: (length > 0).then_some(length) });
        }
        assert_eq!((called.recv().await, called.recv().await, called.recv().await), (Some(128), Some(128), Some(44)));
        assert!(called.try_recv().is_err() && !versions.desk.lock().attended);

        // Nobody is left waiting when the store is gone.
        permits.close();
        assert!(tokio::time::timeout(Duration::from_secs(30), versions.of(vec![1])).await.unwrap().is_err());
    }
}

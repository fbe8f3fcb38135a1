//! What clients do: one row of the table per workload.

use std::pin::Pin;

use bytes::Bytes;
use rand::Rng;
use rand::rngs::SmallRng;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::compare::{CompareTarget, TargetUnion};
use store_api::etcdserverpb::kv_client::KvClient;
use store_api::etcdserverpb::request_op::Request;

use crate::Failure;
use crate::connection::Connection;

/// Keys that are written and read.
const KEYS: u32 = 10_000;
const VALUE_BYTES: usize = 256;
/// Objects that each client of the Kubernetes profile looks after.
const OBJECTS: usize = 20;

type Step<'c> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'c>>;

/// One kind of load.
pub struct Workload {
    /// How the row is called.
    pub name: &'static str,
    /// What must be there first.
    pub prepare: fn(Connection) -> Step<'static>,
    /// One operation.
    pub step: for<'c> fn(&'c mut Client) -> Step<'c>,
}

/// All kinds.
pub const WORKLOADS: [Workload; 5] = [
    Workload { name: "put", prepare: |_| Box::pin(async { Ok(()) }), step: |client| Box::pin(client.put()) },
    Workload { name: "range-linearizable", prepare: fill, step: |client| Box::pin(client.range(false)) },
    Workload { name: "range-serializable", prepare: fill, step: |client| Box::pin(client.range(true)) },
    Workload { name: "txn-mixed", prepare: fill, step: |client| Box::pin(client.txn()) },
    Workload {
        name: "kubernetes",
        prepare: |_| Box::pin(async { Ok(()) }),
        step: |client| Box::pin(client.kubernetes()),
    },
];

/// A client and what it remembers.
pub struct Client {
    kv: KvClient<Connection>,
    id: usize,
    random: SmallRng,
    turn: u64,
    value: Bytes,
    /// The Kubernetes profile's objects and their revisions.
    objects: Vec<(Bytes, i64)>,
}

fn key(number: u32) -> Bytes {
    Bytes::from(format!("{number:08}"))
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// Puts every key once.
fn fill(channel: Connection) -> Step<'static> {
    Box::pin(async move {
        let mut kv = KvClient::new(channel);
        let all: Vec<u32> = (0..KEYS).collect();
        for some in all.chunks(100) {
            let put = |number: &u32| {
                let value = vec![b'v'; VALUE_BYTES].into();
                op(Request::RequestPut(pb::PutRequest { key: key(*number), value, ..Default::default() }))
            };
            kv.txn(pb::TxnRequest { success: some.iter().map(put).collect(), ..Default::default() }).await?;
        }
        Ok(())
    })
}

impl Client {
    /// A client with its own random numbers.
    pub fn new(channel: Connection, id: usize, random: SmallRng) -> Self {
        let value = vec![b'v'; VALUE_BYTES].into();
        Client { kv: KvClient::new(channel), id, random, turn: 0, value, objects: Vec::new() }
    }

    fn any_key(&mut self) -> Bytes {
        key(self.random.random_range(0..KEYS))
    }

    async fn put(&mut self) -> Result<(), Failure> {
        let (key, value) = (self.any_key(), self.value.clone());
        self.kv.put(pb::PutRequest { key, value, ..Default::default() }).await?;
        Ok(())
    }

    async fn range(&mut self, serializable: bool) -> Result<(), Failure> {
        let key = self.any_key();
        self.kv.range(pb::RangeRequest { key, serializable, ..Default::default() }).await?;
        Ok(())
    }

    /// Reads and writes in turn, both as transactions.
    async fn txn(&mut self) -> Result<(), Failure> {
        self.turn += 1;
        let (key, value) = (self.any_key(), self.value.clone());
        let request = match self.turn % 2 {
            0 => Request::RequestRange(pb::RangeRequest { key, ..Default::default() }),
            _ => Request::RequestPut(pb::PutRequest { key, value, ..Default::default() }),
        };
        self.kv.txn(pb::TxnRequest { success: vec![op(request)], ..Default::default() }).await?;
        Ok(())
    }

    /// What an API server does: 90 % updates, 5 % creations, 5 % deletions, each only if nobody was faster; now and then a list.
    async fn kubernetes(&mut self) -> Result<(), Failure> {
        self.turn += 1;
        if self.turn.is_multiple_of(200) {
            let (key, range_end) = (Bytes::from_static(b"/registry/"), Bytes::from_static(b"/registry0"));
            self.kv.range(pb::RangeRequest { key, range_end, limit: 500, ..Default::default() }).await?;
            return Ok(());
        }
        let dice = self.random.random_range(0..100);
        let place = self.random.random_range(0..OBJECTS);
        match self.objects.get(place).cloned() {
            Some((key, revision)) if dice < 5 => {
                let delete = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
                self.change(key, revision, Request::RequestDeleteRange(delete)).await?;
                self.objects.swap_remove(place);
            }
            Some((key, revision)) if dice < 95 => {
                let put = pb::PutRequest { key: key.clone(), value: self.value.clone(), ..Default::default() };
                self.objects[place].1 = self.change(key, revision, Request::RequestPut(put)).await?;
            }
            _ => {
                let name = format!("/registry/{}/{}-{:x}", self.id, self.turn, self.random.random::<u32>());
                let key = Bytes::from(name);
                let put = pb::PutRequest { key: key.clone(), value: self.value.clone(), ..Default::default() };
                let revision = self.change(key.clone(), 0, Request::RequestPut(put)).await?;
                self.objects.push((key, revision));
            }
        }
        Ok(())
    }

    /// Changes a key if it was last changed at `revision`; returns the new revision.
    async fn change(&mut self, key: Bytes, revision: i64, change: Request) -> Result<i64, Failure> {
        let compare = pb::Compare {
            key: key.clone(),
            target: CompareTarget::Mod.into(),
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Default::default()
        };
        let read = op(Request::RequestRange(pb::RangeRequest { key, ..Default::default() }));
        let request = pb::TxnRequest { compare: vec![compare], success: vec![op(change)], failure: vec![read] };
        let response = self.kv.txn(request).await?.into_inner();
        if !response.succeeded {
            return Err("somebody else writes to /registry/".into());
        }
        Ok(response.header.map_or(0, |header| header.revision))
    }
}

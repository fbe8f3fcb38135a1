//! What simulated clients do, and what they may conclude from the answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use store_api::etcdserverpb::request_op::Request;

use super::cluster::{Cluster, Serving};
use crate::command::{Operation, Outcome};

const KEYS: u64 = 6;

/// Sends requests one after the other until it is told to stop.
pub async fn client(cluster: Arc<Cluster>) {
    while !cluster.stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(cluster.world.below(120))).await;
        once(&cluster).await;
    }
}

/// Sends a request; whether it was answered.
pub async fn once(cluster: &Cluster) -> bool {
    let world = &cluster.world;
    let serving = cluster.serving();
    let Some(member) = world.pick(&serving).cloned() else { return false };
    drop(serving);
    let key = format!("/k{}", world.below(KEYS));
    match world.below(20) {
        0..11 => write(cluster, member, |number| put(&key, number)).await,
        11..14 => {
            let known = world.checks.lock().model.value(key.as_bytes(), i64::MAX).map(|(_, value)| value.to_vec());
            let expected = known.unwrap_or_default();
            write(cluster, member, |number| exchange(&key, expected, number)).await
        }
        14..16 => write(cluster, member, |number| delete(&key, number)).await,
        16 if world.chance(20) => compact(cluster, member).await,
        _ => read(cluster, member, &key).await,
    }
}

fn put_request(key: &str, number: u64) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: number.to_string().into(), ..Default::default() }
}

fn put(key: &str, number: u64) -> Operation {
    Operation::Put(put_request(key, number))
}

fn operation(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn marked(number: u64) -> pb::RequestOp {
    operation(Request::RequestPut(put_request("/done", number)))
}

fn exchange(key: &str, expected: Vec<u8>, number: u64) -> Operation {
    let compare = pb::Compare {
        key: key.to_owned().into(),
        result: CompareResult::Equal.into(),
        target: CompareTarget::Value.into(),
        target_union: Some(TargetUnion::Value(expected.into())),
        ..Default::default()
    };
    let success = vec![operation(Request::RequestPut(put_request(key, number)))];
    Operation::Txn(pb::TxnRequest { compare: vec![compare], success, failure: vec![marked(number)] })
}

fn delete(key: &str, number: u64) -> Operation {
    let delete = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
    let success = vec![operation(Request::RequestDeleteRange(delete)), marked(number)];
    Operation::Txn(pb::TxnRequest { compare: Vec::new(), success, failure: Vec::new() })
}

async fn write(cluster: &Cluster, at: Serving, operation: impl FnOnce(u64) -> Operation) -> bool {
    let (world, number) = (&cluster.world, cluster.number());
    let known = world.checks.lock().known;
    world.note(|| format!("request {number} to {}", at.name));
    let outcome = at.member.propose(operation(number), None).await;
    if !world.network.lock().runs(&at.name, at.process) {
        return false;
    }
    world.note(|| format!("request {number}: {outcome:?}"));
    let header = |header: Option<pb::ResponseHeader>| header.map_or(0, |header| header.revision);
    let (revision, succeeded) = match outcome {
        Ok(Outcome::Put(answer)) => (header(answer.header), true),
        Ok(Outcome::Txn(answer)) => (header(answer.header), answer.succeeded),
        Ok(other) => {
            world.fail(format!("request {number} is answered with {other:?}"));
            return false;
        }
        // It may have happened, or may still happen.
        Err(_) => return false,
    };
    world.check(|checks| checks.acknowledged(number, known, revision, succeeded)).is_some()
}

async fn compact(cluster: &Cluster, at: Serving) -> bool {
    let revision = cluster.world.checks.lock().known - 20;
    let request = pb::CompactionRequest { revision, physical: false };
    revision > 1 && at.member.propose(Operation::Compact(request), None).await.is_ok()
}

async fn read(cluster: &Cluster, at: Serving, key: &str) -> bool {
    let world = &cluster.world;
    let known = world.checks.lock().known;
    let ready = at.member.consensus.read_barrier().await;
    if ready.is_err() || !world.network.lock().runs(&at.name, at.process) {
        return false;
    }
    let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    match at.member.state.mvcc.range(&request) {
        Ok(answer) => {
            let revision = answer.header.map_or(0, |header| header.revision);
            let found = answer.kvs.first().map(|kv| (kv.mod_revision, kv.value.as_ref()));
            world.note(|| format!("{} reads {key} at {revision}: {found:?}", at.name));
            world.check(|checks| checks.read(known, key, revision, found)).is_some()
        }
        Err(error) => {
            world.fail(format!("{} cannot read {key}: {error}", at.name));
            false
        }
    }
}

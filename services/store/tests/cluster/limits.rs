//! What one client may ask of a member, and what it costs the member when it asks for much or never listens.

use std::time::Duration;

use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::watch_request::RequestUnion;
use store_api::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::client::{Clients, get, put};
use crate::harness::{Cluster, LIMIT};

const WATCHERS: usize = 10_000;
/// What so many watchers may cost a member: a kilobyte and a half each.
const WATCHERS_BYTES: u64 = 15 << 20;
/// What a client that never reads may cost a member, however much it misses.
const DEAF_BYTES: u64 = 48 << 20;

type Open = (mpsc::Sender<pb::WatchRequest>, Streaming<pb::WatchResponse>);

fn create(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.to_owned().into(), ..Default::default() }
}

async fn open(mut clients: Clients, key: &str) -> Open {
    let (sender, mut responses) = clients.watch(create(key)).await.unwrap();
    assert!(next(&mut responses).await.created);
    (sender, responses)
}

async fn next(responses: &mut Streaming<pb::WatchResponse>) -> pb::WatchResponse {
    let message = tokio::time::timeout(LIMIT, responses.message()).await.expect("in time");
    message.unwrap().expect("the watch goes on")
}

async fn send(sender: &mpsc::Sender<pb::WatchRequest>, request: RequestUnion) {
    sender.send(pb::WatchRequest { request_union: Some(request) }).await.unwrap();
}

#[tokio::test]
async fn a_stream_has_so_many_watchers_and_a_connection_so_many_streams() {
    let cluster = Cluster::start(1, 0, &["--max-watchers-per-stream=2", "--max-concurrent-streams=2"]).await;
    let clients = cluster.clients(0);
    let (sender, mut responses) = open(clients.clone(), "/k").await;
    send(&sender, RequestUnion::CreateRequest(create("/k"))).await;
    assert!(!next(&mut responses).await.canceled);
    send(&sender, RequestUnion::CreateRequest(create("/k"))).await;
    let refused = next(&mut responses).await;
    assert!(refused.created && refused.canceled, "{refused:?}");
    assert!(refused.cancel_reason.contains("etcdserver: too many requests"), "{refused:?}");
    send(&sender, RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 0 })).await;
    assert!(next(&mut responses).await.canceled);
    send(&sender, RequestUnion::CreateRequest(create("/k"))).await;
    assert!(!next(&mut responses).await.canceled);

    let second = open(clients.clone(), "/k").await;
    let mut third = std::pin::pin!(open(clients, "/k"));
    let waits = tokio::time::timeout(Duration::from_millis(300), third.as_mut()).await;
    assert!(waits.is_err(), "a third stream on the same connection");
    drop(second);
    tokio::time::timeout(LIMIT, third).await.expect("room for another stream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_watchers_cost_little() {
    let cluster = Cluster::start(1, 0, &[]).await;
    let mut kv = cluster.clients(0).kv;
    let before = cluster.memory(0, "VmRSS");
    let (sender, mut responses) = open(cluster.clients(0), "/k").await;
    for _ in 1..WATCHERS {
        send(&sender, RequestUnion::CreateRequest(create("/k"))).await;
        assert!(next(&mut responses).await.created);
    }
    for turn in 0..3 {
        kv.put(put("/k", &turn.to_string())).await.unwrap();
        let mut told = vec![false; WATCHERS];
        for _ in 0..WATCHERS {
            let response = next(&mut responses).await;
            assert_eq!((response.events.len(), response.events[0].r#type()), (1, EventType::Put));
            told[usize::try_from(response.watch_id).unwrap()] = true;
        }
        assert!(told.iter().all(|told| *told), "everyone is told once");
    }
    let rise = cluster.memory(0, "VmRSS").saturating_sub(before);
    println!("{WATCHERS} watchers: {} KiB", rise >> 10);
    assert!(rise < WATCHERS_BYTES, "{WATCHERS} watchers cost {rise} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_reads_costs_little_and_keeps_nobody_waiting() {
    let cluster = Cluster::start(1, 0, &[]).await;
    let mut kv = cluster.clients(0).kv;
    let value = "v".repeat(512 << 10);
    let write = async |kv: &mut store_api::etcdserverpb::kv_client::KvClient<_>, count: usize| {
        for _ in 0..count {
            kv.put(put("/k", &value)).await.unwrap();
        }
    };
    // What writing itself costs.
    write(&mut kv, 200).await;
    let before = cluster.memory(0, "VmRSS");
    let mut deaf = Vec::new();
    for _ in 0..5 {
        deaf.push(open(cluster.clients(0), "/k").await);
    }
    let (_open, mut listening) = open(cluster.clients(0), "/k").await;
    write(&mut kv, 400).await;
    let newest = kv.range(get("/k")).await.unwrap().into_inner().kvs[0].mod_revision;
    let mut seen = 0;
    while seen < newest {
        seen = next(&mut listening).await.events.last().unwrap().kv.as_ref().unwrap().mod_revision;
    }
    let rise = cluster.memory(0, "VmRSS").saturating_sub(before);
    println!("{} who never read: {} KiB", deaf.len(), rise >> 10);
    assert!(rise < DEAF_BYTES, "{} who never read cost {rise} bytes", deaf.len());
}

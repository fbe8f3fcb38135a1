//! The defects that etcd's own robustness tests have found, each as a scenario by its issue's number. Those that need luck or
//! many clients (lost and repeated writes under faults, members that differ) are what [`crate::faults`] looks for.

use std::time::Duration;

use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::watch_request::RequestUnion;
use store_api::mvccpb::event::EventType;
use tonic::Streaming;

use crate::client::{get, put};
use crate::harness::{Cluster, LIMIT};

async fn next(responses: &mut Streaming<pb::WatchResponse>) -> pb::WatchResponse {
    let message = tokio::time::timeout(LIMIT, responses.message()).await.expect("in time");
    message.unwrap().expect("the watch goes on")
}

fn watch_from(key: &str, start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.to_owned().into(), start_revision, ..Default::default() }
}

/// 18089 and 19179: a compaction at the revision of a delete took the delete away from who watches from that revision on.
#[tokio::test]
async fn a_delete_at_the_compacted_revision_is_still_told() {
    let mut cluster = Cluster::start(1, 0, &[]).await;
    let mut clients = cluster.clients(0);
    clients.kv.put(put("/k", "v")).await.unwrap();
    clients.kv.delete_range(pb::DeleteRangeRequest { key: "/k".into(), ..Default::default() }).await.unwrap();
    clients.kv.put(put("/other", "v")).await.unwrap();
    clients.kv.compact(pb::CompactionRequest { revision: 3, physical: true }).await.unwrap();
    for restarted in [false, true] {
        if restarted {
            cluster.kill(0);
            cluster.start_member(0);
            cluster.wait_ready(0).await;
        }
        let (_open, mut responses) = cluster.clients(0).watch(watch_from("/k", 3)).await.unwrap();
        assert!(next(&mut responses).await.created);
        let told = next(&mut responses).await;
        let event = told.events.first().unwrap_or_else(|| panic!("{told:?}"));
        assert_eq!((event.r#type(), event.kv.as_ref().unwrap().mod_revision), (EventType::Delete, 3));
    }
}

/// 17780: when all that was written last had been deleted and compacted, a restart took the revision back.
#[tokio::test]
async fn the_revision_never_goes_back() {
    let mut cluster = Cluster::start(1, 0, &[]).await;
    let mut kv = cluster.clients(0).kv;
    for _ in 0..3 {
        kv.put(put("/k", "v")).await.unwrap();
    }
    kv.delete_range(pb::DeleteRangeRequest { key: "/k".into(), ..Default::default() }).await.unwrap();
    kv.compact(pb::CompactionRequest { revision: 5, physical: true }).await.unwrap();
    cluster.clients(0).maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
    for _ in 0..2 {
        cluster.kill(0);
        cluster.start_member(0);
        cluster.wait_ready(0).await;
        let answer = cluster.clients(0).kv.range(get("/k")).await.unwrap().into_inner();
        assert_eq!((answer.header.unwrap().revision, answer.count), (5, 0));
    }
    let written = cluster.clients(0).kv.put(put("/k", "again")).await.unwrap().into_inner();
    assert_eq!(written.header.unwrap().revision, 6);
}

/// 15220: a progress notification that was asked for overtook events that were on their way to the same watcher.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_does_not_overtake_events() {
    const WRITES: i64 = 400;
    let cluster = Cluster::start(1, 0, &["--watch-progress-notify-interval=100ms"]).await;
    let create = pb::WatchCreateRequest { range_end: "/l".into(), progress_notify: true, ..watch_from("/k", 1) };
    let (open, mut responses) = cluster.clients(0).watch(create).await.unwrap();
    let mut kv = cluster.clients(0).kv;
    let writing = tokio::spawn(async move {
        for turn in 0..WRITES {
            // Large enough that the watcher lags.
            kv.put(put(&format!("/k{turn}"), &"v".repeat(10_000))).await.unwrap();
        }
    });
    let asking = tokio::spawn(async move {
        let ask =
            || pb::WatchRequest { request_union: Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})) };
        // Until the watcher has seen enough and hangs up.
        while open.send(ask()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let (mut seen, mut promised, mut notified) = (1, 0, 0);
    while seen < WRITES + 1 || notified < 2 {
        let response = next(&mut responses).await;
        let events: Vec<i64> = response.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect();
        if events.is_empty() && !response.created {
            notified += 1;
            promised = response.header.unwrap().revision;
        }
        for revision in events {
            assert!(revision > promised, "the event of {revision} after progress to {promised}");
            assert_eq!(revision, seen + 1, "no event is left out");
            seen = revision;
        }
        assert!(promised <= seen, "progress to {promised} before the event of {}", seen + 1);
    }
    writing.await.unwrap();
    asking.abort();
}

/// 14370: a member that is alone acknowledged a write before it was on the disk. And stale reads: a member that was restarted
/// answered from what it had applied before.
#[tokio::test]
async fn what_was_acknowledged_is_read_after_a_restart() {
    for size in [1, 3] {
        let mut cluster = Cluster::start(size, 0, &[]).await;
        for turn in 0..5 {
            let member = turn % size;
            let writer = (member + size - 1) % size;
            let value = turn.to_string();
            cluster.clients(writer).kv.put(put("/k", &value)).await.unwrap();
            cluster.kill(member);
            cluster.start_member(member);
            cluster.wait_ready(member).await;
            let found = cluster.clients(member).kv.range(get("/k")).await.unwrap().into_inner();
            assert_eq!(found.kvs[0].value, value.as_bytes(), "member {member} of {size}");
        }
    }
}

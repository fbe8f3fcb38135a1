//! Snapshots of large stores: streamed with flat memory, restored, and handed to a new member.
//!
//! `STORE_SNAPSHOT_MB=1024` makes the store as large as the long mode wants it.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::request_op::Request;
use tokio::io::AsyncWriteExt;

use crate::harness::Cluster;
use crate::membership::add;

const VALUE_BYTES: usize = 32 << 10;
const VALUES_PER_TXN: usize = 32;
/// What streaming may cost a member, however large its store is.
const EXTRA_BYTES: u64 = 48 << 20;

/// Puts so many megabytes that cannot be compressed.
async fn fill(cluster: &Cluster, megabytes: usize) {
    let mut random = SmallRng::seed_from_u64(1);
    let mut kv = cluster.clients(0).kv;
    for txn in 0..(megabytes << 20) / (VALUE_BYTES * VALUES_PER_TXN) {
        let put = |place: usize| {
            let mut value = vec![0; VALUE_BYTES];
            random.fill(&mut value[..]);
            let key = format!("/large/{txn}/{place}").into();
            let put = pb::PutRequest { key, value: value.into(), ..Default::default() };
            pb::RequestOp { request: Some(Request::RequestPut(put)) }
        };
        let success = (0..VALUES_PER_TXN).map(put).collect();
        kv.txn(pb::TxnRequest { success, ..Default::default() }).await.unwrap();
    }
}

/// Runs `work` and checks how far a member's memory rose meanwhile.
async fn flat<T>(cluster: &Cluster, what: &str, work: impl Future<Output = T>) -> T {
    let before = cluster.memory(0, "VmRSS");
    cluster.forget_peak(0);
    let started = Instant::now();
    let done = work.await;
    let peak = cluster.memory(0, "VmHWM");
    let rise = peak.saturating_sub(before);
    println!("{what}: {:?}, {} MiB before, {} MiB more at the peak", started.elapsed(), before >> 20, rise >> 20);
    assert!(rise < EXTRA_BYTES, "{what} costs {rise} bytes");
    done
}

async fn save(cluster: &Cluster, file: &Path) -> u64 {
    let mut stream = cluster.clients(0).maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
    let mut out = tokio::fs::File::create(file).await.unwrap();
    let mut length = 0;
    while let Some(chunk) = stream.message().await.unwrap() {
        length += chunk.blob.len() as u64;
        out.write_all(&chunk.blob).await.unwrap();
    }
    out.flush().await.unwrap();
    length
}

async fn hash(cluster: &Cluster) -> (u32, i64) {
    let hash = cluster.clients(0).maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    (hash.hash, hash.header.unwrap().revision)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_store_is_saved_restored_and_handed_on_with_flat_memory() {
    let megabytes = std::env::var("STORE_SNAPSHOT_MB").map_or(96, |text| text.parse().expect("STORE_SNAPSHOT_MB"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot.db");
    let mut cluster = Cluster::start(1, 1, &[]).await;
    fill(&cluster, megabytes).await;
    let length = flat(&cluster, "saving", save(&cluster, &file)).await;
    assert!(length >= (megabytes as u64) << 20, "{length} bytes");

    let mut restored = Cluster::prepare(1, 0, &[]).await;
    restored.nodes[0].restore(&file, &restored.nodes[0].first_flag(), &[]).await.unwrap();
    restored.start_member(0);
    restored.wait_ready(0).await;
    assert_eq!(hash(&restored).await, hash(&cluster).await);
    drop(restored);

    add(&cluster, 0, 1, false).await.unwrap();
    cluster.will_join(1, &[0]);
    cluster.start_member(1);
    let joined = async {
        let deadline = Instant::now() + Duration::from_secs(300);
        let ready = pb::RangeRequest { key: "ready".into(), ..Default::default() };
        while cluster.clients(1).kv.range(ready.clone()).await.is_err() {
            assert!(Instant::now() < deadline, "the new member does not get it:\n{}", cluster.log(1));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    flat(&cluster, "handing on", joined).await;
    cluster.agree().await;
}

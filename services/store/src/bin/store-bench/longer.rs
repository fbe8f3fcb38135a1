//! Rows that are no load for a while, but a course of events: many puts with compaction, and leaders that die.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::kv_client::KvClient;
use tokio::task::JoinSet;

use crate::Failure;
use crate::connection::Connection;
use crate::load::Figures;
use crate::target::Target;

/// The rows' names.
pub const PUTS: &str = "puts-and-compaction";
pub const FAIL_OVER: &str = "leader-kill";

const KEYS: u64 = 10_000;
const VALUE_BYTES: usize = 256;
const CLIENTS: usize = 100;
/// After so many puts everything but the newest values is compacted away.
const COMPACT_EVERY: u64 = 50_000;

/// Puts `count` values on [`KEYS`] keys, compacting now and then; the members' memory afterwards is what counts.
///
/// # Errors
/// The server refused something.
pub async fn puts(target: &Target, count: u64) -> Result<Figures, Failure> {
    let connections = target.connect(CLIENTS).await?;
    let (next, start) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut clients = JoinSet::new();
    for channel in connections {
        clients.spawn(put_share(channel, next.clone(), count));
    }
    let mut times = Vec::new();
    while let Some(ended) = clients.join_next().await {
        times.extend(ended??);
    }
    let name = format!("{PUTS}, {count} puts");
    Ok(Figures::new(name, times, start.elapsed()))
}

async fn put_share(channel: Connection, next: Arc<AtomicU64>, count: u64) -> Result<Vec<Duration>, Failure> {
    let mut kv = KvClient::new(channel);
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    let mut times = Vec::new();
    loop {
        let turn = next.fetch_add(1, Ordering::Relaxed);
        if turn >= count {
            return Ok(times);
        }
        let put =
            pb::PutRequest { key: format!("{:08}", turn % KEYS).into(), value: value.clone(), ..Default::default() };
        let start = Instant::now();
        let header = kv.put(put).await?.into_inner().header;
        times.push(start.elapsed());
        if (turn + 1).is_multiple_of(COMPACT_EVERY) {
            let revision = header.ok_or("an answer without a header")?.revision;
            kv.compact(pb::CompactionRequest { revision, physical: false }).await?;
        }
    }
}

/// Kills the leader `count` times; each time is from the kill to the first write that succeeds.
///
/// # Errors
/// The members were not started here, or nobody takes over.
pub async fn fail_over(target: &mut Target, count: usize) -> Result<Figures, Failure> {
    let (mut times, start) = (Vec::new(), Instant::now());
    for _ in 0..count {
        times.push(target.fail_over().await?);
    }
    Ok(Figures::new(format!("{FAIL_OVER}, {count} times"), times, start.elapsed()))
}

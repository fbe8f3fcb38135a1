//! Forgets the store's history at intervals. Several servers agree through one key on whose turn it is, as upstream does.

use super::etcd::{self, Store, StoreError};
use std::time::Duration;
use store_api::etcdserverpb::compare::{CompareTarget, TargetUnion};

const KEY: &[u8] = b"compact_rev_key";

/// Runs until `shutdown`.
pub async fn run(store: Store, every: Duration, shutdown: daemon::Shutdown) {
    if every.is_zero() {
        return;
    }
    let (mut turn, mut revision) = (0, 0);
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(every) => {}
        }
        match round(&store, turn, revision).await {
            Ok(next) => (turn, revision) = next,
            Err(error) => tracing::warn!(%error, "compaction"),
        }
    }
}

/// One round: whoever raises the key's version compacts to the revision seen one interval ago; the others learn where things stand.
async fn round(store: &Store, turn: i64, revision: i64) -> Result<(i64, i64), StoreError> {
    let mine = etcd::compare(KEY, CompareTarget::Version, TargetUnion::Version(turn));
    let reply =
        store.txn(vec![mine], vec![etcd::put(KEY, revision.to_string().into_bytes(), 0)], vec![etcd::get(KEY)]).await?;
    let now = reply.header.as_ref().map_or(0, |h| h.revision);
    if !reply.succeeded {
        return Ok((etcd::first_entry(reply).map_or(0, |entry| entry.version), now));
    }
    if revision > 0 {
        match store.compact(revision).await {
            Ok(()) => tracing::debug!(revision, "history compacted"),
            Err(StoreError::Compacted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((turn + 1, now))
}

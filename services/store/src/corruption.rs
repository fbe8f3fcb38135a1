//! Whether all members hold the same: the leader compares checksums over the history from time to time and raises the
//! CORRUPT alarm for members that differ from the majority.

use std::collections::BTreeMap;
use std::sync::Arc;

use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::maintenance_client::MaintenanceClient;

use crate::command::{Operation, Proposal};
use crate::error::{Error, Refusal};
use crate::member::Member;
use crate::mvcc::Mvcc;
use crate::raft::transport::Lane;

/// A checksum, and what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    hash: u32,
    compacted: i64,
}

/// Members that differ: from the majority, or from the leader where there is none. Sums after different compactions
/// cannot be compared.
fn differing(leader: u64, sums: &BTreeMap<u64, Sum>) -> Vec<u64> {
    let Some(own) = sums.get(&leader) else { return Vec::new() };
    let comparable = || sums.iter().filter(|(_, sum)| sum.compacted == own.compacted);
    let votes = |hash: u32| comparable().filter(|(_, sum)| sum.hash == hash).count();
    let all = comparable().count();
    let right = comparable().map(|(_, sum)| sum.hash).find(|hash| votes(*hash) * 2 > all).unwrap_or(own.hash);
    comparable().filter(|(_, sum)| sum.hash != right).map(|(id, _)| *id).collect()
}

/// Compares whenever the time has come and this member leads, until `shutdown`.
pub(crate) async fn watch(member: Arc<Member>, shutdown: daemon::Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(member.config.cluster.corrupt_check_time) => {}
        }
        if member.consensus.is_leader()
            && !member.consensus.transport().alone()
            && let Err(error) = compare(&member).await
        {
            tracing::warn!(%error, "the members' contents were not compared");
        }
    }
}

async fn compare(member: &Arc<Member>) -> Result<(), Error> {
    let revision = member.state.mvcc.revision();
    let mut sums = BTreeMap::from([(member.identity.member, own(member, revision).await?)]);
    for (id, ..) in member.consensus.members() {
        if id == member.identity.member {
            continue;
        }
        let mut peer = MaintenanceClient::new(member.consensus.transport().channel(id, Lane::Snapshots)?);
        match tokio::time::timeout(member.consensus.limit(), peer.hash_kv(pb::HashKvRequest { revision })).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                sums.insert(id, Sum { hash: answer.hash, compacted: answer.compact_revision });
            }
            // It is away or behind; the next comparison may find it.
            Ok(Err(error)) => tracing::debug!(member = %format!("{id:x}"), %error, "no checksum"),
            Err(_) => tracing::debug!(member = %format!("{id:x}"), "no checksum in time"),
        }
    }
    for id in differing(member.identity.member, &sums) {
        tracing::error!(member = %format!("{id:x}"), revision, ?sums, "contents differ: raising the CORRUPT alarm");
        let alarm = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Activate.into(),
            member_id: id,
            alarm: pb::AlarmType::Corrupt.into(),
        };
        member.consensus.propose(Proposal::by_store(Operation::Alarm(alarm))).await?;
    }
    tracing::info!(revision, members = sums.len(), "compared the members' contents");
    Ok(())
}

async fn own(member: &Arc<Member>, revision: i64) -> Result<Sum, Error> {
    settled(member).await;
    let mvcc = member.state.mvcc.clone();
    let hash = tokio::task::spawn_blocking(move || sum(&mvcc, revision));
    let (hash, _, compacted) = hash.await.map_err(|e| Error::Consensus(e.to_string()))??;
    Ok(Sum { hash, compacted })
}

/// The checksum over the history up to `revision` (0: all), that revision, and the compaction it is behind. Blocks.
///
/// # Errors
/// The revision cannot be read, it was compacted meanwhile, or the disk failed.
pub(crate) fn sum(mvcc: &Mvcc, revision: i64) -> Result<(u32, i64, i64), Error> {
    let compacted = mvcc.compacted();
    let (hash, at) = mvcc.hash(revision)?;
    if mvcc.compacted() == compacted { Ok((hash, at, compacted)) } else { Err(Refusal::Compacted.into()) }
}

/// Returns when no compaction is half done: until then equal members have different records.
pub(crate) async fn settled(member: &Member) {
    let mut done = member.state.compacted.subscribe();
    // An error means that the member is closing.
    let _ = done.wait_for(|done| *done >= member.state.mvcc.compacted()).await;
}

/// Waits until this member has applied at least this revision, for at most one request's time.
pub(crate) async fn reached(member: &Member, revision: i64) {
    let mut published = member.state.hub.subscribe();
    // Too late is the caller's "future revision".
    let _ = tokio::time::timeout(member.consensus.limit() / 2, published.wait_for(|r| *r >= revision)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minority_is_wrong() {
        let sums = |list: &[(u64, u32, i64)]| -> BTreeMap<u64, Sum> {
            list.iter().map(|(id, hash, compacted)| (*id, Sum { hash: *hash, compacted: *compacted })).collect()
        };
        type Case<'a> = (&'a [(u64, u32, i64)], &'a [u64]);
        let cases: [Case; 6] = [
            (&[(1, 7, 0), (2, 7, 0), (3, 7, 0)], &[]),
            (&[(1, 7, 0), (2, 7, 0), (3, 8, 0)], &[3]),
            (&[(1, 8, 0), (2, 7, 0), (3, 7, 0)], &[1]),
            (&[(1, 7, 0), (2, 8, 0)], &[2]),
            (&[(1, 7, 0), (2, 8, 5)], &[]),
            (&[(2, 8, 5)], &[]),
        ];
        for (list, expected) in cases {
            assert_eq!(differing(1, &sums(list)), expected, "{list:?}");
        }
    }
}

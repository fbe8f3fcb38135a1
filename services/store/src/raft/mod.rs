//! Consensus: openraft over one RocksDB. The rest of the crate sees [`Consensus`] only.
//!
//! A member that does not lead hands proposals and questions to the one that does ([`transport`], [`wire`]); reads of its
//! own state wait until it has applied what the leader had committed. What openraft 0.10 does not offer: a leader without a
//! quorum does not step down by itself (it refuses proposals and falls silent), and a transfer of the leadership is a
//! request without an answer, so its success is seen only by who leads afterwards.
//!
//! Life of a proposal: [`Consensus::propose`] → [`batch`] (one entry for all that wait) → openraft → [`log::LogStore`] →
//! [`writer`] (one write to [`crate::wal`], and one sync on a thread of its own) → committed →
//! [`state_machine::StateMachine`] → [`writer`] again (applied in memory; a flush now and then makes it durable, and until
//! then the log can repeat it) → reply. All of it but the sync happens on one [`thread`].

pub mod apply;
pub mod batch;
mod consensus;
pub mod log;
pub mod membership;
pub mod network;
mod pipeline;
#[cfg(test)]
mod sim;
pub mod state_machine;
pub mod thread;
pub mod transfer;
pub mod transport;
pub mod wire;
pub mod writer;

use std::sync::Arc;

use openraft::vote::RaftLeaderId;
use openraft::{Config, SnapshotPolicy};

use crate::command::{Command, Reply};
use crate::error::Error;
use membership::MemberNode;

pub use consensus::{Answer, Consensus};

openraft::declare_raft_types!(
    /// The types this store gives openraft.
    pub Types:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = MemberNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = thread::Runtime,
);

/// Whether this thread simulates a cluster.
#[cfg(test)]
pub(crate) fn in_simulation() -> bool {
    sim::active()
}

/// Identifies a log entry.
pub type LogId = openraft::type_config::alias::LogIdOf<Types>;
/// A log entry.
pub type Entry = openraft::type_config::alias::EntryOf<Types>;
/// A vote.
pub type Vote = openraft::type_config::alias::VoteOf<Types>;
/// A membership and the entry it came with.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;

/// A log id from its parts.
pub fn log_id(term: u64, index: u64) -> LogId {
    // Only the term identifies a leader in standard Raft; the member id does not reach the log id.
    let leader = openraft::impls::leader_id_std::LeaderId::new(term, 0);
    LogId { leader_id: leader.to_committed(), index }
}

/// The term in which an entry was proposed.
pub fn term(id: &LogId) -> u64 {
    *id.leader_id
}

/// Timing and limits; heartbeat and election in milliseconds.
///
/// `election` is the time from a leader's last sign of life to the end of the vote for the next one: a follower trusts
/// its leader for 40 % of it and then waits another 20 to 40 % before it asks for votes, which leaves the rest for two
/// rounds of questions and two syncs. etcd begins to ask only after one to two of these times.
pub fn config(cluster: u64, heartbeat: u64, election: u64, snapshot_count: u64) -> Result<Arc<Config>, Error> {
    let config = Config {
        cluster_name: format!("{cluster:x}"),
        heartbeat_interval: heartbeat,
        election_timeout_min: (election / 5).max(heartbeat + 1),
        election_timeout_max: election * 2 / 5,
        // No one who cannot win disturbs a leader, and a leader without a quorum falls silent so that others can elect.
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(election),
        // Applied entries reach the disk with a later sync: after a restart only a vote shows what was committed.
        enable_leader_restore: Some(false),
        max_payload_entries: 1024,
        // A "snapshot" costs nothing here (the state machine is on disk already); it only lets the log be purged.
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_count),
        // One entry may carry a megabyte, so only a few are kept for members that are just behind.
        max_in_snapshot_log_to_keep: snapshot_count.min(1000),
        replication_lag_threshold: snapshot_count.saturating_mul(2).max(10_000),
        purge_batch_size: 128,
        // Sized for a control plane; the defaults reserve megabytes.
        api_channel_size: Some(4096),
        notification_channel_size: Some(4096),
        // Only kept for statistics that are compiled out.
        log_stage_capacity: Some(1),
        ..Config::default()
    };
    Ok(Arc::new(config.validate().map_err(|e| Error::Layout(e.to_string()))?))
}

/// Entries are counted by the snapshot policy, but one entry may carry a megabyte: lets the log be purged when it has grown
/// by a certain size, too.
pub async fn purge_by_size(raft: openraft::Raft<Types, state_machine::StateMachine>, writer: writer::Writer) {
    loop {
        writer.grown().await;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

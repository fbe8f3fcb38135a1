//! Consensus: openraft over one RocksDB. The rest of the crate sees [`Consensus`] only.
//!
//! Life of a proposal: [`Consensus::propose`] → [`batch`] (one entry for all that wait) → openraft → [`log::LogStore`] →
//! [`writer`] (one write, and one sync on a thread of its own) → committed → [`state_machine::StateMachine`] → [`writer`]
//! again (applied, not synced: the log's next sync covers it, and until then the log can repeat it) → reply. All of it but
//! the sync happens on one [`thread`].

pub mod apply;
pub mod batch;
pub mod log;
pub mod membership;
pub mod network;
pub mod state_machine;
pub mod thread;
pub mod writer;

use std::sync::Arc;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::vote::RaftLeaderId;
use openraft::{Config, RaftMetrics, ReadPolicy, ServerState, SnapshotPolicy};

use crate::command::{Command, Operation, Outcome, Reply};
use crate::error::{Error, Refusal};
use batch::{Committed, Proposer};
use membership::MemberNode;
use state_machine::StateMachine;

openraft::declare_raft_types!(
    /// The types this store gives openraft.
    pub Types:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = MemberNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

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
pub fn config(cluster: u64, heartbeat: u64, election: u64, snapshot_count: u64) -> Result<Arc<Config>, Error> {
    let config = Config {
        cluster_name: format!("{cluster:x}"),
        heartbeat_interval: heartbeat,
        election_timeout_min: election,
        election_timeout_max: election * 2,
        // A "snapshot" costs nothing here (the state machine is on disk already); it only lets the log be purged.
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_count),
        max_in_snapshot_log_to_keep: snapshot_count.min(1000),
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

/// The cluster's agreement as the servers use it.
#[derive(Clone)]
pub struct Consensus {
    raft: openraft::Raft<Types, StateMachine>,
    /// Kept because openraft makes a new receiver for every call, and every answer to a client asks for the term.
    metrics: WatchReceiverOf<Types, RaftMetrics<Types>>,
    proposer: Proposer,
}

impl Consensus {
    /// Wraps a running Raft; entries are proposed by a task of the current runtime.
    pub fn new(raft: openraft::Raft<Types, StateMachine>) -> Self {
        let proposing = raft.clone();
        let proposer = batch::start(move |command, committed| submit(proposing.clone(), command, committed));
        Consensus { metrics: raft.metrics(), proposer, raft }
    }

    /// Proposes a change and waits until it is applied here.
    ///
    /// # Errors
    /// The change was refused, or this member cannot propose.
    pub async fn propose(&self, operation: Operation) -> Result<Outcome, Error> {
        self.proposer.propose(operation).await
    }

    /// Returns when this member has applied everything that was committed before the call.
    ///
    /// # Errors
    /// This member is not the leader, or no quorum answers.
    pub async fn read_barrier(&self) -> Result<(), Error> {
        if self.decides_alone() {
            return Ok(());
        }
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Err(if to.leader_id.is_some() { Refusal::NotLeader } else { Refusal::NoLeader }.into())
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(Refusal::NoLeader.into()),
            Err(RaftError::Fatal(_)) => Err(Refusal::Stopped.into()),
        }
    }

    /// Whether nothing can be committed anywhere that this member has not applied: it leads, it is the only voter, and it has
    /// applied an entry of its own term, so everything before it too. What it acknowledged itself, it applied first.
    ///
    /// The metrics lag by one step of consensus. Any change of these facts needs several steps of this very member (it votes,
    /// or it appends the membership that lets others do without it) before another member can commit anything.
    fn decides_alone(&self) -> bool {
        let metrics = self.metrics.borrow_watched();
        metrics.state == ServerState::Leader
            && metrics.last_applied.as_ref().is_some_and(|applied| term(applied) == metrics.current_term)
            && metrics.membership_config.membership().voter_ids().eq([metrics.id])
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    /// The leader, if one is known.
    pub async fn leader(&self) -> Option<u64> {
        self.raft.current_leader().await
    }

    /// Term, committed index and applied index.
    pub fn progress(&self) -> (u64, u64, u64) {
        let metrics = self.metrics.borrow_watched();
        let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index);
        (metrics.current_term, index(&metrics.local_committed), index(&metrics.last_applied))
    }

    /// All members.
    pub fn members(&self) -> Vec<(u64, MemberNode, bool)> {
        let metrics = self.raft.server_metrics();
        let stored = metrics.borrow_watched().membership_config.clone();
        let membership = stored.membership();
        let learners: Vec<u64> = membership.learner_ids().collect();
        membership.nodes().map(|(id, node)| (*id, node.clone(), learners.contains(id))).collect()
    }

    /// Ends orderly.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "consensus did not end cleanly");
        }
    }

    /// openraft itself, for [`membership`].
    pub(crate) fn raft(&self) -> &openraft::Raft<Types, StateMachine> {
        &self.raft
    }
}

/// Proposes one entry.
async fn submit(
    raft: openraft::Raft<Types, StateMachine>,
    command: Command,
    committed: Committed,
) -> Result<Reply, Error> {
    let (responder, commit, complete) = ProgressResponder::new();
    raft.write(command).responder(responder).await.map_err(|fatal| {
        tracing::error!(%fatal, "consensus stopped");
        Refusal::Stopped
    })?;
    // An error means that it failed, and `complete` says why.
    let _ = commit.await;
    drop(committed);
    match complete.await {
        Ok(Ok(response)) => Ok(response.data),
        Ok(Err(ClientWriteError::ForwardToLeader(to))) => {
            Err(if to.leader_id.is_some() { Refusal::NotLeader } else { Refusal::NoLeader }.into())
        }
        Ok(Err(_)) => Err(Refusal::LeaderChanged.into()),
        Err(_) => Err(Refusal::Stopped.into()),
    }
}

/// Entries are counted by [`Config::snapshot_policy`], but one entry may carry a megabyte: lets the log be purged when it has
/// grown by a certain size, too.
pub async fn purge_by_size(raft: openraft::Raft<Types, StateMachine>, writer: writer::Writer) {
    loop {
        writer.grown().await;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

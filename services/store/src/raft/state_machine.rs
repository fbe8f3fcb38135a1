//! The state machine as openraft sees it. The work is done by [`super::apply`] where consensus runs.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::alias::SnapshotOf;
use openraft::{OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;

use super::transfer::Received;
use super::writer::{Job, Writer};
use super::{LogId, SnapshotMeta, StoredMembership, Types, thread};

/// How many entries one job carries at most, so that a long replay does not hold them all in memory.
const APPLY_ENTRIES: usize = 512;

/// What was applied last.
#[derive(Clone, Debug, Default)]
pub struct AppliedState {
    /// The entry.
    pub log: Option<LogId>,
    /// The membership in force.
    pub membership: StoredMembership,
}

/// Handle to the state machine.
#[derive(Clone)]
pub struct StateMachine {
    applied: Arc<Mutex<AppliedState>>,
    writer: Writer,
}

/// A snapshot's content.
#[derive(Debug)]
pub enum SnapshotHandle {
    /// This member's own state machine, which is durable: whoever sends it to another member reads it as it is then,
    /// which is at least as new, and says what it covers.
    Own,
    /// What came from another member.
    Received(Received),
}

impl StateMachine {
    /// A handle that shares `applied` with the writer.
    pub fn new(applied: Arc<Mutex<AppliedState>>, writer: Writer) -> Self {
        StateMachine { applied, writer }
    }

    fn snapshot(&self) -> Option<SnapshotOf<Types, SnapshotHandle>> {
        let applied = self.applied.lock().clone();
        let last_log_id = Some(applied.log?);
        let meta = SnapshotMeta { last_log_id, last_membership: applied.membership };
        Some(SnapshotOf::<Types, SnapshotHandle> { meta, snapshot: SnapshotHandle::Own })
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.applied.lock().clone();
        Ok((applied.log, applied.membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        // What is committed frees the way for the next entry; its write goes first, so that the disk works meanwhile.
        thread::give_way().await;
        let mut chunk = Vec::new();
        while let Some(entry) = entries.next().await {
            chunk.push(entry?);
            if chunk.len() == APPLY_ENTRIES {
                let entries = std::mem::take(&mut chunk);
                self.writer.done(|done| Job::Apply { entries, done }).await?;
            }
        }
        if chunk.is_empty() {
            return Ok(());
        }
        self.writer.done(|done| Job::Apply { entries: chunk, done }).await
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, snapshot: SnapshotHandle) -> Result<(), io::Error> {
        match snapshot {
            SnapshotHandle::Own => Ok(()),
            SnapshotHandle::Received(received) => {
                // It takes long, and consensus goes on meanwhile.
                let writer = self.writer.clone();
                let (done, installed) = tokio::sync::oneshot::channel();
                let install = move || writer.send(Job::Install { received, done });
                thread::blocking(install).await.map_err(io::Error::other)??;
                Ok(installed.await.map_err(io::Error::other)??)
            }
        }
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, SnapshotHandle>>, io::Error> {
        Ok(self.snapshot())
    }
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, SnapshotHandle>, io::Error> {
        let snapshot = self.snapshot().ok_or_else(|| io::Error::other("nothing was applied yet"))?;
        // The log behind a snapshot may be purged, so what it covers must be durable without the log.
        self.writer.done(|done| Job::Sync { done }).await?;
        Ok(snapshot)
    }
}

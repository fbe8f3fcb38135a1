//! One running member: storage, consensus and state together, opened and closed in the right order.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use store_api::etcdserverpb as pb;
use tokio::time::Instant;

use crate::command::{Operation, Outcome};
use crate::config::Config;
use crate::engine::{Closed, Engine};
use crate::error::{Error, Refusal};
use crate::mvcc::check;
use crate::raft::apply::{Applier, State};
use crate::raft::log::LogStore;
use crate::raft::membership::{self, Identity};
use crate::raft::network::Network;
use crate::raft::state_machine::StateMachine;
use crate::raft::thread::CoreThread;
use crate::raft::writer::{self, Disk, Fatal, Faults, Job, Threads, Writer};
use crate::raft::{self, Consensus};
use crate::space::{Room, Space};
use crate::wal::Wal;

/// A running member as the servers use it.
pub struct Member {
    /// Agreement.
    pub consensus: Consensus,
    /// Content.
    pub state: State,
    /// The database.
    pub engine: Engine,
    /// Who this is.
    pub identity: Identity,
    /// Flags.
    pub config: Config,
    space: Space,
}

/// What has to be closed at the end.
pub struct Closing {
    writer: Writer,
    sync: Threads,
    core: CoreThread,
    member: Arc<Member>,
    closed: Closed,
}

impl Member {
    /// Opens the data directory, verifies it, and joins or makes the cluster.
    ///
    /// # Errors
    /// The first damaged record, by name; an unusable directory; or no leader.
    pub async fn open(config: Config, fatal: Fatal, faults: Faults) -> Result<(Arc<Member>, Closing), Error> {
        let folder = config.data_dir.join("member");
        std::fs::create_dir_all(&folder).map_err(|e| Error::Layout(format!("{}: {e}", folder.display())))?;
        remove_old_checkpoints(&config);
        let log_folder = config.data_dir.join("wal");
        let opened = tokio::task::spawn_blocking(move || open_storage(&folder, &log_folder)).await;
        let (engine, closed, identity, state, wal, tail) = opened.map_err(|e| Error::Consensus(e.to_string()))??;
        let tail = Arc::new(Mutex::new(tail));
        let applier = Applier::new(engine.clone(), state.clone());
        let no_thread = |e: std::io::Error| Error::Consensus(format!("cannot start the storage threads: {e}"));
        let (writer, sync) = writer::start(
            Disk { engine: engine.clone(), wal, metrics: state.metrics.clone(), faults },
            tail.clone(),
            applier,
            fatal,
        )
        .map_err(no_thread)?;
        let core = CoreThread::start().map_err(no_thread)?;
        let log = LogStore::new(tail, writer.clone());
        let machine = StateMachine::new(state.applied.clone(), writer.clone());
        let timing =
            raft::config(identity.cluster, config.heartbeat_interval, config.election_timeout, config.snapshot_count)?;
        let housekeeping = writer.clone();
        let start = core.run(async move {
            let raft = openraft::Raft::new(identity.member, timing, Network, log, machine).await?;
            tokio::spawn(housekeeping.clone().compact());
            tokio::spawn(raft::purge_by_size(raft.clone(), housekeeping));
            Ok::<_, openraft::errors::Fatal<raft::Types>>(Consensus::new(raft))
        });
        let consensus = start.await.map_err(no_thread)?.map_err(|e| Error::Consensus(e.to_string()))?;
        membership::announce(&consensus, identity, config.node()).await?;
        let space = Space::new(&config.data_dir, config.quota());
        let member = Arc::new(Member { consensus, state, engine, identity, config, space });
        // Nothing is served before everything that was committed is visible again.
        member.consensus.read_barrier().await?;
        Ok((member.clone(), Closing { writer, sync, core, member, closed }))
    }

    /// A response header with this revision.
    pub fn header(&self, revision: i64) -> pb::ResponseHeader {
        let (raft_term, ..) = self.consensus.progress();
        pb::ResponseHeader { cluster_id: self.identity.cluster, member_id: self.identity.member, revision, raft_term }
    }

    /// Fills in what the state machine cannot know.
    pub fn complete(&self, header: Option<pb::ResponseHeader>) -> Option<pb::ResponseHeader> {
        Some(self.header(header.map_or_else(|| self.state.mvcc.revision(), |h| h.revision)))
    }

    /// Proposes a change and waits until it is applied.
    ///
    /// # Errors
    /// The change was refused, or this member cannot propose.
    pub async fn propose(&self, operation: Operation) -> Result<Outcome, Error> {
        let stores = match &operation {
            Operation::Put(_) | Operation::LeaseGrant(_) => true,
            Operation::Txn(request) => check::stores(request),
            _ => false,
        };
        if stores {
            self.check_space().await?;
        }
        let outcome = self.consensus.propose(operation).await;
        if matches!(&outcome, Err(error) if !matches!(error, Error::Refused(_))) {
            self.state.metrics.failed.increment();
        }
        outcome
    }

    async fn check_space(&self) -> Result<(), Error> {
        match self.space.room(|| self.engine.size()) {
            Room::Enough => return Ok(()),
            Room::DiskFull => return Err(Refusal::NoSpace.into()),
            Room::QuotaUsedUp => {}
        }
        let raised = |a: &pb::AlarmMember| a.member_id == self.identity.member && a.alarm() == pb::AlarmType::Nospace;
        if self.state.alarms.lock().alarms.iter().any(raised) {
            return Err(Refusal::NoSpace.into());
        }
        tracing::warn!(quota = self.config.quota(), "the space quota is used up: raising the NOSPACE alarm");
        let alarm = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Activate.into(),
            member_id: self.identity.member,
            alarm: pb::AlarmType::Nospace.into(),
        };
        self.consensus.propose(Operation::Alarm(alarm)).await?;
        Err(Refusal::NoSpace.into())
    }

    /// Where to make a temporary copy of the database.
    pub fn checkpoint_folder(&self) -> PathBuf {
        self.config.data_dir.join(format!("{CHECKPOINT}{:016x}", rand::random::<u64>()))
    }

    /// Revokes leases when they end, until `shutdown`.
    pub async fn expire_leases(self: Arc<Self>, shutdown: daemon::Shutdown) {
        // The clock itself never decides anything in the state machine: an ended lease is revoked by a proposal.
        let far = std::time::Duration::from_secs(24 * 3600);
        loop {
            let next = self.state.leases.lock().next_deadline();
            let deadline = next.map_or_else(|| Instant::now() + far, Instant::from_std);
            tokio::select! {
                () = shutdown.wait() => return,
                () = self.state.leases_changed.notified() => continue,
                () = tokio::time::sleep_until(deadline) => {}
            }
            let due = self.state.leases.lock().due(std::time::Instant::now(), 1000);
            for id in due {
                match self.consensus.propose(Operation::LeaseRevoke(pb::LeaseRevokeRequest { id })).await {
                    Ok(_) | Err(Error::Refused(Refusal::LeaseNotFound)) => tracing::debug!(id, "lease expired"),
                    Err(error) => {
                        tracing::warn!(id, %error, "cannot revoke an expired lease; trying again");
                        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                        break;
                    }
                }
            }
        }
    }
}

/// How long running calls may take to end.
const CLOSE_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);
const CHECKPOINT: &str = "checkpoint-";

/// A crash during a snapshot leaves its copy behind.
fn remove_old_checkpoints(config: &Config) {
    let Ok(entries) = std::fs::read_dir(&config.data_dir) else { return };
    for entry in entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(CHECKPOINT)) {
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(%error, path = %entry.path().display(), "cannot remove an old checkpoint");
        }
    }
}

type Storage = (Engine, Closed, Identity, State, Wal, crate::raft::log::Tail);

fn open_storage(folder: &Path, log_folder: &Path) -> Result<Storage, Error> {
    let (engine, closed) = Engine::open(folder)?;
    let identity = Identity::open(&engine)?;
    let state = State::open(&engine)?;
    let applied = state.applied.lock().log;
    let (wal, tail) = crate::raft::log::open(log_folder, applied)?;
    Ok((engine, closed, identity, state, wal, tail))
}

impl Closing {
    /// Ends consensus, then the storage threads, and waits until the last connection let go of the database.
    pub async fn close(self) {
        let Closing { writer, sync, core, member, closed } = self;
        member.consensus.shutdown().await;
        drop(member);
        if writer.send(Job::Stop).is_err() {
            tracing::debug!("the writer had stopped already");
        }
        drop(writer);
        let joined = tokio::task::spawn_blocking(move || {
            sync.join();
            core.join();
        });
        if let Err(error) = joined.await {
            tracing::warn!(%error, "cannot join the storage threads");
        }
        if tokio::time::timeout(CLOSE_LIMIT, closed.wait()).await.is_err() {
            tracing::warn!("connections still use the database; it is closed without them");
        }
    }
}

//! One running member: storage, consensus and state together, opened and closed in the right order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use store_api::etcdserverpb as pb;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::auth::Caller;
use crate::command::{Command, Operation, Outcome, Proposal};
use crate::config::Config;
use crate::engine::{Closed, Engine};
use crate::error::{Error, Refusal};
use crate::mvcc::check;
use crate::raft::apply::{Applier, State};
use crate::raft::log::LogStore;
use crate::raft::membership::{self, Changes, Identity, MemberNode};
use crate::raft::network::Network;
use crate::raft::state_machine::StateMachine;
use crate::raft::thread::{self, CoreThread, Thread};
use crate::raft::transport::{self, Transport};
use crate::raft::wire::pb as peer;
use crate::raft::wire::pb::peer_client::PeerClient;
use crate::raft::writer::{self, Disk, Fatal, Faults, Job, Writer};
use crate::raft::{self, Answer, Consensus, transfer};
use crate::space::{Room, Space};
use crate::wal::Wal;

/// A running member as the servers use it.
pub struct Member {
    /// Agreement.
    pub consensus: Consensus,
    /// Changes of the membership.
    pub changes: Changes,
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
    sync: Thread,
    core: CoreThread,
    member: Arc<Member>,
    closed: Closed,
}

impl Member {
    /// Opens the data directory, verifies it, and starts consensus. Other members must be able to reach this one before
    /// [`Member::join`] can return.
    ///
    /// # Errors
    /// The first damaged record, by name; an unusable directory; or the other members refuse this one.
    pub async fn open(config: Config, fatal: Fatal, faults: Faults) -> Result<(Arc<Member>, Closing), Error> {
        let data_dir = config.data_dir.clone();
        remove_old_checkpoints(&config);
        let opened = thread::blocking(move || open_storage(&data_dir)).await;
        let Storage { engine, closed, state, wal, tail } = opened.map_err(|e| Error::Consensus(e.to_string()))??;
        let transport = Transport::new(&config, state.removed.clone(), fatal.clone())?;
        let has_entries = tail.last().is_some() || state.applied.lock().log.is_some();
        let start = membership::decide(Identity::read(&engine)?, has_entries, &config, &transport).await?;
        let identity = start.identity;
        if state.removed.lock().contains(&identity.member) {
            return Err(Error::Layout(transport::REMOVED.into()));
        }
        identity.write(&engine)?;
        transport.identify(identity);
        let tail = Arc::new(Mutex::new(tail));
        let applier = Applier::new(engine.clone(), state.clone());
        let no_thread = |e: std::io::Error| Error::Consensus(format!("cannot start the storage threads: {e}"));
        let disk = Disk { engine: engine.clone(), wal, metrics: state.metrics.clone(), faults };
        let (writer, sync) = writer::start(disk, tail.clone(), applier, fatal.clone()).map_err(no_thread)?;
        let core = CoreThread::start().map_err(no_thread)?;
        let log = LogStore::new(tail, writer.clone());
        let machine = StateMachine::new(state.applied.clone(), writer.clone());
        let timing =
            raft::config(identity.cluster, config.heartbeat_interval, config.election_timeout, config.snapshot_count)?;
        let limit = std::time::Duration::from_millis(config.election_timeout);
        let network = Network { transport: transport.clone(), engine: engine.clone(), limit };
        let housekeeping = writer.clone();
        let running = core.run(async move {
            let raft = openraft::Raft::new(identity.member, timing, network, log, machine).await?;
            tokio::spawn(housekeeping.clone().compact());
            tokio::spawn(raft::purge_by_size(raft.clone(), housekeeping));
            let consensus = Consensus::new(raft, transport, identity.member, REQUEST_LIMIT + 2 * limit);
            Ok::<_, openraft::errors::Fatal<raft::Types>>(consensus)
        });
        let consensus = running.await.map_err(no_thread)?.map_err(|e| Error::Consensus(e.to_string()))?;
        let space = Space::new(&config.data_dir, config.quota());
        let changes = Changes::new(&config);
        let member = Arc::new(Member { consensus, changes, state, engine, identity, config, space });
        member.watch_membership(start.met, fatal, writer.clone());
        if identity.founder {
            member.consensus.found(start.founders).await?;
        }
        Ok((member.clone(), Closing { writer, sync, core, member, closed }))
    }

    /// Returns when this member is part of the cluster and knows everything that was committed: nothing is served before.
    ///
    /// # Errors
    /// The cluster refuses this member, or consensus stopped.
    pub async fn join(&self) -> Result<(), Error> {
        let own = MemberNode::of(&self.config, self.identity.incarnation);
        loop {
            match self.announce(own.clone()).await {
                Ok(()) => break,
                Err(Error::Refused(Refusal::Stopped)) => return Err(Refusal::Stopped.into()),
                // Without a quorum there is nobody to join; the others may come at any time.
                Err(error @ Error::Refused(_)) => {
                    tracing::info!(%error, "not part of the cluster yet");
                    // A leader that has just taken over refuses at once, and for a moment.
                    tokio::time::sleep(MOMENT).await;
                }
                Err(error) => return Err(error),
            }
        }
        while let Err(error) = self.consensus.read_barrier().await {
            tracing::info!(%error, "waiting for a quorum");
        }
        Ok(())
    }

    async fn announce(&self, own: MemberNode) -> Result<(), Error> {
        let request = |route| peer::AnnounceRequest {
            route: Some(route),
            name: own.name.clone(),
            client_urls: own.client_urls.clone(),
        };
        let there = self.consensus.on_leader(async |leader, channel| {
            let route = self.consensus.transport().route(leader);
            let answer = PeerClient::new(channel).announce(request(route)).await;
            answer.map_err(|status| self.consensus.transport().judge(status))
        });
        match there.await {
            Ok(None) => self.changes.announce(&self.consensus, self.identity.member, own.clone()).await,
            Ok(Some(answer)) if !answer.get_ref().not_leader => Ok(()),
            Ok(Some(_)) => Err(Refusal::NotLeader.into()),
            Err(status) => {
                tracing::debug!(%status, "the leader did not take the announcement");
                tokio::time::sleep(RETRY).await;
                Err(Refusal::Timeout.into())
            }
        }
    }

    /// Keeps addresses current, ends this member when it was removed or consensus failed, and lets a lone member sleep.
    fn watch_membership(&self, met: BTreeMap<u64, MemberNode>, fatal: Fatal, writer: Writer) {
        let consensus = self.consensus.clone();
        let (removed, me) = (self.state.removed.clone(), self.identity.member);
        let linger = std::time::Duration::from_millis(self.config.election_timeout);
        let met_first: Vec<u64> = met.keys().copied().filter(|id| *id != me).collect();
        if !met.is_empty() {
            consensus.transport().learn(met);
        }
        tokio::spawn(async move {
            let mut metrics = consensus.raft().metrics();
            let (mut seen, mut asked) = (None, Instant::now());
            loop {
                // The metrics change with every write and every tick; who the members are, hardly ever.
                let now = {
                    let metrics = metrics.borrow_watched();
                    (*metrics.membership_config.log_id(), metrics.state, metrics.running_state.is_ok())
                };
                if seen == Some(now) && !removed.lock().contains(&me) {
                    if metrics.changed().await.is_err() {
                        return;
                    }
                    // A voter that hears nothing asks for votes, and is told. A learner would wait for ever.
                    if now.1.is_learner() && asked.elapsed() > IN_DOUBT {
                        // Before its first entry it knows only whom it met.
                        let others = others(&consensus);
                        consensus.ask_whether_removed(if others.is_empty() { &met_first } else { &others }).await;
                        asked = Instant::now();
                    }
                    continue;
                }
                seen = Some(now);
                let members: BTreeMap<_, _> = consensus.members().into_iter().map(|(id, node, _)| (id, node)).collect();
                let alone = members.len() == 1 && consensus.is_leader();
                // Alone there is no one to send heartbeats to and no election to time: an idle member should sleep.
                consensus.raft().runtime_config().heartbeat(!alone);
                consensus.raft().runtime_config().tick(!alone);
                writer.set_alone(alone);
                if !members.is_empty() {
                    consensus.transport().learn(members.clone());
                }
                if let Err(error) = &metrics.borrow_watched().running_state {
                    if !matches!(error, openraft::errors::Fatal::Stopped) {
                        fatal.raise(&format!("consensus failed: {error}"));
                    }
                    return;
                }
                if removed.lock().contains(&me) {
                    // The others still have to hear that the removal is committed.
                    tokio::time::sleep(linger).await;
                    fatal.raise(transport::REMOVED);
                    return;
                }
                if !members.is_empty() && !members.contains_key(&me) {
                    // Whether that is committed, only the others can say; nobody sends this member anything any more.
                    consensus.ask_whether_removed(&others(&consensus)).await;
                    tokio::time::sleep(RETRY).await;
                    seen = None;
                }
            }
        });
    }

    /// Refuses what must not be answered from content that differs between members, or by a member that only learns.
    ///
    /// # Errors
    /// The alarm is on, or this is a learner.
    pub fn check_serving(&self, serializable: bool) -> Result<(), Refusal> {
        if self.state.alarms.lock().alarms.iter().any(|alarm| alarm.alarm() == pb::AlarmType::Corrupt) {
            return Err(Refusal::Corrupt);
        }
        if !serializable && !self.consensus.transport().alone() && self.consensus.is_learner() {
            return Err(Refusal::LearnerOnly);
        }
        Ok(())
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

    /// Proposes what a caller wants and waits until it is applied.
    ///
    /// # Errors
    /// The change was refused, or this member cannot propose.
    pub async fn propose(&self, operation: Operation, caller: Option<Caller>) -> Result<Outcome, Error> {
        if !self.consensus.transport().alone() && self.consensus.is_learner() {
            return Err(Refusal::LearnerOnly.into());
        }
        let stores = match &operation {
            Operation::Put(_) | Operation::LeaseGrant(_) => true,
            Operation::Txn(request) => check::stores(request),
            _ => false,
        };
        if stores {
            self.check_space().await?;
        }
        let outcome = self.consensus.propose(Proposal::by(caller, operation)).await;
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
        self.consensus.propose(Proposal::by_store(Operation::Alarm(alarm))).await?;
        Err(Refusal::NoSpace.into())
    }

    /// Where to make a temporary copy of the database.
    pub fn checkpoint_folder(&self) -> PathBuf {
        self.config.data_dir.join(format!("{CHECKPOINT}{:016x}", rand::random::<u64>()))
    }

    /// Does what only a leader does, until `shutdown`: revokes leases when they end, and finishes changes of the
    /// membership.
    pub async fn lead(self: Arc<Self>, shutdown: daemon::Shutdown) {
        // The clock itself never decides anything in the state machine: an ended lease is revoked by a proposal.
        let far = std::time::Duration::from_secs(24 * 3600);
        let mut metrics = self.consensus.raft().server_metrics();
        let mut led = None;
        loop {
            let leading = self.consensus.leading_term();
            if leading.is_some() && leading != led {
                self.state.leases.lock().renew_all(std::time::Instant::now());
                self.settle();
            }
            led = leading;
            let next = self.state.leases.lock().next_deadline().filter(|_| led.is_some());
            let deadline = next.map_or_else(|| Instant::now() + far, Instant::from_std);
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                changed = metrics.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = self.state.leases_changed.notified() => continue,
                () = tokio::time::sleep_until(deadline) => {}
            }
            self.revoke_due().await;
        }
    }

    /// Finishes changes of the membership in the background.
    pub fn settle(self: &Arc<Self>) {
        let member = self.clone();
        tokio::spawn(async move {
            while let Err(error) = member.changes.settle(&member.consensus).await {
                if matches!(error, Error::Refused(Refusal::Stopped)) {
                    return;
                }
                tracing::warn!(%error, "a change of the membership is not finished; trying again");
                tokio::time::sleep(RETRY).await;
            }
        });
    }

    async fn revoke_due(&self) {
        let due = self.state.leases.lock().due(std::time::Instant::now(), 1000);
        for id in due {
            // Not through another leader: that one gives every lease its whole time again.
            let revoke = Command::new(Operation::LeaseRevoke(pb::LeaseRevokeRequest { id }));
            let revoked = match self.consensus.propose_here(revoke).await {
                Ok(Answer::Done((reply, _))) => reply.into_result().map(|_| ()),
                Ok(Answer::NotLeader) => Err(Refusal::NotLeader.into()),
                Err(error) => Err(error),
            };
            match revoked {
                Ok(()) | Err(Error::Refused(Refusal::LeaseNotFound)) => tracing::debug!(id, "lease expired"),
                Err(error) => {
                    tracing::warn!(id, %error, "cannot revoke an expired lease; trying again");
                    tokio::time::sleep(RETRY).await;
                    return;
                }
            }
        }
    }
}

/// How long a request may take besides two elections; etcd's figure.
const REQUEST_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);
/// How often a learner asks whether it was removed.
const IN_DOUBT: std::time::Duration = std::time::Duration::from_secs(5);
/// The pause before asking for what will be possible soon.
const MOMENT: std::time::Duration = std::time::Duration::from_millis(20);
/// The pause before something is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(500);
/// How long running calls may take to end.
const CLOSE_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);
const CHECKPOINT: &str = "checkpoint-";

/// Who else is a member.
fn others(consensus: &Consensus) -> Vec<u64> {
    consensus.members().into_iter().map(|(id, ..)| id).filter(|id| *id != consensus.id()).collect()
}

/// A crash during a snapshot leaves its copy behind.
fn remove_old_checkpoints(config: &Config) {
    let Ok(entries) = std::fs::read_dir(&config.data_dir) else { return };
    for entry in entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(CHECKPOINT)) {
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(%error, path = %entry.path().display(), "cannot remove an old checkpoint");
        }
    }
}

struct Storage {
    engine: Engine,
    closed: Closed,
    state: State,
    wal: Wal,
    tail: crate::raft::log::Tail,
}

fn open_storage(data_dir: &Path) -> Result<Storage, Error> {
    let folder = data_dir.join("member");
    std::fs::create_dir_all(&folder).map_err(|e| Error::Layout(format!("{}: {e}", folder.display())))?;
    let (engine, closed) = Engine::open(&folder)?;
    transfer::resume(&engine, data_dir)?;
    let state = State::open(&engine)?;
    let applied = state.applied.lock().log;
    let (wal, tail) = crate::raft::log::open(&data_dir.join("wal"), applied)?;
    Ok(Storage { engine, closed, state, wal, tail })
}

impl Closing {
    /// The thread of consensus, until the member is closed.
    pub fn core(&self) -> Handle {
        self.core.handle()
    }

    /// How much of which file of the log a power cut would leave for certain.
    #[cfg(test)]
    pub(crate) fn durable(&self) -> (u64, usize) {
        self.writer.durable().unwrap_or_default()
    }

    /// Ends consensus, then the storage threads, and waits until the last connection let go of the database.
    pub async fn close(self) {
        let Closing { writer, sync, core, member, closed } = self;
        member.consensus.shutdown().await;
        drop(member);
        if writer.send(Job::Stop).is_err() {
            tracing::debug!("the writer had stopped already");
        }
        drop(writer);
        let joined = thread::blocking(move || {
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

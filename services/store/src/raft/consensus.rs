//! The cluster's agreement as the servers use it, from whichever member they are on.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{RaftMetrics, ReadPolicy};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::batch::{self, Applied, Committed, Proposer};
use super::membership::MemberNode;
use super::state_machine::StateMachine;
use super::transport::{Lane, Link, Transport, never_sent};
use super::wire::pb;
use super::{LogId, Types, term};
use crate::command::{Command, Outcome, Proposal, Reply};
use crate::error::{Error, Refusal};

/// How long to wait before asking again while no member leads.
const PAUSE: Duration = Duration::from_millis(20);

/// What the leader says, or that there is another one.
pub enum Answer<T> {
    /// The answer.
    Done(T),
    /// This member does not lead, and has done nothing.
    NotLeader,
}

type Asked = oneshot::Sender<Result<u64, Error>>;

/// The cluster's agreement. Clones share it.
#[derive(Clone)]
pub struct Consensus {
    raft: openraft::Raft<Types, StateMachine>,
    transport: Transport,
    id: u64,
    limit: Duration,
    reads: mpsc::UnboundedSender<Asked>,
    proposer: Proposer,
    /// Kept because openraft makes a new receiver for every call, and every answer to a client asks for the term.
    metrics: WatchReceiverOf<Types, RaftMetrics<Types>>,
}

impl Consensus {
    /// Wraps a running Raft; a request may take `limit`. Entries are proposed by a task of the current runtime.
    pub fn new(raft: openraft::Raft<Types, StateMachine>, transport: Transport, id: u64, limit: Duration) -> Self {
        let (reads, asked) = mpsc::unbounded_channel();
        let (proposer, proposed) = batch::queue();
        let metrics = raft.metrics();
        let consensus = Consensus { raft, transport, id, limit, reads, proposer, metrics };
        tokio::spawn(consensus.clone().read_together(asked));
        let proposing = consensus.clone();
        let submit = move |command, committed| proposing.clone().submit(command, committed);
        let transport = consensus.transport.clone();
        tokio::spawn(proposed.collect(move || transport.alone(), submit));
        consensus
    }

    /// Makes the first members a cluster, if they are none yet. All of them may do so: they write the same first entry.
    ///
    /// # Errors
    /// Consensus stopped.
    pub async fn found(&self, members: BTreeMap<u64, MemberNode>) -> Result<(), Error> {
        if self.raft.is_initialized().await.map_err(|e| Error::Consensus(e.to_string()))? {
            return Ok(());
        }
        match self.raft.initialize(members).await {
            // Another founder was faster.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(Error::Consensus(error.to_string())),
        }
    }

    /// This member's id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How long a request may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Connections to the other members.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Proposes a change through the leader and waits until it is applied here.
    ///
    /// # Errors
    /// The change was refused; or no leader took it in time; or it is unknown whether it happened.
    pub async fn propose(&self, proposal: Proposal) -> Result<Outcome, Error> {
        Reply::of(self.propose_all(vec![proposal]).await?.replies).into_result()
    }

    async fn propose_all(&self, changes: Vec<Proposal>) -> Result<Applied, Error> {
        let applied = tokio::time::timeout(self.limit, self.proposer.propose(changes)).await;
        applied.unwrap_or(Err(Refusal::Timeout.into()))
    }

    /// Proposes what clients of another member want, if this member leads: in one entry with what its own clients want.
    ///
    /// # Errors
    /// Consensus stopped, or it is unknown whether the changes happened.
    pub async fn propose_for_others(&self, changes: Vec<Proposal>) -> Result<Answer<Applied>, Error> {
        if !self.is_leader() {
            return Ok(Answer::NotLeader);
        }
        self.propose_all(changes).await.map(Answer::Done)
    }

    /// Proposes an entry through the leader and waits until it is applied here.
    async fn submit(self, command: Command, mut committed: Committed) -> Result<(Reply, u64), Error> {
        let deadline = Instant::now() + self.limit;
        loop {
            let proposed = tokio::time::timeout_at(deadline, self.write(command.clone(), &mut committed)).await;
            match proposed.unwrap_or(Err(Refusal::Timeout.into()))? {
                Answer::Done(applied) => return Ok(applied),
                Answer::NotLeader => {}
            }
            if let Some(leader) = self.other_leader().await
                && let Answer::Done((reply, index)) = self.propose_there(leader, &command, deadline).await?
            {
                drop(committed.take());
                // A client that reads from this member next expects its own write.
                self.wait_applied(index, deadline).await?;
                return Ok((reply, index));
            }
            self.pause(deadline).await?;
        }
    }

    /// Proposes on this member if it leads.
    ///
    /// # Errors
    /// Consensus stopped, or it is unknown whether the change happened.
    pub async fn propose_here(&self, command: Command) -> Result<Answer<(Reply, u64)>, Error> {
        self.write(command, &mut None).await
    }

    async fn write(&self, command: Command, committed: &mut Committed) -> Result<Answer<(Reply, u64)>, Error> {
        let (responder, commit, complete) = ProgressResponder::new();
        self.raft.write(command).responder(responder).await.map_err(|fatal| {
            tracing::error!(%fatal, "consensus stopped");
            Refusal::Stopped
        })?;
        if commit.await.is_ok() {
            // The next entry may go while this one is applied. Otherwise it failed, and `complete` says why.
            *committed = None;
        }
        match complete.await {
            Ok(Ok(response)) => Ok(Answer::Done((response.data, response.log_id.index))),
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => Ok(Answer::NotLeader),
            Ok(Err(_)) => Err(Refusal::LeaderFailed.into()),
            Err(_) => Err(Refusal::Stopped.into()),
        }
    }

    async fn propose_there(
        &self,
        leader: u64,
        command: &Command,
        deadline: Instant,
    ) -> Result<Answer<(Reply, u64)>, Error> {
        let Ok(mut peer) = self.transport.peer(leader, Lane::Requests) else { return Ok(Answer::NotLeader) };
        let request =
            pb::ProposeRequest { route: Some(self.transport.route(leader)), proposal: command.encode().into() };
        match tokio::time::timeout_at(deadline, peer.propose(request)).await {
            Err(_) => Err(Refusal::Timeout.into()),
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                if answer.not_leader {
                    return Ok(Answer::NotLeader);
                }
                let reply = prost::Message::decode(answer.reply).map_err(|e| Error::Consensus(e.to_string()))?;
                Ok(Answer::Done((reply, answer.index)))
            }
            Ok(Err(status)) if never_sent(&status) => Ok(Answer::NotLeader),
            Ok(Err(status)) => {
                tracing::debug!(%status, "the leader did not answer a proposal");
                self.transport.judge(status);
                // It may have happened, so it must not be proposed again.
                Err(Refusal::LeaderFailed.into())
            }
        }
    }

    /// Returns when this member has applied everything that was committed before the call.
    ///
    /// # Errors
    /// No quorum answers in time.
    pub async fn read_barrier(&self) -> Result<(), Error> {
        if self.decides_alone() {
            return Ok(());
        }
        if self.transport.alone()
            && let Answer::Done(index) = self.committed_index_here().await?
        {
            // No question goes to anyone, so there is nothing to share.
            return self.wait_applied(index, Instant::now() + self.limit).await;
        }
        let (sender, receiver) = oneshot::channel();
        self.reads.send(sender).map_err(|_| Refusal::Stopped)?;
        let index = receiver.await.map_err(|_| Refusal::Stopped)??;
        self.wait_applied(index, Instant::now() + self.limit).await
    }

    /// Whether nothing can be committed anywhere that this member has not applied: it leads, it is the only voter, and it has
    /// applied an entry of its own term, so everything before it too. What it acknowledged itself, it applied first.
    ///
    /// The metrics lag by one step of consensus. Any change of these facts needs several steps of this very member (it votes,
    /// or it appends the membership that lets others do without it) before another member can commit anything.
    fn decides_alone(&self) -> bool {
        let metrics = self.metrics.borrow_watched();
        metrics.state.is_leader()
            && metrics.last_applied.as_ref().is_some_and(|applied| term(applied) == metrics.current_term)
            && metrics.membership_config.membership().voter_ids().eq([self.id])
    }

    /// Answers everyone who asked while the question before was on its way with one question.
    async fn read_together(self, mut asked: mpsc::UnboundedReceiver<Asked>) {
        while let Some(first) = asked.recv().await {
            let mut all = vec![first];
            while let Ok(next) = asked.try_recv() {
                all.push(next);
            }
            let index = self.committed_index(Instant::now() + self.limit).await;
            for one in all {
                // Who asked may be gone.
                let _ = one.send(index.clone());
            }
        }
    }

    /// An index at or behind everything that was committed before the call.
    async fn committed_index(&self, deadline: Instant) -> Result<u64, Error> {
        loop {
            if let Answer::Done(index) = self.committed_index_here().await? {
                return Ok(index);
            }
            if let Some(leader) = self.other_leader().await
                && let Ok(mut peer) = self.transport.peer(leader, Lane::Requests)
            {
                let request = pb::ReadIndexRequest { route: Some(self.transport.route(leader)) };
                match tokio::time::timeout_at(deadline, peer.read_index(request)).await {
                    Ok(Ok(answer)) if !answer.get_ref().not_leader => return Ok(answer.get_ref().index),
                    Ok(Err(status)) => tracing::debug!(status = %self.transport.judge(status), "no index to read at"),
                    Ok(Ok(_)) | Err(_) => {}
                }
            }
            self.pause(deadline).await?;
        }
    }

    /// [`Self::read_barrier`]'s index, if this member leads and a quorum confirms it.
    ///
    /// # Errors
    /// Consensus stopped.
    pub async fn committed_index_here(&self) -> Result<Answer<u64>, Error> {
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((id, _)) => Ok(Answer::Done(id.index())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => Ok(Answer::NotLeader),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Ok(Answer::NotLeader),
            Err(RaftError::Fatal(_)) => Err(Refusal::Stopped.into()),
        }
    }

    /// Whether a quorum has confirmed lately that this member leads: enough for what only concerns time.
    pub async fn leads_surely(&self) -> bool {
        self.raft.get_read_log_id(ReadPolicy::LeaseRead).await.is_ok()
    }

    async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<(), Error> {
        if self.progress().2 >= index {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = self.raft.wait(Some(left));
        wait.applied_index_at_least(Some(index), "applied").await.map(|_| ()).map_err(|_| Refusal::Timeout.into())
    }

    /// Returns soon, or as soon as another member leads.
    ///
    /// # Errors
    /// It is too late, or consensus stopped.
    pub async fn pause(&self, deadline: Instant) -> Result<(), Error> {
        if Instant::now() >= deadline {
            return Err(Refusal::Timeout.into());
        }
        let mut metrics = self.raft.server_metrics();
        // A new receiver takes the first change ever for news.
        drop(metrics.borrow_and_update());
        match tokio::time::timeout(PAUSE, metrics.changed()).await {
            Ok(Err(_)) => Err(Refusal::Stopped.into()),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// The leader, if it is another member.
    async fn other_leader(&self) -> Option<u64> {
        self.leader().await.filter(|leader| *leader != self.id)
    }

    /// Runs `call` on a connection to the leader, or answers `None` if this member leads.
    ///
    /// # Errors
    /// No member leads, or the call's own error.
    pub async fn on_leader<T, F>(&self, call: impl FnOnce(u64, Link) -> F) -> Result<Option<T>, tonic::Status>
    where
        F: Future<Output = Result<T, tonic::Status>>,
    {
        let deadline = Instant::now() + self.limit;
        let leader = loop {
            if self.is_leader() {
                return Ok(None);
            }
            match self.other_leader().await {
                Some(leader) => break leader,
                None => self.pause(deadline).await?,
            }
        };
        let channel = self.transport.channel(leader, Lane::Requests)?;
        match tokio::time::timeout_at(deadline, call(leader, channel)).await {
            Ok(result) => result.map(Some),
            Err(_) => Err(Error::from(Refusal::Timeout).into()),
        }
    }

    /// Gives `call` up when another member leads: a leader that hangs never answers.
    ///
    /// # Errors
    /// Given up, or the call's own error.
    pub async fn while_led_by<T, F>(&self, leader: u64, call: F) -> Result<T, tonic::Status>
    where
        F: Future<Output = Result<T, tonic::Status>>,
    {
        let mut metrics = self.raft.server_metrics();
        let other = async {
            while metrics.borrow_watched().current_leader == Some(leader) && metrics.changed().await.is_ok() {}
        };
        tokio::select! {
            biased;
            answer = call => answer,
            () = other => Err(Error::from(Refusal::LeaderFailed).into()),
        }
    }

    /// Repeats what may happen twice while leaders change or do not answer, as etcd does for leases.
    ///
    /// # Errors
    /// No leader in time, or the attempt's own error.
    pub async fn again<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, tonic::Status>
    where
        F: Future<Output = Result<T, tonic::Status>>,
    {
        let deadline = Instant::now() + self.limit;
        loop {
            match attempt().await {
                Err(status) if status.code() == tonic::Code::Unavailable => {
                    tracing::debug!(%status, "no answer from a leader yet");
                    self.pause(deadline).await?;
                }
                answer => return answer,
            }
        }
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    /// The leader, if one is known.
    pub async fn leader(&self) -> Option<u64> {
        self.raft.current_leader().await
    }

    /// The term in which this member leads, if it does; changes of it wake whoever awaits `server_metrics`, which openraft
    /// writes before the metrics that hold everything: who asked those when woken would still see the time before.
    pub fn leading_term(&self) -> Option<u64> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.state.is_leader().then_some(metrics.vote.leader_id.term)
    }

    /// Term, committed index and applied index.
    pub fn progress(&self) -> (u64, u64, u64) {
        let metrics = self.metrics.borrow_watched();
        let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index);
        (metrics.current_term, index(&metrics.local_committed), index(&metrics.last_applied))
    }

    /// All members, and whether each is a learner.
    pub fn members(&self) -> Vec<(u64, MemberNode, bool)> {
        let metrics = self.raft.server_metrics();
        let stored = metrics.borrow_watched().membership_config.clone();
        let membership = stored.membership();
        let learners: Vec<u64> = membership.learner_ids().collect();
        let learner = |id: &u64, node: &MemberNode| learners.contains(id) && !node.to_vote;
        membership.nodes().map(|(id, node)| (*id, node.clone(), learner(id, node))).collect()
    }

    /// Who votes.
    pub fn voters(&self) -> BTreeSet<u64> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.voter_ids().collect()
    }

    /// Whether this member only learns.
    pub fn is_learner(&self) -> bool {
        self.members().into_iter().any(|(id, _, learner)| id == self.id && learner)
    }

    /// The entry that the membership in force came with.
    pub fn membership_at(&self) -> Option<LogId> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        *metrics.membership_config.log_id()
    }

    /// Whether a change of the membership is half done.
    pub fn in_two_memberships(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.get_joint_config().len() > 1
    }

    /// Speaks to these members, so that one of them says if this one was removed.
    pub async fn ask_whether_removed(&self, members: &[u64]) {
        for id in members {
            let Ok(mut peer) = self.transport.peer(*id, Lane::Requests) else { continue };
            let request = pb::ReadIndexRequest { route: Some(self.transport.route(*id)) };
            if let Ok(Err(status)) = tokio::time::timeout(self.limit / 4, peer.read_index(request)).await {
                self.transport.judge(status);
            }
        }
    }

    /// Hands the leadership to another voter.
    ///
    /// # Errors
    /// This member does not lead, the other does not vote, or it did not take over in time.
    pub async fn transfer(&self, to: u64) -> Result<(), Error> {
        if !self.is_leader() {
            return Err(Refusal::NotLeader.into());
        }
        if !self.voters().contains(&to) {
            return Err(Refusal::BadTransferee.into());
        }
        if to == self.id {
            return Ok(());
        }
        self.raft.trigger().transfer_leader(to).await.map_err(|_| Refusal::Stopped)?;
        let wait = self.raft.wait(Some(self.limit));
        wait.metrics(|m| m.current_leader == Some(to), "the new leader")
            .await
            .map(|_| ())
            .map_err(|_| Refusal::TransferTimeout.into())
    }

    /// Ends orderly.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "consensus did not end cleanly");
        }
    }

    /// openraft itself, for the other parts of [`super`] and the server for members.
    pub(crate) fn raft(&self) -> &openraft::Raft<Types, StateMachine> {
        &self.raft
    }
}

//! Changes of the membership, on the leader. One at a time; each goes through joint consensus where voters change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant};

use super::plan::{self, Known};
use super::{MemberNode, random_id};
use crate::config::Config;
use crate::error::{Error, Refusal};
use crate::raft::Consensus;

/// Changes the membership through the leader, which this member must be.
pub struct Changes {
    one_at_a_time: tokio::sync::Mutex<()>,
    strict: bool,
    max_learners: usize,
    can_have_peers: bool,
    /// Silent for longer, a member is down.
    active: Duration,
}

impl Changes {
    /// By the flags.
    pub fn new(config: &Config) -> Self {
        Changes {
            one_at_a_time: tokio::sync::Mutex::new(()),
            strict: config.cluster.strict_reconfig_check,
            max_learners: config.cluster.max_learners,
            can_have_peers: !config.peer_listeners().is_empty(),
            active: Duration::from_millis(3 * config.election_timeout),
        }
    }

    /// All members with what this one knows about them, by id.
    pub fn known(&self, consensus: &Consensus) -> Vec<Known> {
        let metrics = consensus.raft().metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let learners: BTreeSet<u64> = membership.learner_ids().collect();
        let heard = |id: &u64| {
            let at = metrics.heartbeat.as_ref().and_then(|all| all.get(id)).and_then(Option::as_ref);
            at.is_some_and(|at| at.elapsed() < self.active)
        };
        let known = |(id, node): (&u64, &MemberNode)| Known {
            id: *id,
            node: node.clone(),
            learner: learners.contains(id) && !node.to_vote,
            active: *id == metrics.id || heard(id),
            matched: metrics
                .replication
                .as_ref()
                .and_then(|all| all.get(id))
                .and_then(Option::as_ref)
                .map_or(0, |l| l.index),
        };
        membership.nodes().map(known).collect()
    }

    fn last(consensus: &Consensus) -> u64 {
        consensus.raft().metrics().borrow_watched().last_log_index.unwrap_or(0)
    }

    /// Adds a member.
    ///
    /// # Errors
    /// [`plan::add`]'s refusals, or this is not the leader.
    pub async fn add(&self, consensus: &Consensus, urls: Vec<String>, learner: bool) -> Result<u64, Error> {
        let _one = self.one_at_a_time.lock().await;
        plan::add(&self.known(consensus), &urls, learner, self.max_learners, self.strict)?;
        if !self.can_have_peers {
            return Err(Refusal::NoPeerListener.into());
        }
        let id = random_id();
        let node = MemberNode { peer_urls: urls, to_vote: !learner, ..MemberNode::default() };
        change(consensus, ChangeMembers::AddNodes(BTreeMap::from([(id, node)])), true).await?;
        tracing::info!(member = %format!("{id:x}"), learner, "member added");
        Ok(id)
    }

    /// Removes a member.
    ///
    /// # Errors
    /// [`plan::remove`]'s refusals, or this is not the leader.
    pub async fn remove(&self, consensus: &Consensus, id: u64) -> Result<(), Error> {
        let _one = self.one_at_a_time.lock().await;
        plan::remove(&self.known(consensus), consensus.id(), id, self.strict)?;
        let ids = BTreeSet::from([id]);
        let votes = consensus.voters().contains(&id);
        let changes = if votes { ChangeMembers::RemoveVoters(ids) } else { ChangeMembers::RemoveNodes(ids) };
        change(consensus, changes, false).await?;
        tracing::info!(member = %format!("{id:x}"), "member removed");
        Ok(())
    }

    /// Gives a member new peer URLs.
    ///
    /// # Errors
    /// [`plan::update`]'s refusals, or this is not the leader.
    pub async fn update(&self, consensus: &Consensus, id: u64, urls: Vec<String>) -> Result<(), Error> {
        let _one = self.one_at_a_time.lock().await;
        plan::update(&self.known(consensus), id, &urls)?;
        self.replace(consensus, id, |node| node.peer_urls = urls).await
    }

    /// Lets a learner vote.
    ///
    /// # Errors
    /// [`plan::promote`]'s refusals, or this is not the leader.
    pub async fn promote(&self, consensus: &Consensus, id: u64) -> Result<(), Error> {
        let _one = self.one_at_a_time.lock().await;
        plan::promote(&self.known(consensus), id, Self::last(consensus))?;
        change(consensus, ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await
    }

    /// Stores a started member's own name, client URLs and incarnation.
    ///
    /// # Errors
    /// There is no such member, its data directory is not the one that joined, or this is not the leader.
    pub async fn announce(&self, consensus: &Consensus, id: u64, own: MemberNode) -> Result<(), Error> {
        let _one = self.one_at_a_time.lock().await;
        let all = self.known(consensus);
        let node = &all.iter().find(|member| member.id == id).ok_or(Refusal::MemberNotFound)?.node;
        if node.incarnation != 0 && node.incarnation != own.incarnation {
            return Err(Error::Layout(crate::raft::transport::LOST.into()));
        }
        // Alone nobody else has to find this member, and its address may change between two starts.
        let peer_urls = if all.len() == 1 { own.peer_urls.clone() } else { node.peer_urls.clone() };
        if (&node.name, &node.client_urls, node.incarnation) == (&own.name, &own.client_urls, own.incarnation)
            && node.peer_urls == peer_urls
        {
            return Ok(());
        }
        let to_vote = node.to_vote;
        self.replace(consensus, id, |node| *node = MemberNode { peer_urls, to_vote, ..own }).await
    }

    async fn replace(&self, consensus: &Consensus, id: u64, edit: impl FnOnce(&mut MemberNode)) -> Result<(), Error> {
        let members = consensus.members();
        let (_, mut node, _) = members.into_iter().find(|(other, ..)| *other == id).ok_or(Refusal::MemberNotFound)?;
        edit(&mut node);
        change(consensus, ChangeMembers::SetNodes(BTreeMap::from([(id, node)])), true).await
    }

    /// Finishes what an earlier leader began, and lets members vote that were added to, as soon as they have caught up.
    /// Returns when there is nothing left to do, or another member leads.
    ///
    /// # Errors
    /// A change failed; the next leader, or the next call, tries again.
    pub async fn settle(&self, consensus: &Consensus) -> Result<(), Error> {
        let mut metrics = consensus.raft().metrics();
        loop {
            let all = self.known(consensus);
            let waiting = all.iter().any(|member| member.node.to_vote);
            if !consensus.is_leader() || !(waiting || consensus.in_two_memberships()) {
                return Ok(());
            }
            if let Ok(_one) = self.one_at_a_time.try_lock() {
                if consensus.in_two_memberships() {
                    change(consensus, ChangeMembers::AddVoterIds(BTreeSet::new()), false).await?;
                }
                for id in plan::caught_up(&all, Self::last(consensus)) {
                    change(consensus, ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await?;
                    self.replace(consensus, id, |node| node.to_vote = false).await?;
                    tracing::info!(member = %format!("{id:x}"), "the new member has caught up and votes");
                }
            }
            if metrics.changed().await.is_err() {
                return Err(Refusal::Stopped.into());
            }
        }
    }
}

async fn change(consensus: &Consensus, changes: ChangeMembers<u64, MemberNode>, retain: bool) -> Result<(), Error> {
    let before = consensus.membership_at();
    let call = consensus.raft().change_membership(changes, retain);
    let Ok(result) = tokio::time::timeout(consensus.limit(), call).await else { return Err(Refusal::Timeout.into()) };
    match result {
        Ok(_) => Ok(()),
        // The first of a change's two steps may have been made: then the next leader makes the other.
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) if consensus.membership_at() != before => {
            Err(Refusal::LeaderChanged.into())
        }
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(Refusal::NotLeader.into()),
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)))) => {
            Err(Refusal::Unhealthy.into())
        }
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
            tracing::warn!(%error, "membership change refused");
            Err(Refusal::Unhealthy.into())
        }
        Err(RaftError::APIError(_)) => Err(Refusal::LeaderChanged.into()),
        Err(RaftError::Fatal(_)) => Err(Refusal::Stopped.into()),
    }
}

//! The Cluster service. The leader changes the membership; the others hand the request to it.

use std::sync::Arc;

use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::cluster_client::ClusterClient;
use store_api::etcdserverpb::cluster_server;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use super::auth;
use crate::auth::Book;
use crate::error::{Error, Refusal};
use crate::member::Member;
use crate::raft::Consensus;
use crate::raft::transport::never_sent;

/// Serves Cluster.
pub struct Cluster(pub Arc<Member>);

/// What it means to ask again for a change when the leader was lost, so that nobody knows whether it happened.
enum Again {
    /// It could happen twice.
    Never,
    /// It cannot make a difference.
    Harmless,
    /// This refusal says that it had happened.
    Refused(Refusal),
}

impl Again {
    /// Whether to ask again after this answer.
    fn worthwhile(&self, status: &Status) -> bool {
        let definite = [Refusal::Unhealthy, Refusal::Timeout, Refusal::Stopped, Refusal::NoLeader];
        !matches!(self, Again::Never)
            && status.code() == Code::Unavailable
            && definite.iter().all(|refusal| refusal.text() != status.message())
    }

    fn happened(&self, status: &Status) -> bool {
        matches!(self, Again::Refused(refusal) if is(status, *refusal))
    }
}

fn is(status: &Status, refusal: Refusal) -> bool {
    status.code() == refusal.code() && status.message() == refusal.text()
}

/// Attempts at one change.
struct Attempts<'m> {
    consensus: &'m Consensus,
    /// Only one: whoever handed the request on decides about more.
    forwarded: bool,
    again: Again,
    deadline: Instant,
    doubt: bool,
}

impl Attempts<'_> {
    /// Waits before the next attempt, or says that an earlier one seemed to have failed, but had not.
    ///
    /// # Errors
    /// There is no point in another one.
    async fn after(&mut self, failure: Status) -> Result<bool, Status> {
        if self.forwarded {
            return Err(failure);
        }
        if self.doubt && self.again.happened(&failure) {
            return Ok(true);
        }
        // A leader that is none any more has done nothing; about others nobody knows.
        let nothing = is(&failure, Refusal::NotLeader) || never_sent(&failure);
        if !nothing && !self.again.worthwhile(&failure) {
            return Err(failure);
        }
        self.doubt |= !nothing;
        self.consensus.pause(self.deadline).await?;
        Ok(false)
    }
}

/// Makes a change on the leader, wherever that is. Goes on with what `here` says if that was this member, and with `None` if
/// the change had happened already. A request that came from another member is never handed on.
macro_rules! on_leader {
    ($self:ident, $request:ident, $call:ident, $again:expr, $here:expr) => {{
        auth::check(&$self.0, &$request, Book::admin).await?;
        let forwarded = super::is_forwarded(&$request);
        let request = $request.into_inner();
        let consensus = &$self.0.consensus;
        let deadline = Instant::now() + consensus.limit();
        let mut attempts = Attempts { consensus, forwarded, again: $again, deadline, doubt: false };
        loop {
            if forwarded && !consensus.is_leader() {
                return Err(Error::from(Refusal::NotLeader).into());
            }
            let there = consensus
                .on_leader(async |_, link| ClusterClient::new(link).$call(super::forwarded(request.clone())).await);
            let failure = match there.await {
                Ok(Some(answer)) => {
                    let mut answer = answer.into_inner();
                    answer.header = Some($self.0.header(0));
                    return Ok(Response::new(answer));
                }
                Ok(None) => match $here(request.clone()).await {
                    Ok(made) => break Some(made),
                    Err(error) => error.into(),
                },
                Err(failure) => failure,
            };
            if attempts.after(failure).await? {
                break None;
            }
        }
    }};
}

impl Cluster {
    fn members(&self) -> Vec<pb::Member> {
        let member = |(id, node, is_learner): (u64, crate::raft::membership::MemberNode, bool)| pb::Member {
            id,
            name: node.name,
            peer_urls: node.peer_urls,
            client_urls: node.client_urls,
            is_learner,
        };
        self.0.consensus.members().into_iter().map(member).collect()
    }
}

#[tonic::async_trait]
impl cluster_server::Cluster for Cluster {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        auth::check(&self.0, &request, Book::known).await?;
        if request.into_inner().linearizable {
            self.0.consensus.read_barrier().await?;
        }
        // etcd leaves the revision out: the list is not part of the key space.
        Ok(Response::new(pb::MemberListResponse { header: Some(self.0.header(0)), members: self.members() }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let add = |r: pb::MemberAddRequest| self.0.changes.add(&self.0.consensus, r.peer_urls, r.is_learner);
        let id = on_leader!(self, request, member_add, Again::Never, add);
        self.0.settle();
        let members = self.members();
        let member = members.iter().find(|member| Some(member.id) == id).cloned();
        Ok(Response::new(pb::MemberAddResponse { header: Some(self.0.header(0)), member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let remove = |r: pb::MemberRemoveRequest| self.0.changes.remove(&self.0.consensus, r.id);
        on_leader!(self, request, member_remove, Again::Refused(Refusal::MemberNotFound), remove);
        Ok(Response::new(pb::MemberRemoveResponse { header: Some(self.0.header(0)), members: self.members() }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let update = |r: pb::MemberUpdateRequest| self.0.changes.update(&self.0.consensus, r.id, r.peer_urls);
        on_leader!(self, request, member_update, Again::Harmless, update);
        Ok(Response::new(pb::MemberUpdateResponse { header: Some(self.0.header(0)), members: self.members() }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let promote = |r: pb::MemberPromoteRequest| self.0.changes.promote(&self.0.consensus, r.id);
        on_leader!(self, request, member_promote, Again::Refused(Refusal::NotLearner), promote);
        Ok(Response::new(pb::MemberPromoteResponse { header: Some(self.0.header(0)), members: self.members() }))
    }
}

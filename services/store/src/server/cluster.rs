//! The Cluster service. The leader changes the membership; the others hand the request to it.

use std::sync::Arc;

use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::cluster_client::ClusterClient;
use store_api::etcdserverpb::cluster_server;
use tonic::{Request, Response, Status};

use super::auth;
use crate::auth::Book;
use crate::error::{Error, Refusal};
use crate::member::Member;

/// Serves Cluster.
pub struct Cluster(pub Arc<Member>);

/// Answers from the leader if this member is none, and goes on otherwise. A request that came from another member is
/// never handed on.
macro_rules! on_leader {
    ($self:ident, $request:ident, $call:ident) => {{
        auth::check(&$self.0, &$request, Book::admin).await?;
        let forwarded = super::is_forwarded(&$request);
        let request = $request.into_inner();
        if forwarded && !$self.0.consensus.is_leader() {
            return Err(Error::from(Refusal::NotLeader).into());
        }
        let there = $self
            .0
            .consensus
            .on_leader(async |_, channel| ClusterClient::new(channel).$call(super::forwarded(request.clone())).await);
        if let Some(answer) = there.await? {
            let mut answer = answer.into_inner();
            answer.header = Some($self.0.header(0));
            return Ok(Response::new(answer));
        }
        request
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
        let request = on_leader!(self, request, member_add);
        let id = self.0.changes.add(&self.0.consensus, request.peer_urls, request.is_learner).await?;
        self.0.settle();
        let members = self.members();
        let member = members.iter().find(|member| member.id == id).cloned();
        Ok(Response::new(pb::MemberAddResponse { header: Some(self.0.header(0)), member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let request = on_leader!(self, request, member_remove);
        self.0.changes.remove(&self.0.consensus, request.id).await?;
        Ok(Response::new(pb::MemberRemoveResponse { header: Some(self.0.header(0)), members: self.members() }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let request = on_leader!(self, request, member_update);
        self.0.changes.update(&self.0.consensus, request.id, request.peer_urls).await?;
        Ok(Response::new(pb::MemberUpdateResponse { header: Some(self.0.header(0)), members: self.members() }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let request = on_leader!(self, request, member_promote);
        self.0.changes.promote(&self.0.consensus, request.id).await?;
        Ok(Response::new(pb::MemberPromoteResponse { header: Some(self.0.header(0)), members: self.members() }))
    }
}

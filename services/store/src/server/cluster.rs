//! The Cluster service. This build runs clusters of one member: changing the membership is refused, not pretended.

use std::sync::Arc;

use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::cluster_server;
use tonic::{Request, Response, Status};

use crate::error::{Error, Refusal};
use crate::member::Member;

/// Serves Cluster.
pub struct Cluster(pub Arc<Member>);

fn one_member_only<T>() -> Result<Response<T>, Status> {
    Err(Error::from(Refusal::OneMemberOnly).into())
}

#[tonic::async_trait]
impl cluster_server::Cluster for Cluster {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.0.consensus.read_barrier().await?;
        }
        let member = |(id, node, is_learner): (u64, crate::raft::membership::MemberNode, bool)| pb::Member {
            id,
            name: node.name,
            peer_urls: node.peer_urls,
            client_urls: node.client_urls,
            is_learner,
        };
        let members = self.0.consensus.members().into_iter().map(member).collect();
        // etcd leaves the revision out: the list is not part of the key space.
        Ok(Response::new(pb::MemberListResponse { header: Some(self.0.header(0)), members }))
    }

    async fn member_add(&self, _: Request<pb::MemberAddRequest>) -> Result<Response<pb::MemberAddResponse>, Status> {
        one_member_only()
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        if request.into_inner().id != self.0.identity.member {
            return Err(Error::from(Refusal::MemberNotFound).into());
        }
        one_member_only()
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        one_member_only()
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        one_member_only()
    }
}

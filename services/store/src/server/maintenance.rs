//! The Maintenance service.

use std::sync::Arc;

use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::maintenance_server;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{VERSION, auth, mismatch};
use crate::auth::Book;
use crate::command::{Operation, Outcome};
use crate::error::{Error, Refusal};
use crate::member::Member;
use crate::{corruption, snapshot};

/// Serves Maintenance.
pub struct Maintenance(pub Arc<Member>);

fn refuse<T>(refusal: Refusal) -> Result<Response<T>, Status> {
    Err(Error::from(refusal).into())
}

impl Maintenance {
    /// Runs what may wait for the disk off the runtime's workers.
    async fn blocking<T, F>(&self, work: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnOnce(&Member) -> Result<T, Error> + Send + 'static,
    {
        let member = self.0.clone();
        let result = tokio::task::spawn_blocking(move || work(&member)).await;
        Ok(result.map_err(|e| Status::internal(e.to_string()))??)
    }
}

#[tonic::async_trait]
impl maintenance_server::Maintenance for Maintenance {
    type SnapshotStream = ReceiverStream<Result<pb::SnapshotResponse, Status>>;

    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let caller = auth::caller(&self.0, &request).await?;
        let operation = Operation::Alarm(request.into_inner());
        let Outcome::Alarm(mut response) = self.0.propose(operation, caller).await? else { return Err(mismatch()) };
        response.header = self.0.complete(response.header);
        Ok(Response::new(response))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let (raft_term, raft_index, raft_applied_index) = self.0.consensus.progress();
        let size = i64::try_from(self.blocking(|member| Ok(member.engine.size())).await?).unwrap_or(i64::MAX);
        let alarms = self.0.state.alarms.lock().alarms.clone();
        let describe = |a: &pb::AlarmMember| format!("memberID:{} alarm:{}", a.member_id, a.alarm().as_str_name());
        Ok(Response::new(pb::StatusResponse {
            header: self.0.complete(None),
            version: VERSION.to_owned(),
            db_size: size,
            leader: self.0.consensus.leader().await.unwrap_or(0),
            raft_index,
            raft_term,
            raft_applied_index,
            errors: alarms.iter().map(describe).collect(),
            db_size_in_use: size,
            is_learner: self.0.consensus.is_learner(),
            storage_version: VERSION.to_owned(),
            db_size_quota: i64::try_from(self.0.config.quota()).unwrap_or(i64::MAX),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        auth::check(&self.0, &request, Book::admin).await?;
        self.blocking(|member| {
            member.engine.defragment();
            Ok(())
        })
        .await?;
        Ok(Response::new(pb::DefragmentResponse { header: self.0.complete(None) }))
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        auth::check(&self.0, &request, Book::admin).await?;
        let (hash, _) = self.blocking(|member| member.state.mvcc.hash(0)).await?;
        Ok(Response::new(pb::HashResponse { header: self.0.complete(None), hash }))
    }

    async fn hash_kv(&self, request: Request<pb::HashKvRequest>) -> Result<Response<pb::HashKvResponse>, Status> {
        auth::check(&self.0, &request, Book::admin).await?;
        let revision = request.into_inner().revision;
        corruption::reached(&self.0, revision).await;
        corruption::settled(&self.0).await;
        let sum = self.blocking(move |member| corruption::sum(&member.state.mvcc, revision)).await;
        let (hash, hash_revision, compact_revision) = sum?;
        Ok(Response::new(pb::HashKvResponse { header: self.0.complete(None), hash, compact_revision, hash_revision }))
    }

    async fn snapshot(&self, request: Request<pb::SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        auth::check(&self.0, &request, Book::admin).await?;
        let (out, responses) = mpsc::channel(4);
        let member = self.0.clone();
        tokio::task::spawn_blocking(move || {
            let (folder, header) = (member.checkpoint_folder(), member.header(member.state.mvcc.revision()));
            snapshot::send(&member.engine, &folder, header, VERSION, &out);
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        auth::check(&self.0, &request, Book::admin).await?;
        self.0.consensus.transfer(request.into_inner().target_id).await?;
        Ok(Response::new(pb::MoveLeaderResponse { header: self.0.complete(None) }))
    }

    async fn downgrade(&self, _: Request<pb::DowngradeRequest>) -> Result<Response<pb::DowngradeResponse>, Status> {
        refuse(Refusal::NotSupported)
    }
}

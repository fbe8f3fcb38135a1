//! Raft's messages to the other members: each is one call over [`super::transport`], with a limit on its time. Entries
//! travel in a stream per member, see [`super::pipeline`].

use std::future::Future;
use std::time::Duration;

use futures_util::Stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse};
use openraft::type_config::alias::SnapshotOf;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::membership::MemberNode;
use super::pipeline::Pipeline;
use super::state_machine::SnapshotHandle;
use super::transport::{Lane, Transport};
use super::wire::{self, pb};
use super::{Types, Vote, transfer};
use crate::engine::Engine;
use crate::error::Error;

/// Makes a [`Peer`] per member.
pub struct Network {
    /// Connections.
    pub transport: Transport,
    /// What snapshots are made of.
    pub engine: Engine,
    /// How long an answer may take: entries are answered when they are on the other member's disk.
    pub limit: Duration,
}

/// The way to one member.
pub struct Peer {
    id: u64,
    transport: Transport,
    engine: Engine,
    limit: Duration,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &MemberNode) -> Peer {
        self.transport.learn_one(target, node);
        Peer { id: target, transport: self.transport.clone(), engine: self.engine.clone(), limit: self.limit }
    }
}

impl Peer {
    /// One call. A member that is away is left alone for a moment; any other failure is worth another try at once.
    async fn call<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, RPCError<Types>> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Unreachable::from_string(format!("member {:x}: {error}", self.id)).into()),
            Err(_) => Err(NetworkError::from_string(format!("member {:x} does not answer", self.id)).into()),
        }
    }

    fn failed(&self, status: Status) -> Error {
        Error::Consensus(self.transport.judge(status).message().to_owned())
    }

    async fn send_append(&self, rpc: AppendEntriesRequest<Types>) -> Result<AppendEntriesResponse<Types>, Error> {
        let request = wire::from_append(&rpc, self.transport.route(self.id))?;
        let answer = self.transport.peer(self.id, Lane::Consensus)?.append(request).await;
        wire::to_append_response(answer.map_err(|status| self.failed(status))?.into_inner())
    }

    async fn open_stream(
        &self,
        requests: ReceiverStream<pb::AppendRequest>,
    ) -> Result<Streaming<pb::AppendResponse>, Error> {
        let answers = self.transport.peer(self.id, Lane::Consensus)?.append_stream(requests).await;
        Ok(answers.map_err(|status| self.failed(status))?.into_inner())
    }

    async fn send_vote(&self, rpc: VoteRequest<Types>, pre: bool) -> Result<VoteResponse<Types>, Error> {
        let request = wire::from_vote_request(&rpc, self.transport.route(self.id));
        let mut peer = self.transport.peer(self.id, Lane::Consensus)?;
        let answer = if pre { peer.pre_vote(request).await } else { peer.vote(request).await };
        wire::to_vote_response(answer.map_err(|status| self.failed(status))?.into_inner())
    }

    async fn send_transfer(&self, req: TransferLeaderRequest<Types>) -> Result<String, Error> {
        let request = pb::TransferLeaderRequest {
            route: Some(self.transport.route(self.id)),
            leader: Some(wire::from_vote(req.from_leader())),
            to: *req.to_node_id(),
            last: req.last_log_id().map(wire::from_log_id),
        };
        let answer = self.transport.peer(self.id, Lane::Consensus)?.transfer_leader(request).await;
        Ok(answer.map_err(|status| self.failed(status))?.into_inner().refusal)
    }

    async fn send_snapshot(&self, vote: Vote) -> Result<SnapshotResponse<Types>, Error> {
        let first = pb::SnapshotChunk {
            route: Some(self.transport.route(self.id)),
            vote: Some(wire::from_vote(&vote)),
            ..Default::default()
        };
        let chunks = transfer::send(self.engine.clone(), first);
        let answer = self.transport.peer(self.id, Lane::Snapshots)?.install(chunks).await;
        let answer = answer.map_err(|status| self.failed(status))?.into_inner();
        Ok(SnapshotResponse::new(wire::to_vote(answer.vote)?))
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = SnapshotHandle;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        // A heartbeat needs no disk; entries do, and sending them again does not make the disk faster.
        let limit = if rpc.entries.is_empty() { option.soft_ttl().max(self.limit / 4) } else { self.limit };
        self.call(limit, self.send_append(rpc)).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + openraft::OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let (requests, feed) = Pipeline::<S>::requests();
            let answers = self.call(self.limit, self.open_stream(requests)).await?;
            let pipeline = Pipeline::new(self.id, self.transport.clone(), self.limit, input, feed, answers);
            Ok(Box::pin(pipeline.results()) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.call(option.soft_ttl(), self.send_vote(rpc, false)).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.call(option.soft_ttl(), self.send_vote(rpc, true)).await
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let refusal = self.call(option.soft_ttl(), self.send_transfer(req)).await?;
        if !refusal.is_empty() {
            tracing::warn!(member = %format!("{:x}", self.id), refusal, "the leadership was not taken");
        }
        Ok(Ok(()))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        _snapshot: SnapshotOf<Types, SnapshotHandle>,
        cancel: impl Future<Output = ReplicationClosed> + openraft::OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tracing::info!(member = %format!("{:x}", self.id), "sending a snapshot");
        // No limit on the whole: a store of gigabytes takes its time, and a dead connection ends by its keepalive.
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote) => {
                sent.map_err(|error| Unreachable::from_string(format!("snapshot to {:x}: {error}", self.id)).into())
            }
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        // A member that comes back should be found well before its election timeout ends.
        let step = self.limit / 8;
        Some(Backoff::new(std::iter::repeat(step)))
    }
}

//! The service for other members: Raft's messages, snapshots, and what only the leader can do.

use std::sync::Arc;

use futures_util::future::ready;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, Stream, StreamExt};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest};
use openraft::type_config::alias::SnapshotOf;
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status, Streaming};

use crate::command::{Command, Reply};
use crate::error::Error;
use crate::member::Member;
use crate::raft::batch::Applied;
use crate::raft::membership::MemberNode;
use crate::raft::state_machine::SnapshotHandle;
use crate::raft::transfer::Receiver;
use crate::raft::transport::Transport;
use crate::raft::wire::{self, pb};
use crate::raft::{Answer, Types, thread};

/// Chunks of a snapshot between the network and the disk.
const CHUNKS: usize = 4;

/// Serves other members.
pub struct Peer(pub Arc<Member>);

impl Peer {
    fn check(&self, route: Option<pb::Route>) -> Result<pb::Route, Status> {
        self.0.consensus.transport().check(route)
    }

    fn raft(&self) -> &openraft::Raft<Types, crate::raft::state_machine::StateMachine> {
        self.0.consensus.raft()
    }

    /// Writes an arriving snapshot to files, while it arrives.
    async fn receive(
        &self,
        chunks: &mut Streaming<pb::SnapshotChunk>,
    ) -> Result<SnapshotOf<Types, SnapshotHandle>, Status> {
        let receiver = Receiver::new(&self.0.config.data_dir)?;
        let (forward, arrived) = mpsc::channel(CHUNKS);
        let receiving = thread::consume(arrived, move |chunks| receiver.receive(chunks));
        while let Some(chunk) = chunks.next().await {
            // A broken stream ends here without its last chunk; a full disk ends the other side of the channel.
            let Ok(chunk) = chunk else { break };
            let last = chunk.complete;
            if forward.send(chunk).await.is_err() || last {
                break;
            }
        }
        drop(forward);
        let received = receiving.await.map_err(|e| Status::internal(e.to_string()))??;
        let meta = received.meta.clone();
        Ok(SnapshotOf::<Types, SnapshotHandle> { meta, snapshot: SnapshotHandle::Received(received) })
    }
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("etcdserver: server stopped: {error}"))
}

/// The requests of a stream, up to its end or to the first that is refused.
fn taken(
    transport: Transport,
    requests: Streaming<pb::AppendRequest>,
    refuse: oneshot::Sender<Status>,
) -> impl Stream<Item = AppendEntriesRequest<Types>> + Send {
    stream::unfold((transport, requests, refuse), |(transport, mut requests, refuse)| async move {
        // A broken connection has nobody to be told.
        let request = requests.message().await.ok().flatten()?;
        match transport.check(request.route).and_then(|_| Ok(wire::to_append(request)?)) {
            Ok(request) => Some((request, (transport, requests, refuse))),
            Err(status) => {
                // Who asked may be gone.
                let _ = refuse.send(status);
                None
            }
        }
    })
}

#[tonic::async_trait]
impl pb::peer_server::Peer for Peer {
    async fn append(&self, request: Request<pb::AppendRequest>) -> Result<Response<pb::AppendResponse>, Status> {
        let request = request.into_inner();
        self.check(request.route)?;
        let answer = self.raft().append_entries(wire::to_append(request)?).await.map_err(stopped)?;
        Ok(Response::new(wire::from_append_response(&answer)))
    }

    type AppendStreamStream = BoxStream<'static, Result<pb::AppendResponse, Status>>;

    async fn append_stream(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let (refuse, refused) = oneshot::channel();
        let taken = taken(self.0.consensus.transport().clone(), request.into_inner(), refuse);
        let answers = self.raft().stream_append(taken).map(|answer| match answer {
            Ok(answer) => Ok(wire::from_append_response(&AppendEntriesResponse::from(answer))),
            Err(fatal) => Err(stopped(fatal)),
        });
        // openraft lets go of the requests before its answers end, unless they end by an answer that is no success.
        let refusal = stream::once(async move { refused.now_or_never()?.ok() }).filter_map(ready);
        Ok(Response::new(answers.chain(refusal.map(Err)).boxed()))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let request = request.into_inner();
        self.check(request.route)?;
        let answer = self.raft().vote(wire::to_vote_request(request)?).await.map_err(stopped)?;
        Ok(Response::new(wire::from_vote_response(&answer)))
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let request = request.into_inner();
        self.check(request.route)?;
        let answer = self.raft().pre_vote(wire::to_vote_request(request)?).await.map_err(stopped)?;
        Ok(Response::new(wire::from_vote_response(&answer)))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        self.check(request.route)?;
        let last = request.last.map(wire::to_log_id);
        let message = TransferLeaderRequest::new(wire::to_vote(request.leader)?, request.to, last);
        let answer = self.raft().handle_transfer_leader(message).await.map_err(stopped)?;
        let refusal = answer.err().map(|error| error.to_string()).unwrap_or_default();
        Ok(Response::new(pb::TransferLeaderResponse { refusal }))
    }

    async fn install(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::InstallResponse>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.ok_or_else(|| Status::invalid_argument("an empty snapshot"))?;
        self.check(first.route)?;
        let vote = wire::to_vote(first.vote)?;
        let snapshot = self.receive(&mut chunks).await?;
        let answer = self.raft().install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(Response::new(pb::InstallResponse { vote: Some(wire::from_vote(&answer.vote)) }))
    }

    async fn propose(&self, request: Request<pb::ProposeRequest>) -> Result<Response<pb::ProposeResponse>, Status> {
        let request = request.into_inner();
        self.check(request.route)?;
        let command = Command::decode(&request.proposal).map_err(|e| Error::Consensus(e.to_string()))?;
        Ok(Response::new(match self.0.consensus.propose_for_others(command.into_proposals()).await? {
            Answer::NotLeader => pb::ProposeResponse { not_leader: true, ..Default::default() },
            Answer::Done(Applied { replies, index }) => {
                let reply = prost::Message::encode_to_vec(&Reply::of(replies)).into();
                pb::ProposeResponse { not_leader: false, reply, index }
            }
        }))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        self.check(request.into_inner().route)?;
        Ok(Response::new(match self.0.consensus.committed_index_here().await? {
            Answer::NotLeader => pb::ReadIndexResponse { not_leader: true, index: 0 },
            Answer::Done(index) => pb::ReadIndexResponse { not_leader: false, index },
        }))
    }

    async fn announce(&self, request: Request<pb::AnnounceRequest>) -> Result<Response<pb::AnnounceResponse>, Status> {
        let request = request.into_inner();
        let route = self.check(request.route)?;
        if !self.0.consensus.is_leader() {
            return Ok(Response::new(pb::AnnounceResponse { not_leader: true }));
        }
        let own = MemberNode {
            name: request.name,
            client_urls: request.client_urls,
            incarnation: route.from_incarnation,
            ..MemberNode::default()
        };
        match self.0.changes.announce(&self.0.consensus, route.from, own).await {
            Err(Error::Layout(lost)) => return Err(Status::permission_denied(lost)),
            result => result?,
        }
        self.0.settle();
        Ok(Response::new(pb::AnnounceResponse { not_leader: false }))
    }

    async fn describe(&self, _: Request<pb::DescribeRequest>) -> Result<Response<pb::DescribeResponse>, Status> {
        let members = self.0.consensus.members().into_iter();
        let member = |(id, node, _): (u64, MemberNode, bool)| pb::Member {
            id,
            peer_urls: node.peer_urls,
            incarnation: node.incarnation,
        };
        Ok(Response::new(pb::DescribeResponse {
            cluster: self.0.identity.cluster,
            leader: self.0.consensus.leader().await.unwrap_or(0),
            members: members.map(member).collect(),
        }))
    }
}

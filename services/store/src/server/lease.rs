//! The Lease service.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::lease_client::LeaseClient;
use store_api::etcdserverpb::lease_server;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{auth, mismatch};
use crate::auth::Book;
use crate::command::{Operation, Outcome};
use crate::error::{Error, Refusal};
use crate::member::Member;

/// Serves Lease.
pub struct Lease(pub Arc<Member>);

/// A positive id, as clients print it in hexadecimal without a sign.
fn random_id() -> i64 {
    (rand::random::<u64>() >> 1).max(1).cast_signed()
}

/// Renews a lease on this member. Another leader may have let it end already, so a quorum must have confirmed this one.
async fn keep_alive_here(member: &Member, id: i64) -> Result<pb::LeaseKeepAliveResponse, Error> {
    if !member.consensus.leads_surely().await {
        return Err(Refusal::NoLeader.into());
    }
    let ttl = member.state.leases.lock().renew(id, Instant::now()).unwrap_or(0);
    Ok(pb::LeaseKeepAliveResponse { header: member.complete(None), id, ttl })
}

async fn keep_alive(member: &Member, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
    let there = member.consensus.on_leader(async |leader, channel| {
        let one = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
        let answer = async {
            let mut answers = LeaseClient::new(channel).lease_keep_alive(super::forwarded(one)).await?.into_inner();
            answers.message().await?.ok_or_else(|| Error::from(Refusal::NoLeader).into())
        };
        member.consensus.while_led_by(leader, answer).await
    });
    match there.await? {
        Some(answer) => Ok(pb::LeaseKeepAliveResponse { header: member.complete(None), ..answer }),
        None => Ok(keep_alive_here(member, id).await?),
    }
}

#[tonic::async_trait]
impl lease_server::Lease for Lease {
    type LeaseKeepAliveStream = ReceiverStream<Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let caller = auth::caller(&self.0, &request).await?;
        let mut request = request.into_inner();
        if request.id == 0 {
            request.id = random_id();
        }
        let Outcome::LeaseGrant(mut response) = self.0.propose(Operation::LeaseGrant(request), caller).await? else {
            return Err(mismatch());
        };
        response.header = self.0.complete(response.header);
        Ok(Response::new(response))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let caller = auth::caller(&self.0, &request).await?;
        let operation = Operation::LeaseRevoke(request.into_inner());
        let Outcome::LeaseRevoke(mut response) = self.0.propose(operation, caller).await? else {
            return Err(mismatch());
        };
        response.header = self.0.complete(response.header);
        Ok(Response::new(response))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        auth::check(&self.0, &request, Book::known).await?;
        let (out, responses) = mpsc::channel(4);
        let forwarded = super::is_forwarded(&request);
        let (member, mut requests) = (self.0.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let id = request.id;
                let response = if forwarded {
                    keep_alive_here(&member, id).await.map_err(Status::from)
                } else {
                    member.consensus.again(|| keep_alive(&member, id)).await
                };
                let failed = response.is_err();
                if out.send(response).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let forwarded = super::is_forwarded(&request);
        let caller = auth::caller(&self.0, &request).await?;
        let readable = |keys: &[Bytes]| {
            let book = self.0.state.auth.book();
            let read = |key: &Bytes| book.read(caller.as_ref(), key, &[]);
            book.known(caller.as_ref()).and_then(|()| keys.iter().try_for_each(read)).map_err(Error::from)
        };
        let request = request.into_inner();
        if !forwarded {
            let there = self.0.consensus.on_leader(async |_, channel| {
                let answer = LeaseClient::new(channel).lease_time_to_live(super::forwarded(request)).await;
                answer.map(Response::into_inner)
            });
            if let Some(answer) = there.await? {
                readable(&answer.keys)?;
                return Ok(Response::new(pb::LeaseTimeToLiveResponse { header: self.0.complete(None), ..answer }));
            }
        }
        // Only the leader keeps deadlines.
        self.0.consensus.read_barrier().await?;
        let keys = if request.keys { self.0.state.leases.lock().keys(request.id) } else { Vec::new() };
        readable(&keys)?;
        let leases = self.0.state.leases.lock();
        let mut response = pb::LeaseTimeToLiveResponse {
            header: self.0.complete(None),
            id: request.id,
            ttl: -1,
            ..Default::default()
        };
        if let Some((left, granted)) = leases.time_to_live(request.id, Instant::now()) {
            response.ttl = left;
            response.granted_ttl = granted;
            response.keys = keys;
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        auth::check(&self.0, &request, Book::known).await?;
        self.0.consensus.read_barrier().await?;
        let ids = self.0.state.leases.lock().ids();
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: self.0.complete(None), leases }))
    }
}

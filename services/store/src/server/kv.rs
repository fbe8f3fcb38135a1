//! The KV service.

use std::sync::Arc;

use prost::Message;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::kv_server;
use tonic::{Request, Response, Status};

use super::auth::caller;
use super::mismatch;
use crate::auth::{self, Book};
use crate::command::{Operation, Outcome};
use crate::error::{Error, Refusal};
use crate::member::Member;
use crate::mvcc::{Mvcc, check};

/// Serves KV.
pub struct Kv(pub Arc<Member>);

impl Kv {
    fn fits(&self, request: &impl Message) -> Result<(), Status> {
        let fits = request.encoded_len() <= self.0.config.max_request_bytes;
        if fits { Ok(()) } else { Err(Error::from(Refusal::RequestTooLarge).into()) }
    }

    /// Checks a read; returns the revision of the book that allowed it, if anyone asked.
    fn permit(&self, allowed: impl FnOnce(&Book) -> Result<(), Refusal>) -> Result<Option<u64>, Status> {
        if !self.0.state.auth.enabled() {
            return Ok(None);
        }
        let book = self.0.state.auth.book();
        allowed(&book).map_err(refused)?;
        Ok(Some(book.revision()))
    }

    /// What was read after a permission was taken away must not be answered by it.
    fn still(&self, permit: Option<u64>) -> Result<(), Status> {
        let changed = permit.is_some_and(|revision| self.0.state.auth.book().revision() != revision);
        if changed { Err(refused(Refusal::AuthOldRevision)) } else { Ok(()) }
    }

    /// RocksDB calls may wait for the disk, so they stay off the runtime's workers.
    async fn read<T, F>(&self, read: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnOnce(&Mvcc) -> Result<T, Error> + Send + 'static,
    {
        let mvcc = self.0.state.mvcc.clone();
        let result = tokio::task::spawn_blocking(move || read(&mvcc)).await;
        Ok(result.map_err(|e| Status::internal(e.to_string()))??)
    }
}

fn refused(refusal: Refusal) -> Status {
    Error::from(refusal).into()
}

#[tonic::async_trait]
impl kv_server::Kv for Kv {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let caller = caller(&self.0, &request).await?;
        let request = request.into_inner();
        check::range(&request).map_err(refused)?;
        self.0.check_serving(request.serializable).map_err(refused)?;
        if !request.serializable {
            self.0.consensus.read_barrier().await?;
        }
        self.0.state.metrics.ranges.increment();
        let permit = self.permit(|book| book.read(caller.as_ref(), &request.key, &request.range_end))?;
        // One key is found at once, and mostly in memory: the way to another thread and back would take longer.
        let at_once = request.range_end.is_empty().then(|| self.0.state.mvcc.range_in_memory(&request));
        let mut response = match at_once {
            Some(Ok(response)) => response,
            None | Some(Err(Error::NotInMemory)) => self.read(move |mvcc| mvcc.range(&request)).await?,
            Some(Err(error)) => return Err(error.into()),
        };
        self.still(permit)?;
        response.header = self.0.complete(response.header);
        Ok(Response::new(response))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let caller = caller(&self.0, &request).await?;
        let request = request.into_inner();
        check::put(&request).map_err(refused)?;
        self.fits(&request)?;
        let Outcome::Put(mut response) = self.0.propose(Operation::Put(request), caller).await? else {
            return Err(mismatch());
        };
        response.header = self.0.complete(response.header);
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let caller = caller(&self.0, &request).await?;
        let request = request.into_inner();
        check::delete_range(&request).map_err(refused)?;
        self.fits(&request)?;
        let Outcome::DeleteRange(mut response) = self.0.propose(Operation::DeleteRange(request), caller).await? else {
            return Err(mismatch());
        };
        response.header = self.0.complete(response.header);
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let caller = caller(&self.0, &request).await?;
        let request = request.into_inner();
        check::txn(&request, self.0.config.max_txn_ops).map_err(refused)?;
        let mut response = if check::writes(&request) {
            self.fits(&request)?;
            match self.0.propose(Operation::Txn(request), caller).await? {
                Outcome::Txn(response) => response,
                _ => return Err(mismatch()),
            }
        } else {
            self.0.check_serving(check::serializable(&request)).map_err(refused)?;
            if !check::serializable(&request) {
                self.0.consensus.read_barrier().await?;
            }
            let permit = self.permit(|book| {
                let keys_on = |lease| self.0.state.leases.lock().keys(lease);
                auth::operation(book, caller.as_ref(), &Operation::Txn(request.clone()), keys_on)
            })?;
            let response = match self.0.state.mvcc.read_txn_in_memory(&request) {
                Err(Error::NotInMemory) => self.read(move |mvcc| mvcc.read_txn(&request)).await?,
                at_once => at_once?,
            };
            self.still(permit)?;
            response
        };
        response.header = self.0.complete(response.header);
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let caller = caller(&self.0, &request).await?;
        let request = request.into_inner();
        let Outcome::Compact(mut response) = self.0.propose(Operation::Compact(request), caller).await? else {
            return Err(mismatch());
        };
        if request.physical {
            let mut done = self.0.state.compacted.subscribe();
            if done.wait_for(|done| *done >= request.revision).await.is_err() {
                return Err(refused(Refusal::Stopped));
            }
        }
        response.header = self.0.complete(response.header);
        Ok(Response::new(response))
    }
}

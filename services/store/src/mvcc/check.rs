//! What a request must look like before anything is read or proposed.

use std::collections::HashSet;

use bytes::Bytes;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::range_request::{SortOrder, SortTarget};
use store_api::etcdserverpb::request_op::Request;

use super::KeyRange;
use crate::error::Refusal;

fn key(key: &Bytes) -> Result<(), Refusal> {
    if key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

/// Checks a range request.
///
/// # Errors
/// No key, or an unknown sort option.
pub fn range(request: &pb::RangeRequest) -> Result<(), Refusal> {
    key(&request.key)?;
    let known = SortOrder::try_from(request.sort_order).is_ok() && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(Refusal::InvalidSortOption) }
}

/// Checks a put.
///
/// # Errors
/// No key, or a value or lease together with the wish to keep the old one.
pub fn put(request: &pb::PutRequest) -> Result<(), Refusal> {
    key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// Checks a delete.
///
/// # Errors
/// No key.
pub fn delete_range(request: &pb::DeleteRangeRequest) -> Result<(), Refusal> {
    key(&request.key)
}

/// Checks a transaction and everything in it.
///
/// # Errors
/// The first fault found: too many operations, a faulty operation, or a key that one path changes twice.
pub fn txn(request: &pb::TxnRequest, max_ops: usize) -> Result<(), Refusal> {
    shape(request, max_ops)?;
    changes(&request.success)?;
    changes(&request.failure)?;
    Ok(())
}

fn shape(request: &pb::TxnRequest, max_ops: usize) -> Result<(), Refusal> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = max_ops.checked_sub(ops).ok_or(Refusal::TooManyOps)?;
    request.compare.iter().try_for_each(|compare| key(&compare.key))?;
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(r)) => range(r)?,
            Some(Request::RequestPut(r)) => put(r)?,
            Some(Request::RequestDeleteRange(r)) => delete_range(r)?,
            Some(Request::RequestTxn(r)) => shape(r, left)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

#[derive(Default)]
struct Changes<'r> {
    puts: HashSet<&'r [u8]>,
    deletes: Vec<KeyRange>,
}

impl<'r> Changes<'r> {
    /// Joins what may be executed together with `self`; the same key must not be in both.
    fn join(&mut self, other: Changes<'r>) -> Result<(), Refusal> {
        let deleted =
            |puts: &HashSet<&[u8]>, deletes: &[KeyRange]| puts.iter().any(|p| deletes.iter().any(|d| d.contains(p)));
        if deleted(&self.puts, &other.deletes)
            || deleted(&other.puts, &self.deletes)
            || !self.puts.is_disjoint(&other.puts)
        {
            return Err(Refusal::DuplicateKey);
        }
        self.absorb(other);
        Ok(())
    }

    fn absorb(&mut self, other: Changes<'r>) {
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
    }
}

fn changes(ops: &[pb::RequestOp]) -> Result<Changes<'_>, Refusal> {
    let mut all = Changes::default();
    for op in ops {
        let mut one = Changes::default();
        match &op.request {
            Some(Request::RequestPut(r)) => {
                one.puts.insert(&r.key);
            }
            Some(Request::RequestDeleteRange(r)) => one.deletes.push(KeyRange::new(&r.key, &r.range_end)),
            Some(Request::RequestTxn(r)) => {
                // Only one of the two branches runs, so they may touch the same keys.
                one = changes(&r.success)?;
                one.absorb(changes(&r.failure)?);
            }
            Some(Request::RequestRange(_)) | None => {}
        }
        all.join(one)?;
    }
    Ok(all)
}

/// Whether a transaction can change anything.
pub fn writes(request: &pb::TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|op| match &op.request {
        Some(Request::RequestTxn(r)) => writes(r),
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) => true,
        Some(Request::RequestRange(_)) | None => false,
    })
}

/// Whether a transaction asks for nothing but this member's own state.
pub fn serializable(request: &pb::TxnRequest) -> bool {
    let local = |op: &pb::RequestOp| matches!(&op.request, Some(Request::RequestRange(r)) if r.serializable);
    !request.success.iter().chain(&request.failure).any(|op| !local(op)) && !request.success.is_empty()
}

/// Whether a transaction can store anything, so that it must wait when the store is full.
pub fn stores(request: &pb::TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|op| match &op.request {
        Some(Request::RequestTxn(r)) => stores(r),
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => false,
    })
}

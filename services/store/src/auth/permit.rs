//! Whether a change may be made by the one who asks for it.

use bytes::Bytes;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::request_op::Request;

use super::{Book, Caller, ChangeOf};
use crate::command::Operation;
use crate::error::Refusal;

/// Checks a change against the book; `keys_on` says which keys hang on a lease.
///
/// # Errors
/// It is not allowed, or nobody knows who asks.
pub fn operation(
    book: &Book,
    caller: Option<&Caller>,
    operation: &Operation,
    keys_on: impl Fn(i64) -> Vec<Bytes>,
) -> Result<(), Refusal> {
    // Who hangs a key on a lease, or ends it, decides about all keys that hang on it.
    let lease = |id: i64| match id {
        0 => Ok(()),
        id => keys_on(id).iter().try_for_each(|key| book.write(caller, key, &[])),
    };
    match operation {
        Operation::Put(r) => {
            put(book, caller, r)?;
            lease(r.lease)
        }
        Operation::DeleteRange(r) => delete(book, caller, r),
        Operation::Txn(r) => txn(book, caller, r, &lease),
        Operation::LeaseRevoke(r) => {
            book.known(caller)?;
            lease(r.id)
        }
        Operation::LeaseGrant(_) | Operation::Compact(_) | Operation::Alarm(_) => book.known(caller),
        Operation::Auth(change) => match &change.change {
            Some(ChangeOf::Login(_)) => Ok(()),
            Some(_) => book.admin(caller),
            None => Err(Refusal::PermissionDenied),
        },
    }
}

fn put(book: &Book, caller: Option<&Caller>, request: &pb::PutRequest) -> Result<(), Refusal> {
    book.write(caller, &request.key, &[])?;
    if request.prev_kv { book.read(caller, &request.key, &[]) } else { Ok(()) }
}

fn delete(book: &Book, caller: Option<&Caller>, request: &pb::DeleteRangeRequest) -> Result<(), Refusal> {
    book.write(caller, &request.key, &request.range_end)?;
    if request.prev_kv { book.read(caller, &request.key, &request.range_end) } else { Ok(()) }
}

/// Checks all of a transaction, whichever branch it will take. Also for those that only read.
///
/// # Errors
/// It is not allowed, or nobody knows who asks.
pub fn txn(
    book: &Book,
    caller: Option<&Caller>,
    request: &pb::TxnRequest,
    lease: &dyn Fn(i64) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    request.compare.iter().try_for_each(|c| book.read(caller, &c.key, &c.range_end))?;
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(r)) => book.read(caller, &r.key, &r.range_end)?,
            Some(Request::RequestPut(r)) => {
                put(book, caller, r)?;
                lease(r.lease)?;
            }
            Some(Request::RequestDeleteRange(r)) => delete(book, caller, r)?,
            Some(Request::RequestTxn(r)) => txn(book, caller, r, lease)?,
            None => {}
        }
    }
    Ok(())
}

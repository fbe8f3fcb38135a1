//! Multi-version key-values: the shared view that readers use. The writer's side is [`Transaction`].
//!
//! Values live on disk by revision; the [`Index`] maps keys to revisions in memory. A reader resolves keys under the
//! index's read lock and takes a database snapshot before it lets go, so compaction cannot pull records away from under it.

pub mod check;
mod index;
mod range;
mod read;
#[cfg(test)]
mod tests;
mod txn;

use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::RwLock;
use store_api::etcdserverpb as pb;
use store_api::mvccpb::KeyValue;

pub use index::Index;
pub use range::KeyRange;
pub use txn::{Change, Transaction};

use crate::engine::{Engine, Records};
use crate::error::{Error, Refusal};
use crate::lease::LeaseTable;
use crate::schema::{self, Applied, Revision};

/// How many keys are looked up by the thread that was asked: beyond that, the way to another thread is worth it.
const AT_ONCE: usize = 64;

/// Reads records by revision.
pub trait Load {
    /// The record stored at `revision`.
    ///
    /// # Errors
    /// It is missing or damaged, or the disk failed.
    fn load(&self, revision: Revision) -> Result<KeyValue, Error>;
}

/// The store's content as readers see it.
pub struct Mvcc {
    engine: Engine,
    pub(crate) index: RwLock<Index>,
    revision: AtomicI64,
    compacted: AtomicI64,
    /// Held while records are read without the index, and taken to replace all of them.
    stable: RwLock<()>,
}

impl Mvcc {
    /// Reads and verifies every record, and rebuilds the index and the leases' keys from them.
    ///
    /// # Errors
    /// The first damaged record, by name; or the disk failed.
    pub fn open(engine: Engine, leases: &mut LeaseTable) -> Result<Self, Error> {
        let applied = match engine.get(schema::STATE, schema::state::APPLIED)? {
            None => Applied { log: None, revision: 1 },
            Some(payload) => Applied::decode(&payload)
                .ok_or_else(|| schema::Corruption::new(schema::STATE, schema::state::APPLIED, "not an applied mark"))?,
        };
        let compacted = number(&engine, schema::state::COMPACT_WANTED)?;
        let mut index = Index::default();
        engine.scan(schema::MVCC, &[], |key, value| {
            let revision = Revision::from_key(key)?;
            let (tombstone, kv) = schema::decode_record(revision, value.into_vec())?;
            if revision.main > applied.revision {
                return Err(schema::Corruption::new(schema::MVCC, key, "newer than the applied mark").into());
            }
            index.restore(&kv.key, revision, tombstone, kv.create_revision, kv.version);
            leases.attach(&kv.key, kv.lease);
            Ok(true)
        })?;
        Ok(Mvcc {
            engine,
            index: RwLock::new(index),
            revision: AtomicI64::new(applied.revision),
            compacted: AtomicI64::new(compacted),
            stable: RwLock::new(()),
        })
    }

    /// Replaces everything: `make` changes what is on disk and reads it again, while no reader looks.
    ///
    /// # Errors
    /// `make`'s own.
    pub fn replace(&self, make: impl FnOnce() -> Result<Mvcc, Error>) -> Result<(), Error> {
        let _stable = self.stable.write();
        let mut index = self.index.write();
        let fresh = make()?;
        self.revision.store(fresh.revision(), Ordering::Release);
        self.compacted.store(fresh.compacted(), Ordering::Release);
        *index = fresh.index.into_inner();
        Ok(())
    }

    /// The newest revision whose records are readable.
    pub fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Lets readers see everything up to `revision`; its records must have been written.
    pub fn publish(&self, revision: i64) {
        self.revision.store(revision, Ordering::Release);
    }

    /// How many keys there are, deleted ones included until they are compacted.
    pub fn keys(&self) -> usize {
        self.index.read().count()
    }

    /// The revision before which history is gone.
    pub fn compacted(&self) -> i64 {
        self.compacted.load(Ordering::Acquire)
    }

    /// Refuses reads before `revision` from now on.
    pub fn set_compacted(&self, revision: i64) {
        // Under the index lock: a reader that got in before holds its database snapshot already.
        let _index = self.index.write();
        self.compacted.store(revision, Ordering::Release);
    }

    /// Answers a range request; the header holds the revision only.
    ///
    /// # Errors
    /// The revision cannot be read, or the disk failed.
    pub fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        self.read(request, || self.engine.snapshot())
    }

    /// [`Mvcc::range`] without waiting for the disk.
    ///
    /// # Errors
    /// As for [`Mvcc::range`], or the value is not in memory.
    pub fn range_in_memory(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        self.read(request, || self.engine.snapshot_in_memory())
    }

    fn read<'e>(
        &'e self,
        request: &pb::RangeRequest,
        snapshot: impl FnOnce() -> Records<'e>,
    ) -> Result<pb::RangeResponse, Error> {
        let (selected, records, current) = {
            let index = self.index.read();
            let current = self.revision();
            let at = read::read_at(request.revision, current, self.compacted())?;
            (read::select(&index, request, at), snapshot(), current)
        };
        let mut response = read::answer(selected, request, &records)?;
        response.header = Some(pb::ResponseHeader { revision: current, ..Default::default() });
        Ok(response)
    }

    /// What a key held just before `revision`, if that is still known.
    ///
    /// # Errors
    /// The record is damaged or the disk failed.
    pub fn before(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, Error> {
        let (found, records) = {
            let index = self.index.read();
            if revision <= self.compacted() {
                // It may be gone from disk although the index has not forgotten it yet.
                return Ok(None);
            }
            let Some(found) = index.find(key, revision - 1) else { return Ok(None) };
            (found, self.engine.snapshot())
        };
        records.load(found).map(Some)
    }

    /// Calls `visit` with every record from `from` to `to`, in revision order, until it returns `false`.
    ///
    /// # Errors
    /// `from` was compacted, a record is damaged, or the disk failed.
    pub fn history<F>(&self, from: i64, to: i64, mut visit: F) -> Result<(), Error>
    where
        F: FnMut(Revision, bool, KeyValue) -> Result<bool, Error>,
    {
        let _stable = self.stable.read();
        let mut first = true;
        let check = |first: &mut bool| -> Result<(), Error> {
            // After the iterator exists: what is deleted later stays visible to it.
            if std::mem::take(first) && from < self.compacted() { Err(Refusal::Compacted.into()) } else { Ok(()) }
        };
        self.engine.scan(schema::MVCC, &Revision::first(from).key(), |key, value| {
            check(&mut first)?;
            let revision = Revision::from_key(key)?;
            if revision.main > to {
                return Ok(false);
            }
            let (tombstone, kv) = schema::decode_record(revision, value.into_vec())?;
            visit(revision, tombstone, kv)
        })?;
        check(&mut first)
    }

    /// A checksum over all records up to `revision` (0: all), and that revision.
    ///
    /// # Errors
    /// The revision cannot be read, a record is damaged, or the disk failed.
    pub fn hash(&self, revision: i64) -> Result<(u32, i64), Error> {
        let _stable = self.stable.read();
        let at = read::read_at(revision, self.revision(), self.compacted())?;
        let mut hasher = crc32fast::Hasher::new();
        self.engine.scan(schema::MVCC, &[], |key, value| {
            if Revision::from_key(key)?.main > at {
                return Ok(false);
            }
            hasher.update(key);
            hasher.update(schema::unseal(schema::MVCC, key, &value)?);
            Ok(true)
        })?;
        Ok((hasher.finalize(), at))
    }

    /// Runs a transaction that cannot change anything.
    ///
    /// # Errors
    /// A revision cannot be read, or the disk failed.
    pub fn read_txn(&self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        if let Some(ranges) = txn::only_ranges(request) {
            return self.read_all(&ranges, || self.engine.snapshot());
        }
        // The same code as for writing transactions; without a put or delete it leaves index and leases alone.
        let mut index = self.index.write();
        let mut leases = LeaseTable::default();
        let records = self.engine.snapshot();
        Transaction::new(&mut index, &mut leases, &records, self.revision(), self.compacted()).txn(request)
    }

    /// [`Mvcc::read_txn`] without waiting for the disk.
    ///
    /// # Errors
    /// As for [`Mvcc::read_txn`]; or a value is not in memory, or the transaction reads more than some keys.
    pub fn read_txn_in_memory(&self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        match txn::only_ranges(request) {
            Some(ranges) if ranges.len() <= AT_ONCE && ranges.iter().all(|range| range.range_end.is_empty()) => {
                self.read_all(&ranges, || self.engine.snapshot_in_memory())
            }
            _ => Err(Error::NotInMemory),
        }
    }

    /// Answers ranges as of one moment.
    fn read_all<'e>(
        &'e self,
        ranges: &[&pb::RangeRequest],
        snapshot: impl FnOnce() -> Records<'e>,
    ) -> Result<pb::TxnResponse, Error> {
        let (selected, records, current) = {
            let index = self.index.read();
            let current = self.revision();
            let select = |request: &&pb::RangeRequest| {
                let at = read::read_at(request.revision, current, self.compacted())?;
                Ok(read::select(&index, request, at))
            };
            (ranges.iter().map(select).collect::<Result<Vec<_>, Refusal>>()?, snapshot(), current)
        };
        let header = Some(pb::ResponseHeader { revision: current, ..Default::default() });
        let answer = |(selected, request): (read::Selected, &&pb::RangeRequest)| {
            let response = pb::RangeResponse { header, ..read::answer(selected, request, &records)? };
            Ok(pb::ResponseOp { response: Some(pb::response_op::Response::ResponseRange(response)) })
        };
        let responses = selected.into_iter().zip(ranges).map(answer).collect::<Result<_, Error>>()?;
        Ok(pb::TxnResponse { header, succeeded: true, responses })
    }
}

fn number(engine: &Engine, key: &'static [u8]) -> Result<i64, Error> {
    match engine.get(schema::STATE, key)? {
        None => Ok(0),
        Some(payload) => Ok(schema::decode_i64(schema::STATE, key, &payload)?),
    }
}

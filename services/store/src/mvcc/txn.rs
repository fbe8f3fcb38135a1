//! Changes: put, delete and transactions against the index. Pure: the records it produces are returned, not stored.

use bytes::Bytes;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use store_api::etcdserverpb::request_op::Request;
use store_api::etcdserverpb::response_op::Response;
use store_api::mvccpb::KeyValue;

use super::{Index, KeyRange, Load, read};
use crate::error::{Error, Refusal};
use crate::lease::LeaseTable;
use crate::schema::Revision;

/// One record to store, and the event that watchers see.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Where it is stored.
    pub revision: Revision,
    /// Whether the key is gone.
    pub tombstone: bool,
    /// The new content; for a tombstone the key and the revision only.
    pub kv: KeyValue,
    /// The value that was replaced.
    pub previous: Option<Revision>,
}

/// One atomic change of the store. All its changes share one revision.
pub struct Transaction<'a, L> {
    index: &'a mut Index,
    leases: &'a mut LeaseTable,
    records: &'a L,
    base: i64,
    compacted: i64,
    changes: Vec<Change>,
}

/// A transaction whose comparisons are decided: which branch runs, at every level.
struct Plan<'r> {
    succeeded: bool,
    steps: Vec<Step<'r>>,
}

enum Step<'r> {
    Range(&'r pb::RangeRequest),
    Put(&'r pb::PutRequest),
    Delete(&'r pb::DeleteRangeRequest),
    Txn(Plan<'r>),
}

impl<'a, L: Load> Transaction<'a, L> {
    /// Starts on top of revision `base`.
    pub fn new(index: &'a mut Index, leases: &'a mut LeaseTable, records: &'a L, base: i64, compacted: i64) -> Self {
        Transaction { index, leases, records, base, compacted, changes: Vec::new() }
    }

    /// Ends; returns the revision after it and what to store.
    pub fn finish(self) -> (i64, Vec<Change>) {
        (self.revision(), self.changes)
    }

    /// The revision as of now: it moves with the first change.
    pub fn revision(&self) -> i64 {
        if self.changes.is_empty() { self.base } else { self.base + 1 }
    }

    fn next(&self) -> Revision {
        // At most 128 operations, each deleting at most every key: far below u32.
        Revision { main: self.base + 1, sub: u32::try_from(self.changes.len()).unwrap_or(u32::MAX) }
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { revision: self.revision(), ..Default::default() })
    }

    fn load(&self, revision: Revision) -> Result<KeyValue, Error> {
        if revision.main > self.base {
            let own = self.changes.get(revision.sub as usize).map(|change| change.kv.clone());
            return own.ok_or_else(|| Error::Consensus(format!("{revision:?} is not part of this transaction")));
        }
        self.records.load(revision)
    }

    /// Reads, seeing the changes made so far.
    ///
    /// # Errors
    /// The revision cannot be read, or the disk failed.
    pub fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        let at = read::read_at(request.revision, self.revision(), self.compacted)?;
        let mut response = read::answer(read::select(self.index, request, at), request, &Own(self))?;
        response.header = self.header();
        Ok(response)
    }

    fn check_put(&self, request: &pb::PutRequest) -> Result<(), Refusal> {
        if request.lease != 0 && !self.leases.contains(request.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        let needs_value = request.ignore_value || request.ignore_lease;
        if needs_value && self.index.find(&request.key, self.revision()).is_none() {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    /// Stores a value.
    ///
    /// # Errors
    /// The lease or the value to keep is missing, or the disk failed.
    pub fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, Error> {
        self.check_put(request)?;
        let needs_old = request.prev_kv || request.ignore_value || request.ignore_lease;
        let old = match self.index.find(&request.key, self.revision()) {
            Some(revision) if needs_old => Some(self.load(revision)?),
            _ => None,
        };
        let revision = self.next();
        let written = self.index.put(&request.key, revision);
        let mut kv = KeyValue {
            key: request.key.clone(),
            value: request.value.clone(),
            lease: request.lease,
            create_revision: written.create_revision,
            version: written.version,
            mod_revision: revision.main,
        };
        if let Some(old) = &old {
            if request.ignore_value {
                kv.value = old.value.clone();
            }
            if request.ignore_lease {
                kv.lease = old.lease;
            }
        }
        self.leases.attach(&kv.key, kv.lease);
        self.changes.push(Change { revision, tombstone: false, kv, previous: written.previous });
        Ok(pb::PutResponse { header: self.header(), prev_kv: if request.prev_kv { old } else { None } })
    }

    /// Removes keys.
    ///
    /// # Errors
    /// The disk failed.
    pub fn delete_range(&mut self, request: &pb::DeleteRangeRequest) -> Result<pb::DeleteRangeResponse, Error> {
        let mut found: Vec<(Bytes, Revision)> = Vec::new();
        let range = KeyRange::new(&request.key, &request.range_end);
        self.index.visit(&range, self.revision(), |key, revision| found.push((Bytes::copy_from_slice(key), revision)));
        let mut response =
            pb::DeleteRangeResponse { deleted: i64::try_from(found.len()).unwrap_or(i64::MAX), ..Default::default() };
        for (key, previous) in found {
            if request.prev_kv {
                response.prev_kvs.push(self.load(previous)?);
            }
            self.delete(key);
        }
        response.header = self.header();
        Ok(response)
    }

    /// Removes one key, if it is there.
    pub fn delete(&mut self, key: Bytes) {
        let revision = self.next();
        if let Some(previous) = self.index.delete(&key, revision) {
            self.leases.attach(&key, 0);
            let kv = KeyValue { key, mod_revision: revision.main, ..Default::default() };
            self.changes.push(Change { revision, tombstone: true, kv, previous: Some(previous) });
        }
    }

    /// Compares, then runs one branch.
    ///
    /// # Errors
    /// A step of the chosen branch cannot be done, and then nothing is changed; or the disk failed.
    pub fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        // Every comparison, nested ones too, sees the store as it was before the transaction.
        let plan = self.plan(request)?;
        self.check(&plan)?;
        self.run(&plan)
    }

    fn plan<'r>(&self, request: &'r pb::TxnRequest) -> Result<Plan<'r>, Error> {
        let mut succeeded = true;
        for compare in &request.compare {
            succeeded = succeeded && self.holds(compare)?;
        }
        let mut steps = Vec::new();
        for op in if succeeded { &request.success } else { &request.failure } {
            match &op.request {
                Some(Request::RequestRange(r)) => steps.push(Step::Range(r)),
                Some(Request::RequestPut(r)) => steps.push(Step::Put(r)),
                Some(Request::RequestDeleteRange(r)) => steps.push(Step::Delete(r)),
                Some(Request::RequestTxn(r)) => steps.push(Step::Txn(self.plan(r)?)),
                None => return Err(Refusal::KeyNotFound.into()),
            }
        }
        Ok(Plan { succeeded, steps })
    }

    /// Finds every reason to refuse before the first change.
    fn check(&self, plan: &Plan<'_>) -> Result<(), Refusal> {
        for step in &plan.steps {
            match step {
                Step::Range(r) => {
                    read::read_at(r.revision, self.base, self.compacted)?;
                }
                Step::Put(r) => self.check_put(r)?,
                Step::Delete(_) => {}
                Step::Txn(nested) => self.check(nested)?,
            }
        }
        Ok(())
    }

    fn run(&mut self, plan: &Plan<'_>) -> Result<pb::TxnResponse, Error> {
        let mut responses = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            let response = match step {
                Step::Range(r) => Response::ResponseRange(self.range(r)?),
                Step::Put(r) => Response::ResponsePut(self.put(r)?),
                Step::Delete(r) => Response::ResponseDeleteRange(self.delete_range(r)?),
                Step::Txn(nested) => Response::ResponseTxn(self.run(nested)?),
            };
            responses.push(pb::ResponseOp { response: Some(response) });
        }
        Ok(pb::TxnResponse { header: self.header(), succeeded: plan.succeeded, responses })
    }

    fn holds(&self, compare: &pb::Compare) -> Result<bool, Error> {
        let mut found = Vec::new();
        let range = KeyRange::new(&compare.key, &compare.range_end);
        self.index.visit(&range, self.revision(), |_, revision| found.push(revision));
        if found.is_empty() {
            // A missing key has zero counters, but no value that anything could be compared with.
            return Ok(compare.target() != CompareTarget::Value && compare_one(compare, &KeyValue::default()));
        }
        for revision in found {
            if !compare_one(compare, &self.load(revision)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Records as the transaction sees them: its own first.
struct Own<'t, 'a, L>(&'t Transaction<'a, L>);

impl<L: Load> Load for Own<'_, '_, L> {
    fn load(&self, revision: Revision) -> Result<KeyValue, Error> {
        self.0.load(revision)
    }
}

/// The ranges of a transaction that does nothing else, so that the order of its steps does not matter.
pub fn only_ranges(request: &pb::TxnRequest) -> Option<Vec<&pb::RangeRequest>> {
    fn range(op: &pb::RequestOp) -> Option<&pb::RangeRequest> {
        match &op.request {
            Some(Request::RequestRange(range)) => Some(range),
            _ => None,
        }
    }
    request.compare.is_empty().then(|| request.success.iter().map(range).collect()).flatten()
}

fn compare_one(compare: &pb::Compare, kv: &KeyValue) -> bool {
    let number = |actual: i64| actual.cmp(&target_number(compare));
    let ordering = match compare.target() {
        CompareTarget::Version => number(kv.version),
        CompareTarget::Create => number(kv.create_revision),
        CompareTarget::Mod => number(kv.mod_revision),
        CompareTarget::Lease => number(kv.lease),
        CompareTarget::Value => match &compare.target_union {
            Some(TargetUnion::Value(value)) => kv.value.cmp(value),
            _ => kv.value.as_ref().cmp(b""),
        },
    };
    match compare.result() {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
    }
}

/// The number to compare with; a union of another kind than the target counts as zero.
fn target_number(compare: &pb::Compare) -> i64 {
    match (compare.target(), &compare.target_union) {
        (CompareTarget::Version, Some(TargetUnion::Version(n)))
        | (CompareTarget::Create, Some(TargetUnion::CreateRevision(n)))
        | (CompareTarget::Mod, Some(TargetUnion::ModRevision(n)))
        | (CompareTarget::Lease, Some(TargetUnion::Lease(n))) => *n,
        _ => 0,
    }
}

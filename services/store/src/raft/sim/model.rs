//! What the committed log means, told independently of the state machine: a map, a revision, and what came of each request.
//!
//! Each request of a simulated client writes its own number somewhere, whatever else it does, so it is known by that.

use std::collections::BTreeMap;

use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::compare::TargetUnion;
use store_api::etcdserverpb::request_op::Request;

use crate::command::{Command, Operation};

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// The revision it made.
    pub revision: i64,
    /// Whether its comparisons held.
    pub succeeded: bool,
}

/// A revision, and what a key held from then on.
type Version = (i64, Option<Vec<u8>>);

/// The content after the committed entries so far.
#[derive(Default)]
pub struct Model {
    /// The newest revision, without the first that every store begins with.
    made: i64,
    /// Values by key and revision.
    keys: BTreeMap<Vec<u8>, Vec<Version>>,
    done: BTreeMap<Vec<u8>, Done>,
}

impl Model {
    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.made + 1
    }

    /// What came of a request.
    pub fn done(&self, number: &[u8]) -> Option<Done> {
        self.done.get(number).copied()
    }

    /// What a key held at a revision, and the revision that it came with.
    pub fn value(&self, key: &[u8], at: i64) -> Option<(i64, &[u8])> {
        let (revision, value) = self.keys.get(key)?.iter().rev().find(|(revision, _)| *revision <= at)?;
        value.as_deref().map(|value| (*revision, value))
    }

    /// The next committed entry.
    ///
    /// # Errors
    /// A request is there twice.
    pub fn execute(&mut self, command: &Command) -> Result<(), String> {
        for proposal in command.proposals() {
            match &proposal.operation {
                Some(Operation::Put(put)) => self.change(true, &[Request::RequestPut(put.clone())])?,
                Some(Operation::Txn(txn)) => {
                    let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
                    let branch = if succeeded { &txn.success } else { &txn.failure };
                    let requests: Vec<Request> = branch.iter().filter_map(|op| op.request.clone()).collect();
                    self.change(succeeded, &requests)?;
                }
                // Nothing else that simulated clients do changes a key.
                _ => {}
            }
        }
        Ok(())
    }

    fn holds(&self, compare: &pb::Compare) -> bool {
        let now = self.value(&compare.key, i64::MAX).map(|(_, value)| value);
        matches!(&compare.target_union, Some(TargetUnion::Value(value)) if now == Some(value))
    }

    fn change(&mut self, succeeded: bool, requests: &[Request]) -> Result<(), String> {
        let revision = self.revision() + 1;
        for request in requests {
            match request {
                Request::RequestPut(put) => {
                    self.write(&put.key, revision, Some(put.value.to_vec()));
                    if self.done.insert(put.value.to_vec(), Done { revision, succeeded }).is_some() {
                        return Err(format!("request {} happened twice", String::from_utf8_lossy(&put.value)));
                    }
                    self.made = revision - 1;
                }
                Request::RequestDeleteRange(delete) if self.value(&delete.key, i64::MAX).is_some() => {
                    self.write(&delete.key, revision, None);
                    self.made = revision - 1;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn write(&mut self, key: &[u8], revision: i64, value: Option<Vec<u8>>) {
        self.keys.entry(key.to_vec()).or_default().push((revision, value));
    }
}

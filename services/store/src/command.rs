//! What members agree on: the proposals in the Raft log and the replies of applying them.
//!
//! Both are protobuf messages made of the API's own requests and responses, so that the log on disk and on the wire stays
//! readable by later versions.

use std::fmt;
use std::sync::Arc;

use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use store_api::etcdserverpb as pb;

use crate::error::{Error, Refusal};

/// A change that every member applies in the same order.
#[derive(Clone, PartialEq, Message)]
pub struct Proposal {
    /// What to do.
    #[prost(oneof = "Operation", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub operation: Option<Operation>,
}

/// The kinds of change.
#[derive(Clone, PartialEq, prost::Oneof)]
#[expect(missing_docs, reason = "named after the requests they carry")]
pub enum Operation {
    #[prost(message, tag = "1")]
    Put(pb::PutRequest),
    #[prost(message, tag = "2")]
    DeleteRange(pb::DeleteRangeRequest),
    #[prost(message, tag = "3")]
    Txn(pb::TxnRequest),
    #[prost(message, tag = "4")]
    Compact(pb::CompactionRequest),
    #[prost(message, tag = "5")]
    LeaseGrant(pb::LeaseGrantRequest),
    #[prost(message, tag = "6")]
    LeaseRevoke(pb::LeaseRevokeRequest),
    #[prost(message, tag = "7")]
    Alarm(pb::AlarmRequest),
}

/// The result of applying a proposal.
#[derive(Clone, PartialEq, Message)]
pub struct Reply {
    /// `None` for entries without a client: blanks and memberships.
    #[prost(oneof = "Outcome", tags = "1, 2, 3, 4, 5, 6, 7, 15")]
    pub outcome: Option<Outcome>,
}

/// The kinds of result.
#[derive(Clone, PartialEq, prost::Oneof)]
#[expect(missing_docs, reason = "named after the responses they carry")]
pub enum Outcome {
    #[prost(message, tag = "1")]
    Put(pb::PutResponse),
    #[prost(message, tag = "2")]
    DeleteRange(pb::DeleteRangeResponse),
    #[prost(message, tag = "3")]
    Txn(pb::TxnResponse),
    #[prost(message, tag = "4")]
    Compact(pb::CompactionResponse),
    #[prost(message, tag = "5")]
    LeaseGrant(pb::LeaseGrantResponse),
    #[prost(message, tag = "6")]
    LeaseRevoke(pb::LeaseRevokeResponse),
    #[prost(message, tag = "7")]
    Alarm(pb::AlarmResponse),
    /// A [`Refusal`]'s number.
    #[prost(uint32, tag = "15")]
    Refused(u32),
}

impl From<Result<Outcome, Refusal>> for Reply {
    fn from(result: Result<Outcome, Refusal>) -> Reply {
        Reply { outcome: Some(result.unwrap_or_else(|refusal| Outcome::Refused(refusal as u32))) }
    }
}

impl Reply {
    /// The result, with a refusal as an error.
    ///
    /// # Errors
    /// The proposal was refused, by a member that may be newer than this one.
    pub fn into_result(self) -> Result<Outcome, Error> {
        match self.outcome {
            Some(Outcome::Refused(number)) => {
                Err(Refusal::from_number(number)
                    .map_or_else(|| Error::Consensus(format!("refusal {number}")), Error::from))
            }
            Some(outcome) => Ok(outcome),
            None => Err(Error::Consensus("an entry without a reply".into())),
        }
    }
}

/// A shared proposal: entries are cloned between the log, its cache and the state machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Command(Arc<Proposal>);

impl Command {
    /// Wraps an operation.
    pub fn new(operation: Operation) -> Self {
        Command(Arc::new(Proposal { operation: Some(operation) }))
    }

    /// Reads a log record's body.
    ///
    /// # Errors
    /// The bytes are no proposal.
    pub fn decode(body: &[u8]) -> Result<Self, prost::DecodeError> {
        Ok(Command(Arc::new(Proposal::decode(body)?)))
    }

    /// A log record's body.
    pub fn encode(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }

    /// What to do, if this version knows it.
    pub fn operation(&self) -> Option<&Operation> {
        self.0.operation.as_ref()
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.operation() {
            Some(Operation::Put(_)) => "put",
            Some(Operation::DeleteRange(_)) => "delete range",
            Some(Operation::Txn(_)) => "txn",
            Some(Operation::Compact(_)) => "compact",
            Some(Operation::LeaseGrant(_)) => "lease grant",
            Some(Operation::LeaseRevoke(_)) => "lease revoke",
            Some(Operation::Alarm(_)) => "alarm",
            None => "unknown",
        })
    }
}

impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Command::decode(&bytes).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode_to_vec())
    }
}

impl<'de> Deserialize<'de> for Reply {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Reply::decode(bytes.as_slice()).map_err(serde::de::Error::custom)
    }
}

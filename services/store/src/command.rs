//! What members agree on: the proposals in the Raft log and the replies of applying them.
//!
//! Both are protobuf messages made of the API's own requests and responses, so that the log on disk and on the wire stays
//! readable by later versions.

use std::fmt;
use std::sync::Arc;

use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use store_api::etcdserverpb as pb;

use crate::auth::{self, Caller};
use crate::error::{Error, Refusal};

/// A change that every member applies in the same order.
#[derive(Clone, PartialEq, Message)]
pub struct Proposal {
    /// What to do.
    #[prost(oneof = "Operation", tags = "1, 2, 3, 4, 5, 6, 7, 11")]
    pub operation: Option<Operation>,
    /// Several changes in one entry, done in order, each for itself; `operation` is empty then.
    #[prost(message, repeated, tag = "8")]
    pub batch: Vec<Proposal>,
    /// Who wants it.
    #[prost(oneof = "Caller", tags = "9, 10")]
    pub caller: Option<Caller>,
}

impl Proposal {
    /// What a client wants; without a name if it did not say.
    pub fn by(caller: Option<Caller>, operation: Operation) -> Self {
        Proposal { operation: Some(operation), batch: Vec::new(), caller }
    }

    /// What the store itself wants.
    pub fn by_store(operation: Operation) -> Self {
        Proposal::by(Some(Caller::Store(true)), operation)
    }
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
    #[prost(message, tag = "11")]
    Auth(auth::Change),
}

/// The result of applying a proposal.
#[derive(Clone, PartialEq, Message)]
pub struct Reply {
    /// `None` for entries without a client: blanks and memberships.
    #[prost(oneof = "Outcome", tags = "1, 2, 3, 4, 5, 6, 7, 8, 15")]
    pub outcome: Option<Outcome>,
    /// One reply per change of a batch.
    #[prost(message, repeated, tag = "16")]
    pub batch: Vec<Reply>,
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
    /// All answers to changes of users and roles consist of a header.
    #[prost(message, tag = "8")]
    Auth(pb::AuthEnableResponse),
    /// A [`Refusal`]'s number.
    #[prost(uint32, tag = "15")]
    Refused(u32),
}

impl From<Result<Outcome, Refusal>> for Reply {
    fn from(result: Result<Outcome, Refusal>) -> Reply {
        let outcome = result.unwrap_or_else(|refusal| Outcome::Refused(refusal as u32));
        Reply { outcome: Some(outcome), batch: Vec::new() }
    }
}

impl Reply {
    /// The reply to a command's changes, in their order.
    pub fn new(results: Vec<Result<Outcome, Refusal>>) -> Self {
        Reply::of(results.into_iter().map(Reply::from).collect())
    }

    /// One reply for each of a command's changes.
    ///
    /// # Errors
    /// There are more or fewer.
    pub fn into_replies(self, proposed: usize) -> Result<Vec<Reply>, Error> {
        let batch = if self.batch.is_empty() { vec![self] } else { self.batch };
        match batch.len() {
            got if got == proposed => Ok(batch),
            got => Err(Error::Consensus(format!("{got} replies to {proposed} changes"))),
        }
    }

    /// The reply to a command with these changes.
    pub fn of(mut replies: Vec<Reply>) -> Self {
        match replies.len() {
            1 => replies.remove(0),
            _ => Reply { outcome: None, batch: replies },
        }
    }

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
    /// Wraps one change that the store itself wants.
    pub fn new(operation: Operation) -> Self {
        Command::batch(vec![Proposal::by_store(operation)])
    }

    /// Wraps changes.
    pub fn batch(mut batch: Vec<Proposal>) -> Self {
        Command(Arc::new(match batch.len() {
            1 => batch.remove(0),
            _ => Proposal { operation: None, batch, caller: None },
        }))
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

    /// How long [`Command::encode`]'s bytes are.
    pub fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }

    /// Adds [`Command::encode`]'s bytes to a buffer.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        self.0.encode_raw(out);
    }

    /// [`Command::proposals`] for their next entry.
    pub fn into_proposals(self) -> Vec<Proposal> {
        let mut all = Arc::unwrap_or_clone(self.0);
        if all.batch.is_empty() { vec![all] } else { std::mem::take(&mut all.batch) }
    }

    /// What to do, in order; without an operation it is something that this version does not know.
    pub fn proposals(&self) -> impl Iterator<Item = &Proposal> {
        let alone = self.0.batch.is_empty().then_some(&*self.0);
        alone.into_iter().chain(&self.0.batch)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.batch.len() {
            0 => f.write_str(name(self.0.operation.as_ref())),
            count => write!(f, "{count} changes"),
        }
    }
}

fn name(operation: Option<&Operation>) -> &'static str {
    match operation {
        Some(Operation::Put(_)) => "put",
        Some(Operation::DeleteRange(_)) => "delete range",
        Some(Operation::Txn(_)) => "txn",
        Some(Operation::Compact(_)) => "compact",
        Some(Operation::LeaseGrant(_)) => "lease grant",
        Some(Operation::LeaseRevoke(_)) => "lease revoke",
        Some(Operation::Alarm(_)) => "alarm",
        Some(Operation::Auth(_)) => "auth",
        None => "unknown",
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

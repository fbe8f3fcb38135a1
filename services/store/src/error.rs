//! What can go wrong, and how etcd's clients are told.

use std::sync::Arc;

use tonic::{Code, Status};

use crate::schema::Corruption;
use crate::wal::WalError;

/// A request that the store answers with "no": the same on every member, so it can travel in a Raft reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
#[repr(u32)]
#[expect(missing_docs, reason = "the messages below say it")]
pub enum Refusal {
    EmptyKey = 1,
    KeyNotFound,
    ValueProvided,
    LeaseProvided,
    TooManyOps,
    DuplicateKey,
    InvalidSortOption,
    RequestTooLarge,
    Compacted,
    FutureRevision,
    NoSpace,
    LeaseNotFound,
    LeaseExists,
    LeaseTtlTooLarge,
    MemberNotFound,
    BadTransferee,
    NotLeader,
    NoLeader,
    LeaderChanged,
    Stopped,
    NoPeerListener,
    NotSupported,
    Timeout,
    LeaderFailed,
    TransferTimeout,
    BadMemberUrls,
    PeerUrlExists,
    NotEnoughStarted,
    Unhealthy,
    TooManyLearners,
    NotLearner,
    LearnerNotReady,
    LearnerOnly,
    Corrupt,
    RootUserNotExist,
    RootRoleNotExist,
    UserAlreadyExist,
    UserEmpty,
    UserNotFound,
    RoleAlreadyExist,
    RoleNotFound,
    RoleEmpty,
    AuthFailed,
    NoPasswordUser,
    PermissionNotGiven,
    PermissionDenied,
    RoleNotGranted,
    PermissionNotGranted,
    AuthNotEnabled,
    InvalidAuthToken,
    InvalidAuthMgmt,
    AuthOldRevision,
    HashedPassword,
    TooManyRequests,
}

/// Clients compare these codes and texts, so they are etcd's.
const REFUSALS: [(Refusal, Code, &str); 54] = [
    (Refusal::EmptyKey, Code::InvalidArgument, "etcdserver: key is not provided"),
    (Refusal::KeyNotFound, Code::InvalidArgument, "etcdserver: key not found"),
    (Refusal::ValueProvided, Code::InvalidArgument, "etcdserver: value is provided"),
    (Refusal::LeaseProvided, Code::InvalidArgument, "etcdserver: lease is provided"),
    (Refusal::TooManyOps, Code::InvalidArgument, "etcdserver: too many operations in txn request"),
    (Refusal::DuplicateKey, Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
    (Refusal::InvalidSortOption, Code::InvalidArgument, "etcdserver: invalid sort option"),
    (Refusal::RequestTooLarge, Code::InvalidArgument, "etcdserver: request is too large"),
    (Refusal::Compacted, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
    (Refusal::FutureRevision, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
    (Refusal::NoSpace, Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
    (Refusal::LeaseNotFound, Code::NotFound, "etcdserver: requested lease not found"),
    (Refusal::LeaseExists, Code::FailedPrecondition, "etcdserver: lease already exists"),
    (Refusal::LeaseTtlTooLarge, Code::OutOfRange, "etcdserver: too large lease TTL"),
    (Refusal::MemberNotFound, Code::NotFound, "etcdserver: member not found"),
    (Refusal::BadTransferee, Code::FailedPrecondition, "etcdserver: bad leader transferee"),
    (Refusal::NotLeader, Code::FailedPrecondition, "etcdserver: not leader"),
    (Refusal::NoLeader, Code::Unavailable, "etcdserver: no leader"),
    (Refusal::LeaderChanged, Code::Unavailable, "etcdserver: leader changed"),
    (Refusal::Stopped, Code::Unavailable, "etcdserver: server stopped"),
    (
        Refusal::NoPeerListener,
        Code::FailedPrecondition,
        "store: the members listen on no peer URL; start them with --listen-peer-urls and, for https, --peer-cert-file",
    ),
    (Refusal::NotSupported, Code::Unimplemented, "store: this operation is not supported"),
    (Refusal::Timeout, Code::Unavailable, "etcdserver: request timed out"),
    (
        Refusal::LeaderFailed,
        Code::Unavailable,
        "etcdserver: request timed out, possibly due to previous leader failure",
    ),
    (Refusal::TransferTimeout, Code::Unavailable, "etcdserver: request timed out, leader transfer took too long"),
    (Refusal::BadMemberUrls, Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
    (Refusal::PeerUrlExists, Code::FailedPrecondition, "etcdserver: Peer URLs already exists"),
    (
        Refusal::NotEnoughStarted,
        Code::FailedPrecondition,
        "etcdserver: re-configuration failed due to not enough started members",
    ),
    (Refusal::Unhealthy, Code::Unavailable, "etcdserver: unhealthy cluster"),
    (Refusal::TooManyLearners, Code::FailedPrecondition, "etcdserver: too many learner members in cluster"),
    (Refusal::NotLearner, Code::FailedPrecondition, "etcdserver: can only promote a learner member"),
    (
        Refusal::LearnerNotReady,
        Code::FailedPrecondition,
        "etcdserver: can only promote a learner member which is in sync with leader",
    ),
    (Refusal::LearnerOnly, Code::FailedPrecondition, "etcdserver: rpc not supported for learner"),
    (Refusal::Corrupt, Code::DataLoss, "etcdserver: corrupt cluster"),
    (Refusal::RootUserNotExist, Code::FailedPrecondition, "etcdserver: root user does not exist"),
    (Refusal::RootRoleNotExist, Code::FailedPrecondition, "etcdserver: root user does not have root role"),
    (Refusal::UserAlreadyExist, Code::FailedPrecondition, "etcdserver: user name already exists"),
    (Refusal::UserEmpty, Code::InvalidArgument, "etcdserver: user name is empty"),
    (Refusal::UserNotFound, Code::FailedPrecondition, "etcdserver: user name not found"),
    (Refusal::RoleAlreadyExist, Code::FailedPrecondition, "etcdserver: role name already exists"),
    (Refusal::RoleNotFound, Code::FailedPrecondition, "etcdserver: role name not found"),
    (Refusal::RoleEmpty, Code::InvalidArgument, "etcdserver: role name is empty"),
    (Refusal::AuthFailed, Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"),
    (Refusal::NoPasswordUser, Code::Unknown, "auth: authentication failed, password was given for no password user"),
    (Refusal::PermissionNotGiven, Code::InvalidArgument, "etcdserver: permission not given"),
    (Refusal::PermissionDenied, Code::PermissionDenied, "etcdserver: permission denied"),
    (Refusal::RoleNotGranted, Code::FailedPrecondition, "etcdserver: role is not granted to the user"),
    (Refusal::PermissionNotGranted, Code::FailedPrecondition, "etcdserver: permission is not granted to the role"),
    (Refusal::AuthNotEnabled, Code::FailedPrecondition, "etcdserver: authentication is not enabled"),
    (Refusal::InvalidAuthToken, Code::Unauthenticated, "etcdserver: invalid auth token"),
    (Refusal::InvalidAuthMgmt, Code::InvalidArgument, "etcdserver: invalid auth management"),
    (Refusal::AuthOldRevision, Code::InvalidArgument, "etcdserver: revision of auth store is old"),
    (Refusal::HashedPassword, Code::InvalidArgument, "store: passwords have to come in clear text, not hashed"),
    (Refusal::TooManyRequests, Code::ResourceExhausted, "etcdserver: too many requests"),
];

impl Refusal {
    fn row(self) -> &'static (Refusal, Code, &'static str) {
        &REFUSALS[self as usize - 1]
    }

    /// The message clients see.
    pub fn text(self) -> &'static str {
        self.row().2
    }

    /// The gRPC code.
    pub fn code(self) -> Code {
        self.row().1
    }

    /// The refusal with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        let place = usize::try_from(number).ok()?.checked_sub(1)?;
        REFUSALS.get(place).map(|row| row.0)
    }
}

/// Any failure of the store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The request was refused; the store is fine.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A record on disk is not what was written.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The disk or RocksDB failed.
    #[error("storage: {0}")]
    Storage(#[from] rocksdb::Error),
    /// The log failed or is damaged.
    #[error("{0}")]
    Log(Arc<WalError>),
    /// The answer needs the disk, and the caller did not want to wait for it.
    #[error("not in memory")]
    NotInMemory,
    /// The data belongs to another program version or member.
    #[error("data directory: {0}")]
    Layout(String),
    /// Raft stopped.
    #[error("consensus: {0}")]
    Consensus(String),
}

impl From<WalError> for Error {
    fn from(error: WalError) -> Error {
        Error::Log(Arc::new(error))
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        match error {
            Error::Refused(refusal) => Status::new(refusal.code(), refusal.text()),
            Error::Corrupt(corruption) => Status::data_loss(format!("etcdserver: corrupt cluster: {corruption}")),
            Error::Consensus(reason) => Status::unavailable(format!("etcdserver: {reason}")),
            other => Status::internal(other.to_string()),
        }
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        std::io::Error::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_own_row() {
        for (place, row) in REFUSALS.iter().enumerate() {
            assert_eq!(row.0 as usize, place + 1, "{:?} is out of order", row.0);
            assert_eq!(Refusal::from_number(row.0 as u32), Some(row.0));
        }
        assert_eq!(Refusal::from_number(0), None);
        assert_eq!(Refusal::from_number(99), None);
    }
}

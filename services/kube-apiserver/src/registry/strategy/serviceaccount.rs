//! Service accounts: names for workloads. Tokens are issued on request, never stored.

use super::kind::Kind;

/// The kind.
pub static SERVICE_ACCOUNT: Kind = Kind::BASE;

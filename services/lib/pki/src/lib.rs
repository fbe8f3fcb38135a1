//! Certificates and keys: creating authorities, issuing and signing below them, reading what a peer presented.
//!
//! Owns the choice of algorithms (ECDSA P-256 for certificates, RSA 2048 for service account tokens), lifetimes' arithmetic
//! and the PEM forms. Must never do IO other than reading the clock and the random source, and must never decide who may do
//! what: an identity is reported, authorization is the caller's.
//!
//! Start at [`Ca`] (issuing) and [`CertInfo`] (reading).

mod authority;
mod info;
mod key;
mod request;
#[cfg(test)]
mod tests;

pub use authority::{Ca, IssueRequest, Issued, Usage, self_signed};
pub use info::{CertInfo, PeerIdentity, certificates_from_pem, fingerprint, peer_identity};
pub use key::{KeyPair, csr, csr_for, service_account_key};
pub use request::{Requested, Uses};

/// What can go wrong with certificates and keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate could not be read.
    #[error("not a certificate: {0}")]
    Certificate(String),
    /// A private key could not be read.
    #[error("not a private key: {0}")]
    Key(String),
    /// A signing request could not be read, or its signature does not fit its key.
    #[error("not a certificate signing request: {0}")]
    Request(String),
    /// The key does not belong to the certificate it came with.
    #[error("the key does not belong to the certificate {0:?}")]
    Mismatch(String),
    /// The certificate may not sign others.
    #[error("the certificate {0:?} is not a certificate authority")]
    NotAnAuthority(String),
    /// A name cannot stand in a certificate.
    #[error("{0:?} cannot stand in a certificate")]
    Name(String),
    /// Subjects hold one organization here, as every Kubernetes identity in use does.
    #[error("a subject holds at most one organization, not {0}")]
    Organizations(usize),
    /// The cryptographic library refused.
    #[error("certificate could not be made: {0}")]
    Crypto(#[from] rcgen::Error),
}

/// Seconds since 1970 by the machine's clock.
#[must_use]
pub fn now() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

//! Reading certificates.

use std::fmt::Write as _;
use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::Error;

/// Who a verified peer says it is: user and groups in Kubernetes terms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerIdentity {
    /// Subject CN.
    pub common_name: String,
    /// Subject O, in order.
    pub organizations: Vec<String>,
}

/// The parts of a certificate that callers look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertInfo {
    /// Subject CN, empty if there is none.
    pub common_name: String,
    /// Subject O.
    pub organizations: Vec<String>,
    /// Issuer CN.
    pub issuer_common_name: String,
    /// DNS names it is valid for.
    pub dns_names: Vec<String>,
    /// Addresses it is valid for.
    pub ips: Vec<IpAddr>,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// May it sign others?
    pub is_ca: bool,
    /// The key with its algorithm, DER.
    pub public_key_info: Vec<u8>,
}

impl CertInfo {
    /// Reads the first certificate of a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| Error::Certificate(e.to_string()))?;
        Self::from_der(&der)
    }

    /// Reads a certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let cert = parse(der)?;
        let identity = identity_of(&cert);
        let (dns_names, ips) = alternative_names(&cert);
        Ok(Self {
            common_name: identity.common_name,
            organizations: identity.organizations,
            issuer_common_name: first_text(cert.issuer().iter_common_name()),
            dns_names,
            ips,
            not_before: cert.validity().not_before.timestamp(),
            not_after: cert.validity().not_after.timestamp(),
            is_ca: cert.is_ca(),
            public_key_info: cert.public_key().raw.to_vec(),
        })
    }

    /// Is less than a third of its lifetime left (or is it not valid yet)?
    #[must_use]
    pub fn needs_renewal(&self, now: i64) -> bool {
        now < self.not_before || self.not_after - now < (self.not_after - self.not_before) / 3
    }
}

/// The identity in a certificate that TLS has already verified.
pub fn peer_identity(der: &[u8]) -> Result<PeerIdentity, Error> {
    Ok(identity_of(&parse(der)?))
}

/// All certificates of a PEM text, as DER.
pub fn certificates_from_pem(pem: &str) -> Result<Vec<Vec<u8>>, Error> {
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).map(|c| c.map(|c| c.to_vec())).collect();
    match all {
        Ok(list) if list.is_empty() => Err(Error::Certificate("no certificate in the text".to_owned())),
        Ok(list) => Ok(list),
        Err(e) => Err(Error::Certificate(e.to_string())),
    }
}

/// SHA-256 of the DER form, in hexadecimal.
#[must_use]
pub fn fingerprint(der: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(der) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    X509Certificate::from_der(der).map(|(_, cert)| cert).map_err(|e| Error::Certificate(e.to_string()))
}

fn identity_of(cert: &X509Certificate<'_>) -> PeerIdentity {
    let organizations = cert.subject().iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned)).collect();
    PeerIdentity { common_name: first_text(cert.subject().iter_common_name()), organizations }
}

fn first_text<'a>(mut names: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>) -> String {
    names.next().and_then(|n| n.as_str().ok()).unwrap_or_default().to_owned()
}

fn alternative_names(cert: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let (mut dns, mut ips) = (Vec::new(), Vec::new());
    if let Ok(Some(names)) = cert.subject_alternative_name() {
        for name in &names.value.general_names {
            match name {
                GeneralName::DNSName(n) => dns.push((*n).to_owned()),
                GeneralName::IPAddress(bytes) => {
                    if let Ok(v4) = <[u8; 4]>::try_from(*bytes) {
                        ips.push(IpAddr::from(v4));
                    } else if let Ok(v6) = <[u8; 16]>::try_from(*bytes) {
                        ips.push(IpAddr::from(v6));
                    }
                }
                _ => {}
            }
        }
    }
    (dns, ips)
}

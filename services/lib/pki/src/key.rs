//! Private keys in PKCS#8 PEM and the requests they sign.

use rcgen::{CertificateParams, DnType, SanType};

use crate::{Error, IssueRequest};

/// A private key and its public half, both as PEM.
pub struct KeyPair {
    private_pem: String,
    public_pem: String,
}

impl KeyPair {
    /// A new ECDSA P-256 key.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self::wrap(&rcgen::KeyPair::generate()?))
    }

    /// Reads a private key (PKCS#8, SEC1 or PKCS#1).
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        Ok(Self::wrap(&parse(pem)?))
    }

    fn wrap(key: &rcgen::KeyPair) -> Self {
        Self { private_pem: key.serialize_pem(), public_pem: key.public_key_pem() }
    }

    /// The private key, "PRIVATE KEY".
    #[must_use]
    pub fn private_pem(&self) -> &str {
        &self.private_pem
    }

    /// The public key, "PUBLIC KEY".
    #[must_use]
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }
}

/// The key that signs service account tokens: RSA 2048, since checking a token happens far more often than signing one and
/// RSA checks fastest.
pub fn service_account_key() -> Result<KeyPair, Error> {
    Ok(KeyPair::wrap(&rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?))
}

/// A signing request for `key`. Its subject is only a hint: the signer sets the real one.
pub fn csr(key: &KeyPair, common_name: &str) -> Result<String, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params.serialize_request(&parse(key.private_pem())?)?.pem()?)
}

/// A signing request for `key` by a client or server that asks for these names itself; lifetime and uses are the
/// signer's to decide.
pub fn csr_for(key: &KeyPair, wanted: &IssueRequest) -> Result<String, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for organization in &wanted.organizations {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, &wanted.common_name);
    for name in &wanted.dns_names {
        let name = name.as_str().try_into().map_err(|_| Error::Name(name.clone()))?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    params.subject_alt_names.extend(wanted.ips.iter().copied().map(SanType::IpAddress));
    Ok(params.serialize_request(&parse(key.private_pem())?)?.pem()?)
}

pub(crate) fn parse(pem: &str) -> Result<rcgen::KeyPair, Error> {
    rcgen::KeyPair::from_pem(pem).map_err(|e| Error::Key(e.to_string()))
}

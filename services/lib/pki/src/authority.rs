//! Certificate authorities and what they issue.

use std::net::IpAddr;

use rand::RngCore as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use x509_parser::time::ASN1Time;

use crate::info::CertInfo;
use crate::{Error, key};

const DAY: i64 = 24 * 3600;
const CA_DAYS: i64 = 3650;

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Usage {
    /// Presented by whoever opens a connection.
    #[default]
    Client,
    /// Presented by whoever accepts one.
    Server,
    /// Both, as between store members.
    Both,
}

/// What to put into a certificate.
#[derive(Debug, Clone, Default)]
pub struct IssueRequest {
    /// Subject CN: the user name in Kubernetes.
    pub common_name: String,
    /// Subject O: the group in Kubernetes. At most one.
    pub organizations: Vec<String>,
    /// Subject alternative names, DNS.
    pub dns_names: Vec<String>,
    /// Subject alternative names, addresses.
    pub ips: Vec<IpAddr>,
    /// What it is for.
    pub usage: Usage,
    /// Lifetime from now.
    pub valid_for_days: u32,
}

/// A certificate and its private key, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key.
    pub key_pem: String,
}

/// A certificate authority with its private key.
pub struct Ca {
    cert_pem: String,
    key_pem: String,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl Ca {
    /// A new authority, valid for ten years.
    pub fn generate(common_name: &str) -> Result<Self, Error> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(common_name, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial());
        // A day back: the machine that made the authority may run ahead of the machines that check it.
        set_validity(&mut params, crate::now() - DAY, crate::now() + CA_DAYS * DAY)?;
        let cert = params.self_signed(&key)?;
        Self::from_pem(&cert.pem(), &key.serialize_pem())
    }

    /// Reads an authority and checks that the two halves belong together.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let info = CertInfo::from_pem(cert_pem)?;
        if !info.is_ca {
            return Err(Error::NotAnAuthority(info.common_name));
        }
        let key = key::parse(key_pem)?;
        if key.subject_public_key_info() != info.public_key_info {
            return Err(Error::Mismatch(info.common_name));
        }
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key).map_err(|e| Error::Certificate(e.to_string()))?;
        Ok(Self { cert_pem: cert_pem.to_owned(), key_pem: key_pem.to_owned(), issuer })
    }

    /// The authority's certificate.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The authority's private key.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, rcgen::KeyPair> {
        &self.issuer
    }

    /// Makes a key and a certificate for it.
    pub fn issue(&self, request: IssueRequest) -> Result<Issued, Error> {
        let key = rcgen::KeyPair::generate()?;
        let cert = leaf(&request)?.signed_by(&key, &self.issuer)?;
        Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }

    /// Signs somebody else's key. Only the key is taken from the signing request, never a name or an extension: what the
    /// certificate says is `request`, the caller's decision.
    pub fn sign_csr(&self, csr_pem: &str, request: &IssueRequest) -> Result<String, Error> {
        let csr = CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| Error::Request(e.to_string()))?;
        Ok(leaf(request)?.signed_by(&csr.public_key, &self.issuer)?.pem())
    }
}

/// A certificate that only vouches for itself: the machine API before the machine has a configuration.
pub fn self_signed(request: &IssueRequest) -> Result<Issued, Error> {
    let key = rcgen::KeyPair::generate()?;
    let cert = leaf(request)?.self_signed(&key)?;
    Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

fn leaf(request: &IssueRequest) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&request.common_name, &request.organizations)?;
    for name in &request.dns_names {
        let name_ia5 = name.as_str().try_into().map_err(|_| Error::Name(name.clone()))?;
        params.subject_alt_names.push(SanType::DnsName(name_ia5));
    }
    params.subject_alt_names.extend(request.ips.iter().map(|ip| SanType::IpAddress(*ip)));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match request.usage {
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial());
    // An hour back, for peers whose clocks run behind.
    set_validity(&mut params, crate::now() - 3600, crate::now() + i64::from(request.valid_for_days) * DAY)?;
    Ok(params)
}

fn subject(common_name: &str, organizations: &[String]) -> Result<DistinguishedName, Error> {
    let mut name = DistinguishedName::new();
    match organizations {
        [] => {}
        [one] => name.push(DnType::OrganizationName, one.as_str()),
        more => return Err(Error::Organizations(more.len())),
    }
    name.push(DnType::CommonName, common_name);
    Ok(name)
}

pub(crate) fn set_validity(params: &mut CertificateParams, from: i64, until: i64) -> Result<(), Error> {
    let time = |seconds| {
        ASN1Time::from_timestamp(seconds).map(|t| t.to_datetime()).map_err(|e| Error::Certificate(e.to_string()))
    };
    params.not_before = time(from)?;
    params.not_after = time(until)?;
    Ok(())
}

pub(crate) fn serial() -> SerialNumber {
    let mut bytes = [0u8; 16];
    rand::rng().fill_bytes(&mut bytes);
    // A serial number is a positive integer of stable length.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

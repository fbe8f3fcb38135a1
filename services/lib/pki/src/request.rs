//! Signing requests of others: reading what they ask for, and granting exactly that.

use std::net::IpAddr;

use rcgen::{
    CertificateSigningRequestParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};

use crate::authority::{self, Ca};
use crate::{CertInfo, Error};

/// What a signing request asks to be called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Requested {
    /// Subject CN.
    pub common_name: String,
    /// Subject O; requests with several are refused by [`Requested::from_pem`].
    pub organizations: Vec<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
    /// Mail addresses, URIs and whatever else names something.
    pub other_names: usize,
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uses {
    /// Signing, as in a TLS handshake.
    pub digital_signature: bool,
    /// Encrypting keys, as in old TLS handshakes.
    pub key_encipherment: bool,
    /// Opening connections.
    pub client_auth: bool,
    /// Accepting connections.
    pub server_auth: bool,
}

impl Requested {
    /// Reads a request and checks that it was signed by the key in it.
    ///
    /// # Errors
    /// Not a request, an extension that cannot be granted, or a subject with more than one organization.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let params = parse(pem)?.params;
        let mut requested = Requested::default();
        let mut organizations = 0;
        for (kind, value) in params.distinguished_name.iter() {
            let text = text(value)?;
            match kind {
                DnType::CommonName => requested.common_name = text,
                DnType::OrganizationName => {
                    organizations += 1;
                    requested.organizations = vec![text];
                }
                _ => {}
            }
        }
        // rcgen keeps only the last of several organizations, so the text itself is asked how many there are.
        let written = count_organizations(pem)?;
        if written > 1 || organizations > 1 {
            return Err(Error::Organizations(written));
        }
        for name in &params.subject_alt_names {
            match name {
                SanType::DnsName(name) => requested.dns_names.push(name.as_str().to_owned()),
                SanType::IpAddress(ip) => requested.ips.push(*ip),
                _ => requested.other_names += 1,
            }
        }
        Ok(requested)
    }
}

fn parse(pem: &str) -> Result<CertificateSigningRequestParams, Error> {
    CertificateSigningRequestParams::from_pem(pem).map_err(|e| Error::Request(e.to_string()))
}

fn text(value: &DnValue) -> Result<String, Error> {
    match value {
        DnValue::Utf8String(text) => Ok(text.clone()),
        DnValue::PrintableString(text) => Ok(text.as_str().to_owned()),
        DnValue::Ia5String(text) => Ok(text.as_str().to_owned()),
        _ => Err(Error::Request("its subject is written in an outdated character set".to_owned())),
    }
}

fn count_organizations(pem: &str) -> Result<usize, Error> {
    use x509_parser::prelude::FromDer as _;
    let bad = |e: String| Error::Request(e);
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|e| bad(e.to_string()))?;
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents)
        .map_err(|e| bad(e.to_string()))?;
    Ok(request.certification_request_info.subject.iter_organization().count())
}

impl Ca {
    /// Signs a request as it is, names included: the caller has approved of them. The certificate is for `uses` alone and
    /// ends at `until`, in seconds since 1970, or with the authority itself, whichever comes first.
    ///
    /// # Errors
    /// Not a request, or one that cannot be granted.
    pub fn sign_as_requested(&self, csr_pem: &str, uses: Uses, until: i64) -> Result<String, Error> {
        let mut request = parse(csr_pem)?;
        let params = &mut request.params;
        let known = [
            (uses.digital_signature, KeyUsagePurpose::DigitalSignature),
            (uses.key_encipherment, KeyUsagePurpose::KeyEncipherment),
        ];
        params.key_usages = known.into_iter().filter(|(wanted, _)| *wanted).map(|(_, purpose)| purpose).collect();
        params.extended_key_usages.clear();
        if uses.server_auth {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if uses.client_auth {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        // Nobody asks a cluster for an authority of their own.
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(authority::serial());
        let until = until.min(CertInfo::from_pem(self.cert_pem())?.not_after);
        // Five minutes back, for peers whose clocks run behind.
        authority::set_validity(params, crate::now() - 300, until)?;
        Ok(request.signed_by(self.issuer())?.pem())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyPair;

    #[test]
    fn a_request_is_granted_as_it_is() {
        let ca = Ca::generate("authority").unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "system:node:a");
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        let csr = params.serialize_request(&crate::key::parse(key.private_pem()).unwrap()).unwrap().pem().unwrap();

        let requested = Requested::from_pem(&csr).unwrap();
        assert_eq!((requested.common_name.as_str(), requested.other_names), ("system:node:a", 0));
        assert_eq!(requested.organizations, ["system:nodes"]);
        assert_eq!((requested.dns_names.len(), requested.ips.len()), (1, 1));

        let uses = Uses { digital_signature: true, client_auth: true, ..Uses::default() };
        let until = crate::now() + 3600;
        let signed = CertInfo::from_pem(&ca.sign_as_requested(&csr, uses, until).unwrap()).unwrap();
        assert_eq!((signed.common_name.as_str(), signed.not_after, signed.is_ca), ("system:node:a", until, false));
        assert_eq!(signed.issuer_common_name, "authority");
        let longest = ca.sign_as_requested(&csr, uses, i64::from(u32::MAX) * 2).unwrap();
        let authority_ends = CertInfo::from_pem(ca.cert_pem()).unwrap().not_after;
        assert_eq!(CertInfo::from_pem(&longest).unwrap().not_after, authority_ends);
        assert!(Requested::from_pem("nonsense").is_err());
    }
}

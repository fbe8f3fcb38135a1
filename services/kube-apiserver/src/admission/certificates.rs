//! Who may approve and sign certificates for a signer, and what nobody gets signed.

use x509_parser::prelude::{FromDer, X509CertificationRequest};
use x509_parser::x509::X509Name;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::authz::Attributes;
use crate::errors::ApiError;
use crate::registry::Context;
use crate::registry::strategy::tree::{at, same, str_at};

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

/// Approving or denying needs the verb `approve` on the signer.
pub struct CertificateApproval;

impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn validate<'a>(&'a self, cx: &'a Context<'_>, request: &'a AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(std::future::ready(if is_update(request, "approval") {
            allowed(cx, request, "approve", "approve")
        } else {
            Ok(())
        }))
    }
}

/// Writing the certificate needs the verb `sign` on the signer.
pub struct CertificateSigning;

impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn validate<'a>(&'a self, cx: &'a Context<'_>, request: &'a AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(std::future::ready(sign(cx, request)))
    }
}

/// The client signer does not make masters.
pub struct CertificateSubjectRestriction;

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn validate<'a>(&'a self, _: &'a Context<'_>, request: &'a AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(std::future::ready(restrict(request)))
    }
}

fn is_update(request: &AdmissionRequest<'_>, sub: &str) -> bool {
    let row = request.resource;
    row.group == GROUP
        && row.plural == PLURAL
        && request.operation == Operation::Update
        && request.subresource == Some(sub)
}

/// The right on the signer itself or on everything of its domain.
fn allowed(cx: &Context<'_>, request: &AdmissionRequest<'_>, verb: &str, word: &str) -> Result<(), ApiError> {
    let old = request.old.unwrap_or(request.object);
    let signer = str_at(old, &["spec", "signerName"]);
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    let may = |name: &str| {
        let attributes = Attributes {
            verb: verb.into(),
            group: GROUP.into(),
            version: "*".into(),
            resource: "signers".into(),
            name: name.into(),
            ..Attributes::default()
        };
        cx.state.authorizer.authorize(cx.user, &attributes).is_allowed()
    };
    if may(signer) || may(&format!("{domain}/*")) {
        return Ok(());
    }
    Err(request.forbidden(&format!("user not permitted to {word} requests with signerName {signer:?}")))
}

fn sign(cx: &Context<'_>, request: &AdmissionRequest<'_>) -> Result<(), ApiError> {
    let Some(old) = request.old.filter(|_| is_update(request, "status")) else { return Ok(()) };
    let unchanged = |field: &str| same(at(request.object, &["status", field]), at(old, &["status", field]));
    if unchanged("certificate") && unchanged("conditions") {
        return Ok(());
    }
    allowed(cx, request, "sign", "sign")
}

fn restrict(request: &AdmissionRequest<'_>) -> Result<(), ApiError> {
    let new = request.is(GROUP, PLURAL) && request.operation == Operation::Create;
    if !new || str_at(request.object, &["spec", "signerName"]) != CLIENT_SIGNER {
        return Ok(());
    }
    if organizations(str_at(request.object, &["spec", "request"])).iter().any(|o| o == MASTERS) {
        let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
        return Err(request.forbidden(&why));
    }
    Ok(())
}

/// The groups a request asks for; none if it cannot be read, which validation has refused already.
fn organizations(text: &str) -> Vec<String> {
    let read = |subject: &X509Name<'_>| {
        subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect()
    };
    with_subject(text, read).unwrap_or_default()
}

/// The name a request asks for, if it can be read.
pub fn common_name(text: &str) -> Option<String> {
    with_subject(text, |subject| subject.iter_common_name().next()?.as_str().ok().map(str::to_owned)).flatten()
}

fn with_subject<T>(text: &str, read: impl FnOnce(&X509Name<'_>) -> T) -> Option<T> {
    let pem = STANDARD.decode(text).ok()?;
    let (_, block) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
    let (_, parsed) = X509CertificationRequest::from_der(&block.contents).ok()?;
    Some(read(&parsed.certification_request_info.subject))
}

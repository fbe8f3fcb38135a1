//! CertificateSigningRequests: what somebody wants signed, the decision about it and the certificate, written by three different people.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::checks::{dns_label, dns_subdomain, one_of, path_segment};
use super::kind::Kind;
use super::tree::{at, default, each, has, int_at, items, keep, object, remove, same, set, str_at, within};
use crate::errors::{ApiError, FieldError};
use crate::registry::Context;

/// The kind.
pub static CERTIFICATE_SIGNING_REQUEST: Kind = Kind {
    names: path_segment,
    generation: false,
    create,
    update,
    check,
    check_update,
    fields: |c| vec![("spec.signerName", str_at(c, &["spec", "signerName"]).to_owned())],
    ..Kind::SPEC_STATUS
};

/// The shortest life that may be asked for, seconds.
const SHORTEST: i64 = 600;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Who asks is what the server saw, not what the request says.
fn create(cx: &Context<'_>, c: &mut Value) -> Result<(), ApiError> {
    let spec = object(c, "spec");
    set(spec, "username", cx.user.name.clone());
    set(spec, "groups", cx.user.groups.clone());
    if cx.user.uid.is_empty() {
        remove(spec, "uid");
    } else {
        set(spec, "uid", cx.user.uid.clone());
    }
    if cx.user.extra.is_empty() {
        remove(spec, "extra");
    } else {
        set(spec, "extra", json!(cx.user.extra));
    }
    Ok(())
}

fn is_decision(condition: &Value) -> bool {
    matches!(str_at(condition, &["type"]), "Approved" | "Denied")
}

fn update(cx: &Context<'_>, sub: Option<&str>, new: &mut Value, old: &Value) -> Result<(), ApiError> {
    keep(new, old, "spec");
    let pick = |v: &Value, decisions: bool| -> Vec<Value> {
        items(v, &["status", "conditions"]).iter().filter(|c| is_decision(c) == decisions).cloned().collect()
    };
    match sub {
        // Approving writes the decision and nothing else; issuing writes everything but the decision.
        Some("approval") => {
            let mut status = at(old, &["status"]).cloned().unwrap_or(json!({}));
            let conditions = [pick(old, false), pick(new, true)].concat();
            set(&mut status, "conditions", conditions);
            set(new, "status", status);
        }
        Some("status") => {
            let conditions = [pick(old, true), pick(new, false)].concat();
            if !conditions.is_empty() {
                set(object(new, "status"), "conditions", conditions);
            }
        }
        _ => {}
    }
    let now = cx.now.clone();
    within(new, "status", |s| {
        each(s, "conditions", |c| {
            default(c, "status", "True");
            for field in ["lastUpdateTime", "lastTransitionTime"] {
                if !has(c, field) {
                    set(c, field, now.clone());
                }
            }
        });
    });
    Ok(())
}

fn check(errors: &mut Vec<FieldError>, c: &Value) {
    request(errors, str_at(c, &["spec", "request"]));
    let usages = items(c, &["spec", "usages"]);
    if usages.is_empty() {
        errors.push(FieldError::required("spec.usages", ""));
    }
    for (i, usage) in usages.iter().enumerate() {
        let usage = usage.as_str().unwrap_or_default();
        one_of(errors, &format!("spec.usages[{i}]"), usage, &USAGES);
        if usages[..i].iter().any(|u| u == usage) {
            errors.push(FieldError::duplicate(format!("spec.usages[{i}]"), usage));
        }
    }
    signer_name(errors, "spec.signerName", str_at(c, &["spec", "signerName"]));
    if let Some(n) = int_at(c, &["spec", "expirationSeconds"]).filter(|n| *n < SHORTEST) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid("spec.expirationSeconds", n, detail));
    }
    conditions(errors, c);
}

fn request(errors: &mut Vec<FieldError>, text: &str) {
    use x509_parser::prelude::{FromDer, X509CertificationRequest};
    let shown = text;
    let path = "spec.request";
    let Some(pem) = STANDARD.decode(text).ok().filter(|b| !b.is_empty()) else {
        errors.push(FieldError::invalid(path, shown, "PEM block type must be CERTIFICATE REQUEST"));
        return;
    };
    let block = x509_parser::pem::parse_x509_pem(&pem).ok().map(|(_, block)| block);
    let Some(block) = block.filter(|b| b.label == "CERTIFICATE REQUEST") else {
        errors.push(FieldError::invalid(path, shown, "PEM block type must be CERTIFICATE REQUEST"));
        return;
    };
    if let Err(why) = X509CertificationRequest::from_der(&block.contents) {
        errors.push(FieldError::invalid(path, shown, format!("x509: {why}")));
    }
}

/// `<domain>/<path>`: who signs.
pub fn signer_name(errors: &mut Vec<FieldError>, path: &str, name: &str) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let parts: Vec<&str> = name.split('/').collect();
    let [domain, rest] = parts.as_slice() else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(path, name, detail));
        return;
    };
    let problems = dns_subdomain(domain);
    for what in &problems {
        errors.push(FieldError::invalid(path, *domain, format!("validating label {domain:?}: {what}")));
    }
    if problems.is_empty() && domain.split('.').count() < 2 {
        errors.push(FieldError::invalid(
            path,
            *domain,
            "should be a domain with at least two segments separated by dots",
        ));
    }
    if rest.is_empty() {
        errors.push(FieldError::invalid(
            path,
            name,
            "validating label \"\": a lowercase RFC 1123 label must not be empty",
        ));
    }
    for label in rest.split('.').filter(|l| !l.is_empty()) {
        for what in dns_label(label) {
            errors.push(FieldError::invalid(path, label, format!("validating label {label:?}: {what}")));
        }
    }
}

fn conditions(errors: &mut Vec<FieldError>, c: &Value) {
    let list = items(c, &["status", "conditions"]);
    for (i, condition) in list.iter().enumerate() {
        let path = format!("status.conditions[{i}]");
        let kind = str_at(condition, &["type"]);
        if kind.is_empty() {
            errors.push(FieldError::required(format!("{path}.type"), ""));
        }
        match (str_at(condition, &["status"]), is_decision(condition) || kind == "Failed") {
            ("", _) => errors.push(FieldError::required(format!("{path}.status"), "")),
            ("True", true) => {}
            (status, true) => {
                errors.push(FieldError::not_supported(format!("{path}.status"), status, &["True"]));
            }
            (status, false) => one_of(errors, &format!("{path}.status"), status, &["True", "False", "Unknown"]),
        }
        if list[..i].iter().any(|other| str_at(other, &["type"]) == kind) {
            errors.push(FieldError::duplicate(format!("{path}.type"), kind));
        }
    }
    let has_kind = |kind: &str| list.iter().any(|c| str_at(c, &["type"]) == kind);
    if has_kind("Approved") && has_kind("Denied") {
        let detail = "Approved and Denied conditions are mutually exclusive";
        errors.push(FieldError::invalid("status.conditions", "Denied", detail));
    }
}

/// A decision, once made, stays; so does a certificate.
fn check_update(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    if sub.is_some() {
        conditions(errors, new);
    }
    for kind in ["Approved", "Denied", "Failed"] {
        let of = |v: &Value| -> Option<Value> {
            items(v, &["status", "conditions"]).iter().find(|c| str_at(c, &["type"]) == kind).cloned()
        };
        match (of(old), of(new)) {
            (Some(_), None) => errors.push(FieldError::forbidden(
                "status.conditions",
                format!("updates may not remove a condition of type {kind:?}"),
            )),
            (None, Some(_)) if sub == Some("status") && kind != "Failed" => errors.push(FieldError::forbidden(
                "status.conditions",
                format!("updates may not add a condition of type {kind:?}"),
            )),
            _ => {}
        }
    }
    let certificate = |v: &Value| str_at(v, &["status", "certificate"]).to_owned();
    if !certificate(old).is_empty() && !same(at(new, &["status", "certificate"]), at(old, &["status", "certificate"])) {
        errors.push(FieldError::forbidden(
            "status.certificate",
            "updates may not change or clear an existing status.certificate",
        ));
    }
    let issued = certificate(new);
    if sub == Some("status") && !issued.is_empty() && issued != certificate(old) {
        errors.extend(
            wrong_certificate(&issued).map(|why| FieldError::invalid("status.certificate", "<certificate data>", why)),
        );
    }
}

/// What is wrong with an issued certificate: it is one or more blocks of PEM, and nothing else.
fn wrong_certificate(text: &str) -> Option<String> {
    let pem = STANDARD.decode(text).unwrap_or_default();
    let mut blocks = 0;
    for block in x509_parser::pem::Pem::iter_from_buffer(&pem).map_while(Result::ok) {
        if block.label != "CERTIFICATE" {
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        blocks += 1;
        if let Err(why) = block.parse_x509() {
            return Some(format!("x509: malformed certificate: {why}"));
        }
    }
    (blocks == 0).then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

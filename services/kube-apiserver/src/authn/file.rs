//! The file of `--authentication-config`: apiserver.config.k8s.io AuthenticationConfiguration (KEP-3331), checked as upstream checks it. Claims are mapped
//! by their names; CEL expressions are refused by the name of their field. Pure.

use super::oidc::provider::{Authorities, Mapping, Provider};
use crate::config_file;
use crate::errors::FieldError;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use std::collections::BTreeSet;

/// As upstream.
const MOST_PROVIDERS: usize = 64;
const VERSIONS: [&str; 3] = [config_file::V1, "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];

/// A valid file.
#[derive(Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Who issues tokens.
    pub providers: Vec<Provider>,
    /// Who may come without credentials; `None`: the flag says.
    pub anonymous: Option<Anonymous>,
}

/// Who may come without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// Nobody.
    Nobody,
    /// Whoever asks for what is public anyway: health and the version.
    Public,
    /// Everybody, but only as system:anonymous.
    Everybody,
    /// Whoever asks for one of these paths.
    Paths(Vec<String>),
}

impl Anonymous {
    /// Whether a request may do without credentials.
    pub fn admits(&self, path: &str, public: bool) -> bool {
        match self {
            Anonymous::Nobody => false,
            Anonymous::Public => public,
            Anonymous::Everybody => true,
            Anonymous::Paths(paths) => paths.iter().any(|p| p == path),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    jwt: Vec<Jwt>,
    anonymous: Option<AnonymousFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AnonymousFile {
    enabled: bool,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Jwt {
    #[serde(default)]
    issuer: Issuer,
    #[serde(default)]
    claim_validation_rules: Vec<ClaimRule>,
    #[serde(default)]
    claim_mappings: Mappings,
    #[serde(default)]
    user_validation_rules: Vec<serde_json::Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Issuer {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: Option<String>,
    certificate_authority: String,
    audiences: Vec<String>,
    audience_match_policy: String,
    egress_selector_type: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ClaimRule {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Mappings {
    username: MappingFile,
    groups: MappingFile,
    uid: MappingFile,
    extra: Vec<serde_json::Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct MappingFile {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

/// Reads a file's text; the error names every field that is wrong. `own` are the cluster's own issuers.
pub fn parse(text: &str, own: &[String]) -> Result<Configuration, String> {
    let (file, lines): (File, _) = config_file::parse(text, &VERSIONS, "AuthenticationConfiguration")?;
    let mut errors = Vec::new();
    if file.jwt.len() > MOST_PROVIDERS {
        errors.push(FieldError::too_many("jwt", file.jwt.len(), MOST_PROVIDERS));
    }
    let mut urls = BTreeSet::new();
    let mut providers = Vec::new();
    for (i, jwt) in file.jwt.into_iter().enumerate() {
        let path = format!("jwt[{i}]");
        check_url(&mut errors, &format!("{path}.issuer.url"), &jwt.issuer.url);
        if own.contains(&jwt.issuer.url) {
            let why = format!("URL must not overlap with disallowed issuers: [{}]", own.join(" "));
            errors.push(FieldError::invalid(format!("{path}.issuer.url"), jwt.issuer.url.as_str(), why));
        }
        for url in [Some(&jwt.issuer.url), jwt.issuer.discovery_url.as_ref()].into_iter().flatten() {
            if !url.is_empty() && !urls.insert(url.clone()) {
                errors.push(FieldError::duplicate(format!("{path}.issuer.url"), url.as_str()));
            }
        }
        providers.push(provider(&mut errors, &path, jwt));
    }
    let anonymous = file.anonymous.map(|anonymous| anonymity(&mut errors, anonymous));
    config_file::checked(&errors, &lines)?;
    Ok(Configuration { providers, anonymous })
}

fn anonymity(errors: &mut Vec<FieldError>, file: AnonymousFile) -> Anonymous {
    let paths: Vec<String> = file.conditions.into_iter().map(|c| c.path).collect();
    match (file.enabled, paths.is_empty()) {
        (false, false) => {
            let why = "enabled should be set to true when conditions are defined";
            errors.push(FieldError::invalid("anonymous.conditions", serde_json::json!(paths), why));
            Anonymous::Nobody
        }
        (false, true) => Anonymous::Nobody,
        (true, true) => Anonymous::Everybody,
        (true, false) => Anonymous::Paths(paths),
    }
}

fn check_url(errors: &mut Vec<FieldError>, path: &str, url: &str) {
    if url.is_empty() {
        errors.push(FieldError::required(path, "URL is required"));
        return;
    }
    let parsed: Option<http::Uri> = url.split('#').next().and_then(|u| u.parse().ok());
    let Some(parsed) = parsed.filter(|u| u.host().is_some()) else {
        errors.push(FieldError::invalid(path, url, "is not a URL"));
        return;
    };
    for (wrong, why) in [
        (parsed.scheme_str() != Some("https"), "URL scheme must be https"),
        (parsed.authority().is_some_and(|a| a.as_str().contains('@')), "URL must not contain a username or password"),
        (parsed.query().is_some(), "URL must not contain a query"),
        (url.contains('#'), "URL must not contain a fragment"),
    ] {
        if wrong {
            errors.push(FieldError::invalid(path, url, why));
        }
    }
}

fn provider(errors: &mut Vec<FieldError>, path: &str, jwt: Jwt) -> Provider {
    let (issuer, at) = (jwt.issuer, format!("{path}.issuer"));
    if let Some(url) = &issuer.discovery_url {
        let field = format!("{at}.discoveryURL");
        if url.trim_end_matches('/') == issuer.url.trim_end_matches('/') {
            errors.push(FieldError::invalid(&field, url.as_str(), "discoveryURL must be different from URL"));
        }
        check_url(errors, &field, url);
    }
    check_audiences(errors, &at, &issuer);
    if !issuer.egress_selector_type.is_empty() {
        unsupported(errors, &format!("{at}.egressSelectorType"), "egress selectors");
    }
    if !issuer.certificate_authority.is_empty() && !holds_certificate(&issuer.certificate_authority) {
        let why = "data does not contain any valid RSA or ECDSA certificates";
        errors.push(FieldError::invalid(format!("{at}.certificateAuthority"), "<omitted>", why));
    }
    let required = required_claims(errors, &format!("{path}.claimValidationRules"), jwt.claim_validation_rules);
    if !jwt.user_validation_rules.is_empty() {
        expression(errors, &format!("{path}.userValidationRules[0].expression"));
    }
    let (maps, at) = (jwt.claim_mappings, format!("{path}.claimMappings"));
    if !maps.extra.is_empty() {
        expression(errors, &format!("{at}.extra[0].valueExpression"));
    }
    let username = mapping(errors, &format!("{at}.username"), &maps.username, true);
    let groups = mapping(errors, &format!("{at}.groups"), &maps.groups, false);
    if !maps.uid.expression.is_empty() {
        expression(errors, &format!("{at}.uid.expression"));
    }
    let authorities = match issuer.certificate_authority {
        text if text.is_empty() => Authorities::machine(),
        text => Authorities::Text(text),
    };
    let username = username.unwrap_or(Mapping { claim: String::new(), prefix: String::new() });
    let uid = (!maps.uid.claim.is_empty()).then_some(maps.uid.claim);
    let base = Provider::new(issuer.url, issuer.audiences, username);
    Provider { discovery: issuer.discovery_url, authorities, required, groups, uid, ..base }
}

fn check_audiences(errors: &mut Vec<FieldError>, path: &str, issuer: &Issuer) {
    let at = format!("{path}.audiences");
    if issuer.audiences.is_empty() {
        errors.push(FieldError::required(&at, format!("at least one {at} is required")));
    }
    let mut seen = BTreeSet::new();
    for (i, audience) in issuer.audiences.iter().enumerate() {
        if audience.is_empty() {
            errors.push(FieldError::required(format!("{at}[{i}]"), "audience can't be empty"));
        }
        if !seen.insert(audience) {
            errors.push(FieldError::duplicate(format!("{at}[{i}]"), audience.as_str()));
        }
    }
    let (policy, at) = (issuer.audience_match_policy.as_str(), format!("{path}.audienceMatchPolicy"));
    if issuer.audiences.len() > 1 && policy != "MatchAny" {
        errors.push(FieldError::invalid(at, policy, "audienceMatchPolicy must be MatchAny for multiple audiences"));
    } else if !matches!(policy, "" | "MatchAny") {
        let why = "audienceMatchPolicy must be empty or MatchAny for single audience";
        errors.push(FieldError::invalid(at, policy, why));
    }
}

fn holds_certificate(pem: &str) -> bool {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found.is_ok_and(|list| !list.is_empty())
}

fn required_claims(errors: &mut Vec<FieldError>, path: &str, rules: Vec<ClaimRule>) -> Vec<(String, String)> {
    let mut seen = BTreeSet::new();
    let mut required = Vec::new();
    for (i, rule) in rules.into_iter().enumerate() {
        let at = format!("{path}[{i}]");
        match (rule.claim.is_empty(), rule.expression.is_empty()) {
            (false, false) => {
                errors.push(FieldError::invalid(&at, rule.claim.as_str(), "claim and expression can't both be set"));
            }
            (true, true) => errors.push(FieldError::required(&at, "claim or expression is required")),
            (true, false) => expression(errors, &format!("{at}.expression")),
            (false, true) => {
                if !rule.message.is_empty() {
                    let why = "message can't be set when claim is set";
                    errors.push(FieldError::invalid(format!("{at}.message"), rule.message.as_str(), why));
                }
                if !seen.insert(rule.claim.clone()) {
                    errors.push(FieldError::duplicate(format!("{at}.claim"), rule.claim.as_str()));
                }
                required.push((rule.claim, rule.required_value));
            }
        }
    }
    required
}

fn mapping(errors: &mut Vec<FieldError>, path: &str, file: &MappingFile, needed: bool) -> Option<Mapping> {
    match (file.claim.is_empty(), file.expression.is_empty()) {
        (false, false) => {
            errors.push(FieldError::invalid(path, "", "claim and expression can't both be set"));
        }
        (true, false) => expression(errors, &format!("{path}.expression")),
        (true, true) if needed => errors.push(FieldError::required(path, "claim or expression is required")),
        (true, true) => {
            if file.prefix.as_deref().is_some_and(|p| !p.is_empty()) {
                let why = "prefix can't be set when claim is not set";
                errors.push(FieldError::invalid(
                    format!("{path}.prefix"),
                    file.prefix.clone().unwrap_or_default(),
                    why,
                ));
            }
        }
        (false, true) => match &file.prefix {
            None => {
                let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                errors.push(FieldError::required(format!("{path}.prefix"), why));
            }
            Some(prefix) => return Some(Mapping { claim: file.claim.clone(), prefix: prefix.clone() }),
        },
    }
    None
}

fn expression(errors: &mut Vec<FieldError>, path: &str) {
    unsupported(errors, path, "CEL expressions");
}

fn unsupported(errors: &mut Vec<FieldError>, path: &str, what: &str) {
    errors.push(FieldError::forbidden(path, format!("this server does not support {what} here")));
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: 'https://i', audiences: [a, b], audienceMatchPolicy: MatchAny}
  claimValidationRules:
  - {claim: hd, requiredValue: x.org}
  claimMappings:
    username: {claim: sub, prefix: 'i:'}
    groups: {claim: roles, prefix: ''}
    uid: {claim: oid}
anonymous:
  enabled: true
  conditions: [{path: /livez}]
";

    #[test]
    fn a_file_names_providers() {
        let read = parse(GOOD, &[]).expect("valid");
        let want = Provider {
            required: vec![("hd".into(), "x.org".into())],
            groups: Some(Mapping { claim: "roles".into(), prefix: String::new() }),
            uid: Some("oid".into()),
            ..Provider::new(
                "https://i".into(),
                vec!["a".into(), "b".into()],
                Mapping { claim: "sub".into(), prefix: "i:".into() },
            )
        };
        assert_eq!(read.providers, [want]);
        let anonymous = read.anonymous.expect("stated");
        assert!(anonymous.admits("/livez", true) && !anonymous.admits("/readyz", true));
        let bare = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\n";
        assert_eq!(parse(bare, &[]), Ok(Configuration { providers: vec![], anonymous: None }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table = [
            ("url: 'https://i'", "url: ''", "jwt[0].issuer.url: Required value: URL is required"),
            (
                "url: 'https://i'",
                "url: 'http://i'",
                "jwt[0].issuer.url: Invalid value: \"http://i\": URL scheme must be https",
            ),
            (
                "url: 'https://i'",
                "url: 'https://i?q'",
                "jwt[0].issuer.url: Invalid value: \"https://i?q\": URL must not contain a query",
            ),
            (
                "url: 'https://i'",
                "url: 'https://own'",
                "jwt[0].issuer.url: Invalid value: \"https://own\": URL must not overlap with disallowed issuers: [https://own]",
            ),
            (
                "audiences: [a, b]",
                "audiences: []",
                "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required",
            ),
            (
                ", audienceMatchPolicy: MatchAny",
                "",
                "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences",
            ),
            (
                "{claim: sub, prefix: 'i:'}",
                "{claim: sub}",
                "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing",
            ),
            (
                "{claim: sub, prefix: 'i:'}",
                "{}",
                "jwt[0].claimMappings.username: Required value: claim or expression is required",
            ),
            (
                "{claim: sub, prefix: 'i:'}",
                "{expression: claims.sub}",
                "jwt[0].claimMappings.username.expression: Forbidden: this server does not support CEL expressions here",
            ),
            (
                "{claim: hd, requiredValue: x.org}",
                "{expression: 'true'}",
                "jwt[0].claimValidationRules[0].expression: Forbidden: this server does not support CEL expressions here",
            ),
            (
                "enabled: true",
                "enabled: false",
                "anonymous.conditions: Invalid value: [\"/livez\"]: enabled should be set to true when conditions are defined",
            ),
        ];
        for (from, to, want) in table {
            let text = GOOD.replace(from, to);
            // What is missing stands on the line of what it is missing from; the conditions are a line below.
            let line = GOOD.lines().position(|line| line.contains(from)).expect("a line") + 1;
            let line = line + usize::from(want.starts_with("anonymous.conditions"));
            assert_eq!(parse(&text, &["https://own".into()]), Err(format!("line {line}: {want}")), "{to}");
        }
        let unknown = parse(&GOOD.replace("uid:", "uids:"), &[]).expect_err("no such field");
        assert!(unknown.starts_with("line 10: jwt[0].claimMappings.uids: unknown field `uids`"), "{unknown}");
        assert!(parse(&GOOD.replace("config.k8s.io/v1", "config.k8s.io/v2"), &[]).is_err());
    }
}

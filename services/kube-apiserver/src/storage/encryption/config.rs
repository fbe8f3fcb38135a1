//! The file of `--encryption-provider-config`: apiserver.config.k8s.io/v1 EncryptionConfiguration, checked as upstream checks it. Pure.

use super::local::Cipher;
use crate::config_file;
use crate::errors::FieldError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// How long a key service may take by default.
const KMS_TIMEOUT: Duration = Duration::from_secs(3);
/// Stored without an API of their own.
const NO_API: [&str; 3] = ["apiserveripinfo", "serviceipallocations", "servicenodeportallocations"];

/// A valid configuration.
#[derive(Debug, PartialEq)]
pub struct Configuration {
    /// The first that covers a resource counts.
    pub rules: Vec<Rule>,
}

/// Who encrypts some resources.
#[derive(Debug, PartialEq)]
pub struct Rule {
    /// Which.
    pub resources: Vec<Pattern>,
    /// By whom; the first writes.
    pub providers: Vec<Provider>,
}

/// One provider.
#[derive(Debug, PartialEq)]
pub enum Provider {
    /// Plain text.
    Identity,
    /// A cipher with named keys; the first writes.
    Local(Cipher, Vec<(String, Vec<u8>)>),
    /// A key service.
    Kms(KmsConfig),
}

/// A key service of API version v2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsConfig {
    /// Its name in the values' prefix.
    pub name: String,
    /// Its Unix socket.
    pub socket: PathBuf,
    /// How long a call may take.
    pub timeout: Duration,
}

/// `secrets`, `deployments.apps`, `*.apps`, `*.` (the core group) or `*.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    resource: String,
    group: String,
}

impl Pattern {
    fn parse(text: &str) -> Self {
        let (resource, group) = text.split_once('.').unwrap_or((text, ""));
        Self { resource: resource.to_owned(), group: group.to_owned() }
    }

    /// Whether it covers a resource.
    pub fn matches(&self, group: &str, plural: &str) -> bool {
        (self.group == "*" || self.group == group) && (self.resource == "*" || self.resource == plural)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    resources: Vec<RuleFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<ProviderFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderFile {
    aesgcm: Option<KeysFile>,
    aescbc: Option<KeysFile>,
    secretbox: Option<KeysFile>,
    identity: Option<IdentityFile>,
    kms: Option<KmsFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    #[serde(default)]
    keys: Vec<KeyFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KmsFile {
    api_version: Option<String>,
    #[serde(default)]
    name: String,
    cachesize: Option<i64>,
    #[serde(default)]
    endpoint: String,
    timeout: Option<String>,
}

impl Configuration {
    /// Reads a file's text; the error names every field that is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = config_file::parse(text, &[config_file::V1], "EncryptionConfiguration")?;
        let mut errors = Vec::new();
        if file.resources.is_empty() {
            errors.push(FieldError::required("resources", "at least one resources is required"));
        }
        let mut services = BTreeSet::new();
        let rule = |(i, rule)| checked_rule(&mut errors, &mut services, &format!("resources[{i}]"), rule);
        let rules = file.resources.into_iter().enumerate().map(rule).collect();
        config_file::checked(&errors)?;
        Ok(Self { rules })
    }
}

fn checked_rule(errors: &mut Vec<FieldError>, services: &mut BTreeSet<String>, path: &str, rule: RuleFile) -> Rule {
    let (resources, providers) = (format!("{path}.resources"), format!("{path}.providers"));
    for (empty, path) in [(rule.resources.is_empty(), &resources), (rule.providers.is_empty(), &providers)] {
        if empty {
            errors.push(FieldError::required(path, format!("at least one {path} is required")));
        }
    }
    overlap(errors, &resources, &rule.resources);
    for (j, name) in rule.resources.iter().enumerate() {
        if let Some(detail) = wrong_name(name) {
            errors.push(FieldError::invalid(format!("{resources}[{j}]"), name.as_str(), detail));
        }
    }
    let provider = |(j, file)| checked_provider(errors, services, &format!("{providers}[{j}]"), file);
    let providers = rule.providers.into_iter().enumerate().filter_map(provider).collect();
    Rule { resources: rule.resources.iter().map(|r| Pattern::parse(r)).collect(), providers }
}

fn overlap(errors: &mut Vec<FieldError>, path: &str, resources: &[String]) {
    let patterns: Vec<Pattern> = resources.iter().map(|r| Pattern::parse(r)).collect();
    let pairs = || patterns.iter().enumerate().flat_map(|(i, a)| patterns.iter().skip(i + 1).map(move |b| (a, b)));
    let shown = || serde_json::json!(resources);
    if pairs().any(|(a, b)| a == b) {
        errors.push(FieldError::invalid(path, shown(), "the same resource cannot be specified multiple times"));
    }
    let any = |p: &Pattern| p.group == "*" && p.resource == "*";
    let masks = |(a, b): (&Pattern, &Pattern)| {
        a != b && (any(a) || any(b) || (a.group == b.group && (a.resource == "*" || b.resource == "*")))
    };
    if pairs().any(masks) {
        let detail = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked";
        errors.push(FieldError::invalid(path, shown(), detail));
    }
}

fn wrong_name(name: &str) -> Option<&'static str> {
    let pattern = Pattern::parse(name);
    if name.chars().any(char::is_uppercase) {
        return Some("resource name should not contain capital letters");
    }
    match (name, pattern.group.as_str()) {
        ("*", _) => Some("use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"),
        _ if NO_API.contains(&name) => Some("resources which do not have REST API/s cannot be encrypted"),
        (_, "events.k8s.io") => Some(
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file",
        ),
        (_, "extensions") => Some("'extensions' group has been removed and cannot be used for encryption"),
        (_, "*") if pattern.resource != "*" => Some("encrypting the same resource across groups is not supported"),
        _ => None,
    }
}

fn checked_provider(
    errors: &mut Vec<FieldError>,
    services: &mut BTreeSet<String>,
    path: &str,
    file: ProviderFile,
) -> Option<Provider> {
    let mut found = Vec::new();
    for (name, cipher, keys) in [
        ("aesgcm", Cipher::AesGcm, file.aesgcm),
        ("aescbc", Cipher::AesCbc, file.aescbc),
        ("secretbox", Cipher::Secretbox, file.secretbox),
    ] {
        if let Some(keys) = keys {
            found
                .push(Provider::Local(cipher, checked_keys(errors, &format!("{path}.{name}.keys"), cipher, keys.keys)));
        }
    }
    if let Some(IdentityFile {}) = file.identity {
        found.push(Provider::Identity);
    }
    if let Some(kms) = file.kms {
        found.push(Provider::Kms(checked_kms(errors, services, &format!("{path}.kms"), kms)));
    }
    let detail = match found.len() {
        0 => "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity",
        1 => return found.pop(),
        _ => "more than one provider specified in a single element, should split into different list elements",
    };
    errors.push(FieldError::invalid(path, "", detail));
    None
}

fn checked_keys(
    errors: &mut Vec<FieldError>,
    path: &str,
    cipher: Cipher,
    keys: Vec<KeyFile>,
) -> Vec<(String, Vec<u8>)> {
    if keys.is_empty() {
        errors.push(FieldError::required(path, "at least one keys is required"));
    }
    let mut read = Vec::with_capacity(keys.len());
    for (k, key) in keys.into_iter().enumerate() {
        if key.name.is_empty() {
            errors.push(FieldError::required(format!("{path}[{k}].name"), "name is a mandatory field for a key"));
        }
        let path = format!("{path}[{k}].secret");
        let sizes = cipher.key_sizes();
        match STANDARD.decode(&key.secret) {
            _ if key.secret.is_empty() => {
                errors.push(FieldError::required(path, "secret is a mandatory field for a key"));
            }
            Err(_) => errors.push(FieldError::invalid(path, "REDACTED", "secrets must be base64 encoded")),
            Ok(secret) if !sizes.contains(&secret.len()) => {
                let sizes = sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
                let detail =
                    format!("secret is not of the expected length, got {}, expected one of [{sizes}]", secret.len());
                errors.push(FieldError::invalid(path, "REDACTED", detail));
            }
            Ok(secret) => read.push((key.name, secret)),
        }
    }
    read
}

fn checked_kms(errors: &mut Vec<FieldError>, services: &mut BTreeSet<String>, path: &str, kms: KmsFile) -> KmsConfig {
    let mut wrong = |field: &str, value: &str, detail: String| {
        errors.push(FieldError::invalid(format!("{path}.{field}"), value, detail));
    };
    match kms.api_version.as_deref().unwrap_or("v1") {
        "v2" => {}
        "v1" => wrong(
            "apiVersion",
            "v1",
            "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.".into(),
        ),
        other => {
            wrong(
                "apiVersion",
                other,
                "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported".into(),
            );
        }
    }
    if kms.name.contains(':') {
        wrong("name", &kms.name, format!("invalid KMS provider name {}, must not contain ':'", kms.name));
    }
    if !services.insert(kms.name.clone()) {
        wrong("name", &kms.name, format!("duplicate KMS provider name {}, names must be unique", kms.name));
    }
    if let Some(size) = kms.cachesize {
        wrong("cachesize", &size.to_string(), "cachesize is not supported in v2".into());
    }
    let scheme = kms.endpoint.split_once("://").map_or("", |(scheme, _)| scheme);
    match kms.endpoint.strip_prefix("unix://") {
        _ if kms.endpoint.is_empty() => wrong("endpoint", "", "endpoint is a mandatory field for a kms".into()),
        None => wrong(
            "endpoint",
            &kms.endpoint,
            format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported"),
        ),
        Some(_) => {}
    }
    let timeout = kms.timeout.as_deref().map_or(Ok(KMS_TIMEOUT), crate::server::query::duration);
    match &timeout {
        Ok(time) if !time.is_zero() => {}
        _ => wrong("timeout", kms.timeout.as_deref().unwrap_or_default(), "timeout should be a positive value".into()),
    }
    if kms.name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), "name is a mandatory field for a provider"));
    }
    // A path in the abstract name space begins with @, which stands for a zero byte.
    let socket = PathBuf::from(kms.endpoint.strip_prefix("unix://").unwrap_or_default());
    KmsConfig { name: kms.name, socket, timeout: timeout.unwrap_or(KMS_TIMEOUT) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n";

    fn one(resources: &str, provider: &str) -> Result<Configuration, String> {
        Configuration::parse(&format!("{HEAD}- resources: {resources}\n  providers:\n  - {provider}\n"))
    }

    #[test]
    fn a_valid_file() {
        let secret = STANDARD.encode([7u8; 32]);
        let text = format!(
            "{HEAD}- resources: [secrets, configmaps]\n  providers:\n  - aescbc: {{keys: [{{name: a, secret: {secret}}}]}}\n  - identity: {{}}\n\
             - resources: ['*.*']\n  providers:\n  - kms: {{apiVersion: v2, name: k, endpoint: unix:///run/kms.sock, timeout: 5s}}\n"
        );
        let got = Configuration::parse(&text).expect("valid");
        assert_eq!(
            got.rules[0].providers,
            [Provider::Local(Cipher::AesCbc, vec![("a".into(), vec![7; 32])]), Provider::Identity]
        );
        let kms = KmsConfig { name: "k".into(), socket: "/run/kms.sock".into(), timeout: Duration::from_secs(5) };
        assert_eq!(got.rules[1].providers, [Provider::Kms(kms)]);
    }

    #[test]
    fn patterns() {
        for (pattern, group, plural, want) in [
            ("secrets", "", "secrets", true),
            ("secrets", "", "configmaps", false),
            ("deployments.apps", "apps", "deployments", true),
            ("deployments", "apps", "deployments", false),
            ("*.apps", "apps", "deployments", true),
            ("*.apps", "", "pods", false),
            ("*.", "", "pods", true),
            ("*.", "apps", "deployments", false),
            ("*.*", "apps", "deployments", true),
            ("flowschemas.flowcontrol.apiserver.k8s.io", "flowcontrol.apiserver.k8s.io", "flowschemas", true),
        ] {
            assert_eq!(Pattern::parse(pattern).matches(group, plural), want, "{pattern} {group} {plural}");
        }
    }

    #[test]
    fn every_error_names_its_field() {
        let short = STANDARD.encode([7u8; 5]);
        let kms =
            |more: &str| one("[secrets]", &format!("kms: {{apiVersion: v2, name: k, endpoint: unix:///a, {more}}}"));
        let table = [
            (
                one("[]", "identity: {}"),
                "resources[0].resources: Required value: at least one resources[0].resources is required",
            ),
            (one("['*']", "identity: {}"), "resources[0].resources[0]: Invalid value: \"*\": use '*.' to encrypt"),
            (
                one("[Secrets]", "identity: {}"),
                "resources[0].resources[0]: Invalid value: \"Secrets\": resource name should not contain capital letters",
            ),
            (
                one("[secrets, '*.']", "identity: {}"),
                "resources[0].resources: Invalid value: [\"secrets\",\"*.\"]: using overlapping resources",
            ),
            (one("[secrets, secrets]", "identity: {}"), "the same resource cannot be specified multiple times"),
            (one("['secrets.*']", "identity: {}"), "encrypting the same resource across groups is not supported"),
            (one("[events.events.k8s.io]", "identity: {}"), "Use 'events' instead in the config file"),
            (one("[secrets]", "{}"), "resources[0].providers[0]: Invalid value: \"\": provider does not contain any"),
            (
                one("[secrets]", "{identity: {}, aesgcm: {keys: []}}"),
                "resources[0].providers[0].aesgcm.keys: Required value: at least one keys is required",
            ),
            (
                one("[secrets]", &format!("secretbox: {{keys: [{{name: a, secret: {short}}}]}}")),
                "resources[0].providers[0].secretbox.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 5, expected one of [32]",
            ),
            (one("[secrets]", "aesgcm: {keys: [{name: a, secret: '***'}]}"), "secrets must be base64 encoded"),
            (
                one("[secrets]", "aesgcm: {keys: [{secret: ''}]}"),
                "resources[0].providers[0].aesgcm.keys[0].name: Required value: name is a mandatory field for a key; resources[0].providers[0].aesgcm.keys[0].secret: Required value",
            ),
            (
                kms("timeout: 0s"),
                "resources[0].providers[0].kms.timeout: Invalid value: \"0s\": timeout should be a positive value",
            ),
            (kms("cachesize: 5"), "cachesize is not supported in v2"),
            (
                one("[secrets]", "kms: {apiVersion: v2, name: 'a:b', endpoint: 'tcp://x'}"),
                "kms.name: Invalid value: \"a:b\": invalid KMS provider name a:b, must not contain ':'; resources[0].providers[0].kms.endpoint: Invalid value: \"tcp://x\": unsupported scheme \"tcp\"",
            ),
            (one("[secrets]", "kms: {name: a, endpoint: 'unix:///x'}"), "kms.apiVersion: Invalid value: \"v1\""),
            (one("[secrets]", "aesgmc: {}"), "aesgmc"),
            (Configuration::parse("apiVersion: v1\nkind: Pod\n"), "got v1 Pod"),
        ];
        for (got, want) in table {
            let error = got.expect_err(want);
            assert!(error.contains(want), "{want}\n  in {error}");
        }
    }
}

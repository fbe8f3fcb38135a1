//! PodSecurity: namespaces say by label how tame their pods must be. `enforce` refuses pods, `warn` tells the client, also about the templates
//! of workloads.
//!
//! [`policy`] has the levels, [`baseline`] and [`restricted`] the checks (KEP-2579, the Pod Security Standards).

mod baseline;
pub mod policy;
mod restricted;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use apimachinery::meta;
use serde_json::Value;

use super::config::Configuration;
use super::{AdmissionRequest, Operation, Plugin, Verdict, all, find};
use crate::errors::{ApiError, FieldError};
use crate::registry::Context;
use crate::registry::strategy::tree::{at, same, str_at};
use policy::{Finding, Level, Policy, Version, evaluate, words};

const LABEL: &str = "pod-security.kubernetes.io/";
const MODES: [&str; 3] = ["enforce", "audit", "warn"];
/// How many pods are looked at when a namespace becomes stricter.
const LOOK_AT: usize = 3000;

/// The plugin.
pub struct PodSecurity;

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn validate<'a>(&'a self, cx: &'a Context<'_>, request: &'a AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            if request.is("", "namespaces") {
                return namespace(cx, request).await;
            }
            let Some((metadata, spec, real)) = subject(request) else { return Ok(()) };
            if exempt(cx, request, spec) {
                return Ok(());
            }
            let Some(found) = find(cx, "", "namespaces", "", request.namespace).await? else { return Ok(()) };
            let defaults = Policies::defaults(&cx.state.admission);
            let policies = Policies::of(&found.object(), defaults).unwrap_or(defaults);
            judge(cx, request, &policies, metadata, spec, real)
        })
    }
}

/// Those the administrator has excepted, by user, namespace or runtime class.
fn exempt(cx: &Context<'_>, request: &AdmissionRequest<'_>, spec: &Value) -> bool {
    let list = &cx.state.admission.exempt;
    let named = |names: &[String], name: &str| !name.is_empty() && names.iter().any(|n| n == name);
    named(&list.namespaces, request.namespace)
        || named(&list.usernames, &cx.user.name)
        || named(&list.runtime_classes, str_at(spec, &["runtimeClassName"]))
}

/// What a namespace asks for.
#[derive(Clone, Copy)]
struct Policies {
    enforce: Policy,
    warn: Policy,
}

impl Policies {
    /// What applies where labels say nothing.
    fn defaults(configuration: &Configuration) -> Self {
        Self { enforce: configuration.enforce, warn: configuration.warn }
    }

    /// From the labels; what is wrong with them otherwise.
    fn of(namespace: &Value, defaults: Self) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut read = |mode: &str| {
            let mut policy = match mode {
                "enforce" => defaults.enforce,
                "warn" => defaults.warn,
                _ => Policy::OPEN,
            };
            let path = |key: &str| format!("metadata.labels[{key}]");
            let level = format!("{LABEL}{mode}");
            if let Some(text) = label(namespace, &level) {
                match Level::parse(text) {
                    Ok(l) => policy.level = l,
                    Err(why) => errors.push(FieldError::invalid(path(&level), text, why)),
                }
            }
            let version = format!("{LABEL}{mode}-version");
            if let Some(text) = label(namespace, &version) {
                match Version::parse(text) {
                    Ok(v) => policy.version = v,
                    Err(why) => errors.push(FieldError::invalid(path(&version), text, why)),
                }
            }
            policy
        };
        let [enforce, _, warn] = MODES.map(&mut read);
        // A level to enforce is a level to warn about, unless warnings have one of their own.
        let warn = if label(namespace, &format!("{LABEL}warn")).is_none() && enforce.level > warn.level {
            enforce
        } else {
            warn
        };
        if errors.is_empty() { Ok(Self { enforce, warn }) } else { Err(errors) }
    }
}

fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, &["metadata", "labels", key]).and_then(Value::as_str)
}

/// Metadata and spec the request is about, and whether they are a pod's own rather than a template's.
fn subject<'a>(request: &'a AdmissionRequest<'_>) -> Option<(&'a Value, &'a Value, bool)> {
    let row = request.resource;
    let object: &Value = request.object;
    if row.group.is_empty() && row.plural == "pods" {
        let judged = match (request.subresource, request.operation) {
            (None, Operation::Create) => true,
            (None | Some("ephemeralcontainers"), Operation::Update) => {
                request.old.is_none_or(|old| matters(object, old))
            }
            _ => false,
        };
        return judged.then(|| (&object["metadata"], &object["spec"], true));
    }
    if request.subresource.is_some() || !matches!(request.operation, Operation::Create | Operation::Update) {
        return None;
    }
    let template = match (row.group, row.plural) {
        ("", "podtemplates") => at(object, &["template"]),
        ("", "replicationcontrollers")
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => at(object, &["spec", "template"]),
        ("batch", "cronjobs") => at(object, &["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }?;
    Some((&template["metadata"], &template["spec"], false))
}

/// Whether a change of a pod can change what the checks say.
fn matters(new: &Value, old: &Value) -> bool {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    !same(at(new, &["metadata", "annotations"]), at(old, &["metadata", "annotations"]))
        || lists.iter().any(|l| !same(at(new, &["spec", l]), at(old, &["spec", l])))
}

fn judge(
    cx: &Context<'_>,
    request: &AdmissionRequest<'_>,
    policies: &Policies,
    metadata: &Value,
    spec: &Value,
    real: bool,
) -> Result<(), ApiError> {
    if real {
        let findings = evaluate(policies.enforce, metadata, spec);
        if !findings.is_empty() {
            let why = format!("violates PodSecurity \"{}\": {}", policies.enforce, words(&findings));
            return Err(request.forbidden(&why));
        }
    }
    let findings = evaluate(policies.warn, metadata, spec);
    if !findings.is_empty() {
        cx.warn(format!("would violate PodSecurity \"{}\": {}", policies.warn, words(&findings)));
    }
    Ok(())
}

/// A namespace's labels must make sense, and who makes them stricter hears of the pods that do not comply.
async fn namespace(cx: &Context<'_>, request: &AdmissionRequest<'_>) -> Result<(), ApiError> {
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    let invalid = |errors: Vec<FieldError>| ApiError::invalid("", "Namespace", request.name, &errors);
    let defaults = Policies::defaults(&cx.state.admission);
    let new = match (Policies::of(request.object, defaults), request.old.map(|o| Policies::of(o, defaults))) {
        (Ok(new), _) => new,
        // What was wrong before may stay wrong.
        (Err(errors), Some(Err(before))) if errors == before => return Ok(()),
        (Err(errors), _) => return Err(invalid(errors)),
    };
    let Some(old) = request.old else { return Ok(()) };
    let before = Policies::of(old, defaults).unwrap_or(defaults);
    if new.enforce == before.enforce
        || new.enforce.level < before.enforce.level
        || new.enforce.level == Level::Privileged
    {
        return Ok(());
    }
    let pods = all(cx, "", "pods", request.name).await?;
    let mut by_words: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in pods.iter().take(LOOK_AT) {
        let findings: Vec<Finding> = evaluate(new.enforce, &pod["metadata"], &pod["spec"]);
        if !findings.is_empty() {
            // Reasons only: details differ from pod to pod and would be long.
            let reasons: Vec<&str> = findings.iter().map(|f| f.reason.as_str()).collect();
            by_words.entry(reasons.join(", ")).or_default().push(meta::name(pod).to_owned());
        }
    }
    if by_words.is_empty() {
        return Ok(());
    }
    cx.warn(format!(
        "existing pods in namespace {:?} violate the new PodSecurity enforce level {:?}",
        request.name,
        new.enforce.to_string()
    ));
    for (why, mut names) in by_words {
        names.sort();
        let more = match names.len() {
            1 => String::new(),
            2 => " (and 1 other pod)".to_owned(),
            n => format!(" (and {} other pods)", n - 1),
        };
        cx.warn(format!("{}{more}: {why}", names[0]));
    }
    Ok(())
}

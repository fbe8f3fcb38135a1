//! One operation: a verb on a path, with its parameters, body and responses.

use super::Row;
use super::definitions::Definitions;
use super::parameters::{self, Parameter};
use crate::registry::{Subresource, Verb, deletion_returns_object};
use serde_json::{Value, json};

const READ_MEDIA: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const LIST_MEDIA: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const PATCH_MEDIA: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// What a path stands for.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) row: &'a Row<'a>,
    pub(super) sub: Option<&'a Subresource>,
    /// The path holds {namespace}.
    pub(super) in_namespace: bool,
}

impl Target<'_> {
    fn gvk(&self) -> (&str, &str, &str) {
        self.sub.map_or((self.row.group, self.row.version, self.row.kind), |s| (s.group, s.version, s.kind))
    }
}

/// How a verb appears: HTTP method, word in the operation's id, x-kubernetes-action.
pub(super) fn method(verb: Verb) -> Option<(&'static str, &'static str, &'static str)> {
    Some(match verb {
        Verb::Create => ("post", "create", "post"),
        Verb::Delete => ("delete", "delete", "delete"),
        Verb::DeleteCollection => ("delete", "deleteCollection", "deletecollection"),
        Verb::Get => ("get", "read", "get"),
        Verb::List => ("get", "list", "list"),
        Verb::Patch => ("patch", "patch", "patch"),
        Verb::Update => ("put", "replace", "put"),
        // a watch is a list with a parameter
        Verb::Watch => return None,
    })
}

/// Writes an operation and its id.
pub(super) fn operation(
    target: Target<'_>,
    verb: Verb,
    word: &str,
    action: &str,
    types: &mut Definitions<'_>,
) -> Value {
    let (group, version, kind) = target.gvk();
    let dialect = types.dialect();
    let object = types.kind(group, version, kind);
    let text_only = target.sub.is_some_and(|s| s.name == "log");
    let connects = object.is_none();
    let mut out = json!({
        "tags": [tag(target.row)],
        "operationId": id(target, word, verb),
        "x-kubernetes-action": if connects { "connect" } else { action },
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
    });
    let mut parameters: Vec<Value> =
        query(target, verb).map(|(name, kind)| dialect.parameter(name, "query", kind, false, true)).collect();
    if !connects && let Some((body, required, media)) = body(verb, object.clone(), types) {
        dialect.add_body(&mut out, &mut parameters, body, required, media);
    }
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    let text = json!({"type": "string"});
    let (schema, media) = match verb {
        _ if connects => (Some(text), &["*/*"][..]),
        _ if text_only => (Some(text), &["text/plain"][..]),
        Verb::List => (types.kind(group, version, &format!("{kind}List")), LIST_MEDIA),
        Verb::DeleteCollection => (types.meta("Status"), READ_MEDIA),
        Verb::Delete if !deletion_returns_object(target.row.group, target.row.plural) => {
            (types.meta("Status"), READ_MEDIA)
        }
        _ => (object, READ_MEDIA),
    };
    if dialect == super::Dialect::V2 {
        out["schemes"] = json!(["https"]);
        out["produces"] = json!(media);
        if out.get("consumes").is_none() {
            out["consumes"] = json!(["*/*"]);
        }
    }
    let mut responses = json!({"401": dialect.response("Unauthorized", None, media)});
    for (code, words) in codes(verb, connects) {
        responses[*code] = dialect.response(words, schema.clone(), media);
    }
    out["responses"] = responses;
    out
}

fn codes(verb: Verb, connects: bool) -> &'static [(&'static str, &'static str)] {
    match verb {
        _ if connects => &[("200", "OK")],
        Verb::Create => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
        Verb::Update | Verb::Patch => &[("200", "OK"), ("201", "Created")],
        Verb::Delete => &[("200", "OK"), ("202", "Accepted")],
        _ => &[("200", "OK")],
    }
}

fn query(target: Target<'_>, verb: Verb) -> impl Iterator<Item = Parameter> {
    let (first, second): (&[Parameter], &[Parameter]) = match verb {
        Verb::Get if target.sub.is_some_and(|s| s.name == "log") => (parameters::LOG, &[]),
        Verb::List => (parameters::LIST, &[]),
        Verb::Create | Verb::Update => (parameters::WRITE, &[]),
        Verb::Patch => (parameters::PATCH, &[]),
        Verb::Delete => (parameters::DELETE, &[]),
        Verb::DeleteCollection => (parameters::DELETE, parameters::DELETE_WHICH),
        _ => (&[], &[]),
    };
    first.iter().chain(second).copied()
}

type Body = (Value, bool, &'static [&'static str]);

fn body(verb: Verb, object: Option<Value>, types: &mut Definitions<'_>) -> Option<Body> {
    Some(match verb {
        Verb::Create | Verb::Update => (object?, true, &["*/*"]),
        Verb::Patch => (types.meta("Patch")?, true, PATCH_MEDIA),
        Verb::Delete | Verb::DeleteCollection => (types.meta("DeleteOptions")?, false, &["*/*"]),
        _ => return None,
    })
}

/// `apps_v1`.
fn tag(row: &Row<'_>) -> String {
    let group = if row.group.is_empty() { "core" } else { row.group.split('.').next().unwrap_or_default() };
    format!("{group}_{}", row.version)
}

/// `createAppsV1NamespacedDeployment`, `listCoreV1PodForAllNamespaces`.
fn id(target: Target<'_>, word: &str, verb: Verb) -> String {
    let row = target.row;
    let group: String = if row.group.is_empty() {
        "Core".into()
    } else {
        row.group.trim_end_matches(".k8s.io").split(['.', '-']).map(capital).collect()
    };
    let namespaced = if target.in_namespace { "Namespaced" } else { "" };
    let sub = target.sub.map(|s| capital(s.name)).unwrap_or_default();
    let collection = if verb == Verb::DeleteCollection { "Collection" } else { "" };
    let word = if collection.is_empty() { word } else { "delete" };
    let everywhere = if row.namespaced && !target.in_namespace { "ForAllNamespaces" } else { "" };
    format!("{word}{group}{}{collection}{namespaced}{}{sub}{everywhere}", capital(row.version), row.kind)
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

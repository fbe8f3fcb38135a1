//! Nobody hands out rights they do not have: a role may hold, and a binding may grant, only what its author is allowed to do, unless
//! they have the verb `escalate` on the role or `bind` on the role that is bound.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::authz::Attributes;
use crate::authz::rbac::{Rule, quoted};
use crate::errors::ApiError;
use crate::registry::Context;
use crate::registry::strategy::tree::{at, items, remove, same, str_at, within};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The plugin; Corten's own name, upstream does this inside its RBAC storage.
pub struct EscalationCheck;

impl Plugin for EscalationCheck {
    fn name(&self) -> &'static str {
        "EscalationCheck"
    }

    fn admit<'a>(&'a self, cx: &'a Context<'_>, request: &'a mut AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            let writes =
                matches!(request.operation, Operation::Create | Operation::Update) && request.subresource.is_none();
            if request.resource.group != GROUP || !writes || cx.user.in_group("system:masters") {
                return Ok(());
            }
            if request.old.is_some_and(|old| only_collected(request.object, old)) {
                return Ok(());
            }
            match request.resource.kind {
                "Role" | "ClusterRole" => role(cx, request),
                _ => binding(cx, request).await,
            }
        })
    }
}

/// Whether an update changes no more than the garbage collector does.
fn only_collected(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        within(&mut object, "metadata", |metadata| {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
                remove(metadata, field);
            }
        });
        object
    };
    same(Some(&rest(new)), Some(&rest(old)))
}

fn role(cx: &Context<'_>, request: &AdmissionRequest<'_>) -> Result<(), ApiError> {
    if may(cx, request, "escalate", request.resource.plural, request.name) {
        return Ok(());
    }
    covered(cx, request, &rules(request.object))?;
    // What an aggregated role will hold is anybody's guess: only who may do everything may make or change one.
    let aggregates = |object: &Value| at(object, &["aggregationRule"]).is_some();
    if aggregates(request.object) || request.old.is_some_and(aggregates) {
        let any = || vec!["*".to_owned()];
        let all = [
            Rule { verbs: any(), api_groups: any(), resources: any(), ..Rule::default() },
            Rule { verbs: any(), non_resource_urls: any(), ..Rule::default() },
        ];
        let own = cx.state.authorizer.rules().1.all_for(cx.user, request.namespace);
        if !missing(&own, &all).is_empty() {
            return Err(request.forbidden("must have cluster-admin privileges to use an aggregationRule"));
        }
    }
    Ok(())
}

async fn binding(cx: &Context<'_>, request: &AdmissionRequest<'_>) -> Result<(), ApiError> {
    let (kind, name) = (str_at(request.object, &["roleRef", "kind"]), str_at(request.object, &["roleRef", "name"]));
    let (plural, namespace) = if kind == "Role" { ("roles", request.namespace) } else { ("clusterroles", "") };
    if may(cx, request, "bind", plural, name) {
        return Ok(());
    }
    // From the store: the rules that requests are judged by may not have heard of a role just made, or changed.
    let role = match cx.state.resource(GROUP, "v1", plural) {
        Some(row) => cx.state.storage.get(row, namespace, name).await?,
        None => None,
    };
    let role = role.ok_or_else(|| ApiError::not_found(GROUP, plural, name))?;
    covered(cx, request, &rules(&role.object()))
}

fn rules(role: &Value) -> Vec<Rule> {
    items(role, &["rules"]).iter().map(Rule::from_object).collect()
}

fn may(cx: &Context<'_>, request: &AdmissionRequest<'_>, verb: &str, plural: &str, name: &str) -> bool {
    let attributes = Attributes {
        verb: verb.into(),
        group: GROUP.into(),
        version: "v1".into(),
        resource: plural.into(),
        namespace: request.namespace.into(),
        name: name.into(),
        ..Attributes::default()
    };
    cx.state.authorizer.authorize(cx.user, &attributes).is_allowed()
}

fn covered(cx: &Context<'_>, request: &AdmissionRequest<'_>, wanted: &[Rule]) -> Result<(), ApiError> {
    let own = cx.state.authorizer.rules().1.all_for(cx.user, request.namespace);
    let missing = missing(&own, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let texts: BTreeSet<String> = compact(missing).iter().map(Rule::to_string).collect();
    let why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        cx.user.name,
        quoted(&cx.user.groups),
        texts.into_iter().collect::<Vec<_>>().join("\n")
    );
    Err(request.forbidden(&why))
}

/// The smallest pieces of what is wanted that none of the own rules covers.
pub fn missing(own: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    wanted.iter().flat_map(pieces).filter(|piece| !own.iter().any(|o| covers(o, piece))).collect()
}

/// A rule taken apart: one verb on one thing each.
fn pieces(rule: &Rule) -> Vec<Rule> {
    let one = |value: &String| vec![value.clone()];
    let names: Vec<Vec<String>> =
        if rule.resource_names.is_empty() { vec![Vec::new()] } else { rule.resource_names.iter().map(one).collect() };
    let mut pieces = Vec::new();
    for (group, resource) in rule.api_groups.iter().flat_map(|g| rule.resources.iter().map(move |r| (g, r))) {
        for (verb, name) in rule.verbs.iter().flat_map(|v| names.iter().map(move |n| (v, n))) {
            pieces.push(Rule {
                verbs: one(verb),
                api_groups: one(group),
                resources: one(resource),
                resource_names: name.clone(),
                non_resource_urls: Vec::new(),
            });
        }
    }
    for (path, verb) in rule.non_resource_urls.iter().flat_map(|p| rule.verbs.iter().map(move |v| (p, v))) {
        pieces.push(Rule { verbs: one(verb), non_resource_urls: one(path), ..Rule::default() });
    }
    pieces
}

/// Pieces about the same thing in one rule.
pub fn compact(pieces: Vec<Rule>) -> Vec<Rule> {
    let mut compacted: Vec<Rule> = Vec::new();
    for piece in pieces {
        let alike = |r: &&mut Rule| Rule { verbs: piece.verbs.clone(), ..(**r).clone() } == piece;
        match compacted.iter_mut().find(alike).filter(|_| piece.non_resource_urls.is_empty()) {
            Some(rule) => rule.verbs.extend(piece.verbs),
            None => compacted.push(piece),
        }
    }
    compacted
}

/// Whether one own rule covers a piece.
fn covers(own: &Rule, piece: &Rule) -> bool {
    let all = |list: &[String], f: &dyn Fn(&String) -> bool| list.iter().all(f);
    all(&piece.verbs, &|v| has(&own.verbs, v))
        && all(&piece.non_resource_urls, &|path| own.non_resource_urls.iter().any(|p| covers_path(p, path)))
        && all(&piece.api_groups, &|g| has(&own.api_groups, g))
        && all(&piece.resources, &|r| covers_resource(own, r))
        && (own.resource_names.is_empty()
            || (!piece.resource_names.is_empty() && all(&piece.resource_names, &|n| own.resource_names.contains(n))))
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|v| v == "*" || v == value)
}

fn covers_path(own: &str, wanted: &str) -> bool {
    own == wanted || own.strip_suffix('*').is_some_and(|prefix| wanted.starts_with(prefix))
}

fn covers_resource(own: &Rule, wanted: &str) -> bool {
    own.resources.iter().any(|r| {
        let any_parent = || Some(r.strip_prefix("*/")? == wanted.split_once('/')?.1);
        r == "*" || r == wanted || any_parent().unwrap_or(false)
    })
}

//! Nobody hands out rights they do not have: a role may hold, and a binding may grant, only what its author is allowed to do, unless
//! they have the verb `escalate` on the role or `bind` on the role that is bound.

use std::collections::BTreeSet;

use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::authz::Attributes;
use crate::authz::rbac::Rule;
use crate::errors::ApiError;
use crate::registry::Context;
use crate::registry::strategy::tree::{at, items, same, str_at};

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
            match request.resource.kind {
                "Role" | "ClusterRole" => role(cx, request),
                _ => binding(cx, request),
            }
        })
    }
}

fn role(cx: &Context<'_>, request: &AdmissionRequest<'_>) -> Result<(), ApiError> {
    let unchanged = |field: &str| request.old.is_some_and(|old| same(request.object.get(field), old.get(field)));
    if (unchanged("rules") && unchanged("aggregationRule"))
        || may(cx, request, "escalate", request.resource.plural, request.name)
    {
        return Ok(());
    }
    if at(request.object, &["aggregationRule"]).is_some() && !unchanged("aggregationRule") {
        // What an aggregated role will hold is anybody's guess: only who may do everything may make one.
        let all = Rule {
            verbs: vec!["*".into()],
            api_groups: vec!["*".into()],
            resources: vec!["*".into()],
            ..Rule::default()
        };
        covered(cx, request, &[all])?;
    }
    let rules: Vec<Rule> = items(request.object, &["rules"]).iter().map(Rule::from_object).collect();
    covered(cx, request, &rules)
}

fn binding(cx: &Context<'_>, request: &AdmissionRequest<'_>) -> Result<(), ApiError> {
    if request.old.is_some_and(|old| same(request.object.get("subjects"), old.get("subjects"))) {
        return Ok(());
    }
    let (kind, name) = (str_at(request.object, &["roleRef", "kind"]), str_at(request.object, &["roleRef", "name"]));
    let plural = if kind == "Role" { "roles" } else { "clusterroles" };
    if may(cx, request, "bind", plural, name) {
        return Ok(());
    }
    let rules = cx.state.authorizer.rules().1.of_role(kind, request.namespace, name);
    covered(cx, request, &rules)
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
    let groups: Vec<String> = cx.user.groups.iter().map(|g| format!("{g:?}")).collect();
    let why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        cx.user.name,
        groups.join(" "),
        missing.into_iter().collect::<Vec<_>>().join("\n")
    );
    Err(request.forbidden(&why))
}

/// The smallest pieces of what is wanted that none of the own rules covers, in words.
pub fn missing(own: &[Rule], wanted: &[Rule]) -> BTreeSet<String> {
    let mut missing = BTreeSet::new();
    for rule in wanted {
        for verb in &rule.verbs {
            for path in &rule.non_resource_urls {
                if !own.iter().any(|o| has(&o.verbs, verb) && o.non_resource_urls.iter().any(|p| covers_path(p, path)))
                {
                    missing.insert(format!("{{NonResourceURLs:[{path:?}], Verbs:[{verb:?}]}}"));
                }
            }
            for group in &rule.api_groups {
                for resource in &rule.resources {
                    let open = own.iter().any(|o| {
                        has(&o.verbs, verb)
                            && has(&o.api_groups, group)
                            && covers_resource(o, resource)
                            && covers_names(own, o, rule, verb, group, resource)
                    });
                    if !open {
                        missing
                            .insert(format!("{{APIGroups:[{group:?}], Resources:[{resource:?}], Verbs:[{verb:?}]}}"));
                    }
                }
            }
        }
    }
    missing
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

/// A rule about certain objects may be put together from several own rules about some of them.
fn covers_names(own: &[Rule], one: &Rule, wanted: &Rule, verb: &str, group: &str, resource: &str) -> bool {
    if one.resource_names.is_empty() {
        return true;
    }
    !wanted.resource_names.is_empty()
        && wanted.resource_names.iter().all(|name| {
            own.iter().any(|o| {
                has(&o.verbs, verb)
                    && has(&o.api_groups, group)
                    && covers_resource(o, resource)
                    && (o.resource_names.is_empty() || o.resource_names.contains(name))
            })
        })
}

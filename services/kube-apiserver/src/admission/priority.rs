//! A pod's priority as a number: from its class, from the default class, or zero.

use std::sync::Arc;

use serde_json::Value;

use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::errors::ApiError;
use crate::registry::Context;
use crate::registry::strategy::plain::SYSTEM_PRIORITIES;
use crate::registry::strategy::tree::{at, bool_at, has, int_at, keep, object, set, str_at};
use crate::storage::Stored;

const GROUP: &str = "scheduling.k8s.io";

/// The plugin.
pub struct Priority;

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn admit<'a>(&'a self, cx: &'a Context<'_>, request: &'a mut AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            if request.is(GROUP, "priorityclasses") && request.operation == Operation::Delete {
                return kept(request);
            }
            if !request.is("", "pods") {
                return Ok(());
            }
            match (request.operation, request.old) {
                (Operation::Create, _) => resolve(cx, request).await,
                (Operation::Update, Some(old)) => {
                    for field in ["priority", "preemptionPolicy"] {
                        if !has(&request.object["spec"], field) {
                            keep(object(request.object, "spec"), &old["spec"], field);
                        }
                    }
                    Ok(())
                }
                _ => Ok(()),
            }
        })
    }
}

/// The system's classes stay, as upstream's storage has it.
fn kept(request: &AdmissionRequest<'_>) -> Result<(), ApiError> {
    let system = SYSTEM_PRIORITIES.iter().any(|(name, _, _)| *name == request.name);
    let why = "this is a system priority class and cannot be deleted";
    if system { Err(request.forbidden(why)) } else { Ok(()) }
}

async fn resolve(cx: &Context<'_>, request: &mut AdmissionRequest<'_>) -> Result<(), ApiError> {
    let wanted = str_at(request.object, &["spec", "priorityClassName"]).to_owned();
    let class = if wanted.is_empty() { default_class(cx) } else { named(cx, request, &wanted).await? };
    let spec = object(request.object, "spec");
    let value = int_at(&class, &["value"]).unwrap_or(0);
    let policy = match str_at(&class, &["preemptionPolicy"]) {
        "" => "PreemptLowerPriority".to_owned(),
        policy => policy.to_owned(),
    };
    if let Some(given) = int_at(spec, &["priority"]).filter(|g| *g != value) {
        return Err(request.forbidden(&format!("the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name")));
    }
    let given = str_at(spec, &["preemptionPolicy"]).to_owned();
    if !given.is_empty() && given != policy {
        return Err(request.forbidden(&format!("the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name")));
    }
    let spec = object(request.object, "spec");
    if wanted.is_empty()
        && let Some(name) = at(&class, &["metadata", "name"]).cloned()
    {
        set(spec, "priorityClassName", name);
    }
    set(spec, "priority", value);
    set(spec, "preemptionPolicy", policy);
    Ok(())
}

fn classes(cx: &Context<'_>) -> Vec<Arc<Stored>> {
    cx.state.resource(GROUP, "v1", "priorityclasses").map(|r| cx.state.storage.cached(r)).unwrap_or_default()
}

/// Of several defaults the lowest counts, as a mistake should not raise everybody.
fn default_class(cx: &Context<'_>) -> Value {
    let defaults = classes(cx).into_iter().map(|c| c.object()).filter(|c| bool_at(c, &["globalDefault"]));
    defaults.min_by_key(|c| int_at(c, &["value"]).unwrap_or(0)).unwrap_or(Value::Null)
}

async fn named(cx: &Context<'_>, request: &AdmissionRequest<'_>, name: &str) -> Result<Value, ApiError> {
    // These exist even before their objects do: what starts first depends on them.
    if let Some((_, value, _)) = SYSTEM_PRIORITIES.iter().find(|(n, _, _)| *n == name) {
        return Ok(serde_json::json!({"value": value}));
    }
    let found = match cx.state.resource(GROUP, "v1", "priorityclasses") {
        Some(res) => cx.state.storage.get(res, "", name).await?,
        None => None,
    };
    found.map(|c| c.object()).ok_or_else(|| request.forbidden(&format!("no PriorityClass with name {name} was found")))
}

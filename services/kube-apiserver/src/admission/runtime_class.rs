//! A pod's RuntimeClass must exist, and brings its overhead and the nodes it runs on with it.

use serde_json::{Value, json};

use super::{AdmissionRequest, Operation, Plugin, Verdict, find};
use crate::errors::ApiError;
use crate::registry::Context;
use crate::registry::strategy::tree::{at, has, items, map_at, object, same, set, str_at};

/// The plugin.
pub struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn admit<'a>(&'a self, cx: &'a Context<'_>, request: &'a mut AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            if !request.is("", "pods") || request.operation != Operation::Create {
                return Ok(());
            }
            let class = class(cx, request).await?;
            apply(request.object, &class).map_err(|why| request.forbidden(&why))
        })
    }

    fn validate<'a>(&'a self, cx: &'a Context<'_>, request: &'a AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            if !request.is("", "pods") || request.operation != Operation::Create {
                return Ok(());
            }
            let class = class(cx, request).await?;
            let (wanted, given) = (at(&class, &["overhead", "podFixed"]), at(request.object, &["spec", "overhead"]));
            if wanted.is_none() && given.is_some() {
                return Err(request
                    .forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"));
            }
            if wanted.is_some() && !same(wanted, given) {
                return Err(
                    request.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
                );
            }
            Ok(())
        })
    }
}

/// The class the pod names; null if it names none.
async fn class(cx: &Context<'_>, request: &AdmissionRequest<'_>) -> Result<Value, ApiError> {
    let name = str_at(request.object, &["spec", "runtimeClassName"]);
    if name.is_empty() {
        return Ok(Value::Null);
    }
    match find(cx, "node.k8s.io", "runtimeclasses", "", name).await? {
        Some(class) => Ok(class.object()),
        None => Err(request.forbidden(&format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

/// Adds what the class brings; what is wrong if the pod says otherwise.
pub fn apply(pod: &mut Value, class: &Value) -> Result<(), String> {
    if let Some(overhead) = at(class, &["overhead", "podFixed"]) {
        let given = at(pod, &["spec", "overhead"]);
        if given.is_some_and(|g| !same(Some(g), Some(overhead))) {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        set(object(pod, "spec"), "overhead", overhead.clone());
    }
    for (key, value) in map_at(class, &["scheduling", "nodeSelector"]).into_iter().flatten() {
        let selector = object(object(pod, "spec"), "nodeSelector");
        if has(selector, key) && selector[key.as_str()] != *value {
            let (theirs, own) = (str_at(class, &["scheduling", "nodeSelector", key]), str_at(selector, &[key]));
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {theirs}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
        set(selector, key, value.clone());
    }
    let mut tolerations = items(pod, &["spec", "tolerations"]).to_vec();
    for t in items(class, &["scheduling", "tolerations"]) {
        if !tolerations.contains(t) {
            tolerations.push(t.clone());
        }
    }
    if !tolerations.is_empty() {
        set(object(pod, "spec"), "tolerations", json!(tolerations));
    }
    Ok(())
}

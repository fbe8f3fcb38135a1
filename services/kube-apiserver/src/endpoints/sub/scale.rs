//! autoscaling/v1 Scale of anything with spec.replicas.

use super::super::ownership::{self, Tracking};
use super::super::update::{Change, tracking_of_patch};
use super::super::{Target, decode, encode, read};
use crate::errors::{ApiError, FieldError};
use crate::patch;
use crate::server::body::{self, Request, Response};
use crate::server::handler::Call;
use crate::storage::Preconditions;
use apimachinery::meta;
use apimachinery::selector::LabelSelector;
use serde_json::{Value, json};

const GROUP: &str = "autoscaling";
const VERSION: &str = "v1";
const KIND: &str = "Scale";

/// GET.
pub async fn get(call: &Call, target: &Target) -> Result<Response, ApiError> {
    let object = read::find(call, target).await?;
    encode::value(call, 200, &scale_of(&object.object()))
}

/// PUT.
pub async fn put(call: &Call, target: &Target, request: Request) -> Result<Response, ApiError> {
    let scale = decode::object(call, request, GROUP, VERSION, KIND).await?.object;
    if meta::name(&scale) != target.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            meta::name(&scale),
            target.name
        )));
    }
    write(call, target, Tracking::of(call, "UpdateOptions")?, |_| Ok(scale.clone())).await
}

/// PATCH.
pub async fn patch(call: &Call, target: &Target, request: Request) -> Result<Response, ApiError> {
    let kind = patch::Kind::of(call.header(http::header::CONTENT_TYPE))?;
    let text = body::read(request.into_body()).await?;
    if kind == patch::Kind::Apply {
        return apply(call, target, &text).await;
    }
    let tracking = tracking_of_patch(call)?;
    let patch = patch::Patch::parse(kind, &text, GROUP, VERSION, KIND)?;
    write(call, target, tracking, |current| {
        decode::patched(call, &patch, patch.apply(current)?, GROUP, VERSION, KIND).map(|(scale, _)| scale)
    })
    .await
}

/// Server-side apply of a Scale is one of its object's replicas.
async fn apply(call: &Call, target: &Target, text: &[u8]) -> Result<Response, ApiError> {
    let res = target.res;
    let manager = ownership::applier(call)?;
    let scale = super::super::apply::configuration(call, GROUP, VERSION, KIND, text)?.object;
    let mut config = json!({"apiVersion": res.api_version(), "kind": res.kind, "metadata": {"name": target.name}});
    if let Some(replicas) = scale["spec"].get("replicas") {
        config["spec"] = json!({"replicas": replicas});
    }
    let change = Change { sub: Some("scale"), ..Change::new(call, target, call.dry_run()?) };
    let stored = change.apply(|live| ownership::apply(call, res, Some("scale"), &manager, live, &config)).await?;
    encode::value(call, 200, &scale_of(&stored.object()))
}

async fn write(
    call: &Call,
    target: &Target,
    tracking: Tracking,
    mut compute: impl FnMut(&Value) -> Result<Value, ApiError>,
) -> Result<Response, ApiError> {
    let change = Change {
        preconditions: Preconditions::default(),
        sub: Some("scale"),
        tracking,
        ..Change::new(call, target, call.dry_run()?)
    };
    let stored = change
        .apply(|object| {
            let wanted = compute(&scale_of(object))?;
            with_scale(object, &wanted, target)
        })
        .await?;
    encode::value(call, 200, &scale_of(&stored.object()))
}

/// The Scale an object shows.
fn scale_of(object: &Value) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let mut status = json!({"replicas": object["status"]["replicas"].as_i64().unwrap_or(0)});
    let selector = &object["spec"]["selector"];
    let simple = match selector.as_object() {
        // A ReplicationController's selector is a bare map.
        Some(map) if map.values().all(Value::is_string) => Some(map),
        Some(map) if map.keys().all(|k| k == "matchLabels") => map.get("matchLabels").and_then(Value::as_object),
        _ => None,
    };
    let selector = match simple {
        Some(map) => Some(LabelSelector::from_map(map)),
        None => LabelSelector::from_object(selector).ok(),
    };
    if let Some(selector) = selector.map(|s| s.to_string()).filter(|s| !s.is_empty()) {
        status["selector"] = json!(selector);
    }
    let replicas = object["spec"]["replicas"].as_i64().unwrap_or(0);
    json!({"kind": KIND, "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": {"replicas": replicas}, "status": status})
}

/// The object with the replicas a Scale wants.
fn with_scale(object: &Value, scale: &Value, target: &Target) -> Result<Value, ApiError> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(ApiError::invalid(GROUP, KIND, &target.name, &[error]));
    }
    let mut new = object.clone();
    meta::child_mut(&mut new, "spec").insert("replicas".into(), json!(replicas));
    for field in ["resourceVersion", "uid"] {
        match scale["metadata"].get(field).filter(|v| v.as_str().is_some_and(|t| !t.is_empty())) {
            Some(value) => meta::metadata_mut(&mut new).insert(field.into(), value.clone()),
            None => meta::metadata_mut(&mut new).remove(field),
        };
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_replicas_and_selector() {
        let object = json!({"metadata": {"name": "d", "resourceVersion": "5", "labels": {}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "x"}}}, "status": {"replicas": 2}});
        let scale = scale_of(&object);
        assert_eq!(scale["metadata"], json!({"name": "d", "resourceVersion": "5"}));
        assert_eq!(
            (&scale["spec"]["replicas"], &scale["status"]),
            (&json!(3), &json!({"replicas": 2, "selector": "app=x"}))
        );
        let rc = json!({"metadata": {}, "spec": {"selector": {"app": "y"}}});
        assert_eq!(scale_of(&rc)["status"]["selector"], "app=y");
    }
}

//! PUT namespaces/<name>/finalize: the namespace controller takes its finalizer off.

use super::super::ownership::Tracking;
use super::super::update::Change;
use super::super::{Target, decode, encode};
use crate::errors::ApiError;
use crate::server::body::{Request, Response};
use crate::server::handler::Call;
use apimachinery::meta;
use serde_json::{Value, json};

/// Replaces spec.finalizers; a deleted namespace with none left is removed.
pub async fn put(call: &Call, target: &Target, request: Request) -> Result<Response, ApiError> {
    let res = target.res;
    let decoded = decode::object(call, request, res.group, res.version, res.kind).await?;
    let wanted = decoded.object;
    let tracking = Tracking::of(call, "UpdateOptions")?;
    let change = Change { tracking, ..Change::new(call, target, call.dry_run()?) };
    let stored = change.apply(|current| Ok(with_finalizers(current, &wanted))).await?;
    encode::one(call, res, 200, &stored, &decoded.warnings)
}

fn with_finalizers(current: &Value, wanted: &Value) -> Value {
    let mut new = current.clone();
    let finalizers = wanted["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
    if finalizers.is_empty() {
        meta::child_mut(&mut new, "spec").remove("finalizers");
    } else {
        meta::child_mut(&mut new, "spec").insert("finalizers".into(), json!(finalizers));
    }
    for field in ["resourceVersion", "uid"] {
        if let Some(value) = wanted["metadata"].get(field) {
            meta::metadata_mut(&mut new).insert(field.into(), value.clone());
        }
    }
    new
}

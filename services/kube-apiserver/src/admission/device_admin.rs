//! Claims that look at devices in use (adminAccess) are only made in namespaces whose label says so. KEP-5018.

use serde_json::Value;

use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::errors::{ApiError, FieldError};
use crate::registry::Context;
use crate::registry::strategy::tree::{bool_at, items, str_at};

const LABEL: &str = "resource.kubernetes.io/admin-access";

/// The plugin; Corten's own name, upstream does this inside its storage of claims.
pub struct DeviceAdminAccess;

impl Plugin for DeviceAdminAccess {
    fn name(&self) -> &'static str {
        "DeviceAdminAccess"
    }

    fn validate<'a>(&'a self, cx: &'a Context<'_>, request: &'a AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            let (kind, spec) = match () {
                () if request.is("resource.k8s.io", "resourceclaims") => ("ResourceClaim", "/spec"),
                () if request.is("resource.k8s.io", "resourceclaimtemplates") => {
                    ("ResourceClaimTemplate", "/spec/spec")
                }
                () => return Ok(()),
            };
            // What asks cannot be changed later.
            if request.operation != Operation::Create || !asks(request.object.pointer(spec).unwrap_or(&Value::Null)) {
                return Ok(());
            }
            let found = super::find(cx, "", "namespaces", "", request.namespace).await?;
            let allowed = found.is_some_and(|ns| str_at(&ns.object(), &["metadata", "labels", LABEL]) == "true");
            if allowed {
                return Ok(());
            }
            let why = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
            let error = FieldError::forbidden("", why);
            Err(ApiError::invalid("resource.k8s.io", kind, apimachinery::meta::name(request.object), &[error]))
        })
    }
}

fn asks(spec: &Value) -> bool {
    items(spec, &["devices", "requests"]).iter().any(|request| bool_at(request, &["exactly", "adminAccess"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_request_is_enough() {
        for (requests, wanted) in [
            (json!([]), false),
            (json!([{"name": "a", "exactly": {"adminAccess": false}}]), false),
            (json!([{"name": "a", "exactly": {}}, {"name": "b", "exactly": {"adminAccess": true}}]), true),
        ] {
            assert_eq!(asks(&json!({"devices": {"requests": requests}})), wanted, "{requests}");
        }
    }
}

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
            let asking = asking(request.object.pointer(spec).unwrap_or(&Value::Null));
            let Some(asking) = asking.filter(|_| request.operation == Operation::Create) else { return Ok(()) };
            let found = super::find(cx, "", "namespaces", "", request.namespace).await?;
            let allowed = found.is_some_and(|ns| str_at(&ns.object(), &["metadata", "labels", LABEL]) == "true");
            if allowed {
                return Ok(());
            }
            let why = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
            let error = FieldError::forbidden(format!("spec.devices.requests[{asking}].adminAccess"), why);
            Err(ApiError::invalid("resource.k8s.io", kind, apimachinery::meta::name(request.object), &[error]))
        })
    }
}

/// The first request that does; requests with alternatives cannot.
fn asking(spec: &Value) -> Option<usize> {
    items(spec, &["devices", "requests"]).iter().position(|request| bool_at(request, &["exactly", "adminAccess"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_request_is_enough() {
        for (requests, wanted) in [
            (json!([]), None),
            (json!([{"name": "a", "exactly": {"adminAccess": false}}]), None),
            (json!([{"name": "a", "exactly": {}}, {"name": "b", "exactly": {"adminAccess": true}}]), Some(1)),
        ] {
            assert_eq!(asking(&json!({"devices": {"requests": requests}})), wanted, "{requests}");
        }
    }
}

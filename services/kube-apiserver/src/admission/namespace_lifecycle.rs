//! Nothing is made in a namespace that does not exist or is on its way out, and the system's own namespaces stay.

use apimachinery::meta;

use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::errors::ApiError;
use crate::registry::Context;
use crate::registry::strategy::tree::str_at;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The plugin.
pub struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn admit<'a>(&'a self, cx: &'a Context<'_>, request: &'a mut AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            if request.is("", "namespaces") {
                if request.operation == Operation::Delete && IMMORTAL.contains(&request.name) {
                    return Err(request.forbidden("this namespace may not be deleted"));
                }
                return Ok(());
            }
            let plain_create = request.operation == Operation::Create && request.subresource.is_none();
            if !request.resource.namespaced || !plain_create || request.resource.virtual_ {
                return Ok(());
            }
            lives(cx, request).await
        })
    }
}

async fn lives(cx: &Context<'_>, request: &AdmissionRequest<'_>) -> Result<(), ApiError> {
    let found = super::find(cx, "", "namespaces", "", request.namespace).await?;
    let Some(found) = found else {
        return Err(ApiError::not_found("", "namespaces", request.namespace));
    };
    let namespace = found.object();
    if meta::deletion_timestamp(&namespace).is_some() || str_at(&namespace, &["status", "phase"]) == "Terminating" {
        let ns = request.namespace;
        let why = format!("unable to create new content in namespace {ns} because it is being terminated");
        let cause = format!("namespace {ns} is being terminated");
        return Err(request.forbidden(&why).with_cause("NamespaceTerminating", cause, "metadata.namespace"));
    }
    Ok(())
}

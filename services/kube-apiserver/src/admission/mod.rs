//! Admission: what may change or refuse a write before it is validated. One plugin, one file, one line in [`PLUGINS`].

mod escalation;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod service_account;
mod service_addresses;
mod taint_nodes;
mod tolerations;

#[cfg(test)]
mod tests;

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::errors::ApiError;
use crate::registry::{Context, Resource};

/// What a request is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object, or a POST to a subresource.
    Create,
    /// A changed object.
    Update,
    /// An object on its way out.
    Delete,
    /// A connection: exec, attach, port-forward, proxy.
    Connect,
}

/// What plugins see of a request. Only `object` may be changed.
pub struct AdmissionRequest<'a> {
    /// The operation.
    pub operation: Operation,
    /// The row.
    pub resource: &'static Resource,
    /// The subresource, if any.
    pub subresource: Option<&'a str>,
    /// The namespace, or empty.
    pub namespace: &'a str,
    /// The object's name; empty while it is to be generated.
    pub name: &'a str,
    /// The object as it will be stored, or the body of a POST to a subresource; null for deletes.
    pub object: &'a mut Value,
    /// The stored object, for updates and deletes.
    pub old: Option<&'a Value>,
}

impl AdmissionRequest<'_> {
    /// Whether this is about the resource itself, not a subresource.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_none() && self.resource.group == group && self.resource.plural == plural
    }

    /// A refusal by admission.
    pub fn forbidden(&self, why: &str) -> ApiError {
        ApiError::forbidden(self.resource.group, self.resource.plural, self.name, why)
    }
}

/// One rule of admission.
pub trait Plugin: Sync {
    /// As upstream names it.
    fn name(&self) -> &'static str;

    /// Changes the object, refuses the request, or lets it pass.
    fn admit<'a>(
        &'a self,
        cx: &'a Context<'_>,
        request: &'a mut AdmissionRequest<'_>,
    ) -> BoxFuture<'a, Result<(), ApiError>>;
}

/// The plugins, in the order they run. Addresses come last: nothing may be claimed for a request that is refused.
pub static PLUGINS: &[&dyn Plugin] = &[
    &namespace_lifecycle::NamespaceLifecycle,
    &service_account::ServiceAccount,
    &node_restriction::NodeRestriction,
    &taint_nodes::TaintNodesByCondition,
    &escalation::EscalationCheck,
    &priority::Priority,
    &tolerations::DefaultTolerationSeconds,
    &service_addresses::ServiceAddresses,
];

/// Runs every plugin.
pub async fn admit(cx: &Context<'_>, mut request: AdmissionRequest<'_>) -> Result<(), ApiError> {
    for plugin in PLUGINS {
        if let Err(error) = plugin.admit(cx, &mut request).await {
            tracing::debug!(plugin = plugin.name(), resource = ?request.resource, name = request.name, %error, "refused");
            return Err(error);
        }
    }
    Ok(())
}

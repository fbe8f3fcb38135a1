//! Admission: what may change or refuse a write. One plugin, one file, one line in [`PLUGINS`].
//!
//! A plugin has two chances, and each is taken by all plugins in turn: [`Plugin::admit`] may still change the object, [`Plugin::validate`]
//! sees it complete and valid, just before it is stored.

mod certificates;
pub mod config;
mod default_class;
mod device_admin;
mod escalation;
mod limit_ranger;
mod mountable;
mod namespace_lifecycle;
mod node_restriction;
pub mod pod_resources;
mod pod_security;
mod priority;
pub mod quota;
mod quota_usage;
mod runtime_class;
mod service_account;
mod service_addresses;
mod storage_in_use;
mod taint_nodes;
mod tolerations;
mod volume_resize;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::errors::ApiError;
use crate::registry::{Context, Resource};
use crate::server::metrics::Phase;
use crate::storage::Stored;

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

impl Operation {
    /// All of them, in their order.
    pub const ALL: [Operation; 4] = [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];

    /// As upstream names it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
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

/// A plugin's answer, perhaps after asking the store.
pub type Verdict<'a> = BoxFuture<'a, Result<(), ApiError>>;

/// One rule of admission. Most need one of the three methods.
pub trait Plugin: Sync {
    /// As upstream names it.
    fn name(&self) -> &'static str;

    /// Changes the object or refuses the request, from the request alone.
    fn change(&self, _: &mut AdmissionRequest<'_>) -> Result<(), ApiError> {
        Ok(())
    }

    /// Changes the object or refuses the request.
    fn admit<'a>(&'a self, _: &'a Context<'_>, request: &'a mut AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(std::future::ready(self.change(request)))
    }

    /// Refuses the object as it would be stored.
    fn validate<'a>(&'a self, _: &'a Context<'_>, _: &'a AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The plugins, in the order they run, which is upstream's. Addresses and quota come last: nothing may be claimed for a request that is
/// refused.
pub static PLUGINS: &[&dyn Plugin] = &[
    &namespace_lifecycle::NamespaceLifecycle,
    &limit_ranger::LimitRanger,
    &service_account::ServiceAccount,
    &node_restriction::NodeRestriction,
    &taint_nodes::TaintNodesByCondition,
    &escalation::EscalationCheck,
    &pod_security::PodSecurity,
    &priority::Priority,
    &tolerations::DefaultTolerationSeconds,
    &default_class::DefaultStorageClass,
    &storage_in_use::StorageObjectInUseProtection,
    &volume_resize::PersistentVolumeClaimResize,
    &runtime_class::RuntimeClass,
    &certificates::CertificateApproval,
    &certificates::CertificateSigning,
    &certificates::CertificateSubjectRestriction,
    &default_class::DefaultIngressClass,
    &device_admin::DeviceAdminAccess,
    &service_addresses::ServiceAddresses,
    &quota::ResourceQuota,
];

/// The first phase.
pub async fn admit(cx: &Context<'_>, mut request: AdmissionRequest<'_>) -> Result<(), ApiError> {
    for (index, plugin) in PLUGINS.iter().enumerate() {
        let begun = Instant::now();
        let verdict = plugin.admit(cx, &mut request).await;
        cx.state.metrics.admitted(index, Phase::Admit, request.operation, verdict.is_err(), begun.elapsed());
        verdict.inspect_err(|error| refused(*plugin, &request, error))?;
    }
    Ok(())
}

/// The second phase.
pub async fn validate(cx: &Context<'_>, request: AdmissionRequest<'_>) -> Result<(), ApiError> {
    for (index, plugin) in PLUGINS.iter().enumerate() {
        let begun = Instant::now();
        let verdict = plugin.validate(cx, &request).await;
        cx.state.metrics.admitted(index, Phase::Validate, request.operation, verdict.is_err(), begun.elapsed());
        verdict.inspect_err(|error| refused(*plugin, &request, error))?;
    }
    Ok(())
}

fn refused(plugin: &dyn Plugin, request: &AdmissionRequest<'_>, error: &ApiError) {
    tracing::debug!(plugin = plugin.name(), resource = ?request.resource, name = request.name, %error, "refused");
}

/// An object plugins go by: from the cache, which may not have heard of one that was just made, or else from the store.
async fn find(
    cx: &Context<'_>,
    group: &str,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<Arc<Stored>>, ApiError> {
    let Some(row) = cx.state.resource(group, "v1", plural) else { return Ok(None) };
    let storage = &cx.state.storage;
    match storage.cached_get(row, namespace, name) {
        Some(found) => Ok(Some(found)),
        None => storage.get(row, namespace, name).await,
    }
}

/// All objects of a kind, in one namespace if it has namespaces, once the cache has read the store.
async fn all(cx: &Context<'_>, group: &str, plural: &str, namespace: &str) -> Result<Vec<Value>, ApiError> {
    let Some(row) = cx.state.resource(group, "v1", plural) else { return Ok(Vec::new()) };
    let cache = cx.state.storage.cache(row);
    cache.synced().await;
    let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    Ok(cache.snapshot(&prefix).0.iter().map(|stored| stored.object()).collect())
}

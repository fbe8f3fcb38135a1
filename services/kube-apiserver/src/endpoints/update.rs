//! PUT and PATCH: one loop that computes the new state from the current one until it can be written.

use super::ownership::Tracking;
use super::{Target, apply, create, decode, delete, encode};
use crate::admission::{self, AdmissionRequest, Operation};
use crate::errors::{ApiError, FieldError};
use crate::patch;
use crate::registry::{Resource, generic, warnings};
use crate::server::body::{self, Request, Response};
use crate::server::handler::Call;
use crate::storage::{Preconditions, Stored, Swap, codec};
use apimachinery::{managed, meta};
use serde_json::Value;
use std::sync::Arc;

/// A change to one object.
pub struct Change<'a> {
    /// The request.
    pub call: &'a Call,
    /// The row.
    pub res: &'static Resource,
    /// The subresource it comes through, for admission and strategy.
    pub sub: Option<&'static str>,
    /// The object's namespace.
    pub namespace: &'a str,
    /// The object's name.
    pub name: &'a str,
    /// Compute but do not write.
    pub dry_run: bool,
    /// What must hold of the current state.
    pub preconditions: Preconditions,
    /// Whose write it is.
    pub tracking: Tracking,
}

/// PUT of an object or of a subresource that shares its shape.
pub async fn put(call: &Call, target: &Target, request: Request) -> Result<Response, ApiError> {
    call.accepted()?;
    let dry_run = call.dry_run()?;
    let res = target.res;
    let decoded = decode::object(call, request, res.group, res.version, res.kind).await?;
    let object = decoded.object;
    named_alike(&object, target)?;
    let change = Change { tracking: Tracking::of(call, "UpdateOptions")?, ..Change::new(call, target, dry_run) };
    loop {
        match change.apply(|_| Ok(object.clone())).await {
            Err(error) if error.reason() == "NotFound" && creates(target, &object) => {}
            Err(error) => return Err(error),
            Ok(stored) => return encode::one(call, res, 200, &stored, &decoded.warnings),
        }
        apply::may_create(call)?;
        match create::make(call, res, &target.namespace, object.clone(), dry_run, &change.tracking).await {
            Err(error) if error.reason() == "AlreadyExists" => {}
            Err(error) => return Err(error),
            Ok(stored) => return encode::one(call, res, 201, &stored, &decoded.warnings),
        }
    }
}

/// Resources whose PUT makes what is not there.
const CREATED_BY_PUT: &[&str] = &[
    "clusterrolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "endpoints",
    "events",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
    "limitranges",
    "rolebindings.rbac.authorization.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "services",
];

/// Resources whose PUT must say which version it replaces.
const VERSIONED: &[&str] = &[
    "apiservices.apiregistration.k8s.io",
    "customresourcedefinitions.apiextensions.k8s.io",
    "leases.coordination.k8s.io",
    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    "poddisruptionbudgets.policy",
    "validatingadmissionpolicies.admissionregistration.k8s.io",
    "validatingadmissionpolicybindings.admissionregistration.k8s.io",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
];

/// Whether a PUT to nothing creates. One that means a certain object or version does not.
fn creates(target: &Target, object: &Value) -> bool {
    target.sub.is_none()
        && CREATED_BY_PUT.contains(&target.res.group_resource().as_str())
        && meta::uid(object).is_empty()
        && matches!(meta::resource_version(object), "" | "0")
}

/// The name in the body must be the name in the path.
pub fn named_alike(object: &Value, target: &Target) -> Result<(), ApiError> {
    let (name, namespace) = (meta::name(object), meta::namespace(object));
    if name.is_empty() && !target.name.is_empty() {
        return Err(ApiError::bad_request("name must be provided"));
    }
    if name != target.name {
        let message = format!("the name of the object ({name}) does not match the name on the URL ({})", target.name);
        return Err(ApiError::bad_request(message));
    }
    if !namespace.is_empty() && namespace != target.namespace {
        let message = format!(
            "the namespace of the object ({namespace}) does not match the namespace on the URL ({})",
            target.namespace
        );
        return Err(ApiError::bad_request(message));
    }
    Ok(())
}

/// PATCH of an object or of a subresource that shares its shape.
pub async fn patch(call: &Call, target: &Target, request: Request) -> Result<Response, ApiError> {
    call.accepted()?;
    let dry_run = call.dry_run()?;
    let res = target.res;
    let kind = patch::Kind::of(call.header(http::header::CONTENT_TYPE))?;
    let text = body::read(request.into_body()).await?;
    if let Some(record) = &call.audit {
        record.sent(&serde_json::from_slice(&text).unwrap_or_default());
    }
    if kind == patch::Kind::Apply {
        return apply::apply(call, target, &text).await;
    }
    let tracking = tracking_of_patch(call)?;
    let patch = patch::Patch::parse(kind, &text, res.group, res.version, res.kind)?;
    let mut warnings = Vec::new();
    let change = Change { tracking, ..Change::new(call, target, dry_run) };
    let stored = change
        .apply(|current| {
            let patched = patch.apply(current)?;
            let (object, said) = decode::patched(call, &patch, patched, res.group, res.version, res.kind)?;
            warnings = said;
            named_alike(&object, target)?;
            Ok(object)
        })
        .await?;
    encode::one(call, res, 200, &stored, &warnings)
}

/// A change computed from one state.
struct Planned {
    old: Value,
    new: Value,
    /// The client insists on the version.
    pinned: bool,
}

/// The manager of a patch that is not an apply.
pub fn tracking_of_patch(call: &Call) -> Result<Tracking, ApiError> {
    if call.query.has("force") {
        let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
        return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[error]));
    }
    Tracking::of(call, "PatchOptions")
}

impl<'a> Change<'a> {
    /// A change without preconditions of its own, followed for nobody.
    pub fn new(call: &'a Call, target: &'a Target, dry_run: bool) -> Self {
        Self {
            call,
            res: target.res,
            sub: target.sub.map(|s| s.name),
            namespace: &target.namespace,
            name: &target.name,
            dry_run,
            preconditions: Preconditions::default(),
            tracking: Tracking::Done,
        }
    }

    /// Reads, computes and writes until nobody came in between. A version in the computed state must be the current one. The first try may start from the
    /// cache: if that was out of date, the write does not go through, and what needs no write is decided again from the store.
    pub async fn apply(
        &self,
        mut compute: impl FnMut(&Value) -> Result<Value, ApiError>,
    ) -> Result<Arc<Stored>, ApiError> {
        let storage = &self.call.state.storage;
        let cached = storage.peek(self.res, self.namespace, self.name).filter(|_| !self.dry_run);
        if let Some(stored) = cached
            && let Ok(Planned { old, new, .. }) = self.plan(&stored, &mut compute).await
            && (stored.stale || !managed::same_but_for_times(&old, &new))
            && let Swap::Done(written) = self.write(&stored, &old, new).await?
        {
            return Ok(written);
        }
        let mut current = storage.get(self.res, self.namespace, self.name).await?;
        loop {
            let Some(stored) = current else { return Err(self.not_found()) };
            let Planned { old, new, pinned } = self.plan(&stored, &mut compute).await?;
            if !stored.stale && managed::same_but_for_times(&old, &new) {
                return Ok(stored);
            }
            if self.dry_run {
                return codec::stored(self.res, new, stored.revision).map(Arc::new);
            }
            match self.write(&stored, &old, new).await? {
                Swap::Done(stored) => return Ok(stored),
                // The client insisted on a version and it is no longer the current one.
                Swap::Lost(_) if pinned => return Err(ApiError::stale(self.res.group, self.res.plural, self.name)),
                Swap::Lost(found) => current = found,
            }
        }
    }

    async fn plan(
        &self,
        stored: &Stored,
        compute: &mut impl FnMut(&Value) -> Result<Value, ApiError>,
    ) -> Result<Planned, ApiError> {
        self.preconditions.check(self.res, stored)?;
        let old = stored.object();
        let wanted = compute(&old)?;
        let pinned = self.check_version(&wanted, &old)?;
        let new = self.prepare(wanted, &old).await?;
        Ok(Planned { old, new, pinned })
    }

    async fn write(&self, stored: &Stored, old: &Value, new: Value) -> Result<Swap, ApiError> {
        if delete::is_finished(self.res, &new) {
            self.finish(stored, new).await
        } else {
            self.swap(stored, new, old).await
        }
    }

    async fn swap(&self, stored: &Stored, new: Value, old: &Value) -> Result<Swap, ApiError> {
        let swapped = self.call.state.storage.swap(self.res, new, stored.revision).await?;
        if let Swap::Done(written) = &swapped {
            self.res.strategy.after_update(&self.call.context(false), written, old);
        }
        Ok(swapped)
    }

    fn not_found(&self) -> ApiError {
        ApiError::not_found(self.res.group, self.res.plural, self.name)
    }

    /// Whether the new state came with the client's own version; 409 if that is not the current one, or if it means another object.
    fn check_version(&self, new: &Value, old: &Value) -> Result<bool, ApiError> {
        let (version, uid) = (meta::resource_version(new), meta::uid(new));
        if !uid.is_empty() && uid != meta::uid(old) {
            let prefix = self.call.state.storage.store().prefix(self.res);
            let place = if self.namespace.is_empty() { String::new() } else { format!("{}/", self.namespace) };
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: {prefix}{place}{}, ResourceVersion: 0, AdditionalErrorMsg: \
                 Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                self.name,
                meta::uid(old)
            );
            return Err(ApiError::conflict(self.res.group, self.res.plural, self.name, &why));
        }
        let unversioned = matches!(version, "" | "0");
        if !unversioned && version != meta::resource_version(old) {
            return Err(ApiError::stale(self.res.group, self.res.plural, self.name));
        }
        let put = self.call.method == http::Method::PUT;
        if unversioned && put && VERSIONED.contains(&self.res.group_resource().as_str()) {
            let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
            return Err(ApiError::invalid(self.res.group, self.res.kind, self.name, &[error]));
        }
        // A patch carries the current version along without having asked for it.
        Ok(!unversioned && put)
    }

    async fn prepare(&self, mut new: Value, old: &Value) -> Result<Value, ApiError> {
        let cx = self.call.context(self.dry_run);
        generic::keep_metadata(&mut new, old);
        generic::dedup_owners(&cx, &mut new);
        decode::default(self.res.group, self.res.version, self.res.kind, &mut new);
        self.res.strategy.default(&mut new);
        self.tracking.follow(self.call, self.res, self.sub, old, &mut new);
        admission::admit(&cx, self.admission(&mut new, old)).await?;
        self.res.strategy.prepare_for_update(&cx, self.sub, &mut new, old)?;
        let errors = self.res.strategy.validate_update(self.sub, &new, old);
        if !errors.is_empty() {
            return Err(ApiError::invalid(self.res.group, self.res.kind, self.name, &errors));
        }
        admission::validate(&cx, self.admission(&mut new, old)).await?;
        warnings::of(self.res, self.sub, &new, Some(old)).into_iter().for_each(|text| cx.warn(text));
        Ok(new)
    }

    fn admission<'r>(&'r self, new: &'r mut Value, old: &'r Value) -> AdmissionRequest<'r> {
        AdmissionRequest {
            operation: Operation::Update,
            resource: self.res,
            subresource: self.sub,
            namespace: self.namespace,
            name: self.name,
            object: new,
            old: Some(old),
        }
    }

    /// The change took away the last thing that kept a deleted object: it goes instead of being written.
    async fn finish(&self, stored: &Stored, new: Value) -> Result<Swap, ApiError> {
        match self.call.state.storage.remove(self.res, stored).await? {
            Swap::Done(removed) => {
                self.res.strategy.after_delete(&self.call.context(false), &new);
                // The client sees what it wrote, at the version of the removal.
                codec::stored(self.res, new, removed.revision).map(|s| Swap::Done(Arc::new(s)))
            }
            lost => Ok(lost),
        }
    }
}

//! Parameters and answers of requests.

use serde_json::Value;

/// Options of a list request; empty strings and zero mean "not set".
#[derive(Clone, Debug, Default)]
pub struct ListParams {
    /// Label selector in query syntax.
    pub label_selector: String,
    /// Field selector in query syntax.
    pub field_selector: String,
    /// Most items a page may have.
    pub limit: u32,
    /// Token of the page before.
    pub continue_token: String,
    /// Resource version to read at; `0` accepts any cached state.
    pub resource_version: String,
}

/// Options of a watch request.
#[derive(Clone, Debug, Default)]
pub struct WatchParams {
    /// Label selector in query syntax.
    pub label_selector: String,
    /// Field selector in query syntax.
    pub field_selector: String,
    /// Events after this version are sent.
    pub resource_version: String,
}

/// Options of a delete request.
#[derive(Clone, Debug, Default)]
pub struct DeleteParams {
    /// Overrides the object's own grace period.
    pub grace_period_seconds: Option<i64>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only this version.
    pub resource_version: Option<String>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation_policy: Option<String>,
}

impl DeleteParams {
    /// The request body: a `metav1.DeleteOptions`.
    pub(crate) fn body(&self) -> Value {
        let mut body = serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if let Some(seconds) = self.grace_period_seconds {
            body["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(policy) = &self.propagation_policy {
            body["propagationPolicy"] = policy.as_str().into();
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(version) = &self.resource_version {
            body["preconditions"]["resourceVersion"] = version.as_str().into();
        }
        body
    }
}

/// A patch with its content type.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes strategic merge patch.
    Strategic(Value),
}

impl Patch {
    pub(crate) fn parts(&self) -> (&'static str, &Value) {
        match self {
            Patch::Json(value) => ("application/json-patch+json", value),
            Patch::Merge(value) => ("application/merge-patch+json", value),
            Patch::Strategic(value) => ("application/strategic-merge-patch+json", value),
        }
    }
}

/// A page of objects.
#[derive(Clone, Debug)]
pub struct List<T = Value> {
    /// The version the page was read at.
    pub resource_version: String,
    /// Token for the next page; empty on the last.
    pub continue_token: String,
    /// The objects, each with `apiVersion` and `kind` filled in where they are whole.
    pub items: Vec<T>,
}

/// What happened to a watched object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    /// It appeared or entered the selector.
    Added,
    /// It changed.
    Modified,
    /// It vanished or left the selector.
    Deleted,
    /// Nothing: only the version went on.
    Bookmark,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct WatchEvent<T = Value> {
    /// What happened.
    pub kind: WatchKind,
    /// The object afterwards; for a bookmark only its version means something.
    pub object: T,
}

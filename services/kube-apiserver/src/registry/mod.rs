//! What an API resource is: a row of data ([`Resource`]) plus what differs from the generic path ([`Strategy`]).

use crate::admission::quota::Charges;
use crate::authn::UserInfo;
use crate::errors::{ApiError, FieldError};
use crate::server::State;
use crate::storage::Stored;
use parking_lot::Mutex;
use serde_json::Value;

pub mod alloc;
pub mod generic;
pub mod strategy;
pub mod table;
pub mod warnings;

pub use table::table;

/// What a client may do with a resource; the names RBAC rules and discovery use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// POST to the collection.
    Create,
    /// DELETE of one object.
    Delete,
    /// DELETE of the collection.
    DeleteCollection,
    /// GET of one object.
    Get,
    /// GET of the collection.
    List,
    /// PATCH of one object.
    Patch,
    /// PUT of one object.
    Update,
    /// GET of the collection with watch=true.
    Watch,
}

impl Verb {
    /// The lower-case name, as in RBAC rules and discovery documents.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }
}

/// A path below an object, such as status or log.
#[derive(Debug)]
pub struct Subresource {
    /// The path element.
    pub name: &'static str,
    /// API group of the kind it exchanges.
    pub group: &'static str,
    /// API version of the kind it exchanges.
    pub version: &'static str,
    /// The kind it exchanges.
    pub kind: &'static str,
    /// The verbs it answers.
    pub verbs: &'static [Verb],
}

/// One row of the resource table.
pub struct Resource {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Plural name: the path element.
    pub plural: &'static str,
    /// Singular name, for kubectl.
    pub singular: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Abbreviations, for kubectl.
    pub short_names: &'static [&'static str],
    /// Groupings such as `all`, for kubectl.
    pub categories: &'static [&'static str],
    /// The verbs it answers.
    pub verbs: &'static [Verb],
    /// What lies below an object.
    pub subresources: &'static [Subresource],
    /// Where objects are stored below /registry/, the same place upstream uses.
    pub storage: &'static str,
    /// What differs from the generic path.
    pub strategy: &'static dyn Strategy,
    /// A review: created, answered and never stored; or what is made when it is asked for.
    pub virtual_: bool,
}

impl Resource {
    /// `plural` or `plural.group`, as error messages name a resource.
    pub fn group_resource(&self) -> String {
        group_resource(self.group, self.plural)
    }

    /// `version` or `group/version`, as in an object's apiVersion.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.group_resource())
    }
}

/// `plural` or `plural.group`.
pub fn group_resource(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_string() } else { format!("{plural}.{group}") }
}

/// Whether a delete that leaves nothing answers with the object's last state rather than a Status.
pub fn deletion_returns_object(group: &str, plural: &str) -> bool {
    match (group, plural) {
        (
            "",
            "persistentvolumeclaims"
            | "persistentvolumes"
            | "pods"
            | "podtemplates"
            | "resourcequotas"
            | "serviceaccounts"
            | "services",
        )
        | ("resource.k8s.io", _) => true,
        ("storage.k8s.io", plural) => plural != "csistoragecapacities",
        _ => false,
    }
}

/// The row for a path's group, version and resource.
pub fn lookup(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    table().iter().find(|r| r.plural == plural && r.version == version && r.group == group)
}

/// What a strategy or admission plugin may know about the request it serves.
#[derive(Clone)]
pub struct Context<'a> {
    /// Who asks.
    pub user: &'a UserInfo,
    /// The time of the request, RFC 3339 to the second; the same in every field this request sets.
    pub now: String,
    /// Nothing may be persisted or allocated.
    pub dry_run: bool,
    /// The server's shared state.
    pub state: &'a State,
    /// What the client is told besides the answer, as Warning headers.
    pub warnings: &'a Mutex<Vec<String>>,
    /// What the request has cost so far.
    pub charges: &'a Mutex<Charges>,
}

impl Context<'_> {
    /// Tells the client something it should know, once.
    pub fn warn(&self, text: String) {
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }
}

/// What one kind does differently. Every method has the generic behaviour as its default.
pub trait Strategy: Sync + Send {
    /// Fills in what this kind's fields are when nobody says, besides the schema's own defaults. Who writes an object owns these fields too.
    fn default(&self, _obj: &mut Value) {}

    /// Runs after schema defaulting and admission: reset status, set the generation, allocate addresses. The generic path has set name,
    /// namespace, uid and creationTimestamp. An error must leave nothing allocated; if a later step fails, [`Strategy::after_delete`] is called.
    fn prepare_for_create(&self, _cx: &Context<'_>, _obj: &mut Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// Runs on every update after the patch: what a main update or a subresource may not touch is taken from `old`, and the generation
    /// grows when the desired state changed.
    fn prepare_for_update(
        &self,
        cx: &Context<'_>,
        sub: Option<&str>,
        new: &mut Value,
        old: &Value,
    ) -> Result<(), ApiError> {
        let _ = cx;
        generic::prepare_for_update(sub, new, old);
        Ok(())
    }

    /// Checks a new object.
    fn validate(&self, _obj: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Checks a changed object.
    fn validate_update(&self, _sub: Option<&str>, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// What field selectors can match besides metadata.name and metadata.namespace. Every supported field is returned for every object,
    /// with an empty string where it is unset: the names returned are the names supported.
    fn selectable_fields(&self, _obj: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// `Some(seconds)`: a delete marks the object and waits for its owner to finish; `None`: it removes it at once (once no finalizer is left).
    fn graceful_deletion(&self, _obj: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Runs when a delete marks the object instead of removing it.
    fn mark_deleted(&self, obj: &mut Value) {
        generic::mark_deleted(obj);
    }

    /// Runs once a change is in the store: release what the old state held and the new one does not.
    fn after_update(&self, _cx: &Context<'_>, _new: &Stored, _old: &Value) {}

    /// The object in the stored version and no more, for a version that is served but not stored; `None`: as it is.
    fn converted(&self, _obj: &Value) -> Option<Value> {
        None
    }

    /// The object as it is stored, for a version that is served but not stored; `None`: as it is.
    fn stored_form(&self, _obj: &Value) -> Option<Value> {
        None
    }

    /// Turns a stored object into the version this row serves.
    fn served_form(&self, _obj: &mut Value) {}

    /// Runs once the object is gone from the store: release addresses.
    fn after_delete(&self, _cx: &Context<'_>, _obj: &Value) {}
}

/// The strategy of a kind with nothing special.
pub struct Generic;

impl Strategy for Generic {}

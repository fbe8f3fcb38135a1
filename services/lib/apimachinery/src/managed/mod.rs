//! Field ownership: who wrote which field of an object (metadata.managedFields), kept up by every write, and server-side apply, which is decided by it.
//! KEP-555; the wording of errors is what kubectl and controllers read.
//!
//! [`update`] follows an ordinary write, [`apply`](apply()) lays a configuration over an object.

mod apply;
mod entries;
#[cfg(test)]
mod tests;
mod update;

pub use apply::{ApplyError, apply};
pub use entries::{Conflict, Entry, Managers, Operation};
pub use update::{same_but_for_times, update};

use crate::fields::FieldSet;
use crate::schema::TypeRef;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Debug;

/// The versions an object is served in. What managers own is written in the version that they speak, and means something only there.
pub trait Versions: Debug {
    /// The object's type in a version; `None` if it is not served.
    fn ty(&self, api_version: &str) -> Option<TypeRef<'_>>;
    /// An object of one version as another one shows it.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value>;
}

/// Who writes, how.
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    /// The type of the object.
    pub ty: TypeRef<'a>,
    /// The other versions of it.
    pub versions: &'a dyn Versions,
    /// The manager's name.
    pub manager: &'a str,
    /// The version it writes in: `apps/v1`.
    pub api_version: &'a str,
    /// The subresource it writes through, or empty.
    pub subresource: &'a str,
    /// RFC 3339, to the second.
    pub now: &'a str,
    /// Which top-level fields this way of writing can change.
    pub scope: Scope<'a>,
}

/// Which top-level fields a write can change, the others being reset by the server.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// All but these.
    Except(&'a [&'a str]),
    /// Only these.
    Only(&'a [&'a str]),
}

/// What nobody owns: identity and what the server keeps.
const UNOWNED: &[&[&str]] = &[
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:selfLink"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:clusterName"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:resourceVersion"],
];

impl<'a> Writer<'a> {
    /// An object of the writer's version as another one shows it, with its type there.
    fn shown<'o>(&self, object: &'o Value, version: &str) -> Option<(TypeRef<'a>, Cow<'o, Value>)> {
        if version == self.api_version {
            return Some((self.ty, Cow::Borrowed(object)));
        }
        let ty = self.versions.ty(version)?;
        Some((ty, Cow::Owned(self.versions.convert(object, self.api_version, version)?)))
    }

    /// Takes what this writer cannot own out of a set.
    fn limit(&self, set: &mut FieldSet) {
        for path in UNOWNED {
            set.without(path);
        }
        self.limit_scope(set);
    }

    fn limit_scope(&self, set: &mut FieldSet) {
        match self.scope {
            Scope::Except(fields) => {
                for field in fields {
                    set.without(&[&format!("f:{field}")]);
                }
            }
            Scope::Only(fields) => {
                let steps: Vec<String> = fields.iter().map(|f| format!("f:{f}")).collect();
                set.keep(&steps.iter().map(String::as_str).collect::<Vec<_>>());
            }
        }
    }
}

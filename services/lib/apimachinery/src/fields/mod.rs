//! Sets of fields and the algorithms of server-side apply that are driven by the schema: which fields an object has, how two objects differ, how a
//! configuration merges into an object and how fields are taken out of one. KEP-555 describes them.
//!
//! [`FieldSet`] is the set; [`of`], [`compare`], [`merge`](merge()) and [`remove`](remove()) walk objects along a type.

mod merge;
mod remove;
mod set;
mod slot;
#[cfg(test)]
mod tests;
mod walk;

pub use merge::merge;
pub use remove::{hollow_out, named_members, remove};
pub use set::{FieldSet, path_text};
pub use walk::{Comparison, compare, observed, of};

/// A list whose elements cannot be told apart by the keys that its type declares.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}")]
pub struct ListError {
    /// Where the list is: `.spec.ports`.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

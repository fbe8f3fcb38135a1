//! The dynamic object core: everything Corten knows about Kubernetes objects as data. Owns metadata access, times, quantities, selectors, names, the
//! schema table and the algorithms driven by it (strict decoding, pruning, defaulting, patching).
//!
//! It is pure logic: it must never do IO, start a task, hold state beyond the loaded schema table, or contain the rules of one particular kind.
//!
//! Start reading at [`schema`] (the table and how to walk it), then [`strict`] (text to object) and [`patch`].

pub mod config_file;
pub mod defaults;
pub mod duration;
pub mod fields;
pub mod intstr;
pub mod managed;
pub mod meta;
pub mod names;
pub mod patch;
#[cfg(test)]
mod properties;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod strict;
pub mod time;

/// A JSON object, with its keys in order.
pub type Map = serde_json::Map<String, serde_json::Value>;

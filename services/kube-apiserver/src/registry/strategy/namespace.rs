//! Namespaces: born with a finalizer that the namespace controller takes off when the content is gone.

use serde_json::{Value, json};

use super::checks::{dns_label, named, qualified_name};
use super::kind::{Fields, Kind};
use super::tree::{default, items, keep, object, set, str_at};
use crate::errors::{ApiError, FieldError};
use crate::registry::Context;

/// The label every namespace carries, so that selectors can name one.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";

/// The kind.
pub static NAMESPACE: Kind =
    Kind { names: dns_label, generation: false, defaults, create, update, check, fields, grace, ..Kind::SPEC_STATUS };

fn defaults(ns: &mut Value) {
    let name = str_at(ns, &["metadata", "name"]).to_owned();
    if !name.is_empty() {
        set(object(object(ns, "metadata"), "labels"), NAME_LABEL, name);
    }
    default(object(ns, "status"), "phase", "Active");
}

fn create(_: &Context<'_>, ns: &mut Value) -> Result<(), ApiError> {
    let mut finalizers = items(ns, &["spec", "finalizers"]).to_vec();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(json!(FINALIZER));
    }
    set(object(ns, "spec"), "finalizers", finalizers);
    set(ns, "status", json!({"phase": "Active"}));
    Ok(())
}

fn update(_: &Context<'_>, sub: Option<&str>, new: &mut Value, old: &Value) -> Result<(), ApiError> {
    match sub {
        None => keep(new, old, "spec"),
        Some("finalize") => {
            keep(new, old, "status");
            keep(new, old, "metadata");
        }
        _ => {}
    }
    Ok(())
}

fn check(errors: &mut Vec<FieldError>, ns: &Value) {
    for f in items(ns, &["spec", "finalizers"]) {
        let name = f.as_str().unwrap_or_default();
        named(errors, "spec.finalizers", name, qualified_name);
        if name != FINALIZER && !name.contains('/') {
            errors.push(FieldError::invalid(
                "spec.finalizers",
                name,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
}

fn fields(ns: &Value) -> Fields {
    vec![("status.phase", str_at(ns, &["status", "phase"]).to_owned())]
}

/// Content first: as long as a finalizer stands in the spec, deletion only marks the namespace.
fn grace(ns: &Value, _: Option<i64>) -> Option<i64> {
    (!items(ns, &["spec", "finalizers"]).is_empty()).then_some(0)
}

//! Namespaces: born with a finalizer that the namespace controller takes off when the content is gone.

use serde_json::{Value, json};

use super::checks::{STANDARD_FINALIZERS, dns_label, named, qualified_name};
use super::kind::{Fields, Kind};
use super::tree::{default, has, items, keep, object, set, str_at};
use crate::errors::{ApiError, FieldError};
use crate::registry::Context;

/// The label every namespace carries, so that selectors can name one.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";

/// The kind.
pub static NAMESPACE: Kind = Kind {
    names: dns_label,
    generation: false,
    defaults,
    create,
    update,
    check_create: check,
    check_update,
    fields,
    grace,
    ..Kind::SPEC_STATUS
};

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
    items(ns, &["spec", "finalizers"]).iter().for_each(|f| finalizer(errors, "spec.finalizers", f));
}

fn finalizer(errors: &mut Vec<FieldError>, path: &str, f: &Value) {
    let name = f.as_str().unwrap_or_default();
    named(errors, path, name, qualified_name);
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path, name, detail));
    }
}

fn check_update(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, _: &Value) {
    match sub {
        Some("finalize") => {
            for (i, f) in items(new, &["spec", "finalizers"]).iter().enumerate() {
                finalizer(errors, &format!("spec.finalizers[{i}]"), f);
            }
        }
        Some("status") => {
            let (phase, deleting) = (str_at(new, &["status", "phase"]), has(&new["metadata"], "deletionTimestamp"));
            let (fits, when) = if deleting { ("Terminating", "not empty") } else { ("Active", "empty") };
            if phase != fits {
                let detail = format!("may only be '{fits}' if `deletionTimestamp` is {when}");
                errors.push(FieldError::invalid("status.Phase", phase, detail));
            }
        }
        _ => {}
    }
}

fn fields(ns: &Value) -> Fields {
    vec![("status.phase", str_at(ns, &["status", "phase"]).to_owned())]
}

/// Content first: as long as a finalizer stands in the spec, deletion only marks the namespace.
fn grace(ns: &Value, _: Option<i64>) -> Option<i64> {
    (!items(ns, &["spec", "finalizers"]).is_empty()).then_some(0)
}

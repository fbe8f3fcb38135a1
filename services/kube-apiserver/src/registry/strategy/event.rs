//! Events: short-lived notes about an object. Both API groups store the same objects in the core shape.

use serde_json::Value;

use super::kind::{Fields, Kind};
use super::tree::{has, object, remove, set, str_at};
use crate::errors::FieldError;

/// The core kind.
pub static EVENT: Kind = Kind { defaults, check, fields, ..Kind::BASE };

fn defaults(e: &mut Value) {
    object(e, "source");
    for field in ["reportingComponent", "reportingInstance"] {
        if !has(e, field) {
            set(e, field, "");
        }
    }
    for field in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        if !has(e, field) {
            set(e, field, Value::Null);
        }
    }
}

fn check(errors: &mut Vec<FieldError>, e: &Value) {
    let (own, about) = (str_at(e, &["metadata", "namespace"]), str_at(e, &["involvedObject", "namespace"]));
    // Notes about cluster-wide objects live in default (or kube-system, for nodes' own components).
    let fits = if about.is_empty() { matches!(own, "default" | "kube-system") } else { own == about };
    if !fits {
        errors.push(FieldError::invalid("involvedObject.namespace", about, "does not match event.namespace"));
    }
}

fn fields(e: &Value) -> Fields {
    let about = |f: &str| str_at(e, &["involvedObject", f]).to_owned();
    let component = match str_at(e, &["source", "component"]) {
        "" => str_at(e, &["reportingComponent"]),
        c => c,
    };
    vec![
        ("involvedObject.kind", about("kind")),
        ("involvedObject.namespace", about("namespace")),
        ("involvedObject.name", about("name")),
        ("involvedObject.uid", about("uid")),
        ("involvedObject.apiVersion", about("apiVersion")),
        ("involvedObject.resourceVersion", about("resourceVersion")),
        ("involvedObject.fieldPath", about("fieldPath")),
        ("reason", str_at(e, &["reason"]).to_owned()),
        ("reportingComponent", str_at(e, &["reportingComponent"]).to_owned()),
        ("source", component.to_owned()),
        ("type", str_at(e, &["type"]).to_owned()),
    ]
}

/// The fields whose names differ: (core, events.k8s.io).
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// A core event as events.k8s.io/v1 shows it.
pub fn to_events_v1(e: &mut Value) {
    rename(e, RENAMED.iter().copied());
    set(e, "apiVersion", "events.k8s.io/v1");
}

/// An events.k8s.io/v1 event as it is stored.
pub fn from_events_v1(e: &mut Value) {
    rename(e, RENAMED.iter().map(|(core, new)| (*new, *core)));
    set(e, "apiVersion", "v1");
}

fn rename<'a>(e: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)>) {
    for (from, to) in names {
        if let Some(value) = remove(e, from) {
            set(e, to, value);
        }
    }
}

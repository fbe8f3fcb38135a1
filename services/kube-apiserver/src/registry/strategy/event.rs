//! Events: short-lived notes about an object. Both API groups store the same objects in the core shape.

use serde_json::Value;

use super::checks::required_one_of;
use super::kind::{Fields, Kind};
use super::tree::{at, has, int_at, object, remove, set, str_at};
use crate::errors::FieldError;

/// The core kind.
pub static EVENT: Kind = Kind { defaults, check, fields, ..Kind::BASE };

/// The events.k8s.io kind: stricter about what a new event must say.
pub static EVENT_V1: Kind = Kind {
    defaults: |e| {
        object(e, "deprecatedSource");
        for field in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp"] {
            if !has(e, field) {
                set(e, field, Value::Null);
            }
        }
    },
    check: check_v1,
    fields: |e| {
        let mut core = e.clone();
        from_events_v1(&mut core);
        let mut list = fields(&core);
        // The newer kind has no source to ask for.
        list.retain(|(name, _)| *name != "source");
        for (name, _) in &mut list {
            *name = v1_name(name);
        }
        list
    },
    stored: |e| {
        let mut core = e.clone();
        from_events_v1(&mut core);
        Some(core)
    },
    served: to_events_v1,
    ..Kind::BASE
};

fn v1_name(core: &'static str) -> &'static str {
    match core {
        "involvedObject.kind" => "regarding.kind",
        "involvedObject.namespace" => "regarding.namespace",
        "involvedObject.name" => "regarding.name",
        "involvedObject.uid" => "regarding.uid",
        "involvedObject.apiVersion" => "regarding.apiVersion",
        "involvedObject.resourceVersion" => "regarding.resourceVersion",
        "involvedObject.fieldPath" => "regarding.fieldPath",
        "reportingComponent" => "reportingController",
        other => other,
    }
}

fn check_v1(errors: &mut Vec<FieldError>, e: &Value) {
    if at(e, &["eventTime"]).is_none() && int_at(e, &["deprecatedCount"]).is_none() {
        errors.push(FieldError::required("eventTime", ""));
    }
    for field in ["reportingController", "reportingInstance", "action", "reason"] {
        let old_style = int_at(e, &["deprecatedCount"]).is_some();
        if str_at(e, &[field]).is_empty() && !old_style {
            errors.push(FieldError::required(field, ""));
        }
    }
    required_one_of(errors, "type", str_at(e, &["type"]), &["Normal", "Warning"]);
    if str_at(e, &["note"]).len() > 1024 {
        errors.push(FieldError::too_long("note", 1024));
    }
    let mut core = e.clone();
    from_events_v1(&mut core);
    check(errors, &core);
}

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

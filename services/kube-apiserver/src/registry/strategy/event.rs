//! Events: short-lived notes about an object. Both API groups store the same objects in the core shape.

use serde_json::Value;

use super::checks::required;
use super::kind::{Fields, Kind};
use super::tree::{at, has, int_at, object, remove, same, set, str_at};
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
    check_create: new_v1,
    check_update: |errors, _, new, old| changed_v1(errors, new, old),
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

/// The longest name of an instance, an action and a reason, characters.
const WORD_MAX: usize = 128;
const MESSAGE_MAX: usize = 1024;

fn check_v1(errors: &mut Vec<FieldError>, e: &Value) {
    let mut core = e.clone();
    from_events_v1(&mut core);
    told(errors, &core, "reportingController");
}

/// What a new event of the newer kind must say, and what it must leave to the older.
fn new_v1(errors: &mut Vec<FieldError>, e: &Value) {
    series(errors, e);
    if at(e, &["eventTime"]).is_none() {
        errors.push(FieldError::required("eventTime", ""));
    }
    let kind = str_at(e, &["type"]);
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(FieldError::invalid("type", "", format!("has invalid value: {kind}")));
    }
    let source = ["component", "host"].iter().any(|f| !str_at(e, &["deprecatedSource", f]).is_empty());
    let unset = [
        ("firstTimestamp", at(e, &["deprecatedFirstTimestamp"]).is_some()),
        ("lastTimestamp", at(e, &["deprecatedLastTimestamp"]).is_some()),
        ("count", int_at(e, &["deprecatedCount"]).unwrap_or(0) != 0),
        ("source", source),
    ];
    for (field, _) in unset.into_iter().filter(|(_, set)| *set) {
        errors.push(FieldError::invalid(field, "", "needs to be unset"));
    }
}

fn series(errors: &mut Vec<FieldError>, e: &Value) {
    let Some(series) = at(e, &["series"]) else { return };
    if int_at(series, &["count"]).unwrap_or(0) < 2 {
        errors.push(FieldError::invalid("series.count", "", "should be at least 2"));
    }
    if at(series, &["lastObservedTime"]).is_none() {
        errors.push(FieldError::required("series.lastObservedTime", ""));
    }
}

/// An event of the newer kind is about one thing for good; only its series goes on.
fn changed_v1(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    if !same(new.get("series"), old.get("series")) {
        series(errors, new);
    }
    let (mut n, mut o) = (new.clone(), old.clone());
    from_events_v1(&mut n);
    from_events_v1(&mut o);
    let fields = [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ];
    for (field, shown) in fields {
        super::checks::immutable(errors, shown, n.get(field), o.get(field));
    }
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
    told(errors, e, "reportingComponent");
}

/// Both kinds in the older shape. One with a time of its own is from a newer client, and says who saw what.
fn told(errors: &mut Vec<FieldError>, e: &Value, controller: &str) {
    let (own, about) = (str_at(e, &["metadata", "namespace"]), str_at(e, &["involvedObject", "namespace"]));
    let newer = at(e, &["eventTime"]).is_some();
    // Notes about cluster-wide objects live in default (newer ones also in kube-system, for the cluster's own components).
    let fits = match (about.is_empty(), newer) {
        (true, newer) => own == "default" || (newer && own == "kube-system"),
        (false, false) => own == about,
        (false, true) => true,
    };
    if !fits {
        errors.push(FieldError::invalid("involvedObject.namespace", about, "does not match event.namespace"));
    }
    if !newer {
        return;
    }
    let reporter = str_at(e, &["reportingComponent"]);
    required(errors, controller, reporter);
    super::checks::named(errors, controller, reporter, super::checks::qualified_name);
    for field in ["reportingInstance", "action", "reason"] {
        let text = str_at(e, &[field]);
        required(errors, field, text);
        if text.len() > WORD_MAX {
            errors.push(FieldError::invalid(field, "", format!("can have at most {WORD_MAX} characters")));
        }
    }
    if str_at(e, &["message"]).len() > MESSAGE_MAX {
        errors.push(FieldError::invalid("message", "", format!("can have at most {MESSAGE_MAX} characters")));
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

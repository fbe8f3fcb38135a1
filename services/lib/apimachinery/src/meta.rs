//! Reading and writing what every object has: metadata, owner references, conditions.
//!
//! Readers never fail: a field that is absent or of the wrong type reads as empty, because objects that come from the API have been decoded strictly.

use crate::Map;
use serde_json::{Value, json};

static NULL: Value = Value::Null;

fn field<'a>(object: &'a Value, name: &str) -> &'a Value {
    object.get("metadata").and_then(|m| m.get(name)).unwrap_or(&NULL)
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    field(object, name).as_str().unwrap_or("")
}

/// The object's kind.
pub fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or("")
}

/// The object's `group/version`, or `version` for the core group.
pub fn api_version(object: &Value) -> &str {
    object["apiVersion"].as_str().unwrap_or("")
}

/// Splits an apiVersion into group (empty for the core group) and version.
pub fn group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// metadata.name.
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// metadata.namespace, empty for a cluster-scoped object.
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// metadata.uid.
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// metadata.resourceVersion.
pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

/// metadata.generateName.
pub fn generate_name(object: &Value) -> &str {
    text(object, "generateName")
}

/// metadata.generation, 0 if it has none.
pub fn generation(object: &Value) -> i64 {
    field(object, "generation").as_i64().unwrap_or(0)
}

/// metadata.creationTimestamp, empty if it has none.
pub fn creation_timestamp(object: &Value) -> &str {
    text(object, "creationTimestamp")
}

/// metadata.labels.
pub fn labels(object: &Value) -> Option<&Map> {
    field(object, "labels").as_object()
}

/// The value of one label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    labels(object)?.get(key)?.as_str()
}

/// metadata.annotations.
pub fn annotations(object: &Value) -> Option<&Map> {
    field(object, "annotations").as_object()
}

/// The value of one annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    annotations(object)?.get(key)?.as_str()
}

/// metadata.deletionTimestamp: set once deletion has begun.
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    field(object, "deletionTimestamp").as_str()
}

/// metadata.deletionGracePeriodSeconds.
pub fn deletion_grace_period_seconds(object: &Value) -> Option<i64> {
    field(object, "deletionGracePeriodSeconds").as_i64()
}

/// metadata.finalizers.
pub fn finalizers(object: &Value) -> Vec<&str> {
    field(object, "finalizers")
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// metadata.ownerReferences.
pub fn owner_references(object: &Value) -> &[Value] {
    field(object, "ownerReferences").as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The owner reference of the managing controller.
pub fn controller_of(object: &Value) -> Option<&Value> {
    owner_references(object).iter().find(|r| r["controller"] == true)
}

/// Whether `owner` is the managing controller of `object`.
pub fn is_controlled_by(object: &Value, owner: &Value) -> bool {
    controller_of(object).is_some_and(|r| r["uid"].as_str() == Some(uid(owner)))
}

/// An owner reference to `owner` as managing controller, which also blocks the owner's foreground deletion.
pub fn controller_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": api_version(owner), "kind": kind(owner), "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// `namespace/name`, or the name alone for a cluster-scoped object.
pub fn key(object: &Value) -> String {
    match namespace(object) {
        "" => name(object).to_string(),
        namespace => format!("{namespace}/{}", name(object)),
    }
}

/// Splits what [`key`] made into namespace (empty if there is none) and name.
pub fn split_key(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

/// The metadata map, created if the object has none.
pub fn metadata_mut(object: &mut Value) -> &mut Map {
    child_mut(object, "metadata")
}

/// The map below `name`, made if it is absent; anything that is not a map is replaced by one.
pub fn child_mut<'a>(object: &'a mut Value, name: &str) -> &'a mut Map {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let slot = &mut object[name];
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("made a map just above"),
    }
}

/// Sets one label.
pub fn set_label(object: &mut Value, key: &str, value: &str) {
    child_mut(&mut object["metadata"], "labels").insert(key.to_string(), value.into());
}

/// Sets one annotation.
pub fn set_annotation(object: &mut Value, key: &str, value: &str) {
    child_mut(&mut object["metadata"], "annotations").insert(key.to_string(), value.into());
}

/// The status condition of that type.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

/// Whether the status condition of that type is "True".
pub fn is_condition_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| c["status"] == "True")
}

/// What [`set_condition`] writes.
#[derive(Clone, Copy, Debug)]
pub struct Condition<'a> {
    /// The type, unique in the list.
    pub kind: &'a str,
    /// True, False or Unknown.
    pub status: &'a str,
    /// One word, for programs.
    pub reason: &'a str,
    /// A sentence, for people.
    pub message: &'a str,
}

/// Adds or updates a status condition; lastTransitionTime moves only when the status changes. Returns whether anything changed.
pub fn set_condition(object: &mut Value, new: Condition<'_>, now: &str) -> bool {
    let list = child_mut(object, "status").entry("conditions").or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else { return false };
    let Some(old) = list.iter_mut().find(|c| c["type"] == new.kind) else {
        list.push(json!({
            "type": new.kind, "status": new.status, "reason": new.reason, "message": new.message, "lastTransitionTime": now,
        }));
        return true;
    };
    let changed_status = old["status"] != new.status;
    if !changed_status && old["reason"] == new.reason && old["message"] == new.message {
        return false;
    }
    if changed_status {
        old["lastTransitionTime"] = now.into();
    }
    old["status"] = new.status.into();
    old["reason"] = new.reason.into();
    old["message"] = new.message.into();
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_of_a_bare_object_are_empty() {
        for object in [json!(null), json!({}), json!({"metadata": 1}), json!({"metadata": {"labels": []}})] {
            assert_eq!((name(&object), namespace(&object), uid(&object), generation(&object)), ("", "", "", 0));
            assert!(
                labels(&object).is_none() && owner_references(&object).is_empty() && controller_of(&object).is_none()
            );
        }
    }

    #[test]
    fn keys() {
        assert_eq!(key(&json!({"metadata": {"name": "a"}})), "a");
        assert_eq!(key(&json!({"metadata": {"name": "a", "namespace": "b"}})), "b/a");
        assert_eq!(split_key("b/a"), ("b", "a"));
        assert_eq!(group_version("v1"), ("", "v1"));
        assert_eq!(group_version("apps/v1"), ("apps", "v1"));
    }

    #[test]
    fn a_transition_time_moves_only_with_the_status() {
        let mut object = json!({});
        let ready = Condition { kind: "Ready", status: "False", reason: "r", message: "m" };
        assert!(set_condition(&mut object, ready, "t1"));
        assert!(!set_condition(&mut object, ready, "t2"));
        assert!(set_condition(&mut object, Condition { message: "other", ..ready }, "t3"));
        assert_eq!(condition(&object, "Ready").map(|c| c["lastTransitionTime"].clone()), Some(json!("t1")));
        assert!(set_condition(&mut object, Condition { status: "True", ..ready }, "t4"));
        assert_eq!(condition(&object, "Ready").map(|c| c["lastTransitionTime"].clone()), Some(json!("t4")));
        assert!(is_condition_true(&object, "Ready"));
    }
}

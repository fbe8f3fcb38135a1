//! Reading numbers, texts and lists out of objects by JSON pointer, with the API's "absent means empty".

use serde_json::{Map, Value};

/// A number, if there.
pub fn int(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// A text, empty if absent.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A list, empty if absent.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A map, if there.
pub fn map<'a>(object: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    object.pointer(pointer).and_then(Value::as_object)
}

/// Sets a condition in a list; the transition time moves only when the status does. Returns whether anything changed.
pub fn set_condition(conditions: &mut Vec<Value>, mut new: Value, now: &str) -> bool {
    let kind = new["type"].clone();
    let Some(old) = conditions.iter_mut().find(|c| c["type"] == kind) else {
        new["lastTransitionTime"] = now.into();
        conditions.push(new);
        return true;
    };
    if old["status"] == new["status"] && old["reason"] == new["reason"] && old["message"] == new["message"] {
        return false;
    }
    new["lastTransitionTime"] =
        if old["status"] == new["status"] { old["lastTransitionTime"].take() } else { now.into() };
    *old = new;
    true
}

/// The condition of that type.
pub fn find_condition<'a>(conditions: &'a [Value], kind: &str) -> Option<&'a Value> {
    conditions.iter().find(|c| c["type"] == kind)
}

//! Small readers and writers for object trees. A JSON null counts as a missing field everywhere, as it does for typed clients.

use serde_json::{Map, Value};

/// A nested value by keys; null and missing are the same.
pub fn at<'a>(v: &'a Value, path: &[&str]) -> Option<&'a Value> {
    let mut here = v;
    for key in path {
        here = here.get(*key)?;
    }
    (!here.is_null()).then_some(here)
}

/// A nested string, empty when missing.
pub fn str_at<'a>(v: &'a Value, path: &[&str]) -> &'a str {
    at(v, path).and_then(Value::as_str).unwrap_or_default()
}

/// A nested integer.
pub fn int_at(v: &Value, path: &[&str]) -> Option<i64> {
    at(v, path).and_then(Value::as_i64)
}

/// A nested boolean, false when missing.
pub fn bool_at(v: &Value, path: &[&str]) -> bool {
    at(v, path).and_then(Value::as_bool).unwrap_or_default()
}

/// A nested list, empty when missing.
pub fn items<'a>(v: &'a Value, path: &[&str]) -> &'a [Value] {
    at(v, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A nested map, if there is one.
pub fn map_at<'a>(v: &'a Value, path: &[&str]) -> Option<&'a Map<String, Value>> {
    at(v, path).and_then(Value::as_object)
}

/// True when the field is there and not null.
pub fn has(v: &Value, key: &str) -> bool {
    v.get(key).is_some_and(|x| !x.is_null())
}

/// The object under `key`, created when missing or not an object.
pub fn object<'a>(v: &'a mut Value, key: &str) -> &'a mut Value {
    if !v.is_object() {
        *v = Value::Object(Map::new());
    }
    let slot = &mut v[key];
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    slot
}

/// Sets `key` unless it already holds something. An empty string counts as unset (the zero value of typed servers).
pub fn default(v: &mut Value, key: &str, value: impl Into<Value>) {
    let Some(map) = v.as_object_mut() else { return };
    let unset = match map.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(s)) => s.is_empty(),
        Some(_) => false,
    };
    if unset {
        map.insert(key.to_owned(), value.into());
    }
}

/// Like [`default`], for integers whose zero means "unset".
pub fn default_int(v: &mut Value, key: &str, value: i64) {
    if int_at(v, &[key]).unwrap_or(0) == 0 {
        set(v, key, value);
    }
}

/// Sets a field of an object.
pub fn set(v: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(map) = v.as_object_mut() {
        map.insert(key.to_owned(), value.into());
    }
}

/// Removes a field of an object.
pub fn remove(v: &mut Value, key: &str) -> Option<Value> {
    v.as_object_mut().and_then(|map| map.remove(key))
}

/// Makes `key` of `new` what it is in `old`: a field this request may not change.
pub fn keep(new: &mut Value, old: &Value, key: &str) {
    match old.get(key) {
        Some(value) => set(new, key, value.clone()),
        None => {
            remove(new, key);
        }
    }
}

/// Runs `f` on every element of the list under `key`.
pub fn each(v: &mut Value, key: &str, mut f: impl FnMut(&mut Value)) {
    if let Some(list) = v.get_mut(key).and_then(Value::as_array_mut) {
        list.iter_mut().for_each(&mut f);
    }
}

/// As [`each`], with the element's position.
pub fn each_indexed(v: &mut Value, key: &str, mut f: impl FnMut(usize, &mut Value)) {
    if let Some(list) = v.get_mut(key).and_then(Value::as_array_mut) {
        list.iter_mut().enumerate().for_each(|(i, x)| f(i, x));
    }
}

/// Runs `f` on the object under `key` when there is one.
pub fn within(v: &mut Value, key: &str, f: impl FnOnce(&mut Value)) {
    if let Some(inner) = v.get_mut(key).filter(|x| x.is_object()) {
        f(inner);
    }
}

/// Equality that ignores nulls and empty maps or lists, the way typed servers compare two objects.
pub fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(x), None) | (None, Some(x)) => is_empty(x),
        (Some(Value::Object(x)), Some(Value::Object(y))) => {
            x.iter().all(|(k, v)| same(Some(v), y.get(k))) && y.iter().all(|(k, v)| x.contains_key(k) || is_empty(v))
        }
        (Some(Value::Array(x)), Some(Value::Array(y))) => {
            x.len() == y.len() && x.iter().zip(y).all(|(l, r)| same(Some(l), Some(r)))
        }
        (Some(x), Some(y)) => x == y || (is_empty(x) && is_empty(y)),
    }
}

fn is_empty(v: &Value) -> bool {
    match v {
        Value::Null => true,
        Value::Object(m) => m.values().all(is_empty),
        Value::Array(a) => a.is_empty(),
        Value::String(s) => s.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn same_ignores_what_typed_objects_cannot_tell_apart() {
        assert!(same(Some(&json!({"a": null, "b": []})), Some(&json!({}))));
        assert!(same(None, Some(&json!({"x": {}}))));
        assert!(!same(Some(&json!({"a": 0})), Some(&json!({}))));
        assert!(!same(Some(&json!([1, 2])), Some(&json!([2, 1]))));
    }

    #[test]
    fn default_respects_what_is_there() {
        let mut v = json!({"a": "", "b": "x", "c": null});
        default(&mut v, "a", "d");
        default(&mut v, "b", "d");
        default(&mut v, "c", 3);
        assert_eq!(v, json!({"a": "d", "b": "x", "c": 3}));
    }
}

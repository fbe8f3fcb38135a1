//! JSON patch: a list of operations on paths, applied in order, all or none.

use super::PatchError;
use serde::Deserialize;
use serde_json::Value;

/// As upstream.
const MAX_OPERATIONS: usize = 10_000;
/// How much copying may add to an object, as upstream.
const MAX_COPIED: usize = 3 * 1024 * 1024;

#[derive(Deserialize)]
struct Operation {
    #[serde(default)]
    op: String,
    path: Option<String>,
    from: Option<String>,
    #[serde(default, deserialize_with = "present")]
    value: Option<Value>,
}

/// Tells a null from a value that is not there.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Applies a JSON patch.
pub fn json(mut object: Value, patch: &Value) -> Result<Value, PatchError> {
    let operations = Vec::<Operation>::deserialize(patch)
        .map_err(|e| PatchError::Malformed(format!("error decoding patch: {e}")))?;
    if operations.len() > MAX_OPERATIONS {
        let count = operations.len();
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    let mut copied = 0;
    for operation in operations {
        apply(&mut object, operation, &mut copied).map_err(PatchError::Unprocessable)?;
    }
    Ok(object)
}

fn apply(object: &mut Value, operation: Operation, copied: &mut usize) -> Result<(), String> {
    let op = operation.op.as_str();
    let path = operation.path.ok_or_else(|| format!("{op} operation failed to decode path: missing value"))?;
    let from = || operation.from.ok_or_else(|| format!("{op} operation failed to decode from: missing value"));
    let missing =
        |what: &str, path: &str| format!("{op} operation does not apply: doc is missing {what}: {path}: missing value");
    match op {
        "add" => add(object, &path, operation.value.unwrap_or(Value::Null)),
        "remove" => remove(object, &path).map(drop),
        "replace" => {
            let slot = lookup(object, &path).ok_or_else(|| missing("key", &path))?;
            *slot = operation.value.unwrap_or(Value::Null);
            Ok(())
        }
        "move" => {
            let value = remove(object, &from()?)?;
            add(object, &path, value)
        }
        "copy" => {
            let from = from()?;
            let value = lookup(object, &from).ok_or_else(|| missing("from path", &from))?.clone();
            *copied += value.to_string().len();
            if *copied > MAX_COPIED {
                return Err(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED}"
                ));
            }
            add(object, &path, value)
        }
        "test" => {
            let wanted = operation.value.unwrap_or(Value::Null);
            let found = lookup(object, &path).map_or(&Value::Null, |v| &*v);
            if same(found, &wanted) { Ok(()) } else { Err(format!("testing value {path} failed: test failed")) }
        }
        other => Err(format!("Unexpected kind: {other}")),
    }
}

/// Numbers are compared by value: a client may write 1.0 where the object has 1.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || (!(a.is_i64() && b.is_i64()) && a.as_f64() == b.as_f64()),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// Splits a path into the way to its container and the last step; None for the root and for what is no path.
fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, unescape(last)))
}

/// The index a step means in a list of that length; negative ones count from the end.
fn index(step: &str, length: usize) -> Option<usize> {
    let number: i64 = step.parse().ok()?;
    let length = i64::try_from(length).ok()?;
    usize::try_from(if number < 0 { number + length } else { number }).ok()
}

fn lookup<'a>(object: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    if path.is_empty() {
        return Some(object);
    }
    let mut at = object;
    for step in path.strip_prefix('/')?.split('/') {
        at = match at {
            Value::Object(map) => map.get_mut(&unescape(step))?,
            Value::Array(list) => {
                let index = index(step, list.len())?;
                list.get_mut(index)?
            }
            _ => return None,
        };
    }
    Some(at)
}

fn add(object: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *object = value;
        return Ok(());
    }
    let missing = || format!("add operation does not apply: doc is missing path: \"{path}\": missing value");
    let (parent, last) = split(path).ok_or_else(missing)?;
    match lookup(object, parent) {
        Some(Value::Object(map)) => {
            map.insert(last, value);
            Ok(())
        }
        Some(Value::Array(list)) if last == "-" => {
            list.push(value);
            Ok(())
        }
        Some(Value::Array(list)) => {
            // A negative index names a place in the list as it will be.
            let wanted = last.parse::<i64>().map_err(|_| {
                format!("error in add for path: '{path}': value was not a proper array index: '{last}'")
            })?;
            let place = if wanted < 0 { index(&last, list.len() + 1) } else { usize::try_from(wanted).ok() };
            match place.filter(|p| *p <= list.len()) {
                Some(place) => list.insert(place, value),
                None => {
                    return Err(format!(
                        "error in add for path: '{path}': Unable to access invalid index: {last}: invalid index referenced"
                    ));
                }
            }
            Ok(())
        }
        _ => Err(missing()),
    }
}

fn remove(object: &mut Value, path: &str) -> Result<Value, String> {
    let missing = || format!("remove operation does not apply: doc is missing path: \"{path}\": missing value");
    let (parent, last) = split(path).ok_or_else(missing)?;
    match lookup(object, parent) {
        Some(Value::Object(map)) => map.remove(&last).ok_or_else(|| {
            format!("error in remove for path: '{path}': Unable to remove nonexistent key: {last}: missing value")
        }),
        Some(Value::Array(list)) => match index(&last, list.len()).filter(|i| *i < list.len()) {
            Some(index) => Ok(list.remove(index)),
            None => Err(format!(
                "error in remove for path: '{path}': Unable to access invalid index: {last}: invalid index referenced"
            )),
        },
        _ => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json as j;

    #[test]
    fn operations() {
        let cases = [
            (
                j!({"a": 1}),
                j!([{"op": "add", "path": "/b/c", "value": 1}]),
                Err("add operation does not apply: doc is missing path: \"/b/c\": missing value"),
            ),
            (j!({"a": 1}), j!([{"op": "add", "path": "/b", "value": 1}]), Ok(j!({"a": 1, "b": 1}))),
            (j!({"a": [1, 3]}), j!([{"op": "add", "path": "/a/1", "value": 2}]), Ok(j!({"a": [1, 2, 3]}))),
            (j!({"a": [1]}), j!([{"op": "add", "path": "/a/-", "value": 2}]), Ok(j!({"a": [1, 2]}))),
            (
                j!({"a": [1]}),
                j!([{"op": "add", "path": "/a/5", "value": 2}]),
                Err("error in add for path: '/a/5': Unable to access invalid index: 5: invalid index referenced"),
            ),
            (
                j!({"a/b": 1, "m~n": 2}),
                j!([{"op": "remove", "path": "/a~1b"}, {"op": "remove", "path": "/m~0n"}]),
                Ok(j!({})),
            ),
            (
                j!({}),
                j!([{"op": "remove", "path": "/a"}]),
                Err("error in remove for path: '/a': Unable to remove nonexistent key: a: missing value"),
            ),
            (j!({"a": 1}), j!([{"op": "replace", "path": "/a", "value": {"b": 2}}]), Ok(j!({"a": {"b": 2}}))),
            (
                j!({}),
                j!([{"op": "replace", "path": "/a", "value": 1}]),
                Err("replace operation does not apply: doc is missing key: /a: missing value"),
            ),
            (j!({"a": 1}), j!([{"op": "move", "from": "/a", "path": "/b"}]), Ok(j!({"b": 1}))),
            (
                j!({"a": {"x": 1}}),
                j!([{"op": "copy", "from": "/a", "path": "/b"}]),
                Ok(j!({"a": {"x": 1}, "b": {"x": 1}})),
            ),
            (
                j!({"a": 1}),
                j!([{"op": "test", "path": "/a", "value": 1.0}, {"op": "test", "path": "/z", "value": null}]),
                Ok(j!({"a": 1})),
            ),
            (j!({"a": 1}), j!([{"op": "test", "path": "/a", "value": 2}]), Err("testing value /a failed: test failed")),
            (j!({"a": 1}), j!([{"op": "merge", "path": "/a", "value": 2}]), Err("Unexpected kind: merge")),
        ];
        for (object, patch, want) in cases {
            assert_eq!(json(object, &patch).map_err(|e| e.to_string()), want.map_err(String::from), "{patch}");
        }
        assert!(matches!(json(j!({}), &j!({})), Err(PatchError::Malformed(_))));
        let many: Vec<Value> = (0..=MAX_OPERATIONS).map(|_| j!({"op": "test", "path": ""})).collect();
        assert!(matches!(json(j!({}), &Value::Array(many)), Err(PatchError::TooLarge(_))));
    }
}

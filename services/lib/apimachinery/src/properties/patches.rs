//! Patches computed from two objects lead from the one to the other, whichever language they are written in. The differences are computed here, as plainly
//! as the languages allow: the server never needs one.

use super::objects::pair;
use super::random::Random;
use super::{one, times};
use crate::Map;
use crate::patch::{self, PatchError};
use crate::schema::{Field, Shape, TypeRef};
use serde_json::{Value, json};

const TRIES: u64 = 2000;

fn step(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// RFC 6902.
fn json_difference(path: &str, from: &Value, to: &Value, out: &mut Vec<Value>) {
    match (from, to) {
        (from, to) if from == to => {}
        (Value::Object(from), Value::Object(to)) => {
            for key in from.keys().filter(|key| !to.contains_key(*key)) {
                out.push(json!({"op": "remove", "path": step(path, key)}));
            }
            for (key, value) in to {
                match from.get(key) {
                    Some(old) => json_difference(&step(path, key), old, value, out),
                    None => out.push(json!({"op": "add", "path": step(path, key), "value": value})),
                }
            }
        }
        (Value::Array(from), Value::Array(to)) => {
            for (index, (old, new)) in from.iter().zip(to).enumerate() {
                json_difference(&format!("{path}/{index}"), old, new, out);
            }
            for index in (to.len()..from.len()).rev() {
                out.push(json!({"op": "remove", "path": format!("{path}/{index}")}));
            }
            out.extend(
                to.iter().skip(from.len()).map(|v| json!({"op": "add", "path": format!("{path}/-"), "value": v})),
            );
        }
        (_, to) => out.push(json!({"op": "replace", "path": path, "value": to})),
    }
}

/// RFC 7386.
fn merge_difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    let gone = from.keys().filter(|key| !to.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = to.iter().filter(|(key, value)| from.get(*key) != Some(value));
    let changed = changed.map(|(key, value)| match from.get(key) {
        Some(old) => (key.clone(), merge_difference(old, value)),
        None => (key.clone(), value.clone()),
    });
    Value::Object(gone.chain(changed).collect())
}

/// With every directive that two objects can ask for.
fn strategic_difference(shape: Shape<'_>, from: &Map, to: &Map) -> Map {
    let mut out: Map = from.keys().filter(|k| !to.contains_key(*k)).map(|k| (k.clone(), Value::Null)).collect();
    for (key, new) in to.iter().filter(|(key, new)| from.get(*key) != Some(new)) {
        let (field, below) = match shape {
            Shape::Struct(ty) => (ty.field(key), ty.field(key).map_or(Shape::Any(None), Field::shape)),
            Shape::Map(element) => (None, element.shape()),
            _ => (None, Shape::Any(None)),
        };
        let strategy = field.map(Field::patch_strategy).unwrap_or_default();
        match (from.get(key), new) {
            (Some(Value::Object(old)), Value::Object(new)) if !strategy.replace => {
                let mut patch = strategic_difference(below, old, new);
                if strategy.retain_keys {
                    patch.insert("$retainKeys".into(), new.keys().cloned().collect());
                }
                out.insert(key.clone(), Value::Object(patch));
            }
            (Some(Value::Array(old)), Value::Array(new)) if strategy.merge => {
                if let Some(field) = field {
                    list_difference(field, old, new, &mut out);
                }
            }
            _ => drop(out.insert(key.clone(), new.clone())),
        }
    }
    out
}

fn list_difference(field: Field<'_>, old: &[Value], new: &[Value], out: &mut Map) {
    let name = field.name();
    let Some(key) = field.merge_key() else {
        let minus = |a: &[Value], b: &[Value]| a.iter().filter(|v| !b.contains(v)).cloned().collect::<Value>();
        out.insert(format!("$deleteFromPrimitiveList/{name}"), minus(old, new));
        out.insert(format!("$setElementOrder/{name}"), new.into());
        out.insert(name.to_owned(), minus(new, old));
        return;
    };
    let Shape::List(element) = field.shape() else { return };
    let find = |list: &[Value], wanted: &Value| {
        list.iter().find(|e| e[key] == wanted[key]).and_then(Value::as_object).cloned()
    };
    let mut patch: Vec<Value> = Vec::new();
    for item in new.iter().filter_map(Value::as_object) {
        let Some(before) = find(old, &Value::Object(item.clone())) else {
            patch.push(Value::Object(item.clone()));
            continue;
        };
        let mut change = strategic_difference(element.shape(), &before, item);
        if !change.is_empty() {
            if field.patch_strategy().retain_keys {
                change.insert("$retainKeys".into(), item.keys().cloned().collect());
            }
            change.insert(key.to_owned(), item[key].clone());
            patch.push(Value::Object(change));
        }
    }
    let gone = old.iter().filter(|item| find(new, item).is_none());
    patch.extend(gone.map(|item| json!({key: item[key], "$patch": "delete"})));
    out.insert(format!("$setElementOrder/{name}"), new.iter().map(|item| json!({key: item[key]})).collect());
    out.insert(name.to_owned(), Value::Array(patch));
}

fn strategic(ty: TypeRef<'_>, from: &Value, to: &Value) -> Value {
    let (from, to) = (from.as_object().expect("an object"), to.as_object().expect("an object"));
    Value::Object(strategic_difference(Shape::Struct(ty), from, to))
}

#[test]
fn json_patches_lead_there() {
    times(TRIES, |random| {
        let (_, from, to) = pair(random);
        let mut operations = Vec::new();
        json_difference("", &from, &to, &mut operations);
        let patch = Value::Array(operations);
        let there = patch::json(from.clone(), &patch);
        assert_eq!(there.as_ref(), Ok(&to), "{from} by {patch}");
        let mut again = Vec::new();
        json_difference("", &to, &to, &mut again);
        assert!(again.is_empty());
    });
}

#[test]
fn merge_patches_lead_there_and_stay() {
    times(TRIES, |random| {
        let (_, from, to) = pair(random);
        let patch = merge_difference(&from, &to);
        assert_eq!(patch::merge(from.clone(), &patch).as_ref(), Ok(&to), "{from} by {patch}");
        assert_eq!(patch::merge(to.clone(), &patch).as_ref(), Ok(&to), "{patch} twice");
        assert_eq!(merge_difference(&to, &to), json!({}));
    });
}

#[test]
fn strategic_patches_lead_there_and_stay() {
    times(TRIES, |random| {
        let (ty, from, to) = pair(random);
        let patch = strategic(ty, &from, &to);
        assert_eq!(patch::strategic(ty, from.clone(), patch.clone()).as_ref(), Ok(&to), "{ty:?} {from} by {patch}");
        assert_eq!(patch::strategic(ty, to.clone(), patch.clone()).as_ref(), Ok(&to), "{ty:?} {patch} twice");
        assert_eq!(strategic(ty, &to, &to), json!({}));
        assert_eq!(patch::strategic(ty, from.clone(), json!({})).as_ref(), Ok(&from), "nothing changes nothing");
    });
}

/// Every place in an object, as a JSON pointer.
fn places(path: &str, value: &Value, out: &mut Vec<String>) {
    out.push(path.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, v)| places(&step(path, key), v, out)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| places(&format!("{path}/{i}"), v, out)),
        _ => {}
    }
}

/// What is read at a place is there, what is copied is the same there and here, what is moved away and back was never away, and a patch that
/// fails does nothing.
#[test]
fn operations_of_json_patches_agree_with_each_other() {
    times(TRIES, |random: &mut Random| {
        let (_, object, _) = pair(random);
        let mut all = Vec::new();
        places("", &object, &mut all);
        let place = one(random, &all).as_str();
        let value = object.pointer(place).expect("a place");
        let tested = json!([{"op": "test", "path": place, "value": value}]);
        assert_eq!(patch::json(object.clone(), &tested).as_ref(), Ok(&object), "{place}");
        let other = json!([{"op": "test", "path": place, "value": {"none": "such"}}]);
        assert!(matches!(patch::json(object.clone(), &other), Err(PatchError::Unprocessable(_))), "{place}");
        if !place.is_empty() {
            let copied = json!([{"op": "copy", "from": place, "path": "/new"}, {"op": "test", "path": "/new", "value": value},
                {"op": "test", "path": place, "value": value}, {"op": "remove", "path": "/new"}]);
            assert_eq!(patch::json(object.clone(), &copied).as_ref(), Ok(&object), "{place}");
            let moved =
                json!([{"op": "move", "from": place, "path": "/new"}, {"op": "move", "from": "/new", "path": place}]);
            assert_eq!(patch::json(object.clone(), &moved).as_ref(), Ok(&object), "{place}");
            let replaced =
                json!([{"op": "replace", "path": place, "value": 7}, {"op": "replace", "path": place, "value": value}]);
            assert_eq!(patch::json(object.clone(), &replaced).as_ref(), Ok(&object), "{place}");
        }
    });
}

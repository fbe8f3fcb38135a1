//! Strategic merge patch: maps merge as in a merge patch, but the schema says which lists merge too, and directives say what neither can.
//!
//! | directive | where | meaning |
//! |---|---|---|
//! | `$patch: replace` / `delete` | a map | use the patch's map as it is / empty the map |
//! | `$patch: replace` / `delete` | an element of a merging list | replace the whole list by the patch's / delete the element of that key |
//! | `$retainKeys: [...]` | a map | delete every other key |
//! | `$setElementOrder/LIST: [...]` | beside a list | the order of its elements |
//! | `$deleteFromPrimitiveList/LIST: [...]` | beside a list | delete these scalars |

mod list;
#[cfg(test)]
mod tests;

use super::PatchError;
use crate::Map;
use crate::schema::{Element, PatchStrategy, Shape, TypeRef};
use serde_json::Value;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_SCALARS: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch to an object of that type.
pub fn strategic(ty: TypeRef<'_>, object: Value, patch: Value) -> Result<Value, PatchError> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(PatchError::Malformed("Invalid JSON document".into()));
    };
    merge_map(Shape::Struct(ty), object, patch).map(Value::Object)
}

/// What the schema says about one key of a map.
#[derive(Clone, Copy)]
struct Rules<'a> {
    shape: Shape<'a>,
    strategy: PatchStrategy,
    merge_key: Option<&'a str>,
}

impl<'a> Rules<'a> {
    /// Maps with free keys give their element's shape; what the schema does not know merges as in a plain merge patch.
    fn of(shape: Shape<'a>, key: &str) -> Self {
        let plain = |shape| Self { shape, strategy: PatchStrategy::default(), merge_key: None };
        match shape {
            Shape::Struct(ty) => match ty.field(key) {
                Some(field) => {
                    Self { shape: field.shape(), strategy: field.patch_strategy(), merge_key: field.merge_key() }
                }
                None => plain(Shape::Any(None)),
            },
            Shape::Map(element) => plain(element.shape()),
            _ => plain(Shape::Any(None)),
        }
    }

    fn element(&self) -> Shape<'a> {
        match self.shape {
            Shape::List(element) => Element::shape(element),
            _ => Shape::Any(None),
        }
    }
}

fn merge_map(shape: Shape<'_>, mut object: Map, mut patch: Map) -> Result<Map, PatchError> {
    let directive = patch.get(PATCH).cloned();
    match directive {
        None => {}
        Some(directive) if directive == "replace" => {
            patch.remove(PATCH);
            return Ok(clean_map(patch));
        }
        Some(directive) if directive == "delete" => return Ok(Map::new()),
        Some(other) => return Err(unknown_directive(&other, &Value::Object(patch))),
    }
    retain_keys(&mut object, &mut patch)?;
    merge_ordered_lists(shape, &mut object, &mut patch)?;
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_SCALARS) {
            delete_scalars(&mut object, field, value)?;
            continue;
        }
        if value.is_null() {
            object.remove(&key);
            continue;
        }
        let rules = Rules::of(shape, &key);
        let merged = match (object.remove(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) if !rules.strategy.replace => {
                Some(Value::Object(merge_map(rules.shape, old, new)?))
            }
            (Some(Value::Array(old)), Value::Array(new)) if rules.strategy.merge => {
                Some(Value::Array(list::merge(rules, old, new)?))
            }
            (_, new) => clean(new),
        };
        if let Some(merged) = merged {
            object.insert(key, merged);
        }
    }
    Ok(object)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

/// What `$patch` says means nothing here; `holder` is the map that says it.
fn unknown_directive(directive: &Value, holder: &Value) -> PatchError {
    PatchError::Meaningless(format!("unknown patch type: {} in map: {}", text(directive), go_text(holder)))
}

/// A value as Go's `%v` prints it: upstream shows maps so.
fn go_text(value: &Value) -> String {
    let joined = |items: Vec<String>| items.join(" ");
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(go_text).collect())),
        Value::Object(map) => {
            format!("map[{}]", joined(map.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect()))
        }
    }
}

fn retain_keys(object: &mut Map, patch: &mut Map) -> Result<(), PatchError> {
    let malformed = || PatchError::Malformed("invalid patch format of retainKeys".into());
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(retained) = retained else { return Err(malformed()) };
    let keeps = |key: &str| retained.iter().any(|r| r == key);
    let is_directive = |key: &str| key.starts_with(SET_ORDER) || key.starts_with(DELETE_SCALARS);
    if patch.iter().any(|(key, value)| !value.is_null() && !is_directive(key) && !keeps(key)) {
        return Err(malformed());
    }
    object.retain(|key, _| keeps(key));
    Ok(())
}

/// Merges each list that comes with an order, and takes both out of the patch.
fn merge_ordered_lists(shape: Shape<'_>, object: &mut Map, patch: &mut Map) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let malformed = || PatchError::Malformed("invalid patch format of setElementOrder list".into());
        let field = directive[SET_ORDER.len()..].to_string();
        let Some(Value::Array(order)) = patch.remove(&directive) else { return Err(malformed()) };
        let rules = Rules::of(shape, &field);
        let new = match patch.get(&field) {
            // a null deletes the list; that is left to the ordinary path
            Some(Value::Null) => continue,
            Some(Value::Array(_)) => patch.remove(&field),
            None => None,
            Some(_) => return Err(malformed()),
        };
        let new = match new {
            Some(Value::Array(new)) => Some(new),
            _ => None,
        };
        let old = match object.remove(&field) {
            Some(Value::Array(old)) => Some(old),
            None | Some(Value::Null) => None,
            Some(_) => return Err(malformed()),
        };
        if let Some(list) = list::merge_in_order(rules, old, new, &order)? {
            object.insert(field, Value::Array(list));
        }
    }
    Ok(())
}

fn delete_scalars(object: &mut Map, field: &str, unwanted: Value) -> Result<(), PatchError> {
    let Value::Array(unwanted) = unwanted else {
        return Err(PatchError::Malformed("invalid patch format of primitive list".into()));
    };
    if let Some(Value::Array(list)) = object.get_mut(field) {
        list.retain(|value| !unwanted.contains(value));
    }
    Ok(())
}

/// A value that is new to the object: without directives and nulls. None if it says to delete what is not there.
fn clean(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(map) if map.get(PATCH).is_some_and(|d| d == "delete") => None,
        Value::Object(map) => Some(Value::Object(clean_map(map))),
        Value::Array(list) => Some(Value::Array(list.into_iter().filter_map(clean_element).collect())),
        scalar => Some(scalar),
    }
}

fn clean_element(value: Value) -> Option<Value> {
    // an element that is nothing but a directive was never an element
    if value.as_object().is_some_and(|map| map.len() == 1 && map.contains_key(PATCH)) {
        return None;
    }
    if value.is_null() { Some(Value::Null) } else { clean(value) }
}

fn clean_map(map: Map) -> Map {
    let is_directive =
        |key: &str| key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_SCALARS);
    map.into_iter()
        .filter(|(key, _)| !is_directive(key))
        .filter_map(|(key, value)| Some((key, clean(value)?)))
        .collect()
}

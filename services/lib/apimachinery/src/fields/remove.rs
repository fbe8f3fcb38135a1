//! Fields taken out of an object, and the sets that say which.

use super::set::FieldSet;
use super::slot::{Slot, Structure, field_slot};
use crate::schema::TypeRef;
use serde_json::{Map, Value};

/// The object without the fields of a set. What is left empty by that goes too.
pub fn remove(ty: TypeRef<'_>, object: &Value, set: &FieldSet) -> Value {
    below(Slot::root(ty), object, set, false).unwrap_or_else(|| Value::Object(Map::new()))
}

/// As [`remove`], but what is left empty stays as a null: a field whose content goes is still a field that somebody set.
pub fn hollow_out(ty: TypeRef<'_>, object: &Value, set: &FieldSet) -> Value {
    below(Slot::root(ty), object, set, true).unwrap_or_else(|| Value::Object(Map::new()))
}

/// `None`: nothing is left.
fn below(slot: Slot<'_>, value: &Value, set: &FieldSet, hollow: bool) -> Option<Value> {
    let keep = |step: &str, slot: Slot<'_>, value: &Value| match set.child(step) {
        None => Some(value.clone()),
        Some(child) if child.is_member() => None,
        Some(child) => below(slot, value, child, hollow).or(hollow.then_some(Value::Null)),
    };
    match (slot.structure(value), value) {
        (Structure::Struct(ty), Value::Object(map)) => {
            let left = map.iter().map(|(name, v)| (name, keep(&format!("f:{name}"), field_slot(ty, name).0, v)));
            whole(left)
        }
        (Structure::Map(element), Value::Object(map)) => {
            whole(map.iter().map(|(key, v)| (key, keep(&format!("f:{key}"), element, v))))
        }
        (Structure::List(list), Value::Array(items)) => {
            let left: Vec<Value> = items
                .iter()
                .filter_map(|item| match list.step(item) {
                    Ok(step) => keep(&step, list.element, item),
                    Err(_) => Some(item.clone()),
                })
                .collect();
            (!left.is_empty()).then_some(Value::Array(left))
        }
        // Something below a value that is owned as a whole.
        _ => None,
    }
}

fn whole<'v>(left: impl Iterator<Item = (&'v String, Option<Value>)>) -> Option<Value> {
    let map: Map<String, Value> = left.filter_map(|(key, value)| Some((key.clone(), value?))).collect();
    (!map.is_empty()).then_some(Value::Object(map))
}

/// The set with every field of a struct that leads to a member made a member: a struct whose last field goes is to go as well.
pub fn named_members(ty: TypeRef<'_>, set: &FieldSet) -> FieldSet {
    let mut out = named(Slot::root(ty), set);
    out.member = set.member;
    out
}

fn named(slot: Slot<'_>, set: &FieldSet) -> FieldSet {
    let mut out = FieldSet { member: set.member, ..FieldSet::default() };
    for (step, child) in &set.children {
        let sample = if step.starts_with("f:") { Value::Object(Map::new()) } else { Value::Array(Vec::new()) };
        let name = step.get(2..).unwrap_or_default();
        let (below, declared) = match slot.structure(&sample) {
            Structure::Struct(ty) => field_slot(ty, name),
            Structure::Map(element) => (element, false),
            Structure::List(list) => (list.element, false),
            Structure::Leaf => (slot, false),
        };
        let mut child = named(below, child);
        child.member |= declared;
        out.children.insert(step.clone(), child);
    }
    out
}

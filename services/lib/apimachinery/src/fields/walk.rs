//! Which fields an object has, and how two states of one object differ.

use super::ListError;
use super::set::{FieldSet, path_text};
use super::slot::{List, Slot, Structure, field_slot};
use crate::schema::TypeRef;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Every field that an object sets: what a manager that applies it owns. A list that must tell its elements apart and does not is an error.
pub fn of(ty: TypeRef<'_>, object: &Value) -> Result<FieldSet, ListError> {
    let mut set = fields(Slot::root(ty), object, false, &mut String::new())?;
    set.member = false;
    Ok(set)
}

/// As [`of`], for an object that is there already, whatever its lists are like.
pub fn observed(ty: TypeRef<'_>, object: &Value) -> FieldSet {
    let mut set = fields(Slot::root(ty), object, true, &mut String::new()).unwrap_or_default();
    set.member = false;
    set
}

fn fields(slot: Slot<'_>, value: &Value, lenient: bool, path: &mut String) -> Result<FieldSet, ListError> {
    let mut out = FieldSet::default();
    let mut below = |step: String, slot: Slot<'_>, value: &Value, whole: bool, path: &mut String| {
        let before = path.len();
        path.push_str(&path_text(&step));
        let mut set = fields(slot, value, lenient, path)?;
        path.truncate(before);
        set.member |= whole;
        out.put(step, set);
        Ok(())
    };
    match (slot.structure(value), value) {
        (Structure::Struct(ty), Value::Object(map)) => {
            for (name, value) in map {
                let (slot, known) = field_slot(ty, name);
                below(format!("f:{name}"), slot, value, !known || is_hollow(value), path)?;
            }
        }
        (Structure::Map(element), Value::Object(map)) => {
            for (key, value) in map {
                below(format!("f:{key}"), element, value, true, path)?;
            }
        }
        (Structure::List(list), Value::Array(items)) => {
            for (step, item) in list.steps_unless(lenient, path, items)? {
                below(step, list.element, item, true, path)?;
            }
        }
        _ => out.member = true,
    }
    Ok(out)
}

fn is_hollow(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

/// How two states differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Only in the new state.
    pub added: FieldSet,
    /// Different in the new state.
    pub modified: FieldSet,
    /// Only in the old state.
    pub removed: FieldSet,
}

impl Comparison {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Applies something to each of the three sets.
    pub fn each(&mut self, change: impl Fn(&mut FieldSet)) {
        [&mut self.added, &mut self.modified, &mut self.removed].into_iter().for_each(change);
    }

    fn put(&mut self, step: &str, below: Self) {
        self.added.put(step.to_string(), below.added);
        self.modified.put(step.to_string(), below.modified);
        self.removed.put(step.to_string(), below.removed);
    }
}

/// Compares two states of an object of that type.
pub fn compare(ty: TypeRef<'_>, old: &Value, new: &Value) -> Comparison {
    walk(Slot::root(ty), Some(old), Some(new))
}

fn walk(slot: Slot<'_>, old: Option<&Value>, new: Option<&Value>) -> Comparison {
    let mut out = Comparison::default();
    if old == new {
        return out;
    }
    let (Some(either), hollow) = (new.or(old), |v: Option<&Value>| v.is_none_or(is_hollow)) else { return out };
    let structure = match (slot.structure(either), old.filter(|old| new.is_some() && !old.is_null())) {
        // What is a map now and was a text before is another value as a whole.
        (_, Some(old)) if std::mem::discriminant(old) != std::mem::discriminant(either) => Structure::Leaf,
        (Structure::Struct(_) | Structure::Map(_), _) if hollow(old) && hollow(new) => Structure::Leaf,
        (structure, _) => structure,
    };
    match structure {
        Structure::Leaf => {
            out.modified.member = old.is_some() && new.is_some();
        }
        Structure::Struct(ty) => {
            for name in keys(old, new) {
                let (slot, _) = field_slot(ty, name);
                let before = get(old, name).or(old.and_then(|_| slot.implied()));
                let after = get(new, name).or(new.and_then(|_| slot.implied()));
                out.put(&format!("f:{name}"), walk(slot, before, after));
            }
        }
        Structure::Map(element) => {
            for key in keys(old, new) {
                out.put(&format!("f:{key}"), walk(element, get(old, key), get(new, key)));
            }
        }
        Structure::List(list) => items(list, old, new, &mut out),
    }
    out.added.member |= old.is_none();
    out.removed.member |= new.is_none();
    out
}

fn keys<'v>(old: Option<&'v Value>, new: Option<&'v Value>) -> BTreeSet<&'v str> {
    [old, new].into_iter().flatten().filter_map(Value::as_object).flat_map(Map::keys).map(String::as_str).collect()
}

fn get<'v>(object: Option<&'v Value>, key: &str) -> Option<&'v Value> {
    object.and_then(|o| o.get(key))
}

/// Elements are compared by identity, not by place; those that are there several times are compared together.
fn items(list: List<'_>, old: Option<&Value>, new: Option<&Value>, out: &mut Comparison) {
    let mut pairs: BTreeMap<String, [Vec<&Value>; 2]> = BTreeMap::new();
    for (side, value) in [old, new].into_iter().enumerate() {
        for (step, item) in list.steps(value.and_then(Value::as_array).map_or(&[], Vec::as_slice)) {
            pairs.entry(step).or_default()[side].push(item);
        }
    }
    for (step, [before, after]) in pairs {
        let below = match (before.as_slice(), after.as_slice()) {
            ([], [one]) => walk(list.element, None, Some(one)),
            ([one], []) => walk(list.element, Some(one), None),
            ([one], [other]) => walk(list.element, Some(one), Some(other)),
            (one, other) if one == other => continue,
            (one, other) => {
                let mut whole = Comparison::default();
                whole.added.member = one.is_empty();
                whole.removed.member = other.is_empty();
                whole.modified.member = !one.is_empty() && !other.is_empty();
                whole
            }
        };
        out.put(&step, below);
    }
}

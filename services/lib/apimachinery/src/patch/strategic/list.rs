//! Merging lists: by key for objects, by value for scalars, and the order of the result.
//!
//! The order is upstream's: elements the patch names stand in the patch's order (or that of `$setElementOrder`), the others keep theirs. Between the
//! two, an element the patch names comes first unless the object had both and the other came before it.

use super::{PATCH, Rules, clean, go_text, merge_map, unknown_directive};
use crate::patch::PatchError;
use serde_json::Value;

/// Merges a patch's list into the object's.
pub(super) fn merge(rules: Rules<'_>, old: Vec<Value>, new: Vec<Value>) -> Result<Vec<Value>, PatchError> {
    if old.is_empty() && new.is_empty() {
        return Ok(old);
    }
    let Some(_) = check_elements(old.iter().chain(&new))? else { return Ok(old) };
    if old.iter().chain(&new).all(Value::is_object) {
        let Some(key) = rules.merge_key else {
            return Err(PatchError::Meaningless("cannot merge lists without merge key".into()));
        };
        let (old, new) = apply_directives(old, new, key)?;
        let merged = merge_by_key(rules, old.clone(), &new, key)?;
        return arrange(merged, &new, &old, Some(key));
    }
    let mut merged = old.clone();
    for value in &new {
        if !merged.contains(value) {
            merged.push(value.clone());
        }
    }
    arrange(merged, &new, &old, None)
}

/// The same for a list that comes with the order its elements shall have. None if there is no list at all.
pub(super) fn merge_in_order(
    rules: Rules<'_>,
    old: Option<Vec<Value>>,
    new: Option<Vec<Value>>,
    order: &[Value],
) -> Result<Option<Vec<Value>>, PatchError> {
    let key = rules.merge_key;
    if let Some(new) = &new {
        check_order(new, order, key)?;
    }
    let before = old.clone().unwrap_or_default();
    let merged = match (old, new) {
        (Some(old), Some(new)) if rules.strategy.merge => merge(rules, old, new)?,
        (Some(old), None) => old,
        (_, Some(new)) => new.into_iter().filter_map(clean).collect(),
        (None, None) => return Ok(None),
    };
    let by_key = key.filter(|_| merged.iter().all(Value::is_object));
    arrange(merged, order, &before, by_key).map(Some)
}

/// All objects or all scalars, and no lists. None if there is no element.
fn check_elements<'a>(elements: impl Iterator<Item = &'a Value>) -> Result<Option<()>, PatchError> {
    let mut seen = None;
    for element in elements {
        if element.is_array() {
            return Err(PatchError::Unprocessable("lists of lists are not supported".into()));
        }
        if seen.is_some_and(|object| object != element.is_object()) {
            return Err(PatchError::Meaningless("list element types are not identical".into()));
        }
        seen = Some(element.is_object());
    }
    Ok(seen.map(|_| ()))
}

fn no_merge_key(element: &Value, key: &str) -> PatchError {
    PatchError::Meaningless(format!("map: {} does not contain declared merge key: {key}", go_text(element)))
}

/// Carries out `$patch` in elements; what remains of the patch has none.
fn apply_directives(mut old: Vec<Value>, new: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::with_capacity(new.len());
    let mut replace = false;
    for element in new {
        match element.get(PATCH) {
            None => plain.push(element),
            Some(directive) if directive == "delete" => {
                let wanted = element.get(key).ok_or_else(|| no_merge_key(&element, key))?;
                old.retain(|e| e.get(key) != Some(wanted));
            }
            Some(directive) if directive == "replace" => replace = true,
            Some(directive) if directive == "merge" => {
                return Err(PatchError::Meaningless("merging lists cannot yet be specified in the patch".into()));
            }
            Some(other) => return Err(unknown_directive(other, &element)),
        }
    }
    if replace { Ok((plain.into_iter().filter_map(clean).collect(), Vec::new())) } else { Ok((old, plain)) }
}

fn merge_by_key(rules: Rules<'_>, mut merged: Vec<Value>, new: &[Value], key: &str) -> Result<Vec<Value>, PatchError> {
    for element in new {
        let wanted = element.get(key).ok_or_else(|| no_merge_key(element, key))?;
        let place = merged.iter().position(|e| e.get(key) == Some(wanted));
        match (place, element) {
            (Some(place), Value::Object(patch)) => {
                if let Value::Object(old) = merged[place].take() {
                    merged[place] = Value::Object(merge_map(rules.element(), old, patch.clone())?);
                }
            }
            _ => merged.extend(clean(element.clone())),
        }
    }
    Ok(merged)
}

/// The elements a patch adds or changes must stand in the order it asks for.
fn check_order(new: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let mut rest = order.iter();
    for element in new.iter().filter(|e| e.get(PATCH).is_none()) {
        if !rest.any(|o| same_element(o, element, key)) {
            let list = Value::from(order);
            return Err(PatchError::Meaningless(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{list}\n",
                Value::from(new)
            )));
        }
    }
    Ok(())
}

fn same_element(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) if a.is_object() => a.get(key).is_some() && a.get(key) == b.get(key),
        _ => a == b,
    }
}

/// Orders merged elements: `first` rules among those it names, `before` among the others and, where it knows both, between the two.
fn arrange(merged: Vec<Value>, first: &[Value], before: &[Value], key: Option<&str>) -> Result<Vec<Value>, PatchError> {
    if let Some(key) = key
        && let Some(element) = merged.iter().find(|e| e.get(key).is_none())
    {
        return Err(no_merge_key(element, key));
    }
    let rank = |list: &[Value], element: &Value| list.iter().position(|e| same_element(e, element, key));
    let mut named = Vec::new();
    let mut others = Vec::new();
    for element in merged {
        let old = rank(before, &element);
        match rank(first, &element) {
            Some(place) => named.push((place, old, element)),
            None => others.push((old, element)),
        }
    }
    named.sort_by_key(|(place, _, _)| *place);
    others.sort_by_key(|(old, _)| old.unwrap_or(usize::MAX));
    let mut result = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let take_other = match (named.peek(), others.peek()) {
            (None, None) => return Ok(result),
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some((_, a, _)), Some((b, _))) => matches!((a, b), (Some(a), Some(b)) if b < a),
        };
        if take_other {
            result.extend(others.next().map(|(_, e)| e))
        } else {
            result.extend(named.next().map(|(_, _, e)| e))
        }
    }
}

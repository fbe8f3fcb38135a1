//! Objects of the kinds that the schema knows, made at random, and others that differ from them a little: what a patch goes from and to.

use super::random::Random;
use super::{one, times};
use crate::Map;
use crate::schema::{Field, ListType, Shape, TypeRef, builtin};
use serde_json::{Value, json};

/// Kinds with every shape of list, map and struct between them.
const KINDS: [(&str, &str); 8] = [
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "Node"),
    ("v1", "ConfigMap"),
    ("apps/v1", "Deployment"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("networking.k8s.io/v1", "Ingress"),
    ("resource.k8s.io/v1", "ResourceClaim"),
];
/// Names, keys and texts: few, so that two objects have some in common.
const WORDS: [&str; 6] = ["a", "b", "c", "x/y", "~z", "example.com/k"];
const DEEPEST: usize = 9;

/// A kind and two objects of it; the second is the first after a few changes.
pub fn pair(random: &mut Random) -> (TypeRef<'static>, Value, Value) {
    let (version, kind) = *one(random, &KINDS);
    let ty = builtin().of(version, kind).expect("a kind of the table");
    let from = object(random, ty);
    let mut to = from.clone();
    for _ in 0..=random.below(3) {
        change(random, Shape::Struct(ty), &mut to, DEEPEST);
    }
    (ty, from, to)
}

/// An object of a type.
pub fn object(random: &mut Random, ty: TypeRef<'_>) -> Value {
    Value::Object(fields(random, ty, DEEPEST))
}

fn fields(random: &mut Random, ty: TypeRef<'_>, depth: usize) -> Map {
    let all: Vec<Field<'_>> = ty.fields().collect();
    let mut map = Map::new();
    // Structs with many fields get few of each: what matters is that every field comes up at some time.
    for field in all.iter().filter(|f| f.name() != "managedFields") {
        let wanted = matches!(field.name(), "metadata" | "spec" | "template" | "containers" | "labels")
            || random.below(all.len() + 4) < 3;
        if wanted && depth > 0 {
            map.insert(field.name().to_owned(), of_field(random, *field, depth - 1));
        }
    }
    map
}

/// Elements of a list that merges are told apart by all keys that either way of merging goes by.
fn keys_of<'a>(field: Field<'a>) -> Vec<&'a str> {
    let mut keys: Vec<&str> = field.merge_key().into_iter().collect();
    keys.extend(field.list_map_keys().filter(|key| Some(*key) != field.merge_key()));
    keys
}

fn of_field(random: &mut Random, field: Field<'_>, depth: usize) -> Value {
    let Shape::List(element) = field.shape() else { return value(random, field.shape(), depth) };
    let count = random.below(4);
    let mut items: Vec<Value> = (0..count).map(|_| item(random, field, element.shape(), depth)).collect();
    apart(field, &mut items);
    Value::Array(items)
}

fn item(random: &mut Random, field: Field<'_>, shape: Shape<'_>, depth: usize) -> Value {
    let mut made = value(random, shape, depth);
    if let (Shape::Struct(ty), Value::Object(map)) = (shape, &mut made) {
        for key in keys_of(field) {
            if let Some(key_field) = ty.field(key) {
                let key_value = value(random, key_field.shape(), 0);
                map.insert(key.to_owned(), key_value);
            }
        }
    }
    made
}

/// Leaves one element of each key, as every API object has.
fn apart(field: Field<'_>, items: &mut Vec<Value>) {
    let keys = keys_of(field);
    let merges = field.patch_strategy().merge || matches!(field.list_type(), Some(ListType::Set | ListType::Map));
    if !merges {
        return;
    }
    let mut seen: Vec<Value> = Vec::new();
    items.retain(|item| {
        // Strategic merge goes by the first key alone.
        let key = if item.is_object() { item[*keys.first().unwrap_or(&"")].clone() } else { item.clone() };
        let new = !seen.contains(&key);
        seen.push(key);
        new
    });
}

fn value(random: &mut Random, shape: Shape<'_>, depth: usize) -> Value {
    match shape {
        Shape::Struct(ty) => Value::Object(fields(random, ty, depth)),
        Shape::Map(element) if depth > 0 => {
            let keys: Vec<&str> = (0..random.below(4)).map(|_| *one(random, &WORDS)).collect();
            keys.into_iter().map(|k| (k.to_owned(), value(random, element.shape(), depth - 1))).collect::<Map>().into()
        }
        Shape::List(element) if depth > 0 => {
            (0..random.below(3)).map(|_| value(random, element.shape(), depth - 1)).collect()
        }
        Shape::Map(_) | Shape::Object(_) => json!({}),
        Shape::List(_) => json!([]),
        Shape::Bool => json!(random.below(2) == 0),
        Shape::Int32 | Shape::Int64 => json!(random.below(5)),
        Shape::Double => json!(0.5),
        Shape::IntOrString => [json!(80), json!("50%")][random.below(2)].clone(),
        Shape::Quantity => json!(*one(random, &["100m", "1", "2Gi"])),
        Shape::Time | Shape::MicroTime => json!("2026-01-02T03:04:05Z"),
        Shape::Any(_) => [json!("t"), json!(1), json!({"q": [1, {"r": "s"}]})][random.below(3)].clone(),
        Shape::String | Shape::Bytes => json!(*one(random, &WORDS)),
    }
}

/// Sets, changes or removes something somewhere below.
fn change(random: &mut Random, shape: Shape<'_>, object: &mut Value, depth: usize) {
    match (shape, object) {
        (Shape::Struct(ty), Value::Object(map)) if depth > 0 => {
            let present: Vec<String> = map.keys().cloned().collect();
            let deeper = !present.is_empty() && random.below(6) > 0;
            if deeper {
                let name = one(random, &present).clone();
                let Some(field) = ty.field(&name) else { return };
                match map.get_mut(&name) {
                    _ if random.below(12) == 0 => drop(map.remove(&name)),
                    Some(Value::Array(items)) => change_list(random, field, items, depth - 1),
                    Some(below) => change(random, field.shape(), below, depth - 1),
                    None => {}
                }
                return;
            }
            let all: Vec<Field<'_>> = ty.fields().filter(|f| f.name() != "managedFields").collect();
            if !all.is_empty() {
                let field = *one(random, &all);
                map.insert(field.name().to_owned(), of_field(random, field, depth.min(3) - 1));
            }
        }
        (Shape::Map(element), Value::Object(map)) => match random.below(3) {
            0 => drop(map.remove(*one(random, &WORDS))),
            _ => drop(
                map.insert((*one(random, &WORDS)).to_owned(), value(random, element.shape(), depth.saturating_sub(1))),
            ),
        },
        (shape, object) => *object = value(random, shape, depth.min(3)),
    }
}

fn change_list(random: &mut Random, field: Field<'_>, items: &mut Vec<Value>, depth: usize) {
    let Shape::List(element) = field.shape() else { return };
    let at = random.below(items.len() + 1);
    match random.below(4) {
        0 if at < items.len() => drop(items.remove(at)),
        1 if at < items.len() => items.rotate_left(at),
        2 if at < items.len() => {
            change(random, element.shape(), &mut items[at], depth);
            let kept = items[at].as_object().is_none_or(|map| keys_of(field).iter().all(|key| map.contains_key(*key)));
            if !kept {
                items.remove(at);
            }
        }
        _ => items.insert(at, item(random, field, element.shape(), depth.min(3))),
    }
    apart(field, items);
}

#[test]
fn pairs_are_worth_trying() {
    let (mut differ, mut leaves) = (0, 0);
    times(200, |random| {
        let (_, from, to) = pair(random);
        assert!(from.is_object() && to.is_object());
    });
    for seed in 0..200 {
        let (_, from, to) = pair(&mut Random(Random(seed).next()));
        differ += usize::from(from != to);
        leaves += from.to_string().matches(':').count();
    }
    assert!(differ > 120 && leaves / 200 > 10, "{differ} of 200 differ, {} fields each", leaves / 200);
}

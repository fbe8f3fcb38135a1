//! A message as the tree its JSON form would be.

use super::Error;
use super::either::Either;
use super::tags::{self, Tag, Tags};
use super::wire::{self, Field};
use apimachinery::schema::{Shape, TypeRef};
use apimachinery::time;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// How many messages may be in each other: as many as JSON may have levels. Schemas contain schemas.
const DEPTH: usize = 128;

/// Reads a message of a type of the schema.
pub fn message(bytes: &[u8], ty: TypeRef<'_>) -> Result<Value, Error> {
    nested(bytes, ty, DEPTH)
}

/// The same, where `depth` more messages may be in each other.
pub fn nested(bytes: &[u8], ty: TypeRef<'_>, depth: usize) -> Result<Value, Error> {
    let depth = depth.checked_sub(1).ok_or(Error::Depth)?;
    let tags = tags::of(ty.name()).ok_or_else(|| Error::UnknownType(ty.name().into()))?;
    let mut object = Map::new();
    read_into(&mut object, bytes, ty, tags, depth)?;
    Ok(Value::Object(object))
}

fn read_into(
    object: &mut Map<String, Value>,
    bytes: &[u8],
    ty: TypeRef<'_>,
    tags: &Tags,
    depth: usize,
) -> Result<(), Error> {
    for field in wire::fields(bytes) {
        let (number, raw) = field?;
        match (tags.get(number), raw) {
            (Some(Tag::Field(name, keeps_zero)), raw) => {
                // A field that this version of the schema does not have.
                let Some(field) = ty.field(name) else { continue };
                add(object, name, field.shape(), raw, *keeps_zero, depth)?;
            }
            (Some(Tag::Inline(inner)), Field::Bytes(bytes)) => {
                let inner_tags = tags::of(inner).ok_or_else(|| Error::UnknownType(inner.to_string()))?;
                read_into(object, bytes, ty, inner_tags, depth)?;
            }
            // A newer client's field, as JSON's unknown fields.
            _ => {}
        }
    }
    Ok(())
}

/// Adds one occurrence of a field: lists and maps grow, everything else is replaced.
fn add(
    object: &mut Map<String, Value>,
    name: &str,
    shape: Shape<'_>,
    raw: Field<'_>,
    keeps_zero: bool,
    depth: usize,
) -> Result<(), Error> {
    match shape {
        Shape::List(element) => {
            let list = object.entry(name).or_insert_with(|| json!([]));
            let Some(list) = list.as_array_mut() else { return Ok(()) };
            match (element.shape(), raw) {
                (Shape::Int32 | Shape::Int64, Field::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        list.push(json!(wire::varint(&mut packed).ok_or(Error::Malformed)?.cast_signed()));
                    }
                }
                (shape, raw) => list.push(value(shape, raw, depth)?),
            }
        }
        Shape::Map(element) => {
            let map = object.entry(name).or_insert_with(|| json!({}));
            let (Some(map), Field::Bytes(entry)) = (map.as_object_mut(), raw) else { return Err(Error::Malformed) };
            let (key, value) = map_entry(entry, element.shape(), depth)?;
            map.insert(key, value);
        }
        shape => {
            let value = value(shape, raw, depth)?;
            // Of JSON inside a message, only nothing is nothing.
            let free = matches!(shape, Shape::Any(_) | Shape::Object(_));
            if keeps_zero || !(is_zero(&value) && (value.is_null() || !free)) {
                object.insert(name.into(), value);
            }
        }
    }
    Ok(())
}

/// What Go leaves out of JSON when it is not behind a pointer.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
    }
}

fn map_entry(entry: &[u8], shape: Shape<'_>, depth: usize) -> Result<(String, Value), Error> {
    let (mut key, mut found) = (String::new(), None);
    for field in wire::fields(entry) {
        match field? {
            (1, Field::Bytes(text)) => key = String::from_utf8_lossy(text).into_owned(),
            (2, raw) => found = Some(value(shape, raw, depth)?),
            _ => {}
        }
    }
    // An absent value is the type's zero.
    let value = match (found, shape) {
        (Some(value), _) => value,
        (None, Shape::Bytes | Shape::String) => json!(""),
        (None, shape) => value(shape, Field::Bytes(&[]), depth)?,
    };
    Ok((key, value))
}

fn value(shape: Shape<'_>, raw: Field<'_>, depth: usize) -> Result<Value, Error> {
    Ok(match (shape, raw) {
        (Shape::String, Field::Bytes(text)) => Value::String(String::from_utf8_lossy(text).into_owned()),
        (Shape::Bytes, Field::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Shape::Bool, Field::Varint(n)) => json!(n != 0),
        (Shape::Int32 | Shape::Int64, Field::Varint(n)) => json!(n.cast_signed()),
        (Shape::Double, Field::Fixed64(bits)) => json!(f64::from_bits(bits)),
        (Shape::Time, Field::Bytes(bytes)) => timestamp(bytes, false)?,
        (Shape::MicroTime, Field::Bytes(bytes)) => timestamp(bytes, true)?,
        (Shape::Quantity, Field::Bytes(bytes)) => Value::String(text_field(bytes, 1)?.unwrap_or_else(|| "0".into())),
        (Shape::IntOrString, Field::Bytes(bytes)) => int_or_string(bytes)?,
        (Shape::Any(ty), Field::Bytes(bytes)) => match ty.and_then(Either::of) {
            Some(either) => either.read(bytes, depth)?,
            None => embedded(bytes)?,
        },
        (Shape::Object(_), Field::Bytes(bytes)) => embedded(bytes)?,
        (Shape::Struct(ty), Field::Bytes(bytes)) => nested(bytes, ty, depth)?,
        // A list inside a list or map is wrapped in a message of its own.
        (Shape::List(element), Field::Bytes(bytes)) => {
            let items = wire::fields(bytes).map(|field| field.and_then(|(_, raw)| value(element.shape(), raw, depth)));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        _ => return Err(Error::Malformed),
    })
}

fn text_field(bytes: &[u8], number: u32) -> Result<Option<String>, Error> {
    for field in wire::fields(bytes) {
        if let (found, Field::Bytes(text)) = field?
            && found == number
        {
            return Ok(Some(String::from_utf8_lossy(text).into_owned()));
        }
    }
    Ok(None)
}

/// Seconds and nanoseconds; an empty message is no time.
fn timestamp(bytes: &[u8], micro: bool) -> Result<Value, Error> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    for field in wire::fields(bytes) {
        match field? {
            (1, Field::Varint(n)) => seconds = n.cast_signed(),
            (2, Field::Varint(n)) => nanos = n.cast_signed(),
            _ => {}
        }
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(nanos).map_err(|_| Error::Malformed)?;
    let at = jiff::Timestamp::new(seconds, nanos).map_err(|_| Error::Malformed)?;
    Ok(if micro { time::rfc3339_micro(at) } else { time::rfc3339(at) }.into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    let (mut is_text, mut number, mut text) = (false, 0i64, String::new());
    for field in wire::fields(bytes) {
        match field? {
            (1, Field::Varint(kind)) => is_text = kind == 1,
            (2, Field::Varint(n)) => number = n.cast_signed(),
            (3, Field::Bytes(t)) => text = String::from_utf8_lossy(t).into_owned(),
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// RawExtension, FieldsV1 and their like: JSON as bytes.
fn embedded(bytes: &[u8]) -> Result<Value, Error> {
    let Some(text) = text_field(bytes, 1)? else { return Ok(Value::Null) };
    serde_json::from_str(&text).map_err(|e| Error::Json(e.to_string()))
}

//! A tree as the message of its type: the reverse of [`super::decode`]. Fields that a type's table does not number are left out, as JSON's unknown fields are.

use super::Error;
use super::either::Either;
use super::tags::{self, Tag};
use super::wire::Writer;
use apimachinery::schema::{Shape, TypeRef};
use apimachinery::time;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// Writes an object of a type of the schema.
pub fn message(object: &Value, ty: TypeRef<'_>, out: &mut Writer) -> Result<(), Error> {
    match object.as_object() {
        Some(map) => fields(map, ty, ty.name(), out).map(drop),
        None => Ok(()),
    }
}

/// Writes the fields numbered by the table of `name`, which may be that of a message inlined in JSON; whether there were any.
fn fields(object: &Map<String, Value>, ty: TypeRef<'_>, name: &str, out: &mut Writer) -> Result<bool, Error> {
    let tags = tags::of(name).ok_or_else(|| Error::UnknownType(name.into()))?;
    let start = out.len();
    for (number, tag) in tags.iter() {
        match tag {
            Tag::Field(field, _) => {
                let (Some(value), Some(field)) = (object.get(&**field), ty.field(field)) else { continue };
                add(number, field.shape(), value, out)?;
            }
            Tag::Inline(inner) => {
                let mut below = Writer::default();
                if fields(object, ty, inner, &mut below)? {
                    out.bytes(number, below.as_slice());
                }
            }
        }
    }
    Ok(out.len() > start)
}

fn add(number: u32, shape: Shape<'_>, value: &Value, out: &mut Writer) -> Result<(), Error> {
    match (shape, value) {
        (_, Value::Null) => Ok(()),
        (Shape::List(element), Value::Array(items)) => {
            items.iter().try_for_each(|item| one(number, element.shape(), item, out))
        }
        (Shape::Map(element), Value::Object(map)) => {
            for (key, value) in map {
                let mut entry = Writer::default();
                entry.bytes(1, key.as_bytes());
                one(2, element.shape(), value, &mut entry)?;
                out.bytes(number, entry.as_slice());
            }
            Ok(())
        }
        _ => one(number, shape, value, out),
    }
}

fn one(number: u32, shape: Shape<'_>, value: &Value, out: &mut Writer) -> Result<(), Error> {
    let mut below = Writer::default();
    match (shape, value) {
        (Shape::String, Value::String(text)) => {
            out.bytes(number, text.as_bytes());
            return Ok(());
        }
        (Shape::Bytes, Value::String(text)) => {
            out.bytes(number, &STANDARD.decode(text).map_err(|_| Error::Value(text.clone()))?);
            return Ok(());
        }
        (Shape::Bool, Value::Bool(value)) => {
            out.varint(number, u64::from(*value));
            return Ok(());
        }
        (Shape::Int32 | Shape::Int64, Value::Number(n)) => {
            out.varint(number, n.as_i64().ok_or_else(|| Error::Value(n.to_string()))?.cast_unsigned());
            return Ok(());
        }
        (Shape::Double, Value::Number(n)) => {
            out.fixed64(number, n.as_f64().unwrap_or_default().to_bits());
            return Ok(());
        }
        (Shape::Time | Shape::MicroTime, Value::String(text)) => {
            let at = time::parse_rfc3339(text).map_err(|e| Error::Value(e.to_string()))?;
            below.varint(1, at.as_second().cast_unsigned());
            below.varint(2, i64::from(at.subsec_nanosecond()).cast_unsigned());
        }
        // No time, in a list or map that has a place for it.
        (Shape::Time | Shape::MicroTime, Value::Null) => {}
        (Shape::Quantity, value) => below.bytes(1, text_of(value).as_bytes()),
        (Shape::IntOrString, Value::Number(n)) => {
            below.varint(1, 0);
            below.varint(2, n.as_i64().unwrap_or_default().cast_unsigned());
            below.bytes(3, b"");
        }
        (Shape::IntOrString, Value::String(text)) => {
            below.varint(1, 1);
            below.varint(2, 0);
            below.bytes(3, text.as_bytes());
        }
        (Shape::Any(ty), value) => match ty.and_then(Either::of) {
            Some(either) => either.write(value, &mut below)?,
            None => below.bytes(1, value.to_string().as_bytes()),
        },
        (Shape::Object(_), value) => below.bytes(1, value.to_string().as_bytes()),
        (Shape::Struct(ty), value) => message(value, ty, &mut below)?,
        // A list inside a list or map is wrapped in a message of its own.
        (Shape::List(element), Value::Array(items)) => {
            items.iter().try_for_each(|item| one(1, element.shape(), item, &mut below))?;
        }
        (_, other) => return Err(Error::Value(other.to_string())),
    }
    out.bytes(number, below.as_slice());
    Ok(())
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

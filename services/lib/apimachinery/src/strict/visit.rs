//! The visitor that follows the schema while serde reads the text.

use super::Findings;
use super::path::Path;
use crate::quantity::Quantity;
use crate::schema::{Shape, TypeRef};
use crate::{Map, time};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use std::cell::RefCell;
use std::fmt;

/// How to read the next value.
#[derive(Clone, Copy)]
pub(super) struct Seed<'p, 'a> {
    /// None: anything, but duplicate fields are noticed.
    shape: Option<Shape<'a>>,
    path: &'p Path<'p>,
    findings: &'p RefCell<Findings>,
}

impl<'p, 'a> Seed<'p, 'a> {
    pub(super) fn root(shape: Shape<'a>, findings: &'p RefCell<Findings>) -> Self {
        Self { shape: Some(shape), path: &Path::Root, findings }
    }

    pub(super) fn untyped(findings: &'p RefCell<Findings>) -> Self {
        Self { shape: None, path: &Path::Root, findings }
    }

    /// Records the first value that does not fit, and makes serde stop.
    fn fail<E: Error>(self, message: String) -> E {
        self.findings.borrow_mut().mismatch.get_or_insert(message);
        E::custom("mismatch")
    }

    fn mismatch<E: Error>(self, found: &str) -> E {
        let wanted = self.shape.map_or_else(|| "interface {}".to_string(), go_type);
        let message = match self.path.struct_field() {
            Some(field) => format!("json: cannot unmarshal {found} into Go struct field {field} of type {wanted}"),
            None => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
        };
        self.fail(message)
    }

    fn integer<E: Error>(self, number: Number) -> Result<Value, E> {
        match self.shape {
            None | Some(Shape::Any(_) | Shape::Object(_) | Shape::Double) => Ok(Value::Number(number)),
            Some(Shape::Int64) if number.is_i64() => Ok(Value::Number(number)),
            Some(Shape::Int32 | Shape::IntOrString) if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {
                Ok(Value::Number(number))
            }
            Some(Shape::Quantity) => self.quantity(&number.to_string()),
            Some(Shape::Int32 | Shape::Int64 | Shape::IntOrString) => Err(self.mismatch(&format!("number {number}"))),
            Some(_) => Err(self.mismatch("number")),
        }
    }

    fn quantity<E: Error>(self, text: &str) -> Result<Value, E> {
        Quantity::parse(text.trim()).map(|q| Value::String(q.to_string())).map_err(|e| self.fail(e.to_string()))
    }

    fn time<E: Error>(self, text: &str, write: fn(jiff::Timestamp) -> String) -> Result<Value, E> {
        time::parse_rfc3339(text).map(|t| Value::String(write(t))).map_err(|e| self.fail(e.to_string()))
    }

    fn bytes<E: Error>(self, text: String) -> Result<Value, E> {
        // Line breaks are allowed on the way in, as MIME has them, and not kept.
        let text = if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], "") } else { text };
        match STANDARD.decode(&text) {
            Ok(_) => Ok(Value::String(text)),
            Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
                Err(self.fail(format!("illegal base64 data at input byte {at}")))
            }
            Err(_) => Err(self.fail(format!("illegal base64 data at input byte {}", text.len() / 4 * 4))),
        }
    }

    fn structure<'de, A: MapAccess<'de>>(self, ty: TypeRef<'a>, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        // A null leaves no trace in the map, but the field has been seen all the same.
        let mut nulls: Vec<String> = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            let Some(field) = ty.field(&key) else {
                self.findings.borrow_mut().complain(format!("unknown field {:?}", self.path.with(&key)));
                access.next_value::<IgnoredAny>()?;
                continue;
            };
            if map.contains_key(&key) || nulls.contains(&key) {
                self.findings.borrow_mut().complain(format!("duplicate field {:?}", self.path.with(&key)));
            }
            let path = Path::Field { parent: self.path, name: field.name(), owner: ty.base_name() };
            let value =
                access.next_value_seed(Seed { shape: Some(field.shape()), path: &path, findings: self.findings })?;
            if value.is_null() {
                nulls.push(key);
            } else {
                map.insert(key, value);
            }
        }
        Ok(Value::Object(map))
    }

    fn map<'de, A: MapAccess<'de>>(self, element: Option<Shape<'a>>, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                self.findings.borrow_mut().complain(format!("duplicate field {:?}", self.path.with(&key)));
            }
            let path = Path::Key { parent: self.path, name: &key };
            let value = access.next_value_seed(Seed { shape: element, path: &path, findings: self.findings })?;
            map.insert(key, zero_for_null(element, value));
        }
        Ok(Value::Object(map))
    }
}

/// Inside lists and maps a null is the zero value, because there is no field to leave out.
fn zero_for_null(shape: Option<Shape<'_>>, value: Value) -> Value {
    if !value.is_null() {
        return value;
    }
    match shape {
        Some(Shape::String | Shape::Bytes) => Value::String(String::new()),
        Some(Shape::Quantity) => Value::String("0".into()),
        Some(Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString) => Value::from(0),
        Some(Shape::Bool) => Value::Bool(false),
        Some(Shape::Struct(_)) => Value::Object(Map::new()),
        _ => Value::Null,
    }
}

/// The name a type has in upstream's error messages.
fn go_type(shape: Shape<'_>) -> String {
    match shape {
        Shape::Any(Some(ty)) | Shape::Object(Some(ty)) | Shape::Struct(ty) => ty.go_name().to_string(),
        Shape::Any(None) => "interface {}".into(),
        Shape::Object(None) => "map[string]interface {}".into(),
        Shape::String => "string".into(),
        Shape::Bytes => "[]uint8".into(),
        Shape::Time => "v1.Time".into(),
        Shape::MicroTime => "v1.MicroTime".into(),
        Shape::Bool => "bool".into(),
        Shape::Int32 => "int32".into(),
        Shape::Int64 => "int64".into(),
        Shape::Double => "float64".into(),
        Shape::Quantity => "resource.Quantity".into(),
        Shape::IntOrString => "intstr.IntOrString".into(),
        Shape::List(element) => format!("[]{}", go_type(element.shape())),
        Shape::Map(element) => format!("map[string]{}", go_type(element.shape())),
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        match self.shape {
            None | Some(Shape::Bool | Shape::Any(_) | Shape::Object(_)) => Ok(Value::Bool(value)),
            Some(_) => Err(self.mismatch("bool")),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.integer(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.integer(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let Some(number) = Number::from_f64(value) else { return Err(self.mismatch("number")) };
        self.integer(number)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        match self.shape {
            Some(Shape::Quantity) => self.quantity(value),
            Some(Shape::Time) => self.time(value, time::rfc3339),
            Some(Shape::MicroTime) => self.time(value, time::rfc3339_micro),
            _ => self.visit_string(value.to_string()),
        }
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        match self.shape {
            None | Some(Shape::String | Shape::IntOrString | Shape::Any(_) | Shape::Object(_)) => {
                Ok(Value::String(value))
            }
            Some(Shape::Bytes) => self.bytes(value),
            Some(Shape::Quantity | Shape::Time | Shape::MicroTime) => self.visit_str(&value),
            Some(_) => Err(self.mismatch("string")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let element = match self.shape {
            None | Some(Shape::Any(_) | Shape::Object(_)) => self.shape,
            Some(Shape::List(element)) => Some(element.shape()),
            Some(_) => return Err(self.mismatch("array")),
        };
        let mut list = Vec::new();
        loop {
            let path = Path::Index { parent: self.path, index: list.len() };
            match access.next_element_seed(Seed { shape: element, path: &path, findings: self.findings })? {
                Some(value) => list.push(zero_for_null(element, value)),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        match self.shape {
            None => self.map(None, access),
            Some(Shape::Struct(ty)) => self.structure(ty, access),
            Some(Shape::Map(element)) => self.map(Some(element.shape()), access),
            Some(Shape::Any(_) | Shape::Object(_)) => {
                serde::Deserialize::deserialize(MapAccessDeserializer::new(access))
            }
            Some(_) => Err(self.mismatch("object")),
        }
    }
}

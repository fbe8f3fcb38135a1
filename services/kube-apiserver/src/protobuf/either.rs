//! Values that are a schema or something else in JSON, and messages with a field for each on the wire: upstream's JSONSchemaPropsOr… types.

use super::wire::{self, Field, Writer};
use super::{Error, decode, encode};
use apimachinery::schema::{TypeRef, builtin};
use serde_json::{Value, json};

const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// What a value is if it is no schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either {
    /// Schemas, as `items` may be.
    Schemas,
    /// Whether anything is allowed, as `additionalProperties` may be.
    Allowed,
    /// Names of properties, as `dependencies` may have.
    Names,
}

impl Either {
    /// By the name of a type.
    pub fn of(ty: TypeRef<'_>) -> Option<Self> {
        match ty.name().strip_prefix(SCHEMA)? {
            "OrArray" => Some(Self::Schemas),
            "OrBool" => Some(Self::Allowed),
            "OrStringArray" => Some(Self::Names),
            _ => None,
        }
    }

    /// The number of the schema's field; the other one has the other of 1 and 2.
    fn schema_number(self) -> u32 {
        if self == Self::Allowed { 2 } else { 1 }
    }

    /// Writes a value's message.
    pub fn write(self, value: &Value, out: &mut Writer) -> Result<(), Error> {
        let nested = |number: u32, schema: &Value, out: &mut Writer| {
            let mut below = Writer::default();
            encode::message(schema, schema_type()?, &mut below)?;
            out.bytes(number, below.as_slice());
            Ok(())
        };
        match (self, value) {
            (Self::Allowed, Value::Bool(allowed)) => out.varint(1, u64::from(*allowed)),
            (Self::Schemas, Value::Array(schemas)) => schemas.iter().try_for_each(|s| nested(2, s, out))?,
            (Self::Names, Value::Array(names)) => {
                names.iter().filter_map(Value::as_str).for_each(|name| out.bytes(2, name.as_bytes()));
            }
            (either, schema @ Value::Object(_)) => {
                if either == Self::Allowed {
                    out.varint(1, 1);
                }
                nested(either.schema_number(), schema, out)?;
            }
            (_, other) => return Err(Error::Value(other.to_string())),
        }
        Ok(())
    }

    /// Reads one, as [`decode::nested`].
    pub fn read(self, bytes: &[u8], depth: usize) -> Result<Value, Error> {
        let (mut allowed, mut list) = (false, Vec::new());
        for field in wire::fields(bytes) {
            match (self, field?) {
                (Self::Allowed, (1, Field::Varint(n))) => allowed = n != 0,
                (either, (number, Field::Bytes(schema))) if number == either.schema_number() => {
                    return decode::nested(schema, schema_type()?, depth);
                }
                (Self::Schemas, (2, Field::Bytes(schema))) => list.push(decode::nested(schema, schema_type()?, depth)?),
                (Self::Names, (2, Field::Bytes(name))) => list.push(json!(String::from_utf8_lossy(name))),
                _ => {}
            }
        }
        Ok(if self == Self::Allowed { allowed.into() } else { list.into() })
    }
}

fn schema_type() -> Result<TypeRef<'static>, Error> {
    builtin().named(SCHEMA).ok_or_else(|| Error::UnknownType(SCHEMA.into()))
}

//! From type to type.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Row, mismatch};
use crate::value::Value;

pub const ROWS: &[Row] = &[
    ("dyn(A): dyn", same),
    ("type(A): type", |v| Ok(Value::Type(v[0].type_name()))),
    ("bool(bool): bool", same),
    ("bool(string): bool", |v| match &v[0] {
        Value::String(s) if matches!(&**s, "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Value::Bool(true)),
        Value::String(s) if matches!(&**s, "0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Value::Bool(false)),
        _ => Err("type conversion error from 'string' to 'bool'".to_owned()),
    }),
    ("int(int): int", same),
    ("int(uint): int", int),
    ("int(double): int", int),
    ("int(string): int", int),
    ("int(timestamp): int", int),
    ("uint(uint): uint", same),
    ("uint(int): uint", uint),
    ("uint(double): uint", uint),
    ("uint(string): uint", uint),
    ("double(double): double", same),
    ("double(int): double", double),
    ("double(uint): double", double),
    ("double(string): double", double),
    ("string(string): string", same),
    ("string(bool): string", shown),
    ("string(int): string", shown),
    ("string(uint): string", shown),
    ("string(double): string", shown),
    ("string(duration): string", shown),
    ("string(timestamp): string", shown),
    ("string(bytes): string", |v| match &v[0] {
        Value::Bytes(b) => std::str::from_utf8(b)
            .map(Value::from)
            .map_err(|_| "invalid UTF-8 in bytes, cannot convert to string".to_owned()),
        _ => mismatch(),
    }),
    ("bytes(bytes): bytes", same),
    ("bytes(string): bytes", |v| match &v[0] {
        Value::String(s) => Ok(Value::Bytes(s.as_bytes().into())),
        _ => mismatch(),
    }),
    ("base64.encode(bytes): string", |v| match &v[0] {
        Value::Bytes(b) => Ok(STANDARD.encode(b).into()),
        _ => mismatch(),
    }),
    ("base64.decode(string): bytes", |v| match &v[0] {
        Value::String(s) => STANDARD.decode(&**s).map(|b| Value::Bytes(b.into())).map_err(|error| error.to_string()),
        _ => mismatch(),
    }),
];

fn same(v: &[Value]) -> Result<Value, String> {
    Ok(v[0].clone())
}

fn shown(v: &[Value]) -> Result<Value, String> {
    Ok(v[0].to_string().into())
}

/// Doubles from here on are no integers any more.
const INT_END: f64 = 9_223_372_036_854_775_808.0;

fn int(v: &[Value]) -> Result<Value, String> {
    let found = match &v[0] {
        Value::Uint(n) => i64::try_from(*n).ok(),
        Value::Double(n) => (n.abs() < INT_END).then_some(*n as i64),
        Value::String(s) => {
            return s.parse().map(Value::Int).map_err(|_| "type conversion error from 'string' to 'int'".to_owned());
        }
        Value::Timestamp(t) => Some(t.as_second()),
        _ => return mismatch(),
    };
    found.map(Value::Int).ok_or_else(|| "integer overflow".to_owned())
}

fn uint(v: &[Value]) -> Result<Value, String> {
    let found = match &v[0] {
        Value::Int(n) => u64::try_from(*n).ok(),
        Value::Double(n) => (*n >= 0.0 && *n < 2.0 * INT_END).then_some(*n as u64),
        Value::String(s) => {
            return s.parse().map(Value::Uint).map_err(|_| "type conversion error from 'string' to 'uint'".to_owned());
        }
        _ => return mismatch(),
    };
    found.map(Value::Uint).ok_or_else(|| "unsigned integer overflow".to_owned())
}

fn double(v: &[Value]) -> Result<Value, String> {
    match &v[0] {
        Value::Int(n) => Ok(Value::Double(*n as f64)),
        Value::Uint(n) => Ok(Value::Double(*n as f64)),
        Value::String(s) => {
            s.parse().map(Value::Double).map_err(|_| "type conversion error from 'string' to 'double'".to_owned())
        }
        _ => mismatch(),
    }
}

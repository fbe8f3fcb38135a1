//! From text to object in one pass: parsing, type checks, pruning of unknown fields, canonical quantities and times, and the list of what a strict
//! client wants to hear about (unknown and duplicate fields), in upstream's wording and in the order of the text.
//!
//! [`decode`] reads JSON text, [`decode_value`] a tree that came from elsewhere (YAML, a patch). Nulls are dropped as if the field were absent.

mod path;
#[cfg(test)]
mod tests;
mod visit;

use crate::schema::TypeRef;
use serde::Deserialize;
use serde::de::DeserializeSeed;
use serde_json::Value;
use std::cell::RefCell;

/// As upstream: more complaints than this are not reported.
const MAX_COMPLAINTS: usize = 100;

/// Why a text is no object of the wanted type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON.
    #[error("{0}")]
    Syntax(String),
    /// A value of the wrong type, or one its type cannot hold.
    #[error("{0}")]
    Value(String),
}

/// What the request wants done about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and send a warning header for each.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter; absent or empty means Warn.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "Ignore" => Self::Ignore,
            "Warn" | "" => Self::Warn,
            "Strict" => Self::Strict,
            _ => return None,
        })
    }
}

/// An object and what was wrong with its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object, with only the fields its type knows.
    pub object: Value,
    /// `unknown field "…"` and `duplicate field "…"`, in the order of the text.
    pub complaints: Vec<String>,
}

impl Decoded {
    /// The error for a strict client, if there is anything to complain about.
    pub fn strict_error(&self) -> Option<String> {
        strict_error(&self.complaints)
    }
}

/// `strict decoding error: …, …`.
pub fn strict_error(complaints: &[String]) -> Option<String> {
    if complaints.is_empty() { None } else { Some(format!("strict decoding error: {}", complaints.join(", "))) }
}

/// What the decoder has found so far.
#[derive(Default)]
struct Findings {
    complaints: Vec<String>,
    /// The first value that does not fit.
    mismatch: Option<String>,
}

impl Findings {
    fn complain(&mut self, complaint: String) {
        if self.complaints.len() < MAX_COMPLAINTS && !self.complaints.contains(&complaint) {
            self.complaints.push(complaint);
        }
    }
}

/// Decodes JSON text as an object of that type.
pub fn decode(text: &[u8], ty: TypeRef<'_>) -> Result<Decoded, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let findings = RefCell::new(Findings::default());
    let result = visit::Seed::root(ty.shape(), &findings)
        .deserialize(&mut deserializer)
        .and_then(|object| deserializer.end().map(|()| object));
    finish(result, findings.into_inner())
}

/// Checks a tree as an object of that type: the same as [`decode`], for what did not arrive as JSON.
pub fn decode_value(value: Value, ty: TypeRef<'_>) -> Result<Decoded, DecodeError> {
    let findings = RefCell::new(Findings::default());
    let result = visit::Seed::root(ty.shape(), &findings).deserialize(value);
    finish(result, findings.into_inner())
}

/// Parses JSON text of no known type, which keeps everything; only duplicate fields can be complained about.
pub fn parse(text: &[u8]) -> Result<Decoded, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let findings = RefCell::new(Findings::default());
    let result = visit::Seed::untyped(&findings)
        .deserialize(&mut deserializer)
        .and_then(|object| deserializer.end().map(|()| object));
    finish(result, findings.into_inner())
}

fn finish(result: Result<Value, serde_json::Error>, findings: Findings) -> Result<Decoded, DecodeError> {
    match (result, findings.mismatch) {
        (_, Some(mismatch)) => Err(DecodeError::Value(mismatch)),
        (Ok(object), None) => Ok(Decoded { object, complaints: findings.complaints }),
        (Err(error), None) => Err(DecodeError::Syntax(error.to_string())),
    }
}

/// The type a text claims to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TypeMeta {
    /// `group/version`, or `version`.
    #[serde(rename = "apiVersion", deserialize_with = "null_is_empty")]
    pub api_version: String,
    /// The kind.
    #[serde(deserialize_with = "null_is_empty")]
    pub kind: String,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads only apiVersion and kind of a JSON text.
pub fn type_meta(text: &[u8]) -> Result<TypeMeta, DecodeError> {
    serde_json::from_slice(text)
        .map_err(|e| DecodeError::Syntax(format!("couldn't get version/kind; json parse error: {e}")))
}

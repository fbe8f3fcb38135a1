//! Request bodies in Kubernetes' protobuf form, which Go's typed clients (`kubectl create …`, client-go) prefer, as trees. Responses stay JSON:
//! every client that may send protobuf accepts that.
//!
//! [`wire`] reads fields, [`tags`] knows their numbers, [`decode`](mod@decode) walks the schema with both.

mod decode;
mod tags;
mod wire;

#[cfg(test)]
mod tests;

use apimachinery::schema::{TypeRef, builtin};
use serde_json::Value;

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";

/// Why a body is no object.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not begin as it must.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// A field ends after its message, or has a type that does not exist.
    #[error("proto: the message is cut off or malformed")]
    Malformed,
    /// The kind's field numbers are not known here.
    #[error("the type {0} cannot be read from protobuf")]
    UnknownType(String),
    /// JSON inside the message is not JSON.
    #[error("embedded JSON: {0}")]
    Json(String),
}

/// Reads a body as an object of type `ty`; apiVersion and kind are the body's own.
pub fn decode(body: &[u8], ty: TypeRef<'_>) -> Result<Value, Error> {
    let unknown = body.strip_prefix(MAGIC).ok_or(Error::Magic)?;
    let (mut raw, mut api_version, mut kind): (&[u8], String, String) = (&[], String::new(), String::new());
    for field in wire::fields(unknown) {
        match field? {
            (1, wire::Field::Bytes(meta)) => {
                for field in wire::fields(meta) {
                    match field? {
                        (1, wire::Field::Bytes(text)) => api_version = String::from_utf8_lossy(text).into_owned(),
                        (2, wire::Field::Bytes(text)) => kind = String::from_utf8_lossy(text).into_owned(),
                        _ => {}
                    }
                }
            }
            (2, wire::Field::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let mut object = decode::message(raw, ty)?;
    if let Some(map) = object.as_object_mut() {
        for (field, text) in [("apiVersion", api_version), ("kind", kind)] {
            if !text.is_empty() {
                map.insert(field.into(), text.into());
            }
        }
    }
    Ok(object)
}

/// Reads DeleteOptions, which belong to no group of their own.
pub fn delete_options(body: &[u8]) -> Result<Value, Error> {
    const NAME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
    decode(body, builtin().named(NAME).ok_or_else(|| Error::UnknownType(NAME.into()))?)
}

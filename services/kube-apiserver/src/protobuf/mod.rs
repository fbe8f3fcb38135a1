//! Kubernetes' protobuf form, which Go's typed clients (client-go, `kubectl create …`) prefer: bodies as trees, and trees as responses and watch frames.
//!
//! [`wire`] reads and writes fields, [`tags`] knows their numbers, [`decode`](mod@decode) and [`encode`] walk the schema with both.

mod decode;
mod either;
mod encode;
mod tags;
pub mod wire;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;

use apimachinery::meta;
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
    /// Too many messages in each other.
    #[error("proto: messages are nested too deep")]
    Depth,
    /// The kind's field numbers are not known here.
    #[error("the type {0} cannot be read from protobuf")]
    UnknownType(String),
    /// A value that its type cannot hold.
    #[error("cannot be written as protobuf: {0}")]
    Value(String),
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

/// The message of an object, without the envelope. What is sent for it is [`envelope`].
pub fn message(object: &Value, ty: TypeRef<'_>) -> Result<Vec<u8>, Error> {
    let mut out = wire::Writer::with_capacity(512);
    encode::message(object, ty, &mut out)?;
    Ok(out.into_vec())
}

/// An object of any kind of the schema, by its own apiVersion and kind, in its envelope.
pub fn object(object: &Value) -> Result<Vec<u8>, Error> {
    let (api_version, kind) = (meta::api_version(object), meta::kind(object));
    let ty = builtin().of(api_version, kind).ok_or_else(|| Error::UnknownType(format!("{api_version} {kind}")))?;
    Ok(envelope(api_version, kind, &[&message(object, ty)?]))
}

/// What of an object is in its metadata: the message of a PartialObjectMetadata, without the envelope.
pub fn metadata(object: &Value) -> Result<Vec<u8>, Error> {
    const NAME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let ty = builtin().named(NAME).ok_or_else(|| Error::UnknownType(NAME.into()))?;
    let mut out = wire::Writer::default();
    out.bytes(1, &message(&object["metadata"], ty)?);
    Ok(out.into_vec())
}

/// The message of a list, in pieces: its metadata, then its items' own messages.
pub fn list(api_version: &str, kind: &str, list_meta: &Value, items: &[impl AsRef<[u8]>]) -> Result<Vec<u8>, Error> {
    const NAME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
    let ty = builtin().named(NAME).ok_or_else(|| Error::UnknownType(NAME.into()))?;
    let meta = message(list_meta, ty)?;
    let size: usize = items.iter().map(|item| wire::field_size(item.as_ref().len())).sum();
    let mut out = wire::Writer::with_capacity(size + meta.len() + 128);
    open(&mut out, api_version, kind, size + wire::field_size(meta.len()));
    out.bytes(1, &meta);
    for item in items {
        out.bytes(2, item.as_ref());
    }
    close(&mut out);
    Ok(out.into_vec())
}

/// A message in the envelope that says what it is.
pub fn envelope(api_version: &str, kind: &str, parts: &[&[u8]]) -> Vec<u8> {
    let size: usize = parts.iter().map(|p| p.len()).sum();
    let mut out = wire::Writer::with_capacity(size + 64);
    open(&mut out, api_version, kind, size);
    parts.iter().for_each(|part| out.raw(part));
    close(&mut out);
    out.into_vec()
}

fn open(out: &mut wire::Writer, api_version: &str, kind: &str, size: usize) {
    let mut type_meta = wire::Writer::default();
    type_meta.bytes(1, api_version.as_bytes());
    type_meta.bytes(2, kind.as_bytes());
    out.raw(MAGIC);
    out.bytes(1, type_meta.as_slice());
    out.head(2, size);
}

/// No content encoding, no content type.
fn close(out: &mut wire::Writer) {
    out.bytes(3, b"");
    out.bytes(4, b"");
}

/// One frame of a watch stream: its length, then a WatchEvent around the object in its envelope.
pub fn watch_frame(kind: &str, enveloped: &[u8]) -> Vec<u8> {
    let mut raw = wire::Writer::with_capacity(enveloped.len() + 8);
    raw.bytes(1, enveloped);
    let mut event = wire::Writer::with_capacity(enveloped.len() + 32);
    event.bytes(1, kind.as_bytes());
    event.bytes(2, raw.as_slice());
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), event.as_slice()].concat()
}

/// Reads DeleteOptions, which belong to no group of their own.
pub fn delete_options(body: &[u8]) -> Result<Value, Error> {
    const NAME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
    decode(body, builtin().named(NAME).ok_or_else(|| Error::UnknownType(NAME.into()))?)
}

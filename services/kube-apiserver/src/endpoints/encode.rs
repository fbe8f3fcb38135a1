//! Objects and lists as responses, in the form and encoding the client asked for.

use super::pieces::{Packed, Text};
use crate::errors::ApiError;
use crate::registry::Resource;
use crate::server::body::{Response, StreamError, full, stream};
use crate::server::handler::Call;
use crate::server::negotiate::{Accepted, Encoding, Form, Version, WRITTEN};
use crate::server::respond;
use crate::storage::Stored;
use crate::{printers, protobuf};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, USER_AGENT, VARY};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;

/// Responses from this size on are compressed for clients that accept it, as upstream does.
const COMPRESSED: usize = 128 * 1024;

/// What a list says about itself.
#[derive(Clone, Debug, Default)]
pub struct ListMeta {
    /// The version it was read at.
    pub revision: i64,
    /// Token for the rest, empty on the last page.
    pub continue_token: String,
    /// How many are left, where that is known.
    pub remaining: Option<i64>,
}

impl ListMeta {
    /// As the list's `metadata`.
    pub fn to_value(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        if !self.continue_token.is_empty() {
            meta["continue"] = json!(self.continue_token);
            if let Some(remaining) = self.remaining {
                meta["remainingItemCount"] = json!(remaining);
            }
        }
        meta
    }
}

/// One object.
pub fn one(
    call: &Call,
    res: &Resource,
    status: u16,
    object: &Stored,
    warnings: &[String],
) -> Result<Response, ApiError> {
    let accepted = call.accepted()?;
    let as_tree = || {
        let meta = ListMeta { revision: object.revision, ..ListMeta::default() };
        transformed(call, res, accepted.form, &object.object(), &meta)
    };
    let mut response = match (accepted.encoding, accepted.form) {
        (Encoding::Json, Form::Object) if !is_pretty(call) => send(call, status, JSON, object.json.clone()),
        (Encoding::Protobuf, form) => {
            let body = match form {
                Form::Object => object.message(res).map(|m| protobuf::envelope(&res.api_version(), res.kind, &[&m])),
                Form::Metadata(version) | Form::Table(version) => partial_message(object)
                    .map(|m| protobuf::envelope(version.api_version(), "PartialObjectMetadata", &[&m])),
            };
            match body {
                Some(body) => send(call, status, protobuf::MEDIA_TYPE, body),
                None => without_message(call, status, accepted, as_tree)?,
            }
        }
        (encoding, _) => write(call, status, encoding, &as_tree())?,
    };
    respond::add_warnings(response.headers_mut(), warnings);
    respond::add_warnings(response.headers_mut(), &call.warnings.lock());
    Ok(response)
}

const JSON: &str = "application/json";

/// A value that is not an object of the table: Scale, Status, reviews.
pub fn value(call: &Call, status: u16, value: &Value) -> Result<Response, ApiError> {
    let accepted = call.accepted()?;
    match (accepted.form, accepted.encoding) {
        (Form::Object, Encoding::Protobuf) => match protobuf::object(value) {
            Ok(body) => Ok(send(call, status, protobuf::MEDIA_TYPE, body)),
            Err(_) => without_message(call, status, accepted, || value.clone()),
        },
        (Form::Object, encoding) => write(call, status, encoding, value),
        // It has no rows and no metadata to show.
        _ => Err(ApiError::not_acceptable(WRITTEN)),
    }
}

/// What has no protobuf form is sent as JSON to those who take that too.
fn without_message(
    call: &Call,
    status: u16,
    accepted: Accepted,
    tree: impl FnOnce() -> Value,
) -> Result<Response, ApiError> {
    if accepted.or_json {
        write(call, status, Encoding::Json, &tree())
    } else {
        Err(ApiError::not_acceptable(&WRITTEN[..2]))
    }
}

fn write(call: &Call, status: u16, encoding: Encoding, value: &Value) -> Result<Response, ApiError> {
    match encoding {
        Encoding::Yaml => {
            let text = serde_saphyr::to_string(value).map_err(ApiError::internal)?;
            Ok(send(call, status, "application/yaml", text))
        }
        _ if is_pretty(call) => {
            Ok(send(call, status, JSON, serde_json::to_vec_pretty(value).map_err(ApiError::internal)?))
        }
        _ => Ok(send(call, status, JSON, serde_json::to_vec(value).map_err(ApiError::internal)?)),
    }
}

/// Whether people read the answer: they say so, or use a browser or a program for the terminal.
fn is_pretty(call: &Call) -> bool {
    if !call.query.get("pretty").is_empty() {
        return call.query.flag("pretty");
    }
    let agent = call.header(USER_AGENT).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|program| agent.starts_with(program))
}

/// A body, compressed if it is large and the client accepts that.
fn send(call: &Call, status: u16, media_type: &'static str, body: impl Into<Bytes>) -> Response {
    let body = body.into();
    if let Some(record) = &call.audit {
        record.received(&body);
    }
    let packed = (body.len() > COMPRESSED && takes_gzip(call)).then(|| pack(&body)).flatten();
    match packed {
        Some(packed) => compressed(respond::with_type(status, media_type, full(packed))),
        None => respond::with_type(status, media_type, full(body)),
    }
}

/// Says that the body is.
fn compressed(mut response: Response) -> Response {
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// Whether the client unpacks gzip.
pub fn takes_gzip(call: &Call) -> bool {
    call.header(ACCEPT_ENCODING).is_some_and(|list| list.split(',').any(is_gzip))
}

fn is_gzip(clause: &str) -> bool {
    let mut parts = clause.split(';').map(str::trim);
    parts.next() == Some("gzip") && !parts.any(|p| matches!(p, "q=0" | "q=0.0"))
}

fn pack(body: &[u8]) -> Option<Vec<u8>> {
    // Speed matters more than size here, as upstream decided.
    let mut packer = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
    packer.write_all(body).ok()?;
    packer.finish().ok()
}

/// A single object as Table or metadata.
pub fn transformed(call: &Call, res: &Resource, form: Form, object: &Value, meta: &ListMeta) -> Value {
    match form {
        Form::Table(version) => table(call, res, std::slice::from_ref(object), meta, version),
        Form::Metadata(version) => partial(object, version),
        Form::Object => object.clone(),
    }
}

/// A list.
pub fn list(call: &Call, res: &Resource, items: Vec<Arc<Stored>>, meta: &ListMeta) -> Result<Response, ApiError> {
    let accepted = call.accepted()?;
    match (accepted.encoding, accepted.form) {
        (Encoding::Json, Form::Object) if !is_pretty(call) => Ok(send_text(call, Text::new(res, items, meta))),
        (Encoding::Protobuf, form) => match list_message(res, form, &items, meta) {
            Some(body) => Ok(send(call, 200, protobuf::MEDIA_TYPE, body)),
            None => without_message(call, 200, accepted, || list_tree(call, res, accepted.form, items, meta)),
        },
        (encoding, form) => write(call, 200, encoding, &list_tree(call, res, form, items, meta)),
    }
}

/// A list as it is kept: a large one is made while it is sent, but for a record that shall hold all of it.
fn send_text(call: &Call, text: Text) -> Response {
    if text.size() <= COMPRESSED || call.audit.as_ref().is_some_and(|record| record.holds_answers()) {
        return send(call, 200, JSON, text.whole());
    }
    if takes_gzip(call) {
        let pieces = Packed::new(text).map(|piece| piece.map_err(StreamError::from));
        compressed(respond::with_type(200, JSON, stream(futures_util::stream::iter(pieces))))
    } else {
        respond::with_type(200, JSON, stream(futures_util::stream::iter(text.map(Ok))))
    }
}

fn list_tree(call: &Call, res: &Resource, form: Form, items: Vec<Arc<Stored>>, meta: &ListMeta) -> Value {
    match form {
        // Its own text parses.
        Form::Object => serde_json::from_slice(&Text::new(res, items, meta).whole()).unwrap_or_default(),
        Form::Table(version) => {
            let objects: Vec<Value> = items.iter().map(|i| i.object()).collect();
            table(call, res, &objects, meta, version)
        }
        Form::Metadata(version) => {
            let items: Vec<Value> = items.iter().map(|i| partial(&i.object(), version)).collect();
            let (kind, api_version) = ("PartialObjectMetadataList", version.api_version());
            json!({"kind": kind, "apiVersion": api_version, "metadata": meta.to_value(), "items": items})
        }
    }
}

fn list_message(res: &Resource, form: Form, items: &[Arc<Stored>], meta: &ListMeta) -> Option<Vec<u8>> {
    let (api_version, kind) = match form {
        Form::Object => (res.api_version(), format!("{}List", res.kind)),
        Form::Metadata(version) | Form::Table(version) => {
            (version.api_version().to_string(), "PartialObjectMetadataList".to_string())
        }
    };
    let message = |item: &Arc<Stored>| match form {
        Form::Object => item.message(res),
        _ => partial_message(item).map(Bytes::from),
    };
    let messages: Vec<Bytes> = items.iter().map(message).collect::<Option<_>>()?;
    protobuf::list(&api_version, &kind, &meta.to_value(), &messages).ok()
}

fn partial_message(object: &Stored) -> Option<Vec<u8>> {
    protobuf::metadata(&object.object()).ok()
}

fn partial(object: &Value, version: Version) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": object["metadata"]})
}

/// A Table whose rows carry as much of their object as `includeObject` says.
fn table(call: &Call, res: &Resource, objects: &[Value], meta: &ListMeta, version: Version) -> Value {
    let mut table = printers::table(res, objects, &call.now);
    table["apiVersion"] = version.api_version().into();
    table["metadata"] = meta.to_value();
    let include = call.query.get("includeObject");
    if let Some(rows) = table.get_mut("rows").and_then(Value::as_array_mut) {
        for (row, object) in rows.iter_mut().zip(objects) {
            match include {
                "None" => {
                    row.as_object_mut().map(|r| r.remove("object"));
                }
                "Object" => row["object"] = object.clone(),
                _ => row["object"] = partial(object, version),
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_only_with_a_token() {
        let meta = ListMeta { revision: 5, continue_token: String::new(), remaining: Some(3) };
        assert_eq!(meta.to_value(), json!({"resourceVersion": "5"}));
        let meta = ListMeta { continue_token: "t".into(), ..meta };
        assert_eq!(meta.to_value(), json!({"resourceVersion": "5", "continue": "t", "remainingItemCount": 3}));
    }

    #[test]
    fn compression_is_negotiated() {
        assert!("br, gzip;q=1.0".split(',').any(is_gzip));
        assert!(!"br, gzip;q=0".split(',').any(is_gzip));
        let packed = pack(&[b'x'; 1000]).expect("packs");
        assert!(packed.len() < 100);
    }
}

//! The OpenAPI 2.0 document as the protobuf message of the gnostic project, which client-go asks for. Field numbers are those of its OpenAPIv2.proto.

use crate::protobuf::wire::Writer;
use serde_json::{Map, Value};

/// The media type that clients ask for; an older one has an `@` before the version.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
pub const OLD_MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Writes a document.
pub fn document(doc: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    text(&mut out, 1, &doc["swagger"]);
    nested(&mut out, 2, |out| {
        text(out, 1, &doc["info"]["title"]);
        text(out, 2, &doc["info"]["version"]);
    });
    nested(&mut out, 8, |out| each(&doc["paths"], |path, item| named(out, 2, path, |out| path_item(out, item))));
    nested(&mut out, 9, |out| each(&doc["definitions"], |name, def| named(out, 1, name, |out| schema(out, def))));
    for requirement in items(&doc["security"]) {
        let scopes = |out: &mut Writer, list: &Value| items(list).for_each(|scope| text(out, 1, scope));
        nested(&mut out, 12, |out| each(requirement, |name, list| named(out, 1, name, |out| scopes(out, list))));
    }
    nested(&mut out, 13, |out| {
        each(&doc["securityDefinitions"], |name, key| {
            named(out, 1, name, |out| nested(out, 2, |out| api_key(out, key)))
        });
    });
    extensions(&mut out, 16, doc);
    out.into_vec()
}

fn api_key(out: &mut Writer, key: &Value) {
    for (number, field) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
        text(out, number, &key[field]);
    }
}

fn path_item(out: &mut Writer, item: &Value) {
    const METHODS: [(u32, &str); 7] =
        [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")];
    for (number, method) in METHODS {
        if let Some(one) = item.get(method) {
            nested(out, number, |out| operation(out, one));
        }
    }
    items(&item["parameters"]).for_each(|one| nested(out, 9, |out| parameter(out, one)));
    extensions(out, 10, item);
}

fn operation(out: &mut Writer, op: &Value) {
    texts(out, 1, &op["tags"]);
    text(out, 3, &op["description"]);
    text(out, 5, &op["operationId"]);
    texts(out, 6, &op["produces"]);
    texts(out, 7, &op["consumes"]);
    items(&op["parameters"]).for_each(|one| nested(out, 8, |out| parameter(out, one)));
    nested(out, 9, |out| {
        each(&op["responses"], |code, one| named(out, 1, code, |out| nested(out, 1, |out| response(out, one))));
    });
    texts(out, 10, &op["schemes"]);
    extensions(out, 13, op);
}

fn response(out: &mut Writer, response: &Value) {
    text(out, 1, &response["description"]);
    if let Some(one) = response.get("schema") {
        nested(out, 2, |out| nested(out, 1, |out| schema(out, one)));
    }
}

/// A ParametersItem around a Parameter, which is one of the body or one elsewhere.
fn parameter(out: &mut Writer, parameter: &Value) {
    nested(out, 1, |out| {
        if parameter["in"] == "body" {
            nested(out, 1, |out| body_parameter(out, parameter));
            return;
        }
        // Fields of a query parameter are numbered one higher, for there is one more.
        let (which, shift) = match parameter["in"].as_str() {
            Some("header") => (1, 0),
            Some("path") => (4, 0),
            _ => (3, 1),
        };
        nested(out, 2, |out| nested(out, which, |out| plain_parameter(out, parameter, shift)));
    });
}

fn body_parameter(out: &mut Writer, parameter: &Value) {
    text(out, 1, &parameter["description"]);
    text(out, 2, &parameter["name"]);
    text(out, 3, &parameter["in"]);
    flag(out, 4, &parameter["required"]);
    nested(out, 5, |out| schema(out, &parameter["schema"]));
}

fn plain_parameter(out: &mut Writer, parameter: &Value, shift: u32) {
    flag(out, 1, &parameter["required"]);
    text(out, 2, &parameter["in"]);
    text(out, 3, &parameter["description"]);
    text(out, 4, &parameter["name"]);
    text(out, 5 + shift, &parameter["type"]);
    text(out, 6 + shift, &parameter["format"]);
    flag(out, 19 + shift, &parameter["uniqueItems"]);
}

fn schema(out: &mut Writer, schema_: &Value) {
    text(out, 1, &schema_["$ref"]);
    text(out, 2, &schema_["format"]);
    text(out, 4, &schema_["description"]);
    if let Some(default) = schema_.get("default") {
        nested(out, 5, |out| any(out, default));
    }
    texts(out, 19, &schema_["required"]);
    items(&schema_["enum"]).for_each(|value| nested(out, 20, |out| any(out, value)));
    match schema_.get("additionalProperties") {
        Some(Value::Bool(allowed)) => nested(out, 21, |out| out.varint(2, u64::from(*allowed))),
        Some(values) => nested(out, 21, |out| nested(out, 1, |out| schema(out, values))),
        None => {}
    }
    if let Some(kind) = schema_.get("type") {
        nested(out, 22, |out| text(out, 1, kind));
    }
    if let Some(element) = schema_.get("items") {
        nested(out, 23, |out| nested(out, 1, |out| schema(out, element)));
    }
    items(&schema_["allOf"]).for_each(|one| nested(out, 24, |out| schema(out, one)));
    if let Some(properties) = schema_.get("properties") {
        nested(out, 25, |out| each(properties, |name, one| named(out, 1, name, |out| schema(out, one))));
    }
    extensions(out, 31, schema_);
}

/// What begins with `x-`, as YAML, of which JSON is a part.
pub(super) fn extensions(out: &mut Writer, number: u32, object: &Value) {
    each(object, |name, value| {
        if name.starts_with("x-") {
            named(out, number, name, |out| any(out, value));
        }
    });
}

pub(super) fn any(out: &mut Writer, value: &Value) {
    out.bytes(2, value.to_string().as_bytes());
}

pub(super) fn text(out: &mut Writer, number: u32, value: &Value) {
    if let Some(text) = value.as_str() {
        out.bytes(number, text.as_bytes());
    }
}

pub(super) fn texts(out: &mut Writer, number: u32, list: &Value) {
    items(list).for_each(|item| text(out, number, item));
}

pub(super) fn flag(out: &mut Writer, number: u32, value: &Value) {
    if value == &Value::Bool(true) {
        out.varint(number, 1);
    }
}

pub(super) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

pub(super) fn each(map: &Value, mut act: impl FnMut(&str, &Value)) {
    map.as_object().into_iter().flat_map(Map::iter).for_each(|(key, value)| act(key, value));
}

pub(super) fn nested(out: &mut Writer, number: u32, fill: impl FnOnce(&mut Writer)) {
    let mut below = Writer::default();
    fill(&mut below);
    out.bytes(number, below.as_slice());
}

/// An entry of a map: name and value.
pub(super) fn named(out: &mut Writer, number: u32, name: &str, fill: impl FnOnce(&mut Writer)) {
    nested(out, number, |out| {
        out.bytes(1, name.as_bytes());
        nested(out, 2, fill);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_small_document() {
        let doc = json!({"swagger": "2.0", "info": {"title": "K", "version": "v1"}, "paths": {},
            "definitions": {"a": {"type": "object", "x-kubernetes-k": [1]}}});
        let bytes = document(&doc);
        assert!(bytes.starts_with(b"\x0a\x032.0\x12\x07\x0a\x01K\x12\x02v1"), "{bytes:x?}");
        for part in [&b"\x0a\x01a\x12"[..], b"\xb2\x01\x08\x0a\x06object", b"\x0a\x0ex-kubernetes-k\x12\x05\x12\x03[1]"]
        {
            assert!(bytes.windows(part.len()).any(|w| w == part), "{part:x?} in {bytes:x?}");
        }
    }

    #[test]
    fn parameters_know_their_place() {
        let write = |place: &str| {
            let mut out = Writer::default();
            parameter(&mut out, &json!({"name": "n", "in": place, "type": "string", "schema": {}}));
            out.into_vec()
        };
        // {parameter 1: {non-body 2: {query 3: …type 6}}}, {…: {path 4: …type 5}}, {1: {body 1: …}}
        assert_eq!(write("query")[..6], [0x0a, 0x16, 0x12, 0x14, 0x1a, 0x12]);
        assert!(write("query").ends_with(b"\x32\x06string") && write("path").ends_with(b"\x2a\x06string"));
        assert_eq!(write("body")[2], 0x0a);
    }
}

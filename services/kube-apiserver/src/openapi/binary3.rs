//! The OpenAPI 3.0 documents as protobuf messages of the gnostic project. Field numbers are those of its OpenAPIv3.proto.

use super::binary::{any, each, extensions, flag, items, named, nested, text, texts};
use crate::protobuf::wire::Writer;
use serde_json::Value;

/// The media type that clients ask for; an older one has an `@` before the version.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
pub const OLD_MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";

/// Writes a document.
pub fn document(doc: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    text(&mut out, 1, &doc["openapi"]);
    nested(&mut out, 2, |out| {
        text(out, 1, &doc["info"]["title"]);
        text(out, 6, &doc["info"]["version"]);
    });
    nested(&mut out, 4, |out| each(&doc["paths"], |path, item| named(out, 1, path, |out| path_item(out, item))));
    nested(&mut out, 5, |out| {
        let components = &doc["components"];
        nested(out, 1, |out| each(&components["schemas"], |name, one| named(out, 1, name, |out| schema(out, one))));
        nested(out, 7, |out| {
            each(&components["securitySchemes"], |name, one| {
                named(out, 1, name, |out| nested(out, 1, |out| security_scheme(out, one)));
            });
        });
    });
    out.into_vec()
}

fn security_scheme(out: &mut Writer, scheme: &Value) {
    for (number, field) in [(1, "type"), (2, "description"), (3, "name"), (4, "in")] {
        text(out, number, &scheme[field]);
    }
}

fn path_item(out: &mut Writer, item: &Value) {
    const METHODS: [(u32, &str); 7] =
        [(4, "get"), (5, "put"), (6, "post"), (7, "delete"), (8, "options"), (9, "head"), (10, "patch")];
    for (number, method) in METHODS {
        if let Some(one) = item.get(method) {
            nested(out, number, |out| operation(out, one));
        }
    }
    items(&item["parameters"]).for_each(|one| nested(out, 13, |out| parameter(out, one)));
    extensions(out, 14, item);
}

fn operation(out: &mut Writer, op: &Value) {
    texts(out, 1, &op["tags"]);
    text(out, 3, &op["description"]);
    text(out, 5, &op["operationId"]);
    items(&op["parameters"]).for_each(|one| nested(out, 6, |out| parameter(out, one)));
    if let Some(body) = op.get("requestBody") {
        nested(out, 7, |out| {
            nested(out, 1, |out| {
                text(out, 1, &body["description"]);
                content(out, 2, &body["content"]);
                flag(out, 3, &body["required"]);
            });
        });
    }
    nested(out, 8, |out| {
        each(&op["responses"], |code, one| {
            named(out, 2, code, |out| {
                nested(out, 1, |out| {
                    text(out, 1, &one["description"]);
                    content(out, 3, &one["content"]);
                });
            });
        });
    });
    extensions(out, 13, op);
}

/// A ParameterOrReference; ours are never references.
fn parameter(out: &mut Writer, parameter: &Value) {
    nested(out, 1, |out| {
        for (number, field) in [(1, "name"), (2, "in"), (3, "description")] {
            text(out, number, &parameter[field]);
        }
        flag(out, 4, &parameter["required"]);
        nested(out, 10, |out| schema(out, &parameter["schema"]));
        extensions(out, 14, parameter);
    });
}

fn content(out: &mut Writer, number: u32, media: &Value) {
    if media.is_object() {
        nested(out, number, |out| {
            each(media, |name, one| named(out, 1, name, |out| nested(out, 1, |out| schema(out, &one["schema"]))));
        });
    }
}

/// A SchemaOrReference.
fn schema(out: &mut Writer, value: &Value) {
    match value.get("$ref") {
        Some(target) => nested(out, 2, |out| text(out, 1, target)),
        None => nested(out, 1, |out| whole_schema(out, value)),
    }
}

fn whole_schema(out: &mut Writer, value: &Value) {
    flag(out, 20, &value["uniqueItems"]);
    texts(out, 23, &value["required"]);
    items(&value["enum"]).for_each(|one| nested(out, 24, |out| any(out, one)));
    text(out, 25, &value["type"]);
    for (number, field) in [(26, "allOf"), (27, "oneOf"), (28, "anyOf")] {
        items(&value[field]).for_each(|one| nested(out, number, |out| schema(out, one)));
    }
    if let Some(element) = value.get("items") {
        nested(out, 30, |out| nested(out, 1, |out| schema(out, element)));
    }
    if let Some(properties) = value.get("properties") {
        nested(out, 31, |out| each(properties, |name, one| named(out, 1, name, |out| schema(out, one))));
    }
    match value.get("additionalProperties") {
        Some(Value::Bool(allowed)) => nested(out, 32, |out| out.varint(2, u64::from(*allowed))),
        Some(values) => nested(out, 32, |out| nested(out, 1, |out| schema(out, values))),
        None => {}
    }
    if let Some(default) = value.get("default") {
        nested(out, 33, |out| scalar(out, default));
    }
    text(out, 34, &value["description"]);
    text(out, 35, &value["format"]);
    extensions(out, 36, value);
}

/// A default; the message has no place for one that is not a scalar.
fn scalar(out: &mut Writer, value: &Value) {
    match value {
        Value::Number(n) => out.fixed64(1, n.as_f64().unwrap_or_default().to_bits()),
        Value::Bool(b) => out.varint(2, u64::from(*b)),
        other => text(out, 3, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(act: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut out = Writer::default();
        act(&mut out);
        out.into_vec()
    }

    #[test]
    fn a_small_document() {
        let doc = json!({"openapi": "3.0.0", "info": {"title": "K", "version": "v1"}, "paths": {},
            "components": {"schemas": {"a": {"type": "object", "x-kubernetes-k": [1]}}}});
        let bytes = document(&doc);
        assert!(bytes.starts_with(b"\x0a\x053.0.0\x12\x07\x0a\x01K\x32\x02v1"), "{bytes:x?}");
        for part in [&b"\x0a\x01a\x12"[..], b"\xca\x01\x06object", b"\x0a\x0ex-kubernetes-k\x12\x05\x12\x03[1]"] {
            assert!(bytes.windows(part.len()).any(|w| w == part), "{part:x?} in {bytes:x?}");
        }
    }

    #[test]
    fn schemas_are_whole_or_refer() {
        let table = [
            (json!({"$ref": "#/a"}), &b"\x12\x05\x0a\x03#/a"[..]),
            (json!({"type": "b"}), b"\x0a\x04\xca\x01\x01b"),
            (json!({"default": true}), b"\x0a\x05\x8a\x02\x02\x10\x01"),
            (json!({"default": {}}), b"\x0a\x03\x8a\x02\x00"),
            (json!({"items": {"$ref": "r"}}), b"\x0a\x0a\xf2\x01\x07\x0a\x05\x12\x03\x0a\x01r"),
        ];
        for (value, want) in table {
            assert_eq!(written(|out| schema(out, &value)), want, "{value}");
        }
    }
}

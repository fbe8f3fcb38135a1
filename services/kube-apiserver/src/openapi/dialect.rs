//! Where OpenAPI 2.0 and 3.0 differ.

use serde_json::{Value, json};

/// A version of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    /// A reference to a type.
    pub(super) fn reference(self, name: &str) -> Value {
        match self {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Dialect::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }

    /// A parameter of a scalar type.
    pub(super) fn parameter(self, name: &str, place: &str, kind: &str, required: bool, unique: bool) -> Value {
        let mut parameter = json!({"name": name, "in": place});
        if unique {
            parameter["uniqueItems"] = true.into();
        }
        if required {
            parameter["required"] = true.into();
        }
        match self {
            Dialect::V2 => parameter["type"] = kind.into(),
            Dialect::V3 => parameter["schema"] = json!({"type": kind}),
        }
        parameter
    }

    /// One response of an operation.
    pub(super) fn response(self, description: &str, schema: Option<Value>, media: &[&str]) -> Value {
        let mut response = json!({"description": description});
        if let Some(schema) = schema {
            match self {
                Dialect::V2 => response["schema"] = schema,
                Dialect::V3 => response["content"] = content(&schema, media),
            }
        }
        response
    }

    /// Puts a request body where the dialect has it.
    pub(super) fn add_body(
        self,
        operation: &mut Value,
        parameters: &mut Vec<Value>,
        schema: Value,
        required: bool,
        media: &[&str],
    ) {
        match self {
            Dialect::V2 => {
                let mut body = json!({"name": "body", "in": "body", "schema": schema});
                if required {
                    body["required"] = true.into();
                }
                operation["consumes"] = json!(media);
                parameters.push(body);
            }
            Dialect::V3 => {
                operation["requestBody"] = json!({"content": content(&schema, media)});
                if required {
                    operation["requestBody"]["required"] = true.into();
                }
            }
        }
    }
}

fn content(schema: &Value, media: &[&str]) -> Value {
    Value::Object(media.iter().map(|m| (m.to_string(), json!({"schema": schema}))).collect())
}

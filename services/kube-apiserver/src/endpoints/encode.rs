//! Objects and lists as responses, in the form the client asked for.

use crate::errors::ApiError;
use crate::printers;
use crate::registry::Resource;
use crate::server::body::Response;
use crate::server::handler::Call;
use crate::server::negotiate::{Accepted, Form};
use crate::server::respond;
use crate::storage::Stored;
use serde_json::{Value, json};
use std::sync::Arc;

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
    fn to_value(&self) -> Value {
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
    let mut response = match accepted {
        Accepted { form: Form::Object, yaml: false } => respond::bytes(status, object.json.clone()),
        Accepted { form: Form::Object, yaml: true } => yaml(status, &object.object())?,
        Accepted { form, .. } => {
            let meta = ListMeta { revision: object.revision, ..ListMeta::default() };
            respond::json(status, &transformed(call, res, form, &object.object(), &meta))
        }
    };
    respond::add_warnings(response.headers_mut(), warnings);
    respond::add_warnings(response.headers_mut(), &call.warnings.lock());
    Ok(response)
}

/// A value that is not an object of the table: Scale, Status, reviews.
pub fn value(call: &Call, status: u16, value: &Value) -> Result<Response, ApiError> {
    match call.accepted()? {
        Accepted { form: Form::Object, yaml: false } => Ok(respond::json(status, value)),
        Accepted { form: Form::Object, yaml: true } => yaml(status, value),
        // It has no rows and no metadata to show.
        _ => Err(ApiError::not_acceptable(crate::server::negotiate::WRITTEN)),
    }
}

/// A single object as Table or metadata.
pub fn transformed(call: &Call, res: &Resource, form: Form, object: &Value, meta: &ListMeta) -> Value {
    match form {
        Form::Table => table(call, res, std::slice::from_ref(object), meta),
        Form::Metadata => partial(object),
        Form::Object => object.clone(),
    }
}

fn yaml(status: u16, value: &Value) -> Result<Response, ApiError> {
    let text = serde_saphyr::to_string(value).map_err(ApiError::internal)?;
    Ok(respond::with_type(status, "application/yaml", crate::server::body::full(text)))
}

/// A list.
pub fn list(call: &Call, res: &Resource, items: &[Arc<Stored>], meta: &ListMeta) -> Result<Response, ApiError> {
    let accepted = call.accepted()?;
    match accepted.form {
        Form::Object if !accepted.yaml => Ok(respond::bytes(200, joined(res, items, meta))),
        Form::Object => {
            let text: Value = serde_json::from_slice(&joined(res, items, meta)).map_err(ApiError::internal)?;
            yaml(200, &text)
        }
        Form::Table => {
            let objects: Vec<Value> = items.iter().map(|i| i.object()).collect();
            Ok(respond::json(200, &table(call, res, &objects, meta)))
        }
        Form::Metadata => {
            let items: Vec<Value> = items.iter().map(|i| partial(&i.object())).collect();
            let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta.to_value(), "items": items});
            Ok(respond::json(200, &list))
        }
    }
}

/// The list as text, from the items' own texts.
fn joined(res: &Resource, items: &[Arc<Stored>], meta: &ListMeta) -> Vec<u8> {
    let size: usize = items.iter().map(|i| i.json.len() + 1).sum();
    let mut out = Vec::with_capacity(size + 256);
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
        res.kind,
        res.api_version(),
        meta.to_value()
    );
    out.extend_from_slice(head.as_bytes());
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&item.json);
    }
    out.extend_from_slice(b"]}");
    out
}

fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// A Table whose rows carry as much of their object as `includeObject` says.
fn table(call: &Call, res: &Resource, objects: &[Value], meta: &ListMeta) -> Value {
    let mut table = printers::table(res, objects, &call.now);
    table["metadata"] = meta.to_value();
    let include = call.query.get("includeObject");
    if let Some(rows) = table.get_mut("rows").and_then(Value::as_array_mut) {
        for (row, object) in rows.iter_mut().zip(objects) {
            match include {
                "None" => {
                    row.as_object_mut().map(|r| r.remove("object"));
                }
                "Object" => row["object"] = object.clone(),
                _ => row["object"] = partial(object),
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
}

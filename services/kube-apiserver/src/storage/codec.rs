//! Objects as values of the store: JSON text without a resourceVersion, which is the store's own revision of the key.

use crate::errors::ApiError;
use crate::protobuf;
use crate::registry::Resource;
use apimachinery::meta;
use apimachinery::schema::builtin;
use bytes::Bytes;
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::OnceLock;

/// An object as it is served: encoded once, with what selectors look at beside it. The tree is not kept: ten times the size, rarely needed.
#[derive(Debug)]
pub struct Stored {
    /// The store's revision: the resourceVersion.
    pub revision: i64,
    /// The namespace, or empty.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The labels.
    pub labels: Option<Map<String, Value>>,
    /// The kind's selectable fields besides name and namespace.
    pub fields: Vec<(&'static str, String)>,
    /// The JSON text, resourceVersion included.
    pub json: Bytes,
    /// The value in the store should be written anew: another key is in use now.
    pub stale: bool,
    /// The protobuf message, made when first asked for; `None` in it: the kind has none.
    pub message: OnceLock<Option<Bytes>>,
}

impl Stored {
    /// The object as a tree.
    pub fn object(&self) -> Value {
        // The text was written by serde_json from a tree; it cannot fail to parse.
        serde_json::from_slice(&self.json).unwrap_or(Value::Null)
    }

    /// Writes the object as an item of a typed list, which says once for all what they are; `head` is [`head`] of its resource.
    pub fn write_item(&self, head: &[u8], out: &mut Vec<u8>) {
        if let Some(rest) = self.json.strip_prefix(head) {
            out.push(b'{');
            out.extend_from_slice(rest);
        } else {
            let mut object = self.object();
            object.as_object_mut().map(|o| TYPE.map(|field| o.remove(field)));
            out.extend_from_slice(&text(&object));
        }
    }

    /// The object as a protobuf message without its envelope, if its kind has one.
    pub fn message(&self, res: &Resource) -> Option<Bytes> {
        let make = || {
            let ty = builtin().kind(res.group, res.version, res.kind)?;
            protobuf::message(&self.object(), ty).ok().map(Bytes::from)
        };
        self.message.get_or_init(make).clone()
    }

    /// The object's uid; no tree is built for it, since every request with a bound token asks.
    pub fn uid(&self) -> String {
        #[derive(Deserialize, Default)]
        struct Metadata {
            #[serde(default)]
            uid: String,
        }
        #[derive(Deserialize, Default)]
        struct Object {
            #[serde(default)]
            metadata: Metadata,
        }
        serde_json::from_slice::<Object>(&self.json).unwrap_or_default().metadata.uid
    }

    /// The key below the resource's prefix.
    pub fn key(&self, res: &Resource) -> String {
        super::keys::relative(res, &self.namespace, &self.name)
    }
}

/// The text to store. Takes the resourceVersion out of the object.
pub fn encode(res: &Resource, object: &mut Value) -> Result<Vec<u8>, ApiError> {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    match res.strategy.stored_form(object) {
        Some(stored) => serde_json::to_vec(&stored),
        None => serde_json::to_vec(object),
    }
    .map_err(ApiError::internal)
}

/// How the text of every object of a resource begins.
pub fn head(res: &Resource) -> Vec<u8> {
    format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", res.kind, res.api_version()).into_bytes()
}

/// What an object is.
const TYPE: [&str; 2] = ["kind", "apiVersion"];

/// An object's members in the order of upstream's text: what it is comes first.
struct Typed<'a>(&'a Map<String, Value>);

impl Serialize for Typed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for field in TYPE {
            if let Some(value) = self.0.get(field) {
                map.serialize_entry(field, value)?;
            }
        }
        for (field, value) in self.0.iter().filter(|(field, _)| !TYPE.contains(&field.as_str())) {
            map.serialize_entry(field, value)?;
        }
        map.end()
    }
}

/// An object as it is served. A tree of JSON values always has a text.
fn text(object: &Value) -> Vec<u8> {
    match object {
        Value::Object(map) => serde_json::to_vec(&Typed(map)),
        other => serde_json::to_vec(other),
    }
    .unwrap_or_default()
}

/// An object just read.
pub fn decode(res: &Resource, value: &[u8], revision: i64) -> Result<Stored, ApiError> {
    let mut object: Value = serde_json::from_slice(value)
        .map_err(|e| ApiError::internal(format!("the store holds a {} that is not JSON: {e}", res.kind)))?;
    res.strategy.served_form(&mut object);
    stored(res, object, revision)
}

/// An object at a known revision; 0 for one that was never stored.
pub fn stored(res: &Resource, mut object: Value, revision: i64) -> Result<Stored, ApiError> {
    if revision > 0 {
        set_version(&mut object, revision);
    }
    Ok(Stored {
        revision,
        namespace: meta::namespace(&object).to_string(),
        name: meta::name(&object).to_string(),
        labels: meta::labels(&object).filter(|l| !l.is_empty()).cloned(),
        fields: res.strategy.selectable_fields(&object),
        json: text(&object).into(),
        stale: false,
        message: OnceLock::new(),
    })
}

/// Writes the revision into the object's metadata.
pub fn set_version(object: &mut Value, revision: i64) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".into(), Value::String(revision.to_string()));
    }
}

/// The text of the same object at another revision.
pub fn at_version(stored: &Stored, revision: i64) -> Bytes {
    let mut object = stored.object();
    set_version(&mut object, revision);
    text(&object).into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry;

    #[test]
    fn items_of_lists_do_not_repeat_what_they_are() {
        let res = registry::lookup("", "v1", "configmaps").expect("a row");
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"kind": "x"}, "metadata": {"name": "m"}});
        let one = stored(res, object, 7).expect("an object");
        let begins = r#"{"kind":"ConfigMap","apiVersion":"v1","data":{"kind":"x"},"#;
        assert!(one.json.starts_with(begins.as_bytes()), "{}", String::from_utf8_lossy(&one.json));
        let want = json!({"data": {"kind": "x"}, "metadata": {"name": "m", "resourceVersion": "7"}});
        let item = |stored: &Stored| -> Value {
            let mut out = Vec::new();
            stored.write_item(&head(res), &mut out);
            serde_json::from_slice(&out).expect("JSON")
        };
        assert_eq!(item(&one), want);
        let sorted = Stored { json: serde_json::to_vec(&one.object()).expect("text").into(), ..one };
        assert_eq!(item(&sorted), want, "whatever the order");
    }
}

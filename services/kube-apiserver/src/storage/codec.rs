//! Objects as values of the store: JSON text without a resourceVersion, which is the store's own revision of the key.

use crate::errors::ApiError;
use crate::protobuf;
use crate::registry::Resource;
use apimachinery::meta;
use apimachinery::schema::builtin;
use bytes::Bytes;
use serde::Deserialize;
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
    let json = serde_json::to_vec(&object).map_err(ApiError::internal)?;
    Ok(Stored {
        revision,
        namespace: meta::namespace(&object).to_string(),
        name: meta::name(&object).to_string(),
        labels: meta::labels(&object).filter(|l| !l.is_empty()).cloned(),
        fields: res.strategy.selectable_fields(&object),
        json: json.into(),
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
    serde_json::to_vec(&object).unwrap_or_default().into()
}

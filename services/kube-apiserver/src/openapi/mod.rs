//! The OpenAPI documents: what kubectl reads to explain, to validate and to compute patches. Made from the schema table and the resource table when
//! first asked for, then kept compressed.
//!
//! [`paths`] turns rows into operations, [`definitions`] types into schemas; the two versions of OpenAPI differ only in their [`Dialect`].

pub mod binary;
pub mod binary3;
mod definitions;
mod dialect;
mod document;
mod operation;
mod parameters;
mod paths;
#[cfg(test)]
mod tests;

use crate::registry::{self, Resource, Subresource, Verb};
use api_descriptions::Descriptions;
use apimachinery::schema::{Schemas, builtin};
use dialect::Dialect;
pub use document::Document;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

const VERSION: &str = "v1.35.0";

/// What a document shows of a resource.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// API group, empty for the core group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Plural name.
    pub plural: &'a str,
    /// The kind.
    pub kind: &'a str,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// The verbs it answers.
    pub verbs: &'a [Verb],
    /// What lies below an object.
    pub subresources: &'a [Subresource],
}

impl<'a> From<&'a Resource> for Row<'a> {
    fn from(resource: &'a Resource) -> Self {
        let Resource { group, version, plural, kind, namespaced, verbs, subresources, .. } = *resource;
        Self { group, version, plural, kind, namespaced, verbs, subresources }
    }
}

impl Row<'_> {
    /// `api/v1` or `apis/apps/v1`: the path of the group and version, and the name of its document.
    fn group_version(&self) -> String {
        if self.group.is_empty() {
            format!("api/{}", self.version)
        } else {
            format!("apis/{}/{}", self.group, self.version)
        }
    }
}

fn rows() -> Vec<Row<'static>> {
    registry::table().iter().map(Row::from).collect()
}

/// The OpenAPI 2.0 document.
pub fn v2() -> &'static Document {
    static DOCUMENT: LazyLock<Document> = LazyLock::new(|| serialise(&swagger(builtin(), &rows())));
    &DOCUMENT
}

/// The OpenAPI 2.0 document as protobuf.
pub fn v2_binary() -> &'static Document {
    static DOCUMENT: LazyLock<Document> =
        LazyLock::new(|| Document::new(&binary::document(&swagger(builtin(), &rows()))));
    &DOCUMENT
}

/// The list of OpenAPI 3.0 documents, with a hash in each address so that clients may keep what they have.
pub fn v3_index() -> &'static Document {
    static INDEX: LazyLock<Document> = LazyLock::new(|| serialise(&index(v3_documents())));
    &INDEX
}

/// The OpenAPI 3.0 document of a group and version, named as in the index: `api/v1`, `apis/apps/v1`.
pub fn v3(group_version: &str) -> Option<&'static Document> {
    v3_documents().get(group_version)
}

fn v3_documents() -> &'static BTreeMap<String, Document> {
    static DOCUMENTS: LazyLock<BTreeMap<String, Document>> = LazyLock::new(|| {
        let (texts, rows) = (Descriptions::unpack(), rows());
        openapi(builtin(), &texts, &rows).map(|(name, document)| (name, serialise(&document))).collect()
    });
    &DOCUMENTS
}

/// As [`v3`], as protobuf; it goes by the hash of the text.
pub fn v3_binary(group_version: &str) -> Option<&'static Document> {
    static DOCUMENTS: LazyLock<BTreeMap<String, Document>> = LazyLock::new(|| {
        let (texts, rows) = (Descriptions::unpack(), rows());
        let binary = |(name, document): (String, Value)| {
            let hash = v3(&name).map(|text| text.hash.clone()).unwrap_or_default();
            (name, Document::with_hash(&binary3::document(&document), hash))
        };
        openapi(builtin(), &texts, &rows).map(binary).collect()
    });
    DOCUMENTS.get(group_version)
}

fn serialise(document: &Value) -> Document {
    Document::new(document.to_string().as_bytes())
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": VERSION})
}

fn bearer() -> Value {
    json!({"BearerToken": {"description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey"}})
}

fn swagger(schemas: &Schemas, rows: &[Row<'_>]) -> Value {
    let texts = Descriptions::unpack();
    let mut types = definitions::Definitions::new(schemas, &texts, Dialect::V2);
    let mut paths = Map::new();
    for row in rows {
        paths::add(row, &mut types, &mut paths);
    }
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths,
        "definitions": types.finish(),
        "security": [{"BearerToken": []}],
        "securityDefinitions": bearer(),
    })
}

/// One document after the other: all at once they would be large.
fn openapi<'a>(
    schemas: &'a Schemas,
    texts: &'a Descriptions,
    rows: &[Row<'_>],
) -> impl Iterator<Item = (String, Value)> + use<'a> {
    let mut parts: BTreeMap<String, (definitions::Definitions<'a>, Map<String, Value>)> = BTreeMap::new();
    for row in rows {
        let (types, paths) = parts
            .entry(row.group_version())
            .or_insert_with(|| (definitions::Definitions::new(schemas, texts, Dialect::V3), Map::new()));
        paths::add(row, types, paths);
    }
    let document = |(types, paths): (definitions::Definitions<'a>, Map<String, Value>)| {
        json!({
            "openapi": "3.0.0",
            "info": info(),
            "paths": paths,
            "components": {"schemas": types.finish(), "securitySchemes": bearer()},
        })
    };
    parts.into_iter().map(move |(name, part)| (name, document(part)))
}

fn index(documents: &BTreeMap<String, Document>) -> Value {
    let entry = |(name, document): (&String, &Document)| {
        let address = format!("/openapi/v3/{name}?hash={}", document.hash);
        (name.clone(), json!({"serverRelativeURL": address}))
    };
    json!({"paths": documents.iter().map(entry).collect::<Map<_, _>>()})
}

//! Types as schemas. A type is published when something published refers to it.

use super::dialect::Dialect;
use api_descriptions::Descriptions;
use apimachinery::schema::{Field, ListType, Schemas, Shape, TypeRef};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

/// A type of which one field says which of the others counts: the type, that field, and the others with what it says for each.
type Union = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const UNIONS: &[Union] = &[
    ("io.k8s.api.core.v1.AppArmorProfile", "type", &[("localhostProfile", "LocalhostProfile")]),
    ("io.k8s.api.core.v1.SeccompProfile", "type", &[("localhostProfile", "LocalhostProfile")]),
    ("io.k8s.api.flowcontrol.v1.LimitResponse", "type", &[("queuing", "Queuing")]),
    (
        "io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationSpec",
        "type",
        &[("exempt", "Exempt"), ("limited", "Limited")],
    ),
    (
        "io.k8s.api.flowcontrol.v1.Subject",
        "kind",
        &[("group", "Group"), ("serviceAccount", "ServiceAccount"), ("user", "User")],
    ),
];

/// The types of one document, collected while its paths are written.
pub(super) struct Definitions<'a> {
    schemas: &'a Schemas,
    texts: &'a Descriptions,
    dialect: Dialect,
    wanted: BTreeMap<&'a str, TypeRef<'a>>,
}

impl<'a> Definitions<'a> {
    pub(super) fn new(schemas: &'a Schemas, texts: &'a Descriptions, dialect: Dialect) -> Self {
        Self { schemas, texts, dialect, wanted: BTreeMap::new() }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// A reference to a kind, if the table has it.
    pub(super) fn kind(&mut self, group: &str, version: &str, kind: &str) -> Option<Value> {
        let ty = self.schemas.kind(group, version, kind)?;
        Some(self.refer(ty))
    }

    /// A reference to a type of the meta group.
    pub(super) fn meta(&mut self, name: &str) -> Option<Value> {
        let ty = self.schemas.named(&format!("{META}.{name}"))?;
        Some(self.refer(ty))
    }

    /// Writes the wanted types and whatever they refer to.
    pub(super) fn finish(mut self) -> Value {
        let mut written: BTreeMap<&'a str, Value> = BTreeMap::new();
        while let Some((name, ty)) = self.wanted.pop_first() {
            // refer() may want a written type again; each is written once
            if !written.contains_key(name) {
                let definition = self.definition(ty);
                written.insert(name, definition);
            }
        }
        Value::Object(written.into_iter().map(|(name, definition)| (name.to_string(), definition)).collect())
    }

    fn refer(&mut self, ty: TypeRef<'a>) -> Value {
        self.wanted.insert(ty.name(), ty);
        self.dialect.reference(ty.name())
    }

    fn refer_named(&mut self, name: &str) -> Value {
        match self.schemas.named(name) {
            Some(ty) => self.refer(ty),
            None => json!({}),
        }
    }

    fn definition(&mut self, ty: TypeRef<'a>) -> Value {
        let mut out = match ty.shape() {
            Shape::Struct(_) => self.structure(ty),
            Shape::Time | Shape::MicroTime => json!({"type": "string", "format": "date-time"}),
            Shape::Object(_) => json!({"type": "object"}),
            Shape::Quantity if self.dialect == Dialect::V3 => {
                json!({"oneOf": [{"type": "string"}, {"type": "number"}]})
            }
            Shape::Quantity => json!({"type": "string"}),
            Shape::IntOrString if self.dialect == Dialect::V3 => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
            Shape::IntOrString => json!({"type": "string", "format": "int-or-string"}),
            _ => json!({}),
        };
        if let Some(text) = self.texts.of(ty.name()) {
            out["description"] = text.into();
        }
        if ty.atomic() {
            out["x-kubernetes-map-type"] = "atomic".into();
        }
        if let Some((_, by, fields)) = UNIONS.iter().find(|(name, ..)| *name == ty.name()) {
            let fields: Map<_, _> = fields.iter().map(|(field, said)| ((*field).into(), (*said).into())).collect();
            out["x-kubernetes-unions"] = json!([{"discriminator": by, "fields-to-discriminateBy": fields}]);
        }
        if let Some(gvk) = ty.gvk() {
            out["x-kubernetes-group-version-kind"] =
                json!([{"group": gvk.group, "version": gvk.version, "kind": gvk.kind}]);
        }
        out
    }

    fn structure(&mut self, ty: TypeRef<'a>) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in ty.fields() {
            properties
                .insert(field.name().to_string(), self.field(field, self.texts.of_field(ty.name(), field.name())));
            if field.required() {
                required.push(field.name());
            }
        }
        let mut out = json!({"type": "object"});
        if !properties.is_empty() {
            out["properties"] = properties.into();
        }
        if !required.is_empty() {
            out["required"] = json!(required);
        }
        out
    }

    fn field(&mut self, field: Field<'a>, description: Option<&str>) -> Value {
        let mut rules = Map::new();
        if let Some(text) = description {
            rules.insert("description".into(), text.into());
        }
        let mut rule = |name: &str, value: Value| rules.insert(format!("x-kubernetes-{name}"), value);
        match field.list_type() {
            Some(ListType::Atomic) => drop(rule("list-type", "atomic".into())),
            Some(ListType::Set) => drop(rule("list-type", "set".into())),
            Some(ListType::Map) => {
                rule("list-type", "map".into());
                rule("list-map-keys", field.list_map_keys().collect());
            }
            None => {}
        }
        if field.atomic_map() {
            rule("map-type", "atomic".into());
        }
        let strategy = field.patch_strategy();
        let names = [(strategy.merge, "merge"), (strategy.replace, "replace"), (strategy.retain_keys, "retainKeys")];
        let names: Vec<&str> = names.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        if !names.is_empty() {
            rule("patch-strategy", names.join(",").into());
        }
        if let Some(key) = field.merge_key() {
            rule("patch-merge-key", key.into());
        }
        if let (Some(default), Dialect::V3) = (field.default(), self.dialect) {
            rules.insert("default".into(), default.clone());
        }
        self.with_rules(field.shape(), rules)
    }

    /// OpenAPI 3.0 ignores what stands beside a reference, so there the reference is wrapped.
    fn with_rules(&mut self, shape: Shape<'a>, rules: Map<String, Value>) -> Value {
        let mut schema = self.shape(shape);
        if rules.is_empty() {
            return schema;
        }
        if self.dialect == Dialect::V3 && schema.get("$ref").is_some() {
            schema = json!({"allOf": [schema]});
        }
        if let Value::Object(map) = &mut schema {
            map.extend(rules);
        }
        schema
    }

    fn shape(&mut self, shape: Shape<'a>) -> Value {
        match shape {
            Shape::Any(Some(ty)) | Shape::Object(Some(ty)) | Shape::Struct(ty) => self.refer(ty),
            Shape::Any(None) => json!({}),
            Shape::Object(None) => json!({"type": "object"}),
            Shape::String => json!({"type": "string"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Time => self.refer_named(&format!("{META}.Time")),
            Shape::MicroTime => self.refer_named(&format!("{META}.MicroTime")),
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::Quantity => self.refer_named(QUANTITY),
            Shape::IntOrString => self.refer_named(INT_OR_STRING),
            Shape::List(element) => {
                let items = self.shape(element.shape());
                json!({"type": "array", "items": items})
            }
            Shape::Map(element) => {
                let values = self.shape(element.shape());
                json!({"type": "object", "additionalProperties": values})
            }
        }
    }
}

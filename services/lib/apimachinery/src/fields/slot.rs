//! A place in an object: what may stand there and how it merges.

use super::ListError;
use super::set::path_text;
use crate::Map;
use crate::schema::{Field, ListType, Shape, TypeRef};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A place in an object: what may stand there, and the field that leads there, if one does.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    shape: Shape<'a>,
    field: Option<Field<'a>>,
}

/// How a value is owned and merged.
#[derive(Clone, Copy)]
pub(super) enum Structure<'a> {
    /// As a whole.
    Leaf,
    /// Field by field, by this type.
    Struct(TypeRef<'a>),
    /// Key by key, each value being such a place.
    Map(Slot<'a>),
    /// Element by element.
    List(List<'a>),
}

/// A list whose elements have identities.
#[derive(Clone, Copy)]
pub(super) struct List<'a> {
    /// What an element is.
    pub element: Slot<'a>,
    field: Field<'a>,
    keyed: bool,
}

impl<'a> Slot<'a> {
    /// The object itself.
    pub fn root(ty: TypeRef<'a>) -> Self {
        Self::bare(ty.shape())
    }

    fn bare(shape: Shape<'a>) -> Self {
        Self { shape, field: None }
    }

    /// How `value`, found here, is owned.
    pub fn structure(self, value: &Value) -> Structure<'a> {
        if self.field.is_some_and(|f| f.atomic_map()) {
            return Structure::Leaf;
        }
        match (self.shape, value) {
            (Shape::Struct(ty), Value::Object(_) | Value::Null) if !ty.atomic() => Structure::Struct(ty),
            (Shape::Map(element), Value::Object(_) | Value::Null) => Structure::Map(Self::bare(element.shape())),
            // Free JSON: objects merge, lists do not.
            (Shape::Any(_) | Shape::Object(_), Value::Object(_)) => Structure::Map(Self::bare(Shape::Any(None))),
            (Shape::List(element), Value::Array(_) | Value::Null) => {
                let Some(field) = self.field else { return Structure::Leaf };
                let strategy = field.patch_strategy();
                let keyed = match field.list_type() {
                    Some(ListType::Map) => true,
                    Some(ListType::Set) => false,
                    None if strategy.merge => field.merge_key().is_some(),
                    Some(ListType::Atomic) | None => return Structure::Leaf,
                };
                Structure::List(List { element: Self::bare(element.shape()), field, keyed })
            }
            _ => Structure::Leaf,
        }
    }

    /// What stands here as soon as its parent is there, without being owned for itself: upstream holds it by value or always writes it. The schema does not say which
    /// fields are such; those that must be present and the halves of an object are.
    pub fn implied(self) -> Option<&'static Value> {
        static EMPTY: LazyLock<Value> = LazyLock::new(|| json!({}));
        let field = self.field?;
        let half = matches!(field.name(), "metadata" | "spec" | "status" | "strategy" | "updateStrategy");
        match self.shape {
            Shape::Struct(ty) if !ty.atomic() && (half || field.required()) => Some(&EMPTY),
            Shape::List(_) if field.required() => Some(&Value::Null),
            _ => None,
        }
    }
}

/// The place of a struct's field; what the type does not know is free JSON.
pub(super) fn field_slot<'a>(ty: TypeRef<'a>, name: &str) -> (Slot<'a>, bool) {
    match ty.field(name) {
        Some(field) => (Slot { shape: field.shape(), field: Some(field) }, true),
        None => (Slot::bare(Shape::Any(None)), false),
    }
}

impl List<'_> {
    /// The step that names an element.
    pub fn step(&self, item: &Value) -> Result<String, String> {
        if !self.keyed {
            return Ok(format!("v:{item}"));
        }
        let names: Vec<&str> = match self.field.list_type() {
            Some(_) => self.field.list_map_keys().collect(),
            None => self.field.merge_key().into_iter().collect(),
        };
        let default = |name: &str| match self.element.shape {
            Shape::Struct(ty) => ty.field(name)?.default(),
            _ => None,
        };
        let keys: Map = names
            .iter()
            .filter_map(|name| Some((name.to_string(), item.get(name).or_else(|| default(name))?.clone())))
            .collect();
        if keys.is_empty() {
            let why = "(and doesn't have default values for any key fields)";
            return Err(format!("associative list with keys has an element that omits all key fields {names:?} {why}"));
        }
        Ok(format!("k:{}", Value::Object(keys)))
    }

    /// The elements with their steps. Those that have none are left out, of several with the same step all are there.
    pub fn steps<'v>(&self, items: &'v [Value]) -> Vec<(String, &'v Value)> {
        items.iter().filter_map(|item| Some((self.step(item).ok()?, item))).collect()
    }

    /// As [`Self::steps`] if `lenient`, else for a list that must name every element once.
    pub fn steps_unless<'v>(
        &self,
        lenient: bool,
        path: &str,
        items: &'v [Value],
    ) -> Result<Vec<(String, &'v Value)>, ListError> {
        if lenient {
            return Ok(self.steps(items));
        }
        let refuse = |why: String| ListError { path: path.to_string(), why };
        let mut out: Vec<(String, &'v Value)> = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let step = self.step(item).map_err(|why| refuse(format!("element {index}: {why}")))?;
            if out.iter().any(|(known, _)| *known == step) {
                return Err(refuse(format!("duplicate entries for key {}", path_text(&step))));
            }
            out.push((step, item));
        }
        Ok(out)
    }
}

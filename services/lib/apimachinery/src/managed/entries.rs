//! metadata.managedFields as data.

use super::Writer;
use crate::fields::FieldSet;
use serde_json::{Map, Value, json};

/// How a manager came to own its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// It applies them.
    Apply,
    /// It wrote them by POST, PUT or another patch.
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// One manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub manager: String,
    /// How it owns.
    pub operation: Operation,
    /// The version its paths are written in.
    pub api_version: String,
    /// The subresource it writes through, or empty.
    pub subresource: String,
    /// Its last change, RFC 3339.
    pub time: Option<String>,
    /// What it owns.
    pub fields: FieldSet,
}

/// A field that another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager, as messages describe it.
    pub manager: String,
    /// The field: `.spec.replicas`.
    pub field: String,
}

impl Entry {
    /// Parses one element of managedFields.
    fn parse(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_string();
        let operation = match entry["operation"].as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        if !matches!(entry["fieldsType"].as_str(), Some("FieldsV1")) {
            return None;
        }
        Some(Self {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: entry["time"].as_str().map(str::to_string),
            fields: FieldSet::parse(&entry["fieldsV1"])?,
        })
    }

    fn to_value(&self) -> Value {
        let mut out = Map::new();
        for (name, text) in [
            ("manager", self.manager.as_str()),
            ("operation", self.operation.name()),
            ("apiVersion", &self.api_version),
            ("subresource", &self.subresource),
            ("time", self.time.as_deref().unwrap_or_default()),
        ] {
            if !text.is_empty() {
                out.insert(name.into(), text.into());
            }
        }
        out.insert("fieldsType".into(), json!("FieldsV1"));
        out.insert("fieldsV1".into(), self.fields.to_value());
        Value::Object(out)
    }

    /// Whether two entries are of one manager. One that applies keeps its entry through versions.
    pub fn is_same(&self, operation: Operation, writer: &Writer<'_>) -> bool {
        self.operation == operation
            && self.manager == writer.manager
            && self.subresource == writer.subresource
            && (operation == Operation::Apply || self.api_version == writer.api_version)
    }

    /// As messages describe it.
    pub fn description(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text = format!("{text} using {}", self.api_version);
        }
        text
    }
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers(pub Vec<Entry>);

impl Managers {
    /// Reads an object's managedFields; `None` if they are not in their format.
    pub fn of(object: &Value) -> Option<Self> {
        let Some(list) = object["metadata"]["managedFields"].as_array() else { return Some(Self::default()) };
        list.iter().map(Entry::parse).collect::<Option<Vec<_>>>().map(Self)
    }

    /// In upstream's order: those that apply first, then by age.
    pub fn to_value(&self) -> Value {
        let mut entries: Vec<&Entry> = self.0.iter().collect();
        entries.sort_by(|a, b| {
            let key = |e: &Entry| (e.operation, e.time.clone().unwrap_or_default());
            let name = |e: &Entry| (e.manager.clone(), e.api_version.clone(), e.subresource.clone());
            key(a).cmp(&key(b)).then_with(|| name(a).cmp(&name(b)))
        });
        entries.into_iter().map(Entry::to_value).collect()
    }

    /// Writes them into the object.
    pub fn write(&self, object: &mut Value) {
        let metadata = crate::meta::metadata_mut(object);
        if self.0.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".into(), self.to_value());
        }
    }

    /// Forgets managers that own nothing.
    pub fn drop_empty(&mut self) {
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// Takes an entry out.
    pub fn take(&mut self, operation: Operation, writer: &Writer<'_>) -> Option<Entry> {
        let at = self.0.iter().position(|entry| entry.is_same(operation, writer))?;
        Some(self.0.remove(at))
    }
}

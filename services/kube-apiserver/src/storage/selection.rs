//! Which objects a list or watch is about: label and field selectors over what [`Stored`] keeps beside the text.

use super::codec::Stored;
use crate::errors::ApiError;
use crate::registry::Resource;
use apimachinery::selector::{FieldSelector, LabelSelector};
use serde_json::json;

/// A pair of selectors; the default matches everything.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    labels: Option<LabelSelector>,
    fields: FieldSelector,
    name: Option<String>,
}

impl Selection {
    /// Parses query parameters; fields the kind does not offer are refused.
    pub fn parse(res: &Resource, labels: &str, fields: &str) -> Result<Self, ApiError> {
        let labels = if labels.trim().is_empty() {
            None
        } else {
            Some(LabelSelector::parse(labels).map_err(|e| ApiError::bad_request(e.to_string()))?)
        };
        let fields = FieldSelector::parse(fields).map_err(|e| ApiError::bad_request(e.to_string()))?;
        let known = res.strategy.selectable_fields(&json!({"metadata": {}}));
        for requirement in fields.requirements() {
            let name = requirement.field.as_str();
            let general = name == "metadata.name" || (name == "metadata.namespace" && res.namespaced);
            if !general && !known.iter().any(|(k, _)| *k == name) {
                return Err(ApiError::bad_request(unknown_field(res, name, known.is_empty())));
            }
        }
        Ok(Self { labels, fields, name: None })
    }

    /// Whether everything matches.
    pub fn is_everything(&self) -> bool {
        self.labels.is_none() && self.fields.is_empty() && self.name.is_none()
    }

    /// Whether the object matches.
    pub fn matches(&self, object: &Stored) -> bool {
        self.name.as_ref().is_none_or(|n| *n == object.name)
            && self.fields.matches(|name| field(object, name))
            && self.labels.as_ref().is_none_or(|l| l.matches(object.labels.as_ref()))
    }

    /// The single name the selection allows, if it is limited to one.
    pub fn single_name(&self) -> Option<&str> {
        self.name.as_deref().or_else(|| self.fields.exact("metadata.name"))
    }

    /// The single value the selection allows for a field, if it is limited to one.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.fields.exact(field)
    }

    /// Nothing but the object of that name.
    pub fn restrict_to_name(&mut self, name: &str) {
        self.name = Some(name.to_string());
    }
}

/// Kinds with fields of their own say it in their own words.
fn unknown_field(res: &Resource, name: &str, plain: bool) -> String {
    match res.kind {
        _ if plain => {
            format!(r#"{name:?} is not a known field selector: only "metadata.name", "metadata.namespace""#)
        }
        "Job" => format!("field label {name:?} not supported for batchv1.Job"),
        _ => format!("field label not supported: {name}"),
    }
}

fn field<'a>(object: &'a Stored, name: &str) -> Option<&'a str> {
    match name {
        "metadata.name" => Some(&object.name),
        "metadata.namespace" => Some(&object.namespace),
        _ => object.fields.iter().find(|(k, _)| *k == name).map(|(_, v)| v.as_str()),
    }
}

//! Label selectors, from a query parameter or from a LabelSelector object.

use super::SelectorError;
use crate::{Map, names};
use serde_json::Value;
use std::fmt;

/// How a requirement relates its key and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The value is one of the values.
    In,
    /// The key is absent, or its value is none of the values.
    NotIn,
    /// The value equals the one value (written `=`).
    Equals,
    /// The same, written `==`.
    DoubleEquals,
    /// The key is absent or its value differs.
    NotEquals,
    /// The key is present.
    Exists,
    /// The key is absent.
    DoesNotExist,
    /// The value, an integer, is greater.
    GreaterThan,
    /// The value, an integer, is smaller.
    LessThan,
}

/// One term of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    /// Checks and builds a term; values are sorted and made unique.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, SelectorError> {
        check_key(key)?;
        values.sort();
        values.dedup();
        let complaint = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            Operator::GreaterThan | Operator::LessThan if values[0].parse::<i64>().is_err() => {
                Some("for 'Gt', 'Lt' operators, the value must be an integer")
            }
            _ => None,
        };
        if let Some(message) = complaint {
            return Err(SelectorError::Invalid {
                field: "values".into(),
                value: values.join(","),
                message: message.into(),
            });
        }
        for (index, value) in values.iter().enumerate() {
            let errors = names::label_value(value);
            if !errors.is_empty() {
                return Err(SelectorError::Invalid {
                    field: format!("values[{index}][{key}]"),
                    value: value.clone(),
                    message: errors.join("; "),
                });
            }
        }
        Ok(Self { key: key.to_string(), operator, values })
    }

    /// The label key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The relation.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values, sorted.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether a label set satisfies this term.
    pub fn matches(&self, labels: Option<&Map>) -> bool {
        let value = labels.and_then(|l| l.get(&self.key)).and_then(Value::as_str);
        let among = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(among),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(among),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value).is_some_and(|(have, want)| have > want),
            Operator::LessThan => self.compare(value).is_some_and(|(have, want)| have < want),
        }
    }

    fn compare(&self, value: Option<&str>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

pub(super) fn check_key(key: &str) -> Result<(), SelectorError> {
    let errors = names::qualified_name(key);
    if errors.is_empty() {
        return Ok(());
    }
    Err(SelectorError::Invalid { field: "<nil>".into(), value: key.to_string(), message: errors.join("; ") })
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// A conjunction of requirements, or the selector that matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSelector {
    /// None: matches nothing.
    requirements: Option<Vec<Requirement>>,
}

impl LabelSelector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self { requirements: Some(Vec::new()) }
    }

    /// Matches no object.
    pub fn nothing() -> Self {
        Self { requirements: None }
    }

    /// Parses the text form, as in `?labelSelector=`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        super::parse::requirements(text).map(Self::from_requirements)
    }

    /// From a LabelSelector object: null matches nothing, `{}` matches everything.
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        let object = match selector {
            Value::Null => return Ok(Self::nothing()),
            Value::Object(object) => object,
            _ => return Err(SelectorError::NotASelector),
        };
        let mut requirements = Vec::new();
        for (key, value) in object.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            requirements.push(Requirement::new(key, Operator::In, vec![value.as_str().unwrap_or("").to_string()])?);
        }
        for expression in object.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or("") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                "Gt" => Operator::GreaterThan,
                "Lt" => Operator::LessThan,
                other => return Err(SelectorError::Operator(other.to_string())),
            };
            let values = expression["values"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| v.as_str().map(String::from))
                .collect();
            requirements.push(Requirement::new(expression["key"].as_str().unwrap_or(""), operator, values)?);
        }
        Ok(Self::from_requirements(requirements))
    }

    /// From a plain map, as in a Service's selector; an empty map matches everything. The map is taken as valid.
    pub fn from_map(map: &Map) -> Self {
        let requirement = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.as_str().unwrap_or("").to_string()],
        };
        Self::from_requirements(map.iter().map(requirement).collect())
    }

    fn from_requirements(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements: Some(requirements) }
    }

    /// Whether a label set satisfies every requirement.
    pub fn matches(&self, labels: Option<&Map>) -> bool {
        self.requirements.as_ref().is_some_and(|list| list.iter().all(|r| r.matches(labels)))
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.as_ref().is_some_and(Vec::is_empty)
    }

    /// The terms; None if it matches nothing.
    pub fn requirements(&self) -> Option<&[Requirement]> {
        self.requirements.as_deref()
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().flatten().enumerate() {
            write!(f, "{}{requirement}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn matching() {
        let cases = [
            ("", json!({}), true),
            ("a", json!({"a": ""}), true),
            ("a", json!({}), false),
            ("!a", json!({}), true),
            ("!a", json!({"a": "1"}), false),
            ("a=1", json!({"a": "1"}), true),
            ("a==1,b!=2", json!({"a": "1"}), true),
            ("b!=2", json!({"b": "2"}), false),
            ("a in (1,2)", json!({"a": "2"}), true),
            ("a in (1,2)", json!({}), false),
            ("a notin (1,2)", json!({}), true),
            ("a notin (1,2)", json!({"a": "1"}), false),
            ("a notin (1,2),a", json!({}), false),
            ("a>5", json!({"a": "6"}), true),
            ("a>5", json!({"a": "x"}), false),
            ("a<5", json!({"a": "4"}), true),
            ("a=", json!({"a": ""}), true),
            ("a in ()", json!({"a": ""}), true),
        ];
        for (text, labels, want) in cases {
            assert_eq!(
                LabelSelector::parse(text).map(|s| s.matches(labels.as_object())),
                Ok(want),
                "{text} on {labels}"
            );
        }
    }

    #[test]
    fn objects() {
        let on = |selector: Value, labels: Value| {
            LabelSelector::from_object(&selector).map(|s| s.matches(labels.as_object()))
        };
        assert_eq!(on(json!(null), json!({})), Ok(false));
        assert_eq!(on(json!({}), json!({})), Ok(true));
        assert_eq!(on(json!({"matchLabels": {"a": "1"}}), json!({"a": "1", "b": "2"})), Ok(true));
        let both = json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]});
        assert_eq!(on(both.clone(), json!({"a": "1", "b": "2"})), Ok(false));
        assert_eq!(on(both.clone(), json!({"a": "1"})), Ok(true));
        assert_eq!(LabelSelector::from_object(&both).map(|s| s.to_string()), Ok("a in (1),!b".to_string()));
        let bad = on(json!({"matchExpressions": [{"key": "b", "operator": "Like"}]}), json!({}));
        assert_eq!(bad.map_err(|e| e.to_string()), Err("\"Like\" is not a valid label selector operator".to_string()));
        assert!(on(json!({"matchExpressions": [{"key": "b", "operator": "In"}]}), json!({})).is_err());
    }
}

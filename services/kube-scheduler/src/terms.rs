//! Parsed selectors: node selector terms, tolerations, and lists of labels.

use apimachinery::selector::{LabelSelector, Operator, Requirement};
use serde_json::{Map, Value, json};

/// Labels of a node or pod.
pub type Labels = Map<String, Value>;

/// A label's value.
pub fn label<'a>(labels: &'a Labels, key: &str) -> Option<&'a str> {
    labels.get(key)?.as_str()
}

/// A list in an object, empty if absent.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A text in an object, empty if absent.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A node selector term: all of its requirements, on labels and on the name.
#[derive(Clone, Debug)]
pub struct Term {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
    /// Empty or unreadable: such a term matches no node.
    void: bool,
}

const NAME_FIELD: &str = "metadata.name";

impl Term {
    /// Reads a NodeSelectorTerm.
    pub fn read(term: &Value) -> Term {
        let read = |pointer| -> Option<Vec<Requirement>> { list(term, pointer).iter().map(requirement).collect() };
        let (labels, fields) = (read("/matchExpressions"), read("/matchFields"));
        let void = labels.is_none() || fields.is_none();
        let (labels, fields) = (labels.unwrap_or_default(), fields.unwrap_or_default());
        Term { void: void || labels.is_empty() && fields.is_empty(), labels, fields }
    }

    /// Whether a node is meant.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        if self.void {
            return false;
        }
        let fields = || json!({NAME_FIELD: name});
        self.labels.iter().all(|r| r.matches(Some(labels)))
            && (self.fields.is_empty() || self.fields.iter().all(|r| r.matches(fields().as_object())))
    }

    /// The only nodes that it can match, if it says so by name.
    pub fn names(&self) -> Option<&[String]> {
        let by_name = |r: &&Requirement| r.key() == NAME_FIELD && r.operator() == Operator::In;
        if self.void { Some(&[]) } else { self.fields.iter().find(by_name).map(Requirement::values) }
    }
}

fn requirement(expression: &Value) -> Option<Requirement> {
    let operator = match text(expression, "/operator") {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return None,
    };
    let values = list(expression, "/values").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Requirement::new(text(expression, "/key"), operator, values).ok()
}

/// A label selector of a pod's rule; an unreadable one selects nothing. `with` adds the pod's own values of these labels,
/// `without` excludes them.
pub fn selector_with(selector: &Value, with: &[Value], without: &[Value], own: &Labels) -> LabelSelector {
    let mut selector = selector.clone();
    let mut expressions = list(&selector, "/matchExpressions").to_vec();
    for (keys, operator) in [(with, "In"), (without, "NotIn")] {
        for key in keys.iter().filter_map(Value::as_str) {
            if let Some(value) = label(own, key) {
                expressions.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if !expressions.is_empty() {
        selector["matchExpressions"] = expressions.into();
    }
    LabelSelector::from_object(&selector).unwrap_or_else(|_| LabelSelector::nothing())
}

/// Equal for selectors that select the same.
pub fn selector_id(selector: &LabelSelector) -> String {
    // Nothing and everything have the same text.
    if selector.requirements().is_none() { "nothing".to_owned() } else { format!("({selector})") }
}

/// What keeps pods off a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// NoSchedule, PreferNoSchedule or NoExecute.
    pub effect: String,
}

impl Taint {
    /// Reads a Taint.
    pub fn read(taint: &Value) -> Taint {
        let of = |pointer| text(taint, pointer).to_owned();
        Taint { key: of("/key"), value: of("/value"), effect: of("/effect") }
    }

    /// New pods must tolerate it.
    pub fn repels(&self) -> bool {
        self.effect == "NoSchedule" || self.effect == "NoExecute"
    }
}

/// A taint that a pod bears.
#[derive(Clone, Debug)]
pub struct Toleration {
    key: String,
    exists: bool,
    value: String,
    effect: String,
}

impl Toleration {
    /// Reads a Toleration.
    pub fn read(toleration: &Value) -> Toleration {
        let of = |pointer| text(toleration, pointer).to_owned();
        Toleration {
            key: of("/key"),
            exists: text(toleration, "/operator") == "Exists",
            value: of("/value"),
            effect: of("/effect"),
        }
    }

    /// Whether it covers a taint: an empty key with Exists covers all, an empty effect covers every effect.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key == taint.key || self.key.is_empty() && self.exists)
            && (self.exists || self.value == taint.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_match_labels_and_names() {
        let labels = json!({"zone": "a", "cores": "8"});
        let labels = labels.as_object().unwrap();
        let cases = [
            (json!({}), false),
            (json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}), true),
            (json!({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}), false),
            (json!({"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}), true),
            (json!({"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}]}), true),
            (json!({"matchExpressions": [{"key": "cores", "operator": "Lt", "values": ["8"]}]}), false),
            (json!({"matchExpressions": [{"key": "cores", "operator": "Odd"}]}), false),
            (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}), true),
            (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}), false),
        ];
        for (term, expected) in cases {
            assert_eq!(Term::read(&term).matches("n1", labels), expected, "{term}");
        }
    }

    #[test]
    fn tolerations() {
        let taint = Taint { key: "k".to_owned(), value: "v".to_owned(), effect: "NoSchedule".to_owned() };
        let cases = [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "operator": "Equal", "value": "w"}), false),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"value": "v"}), false),
        ];
        for (toleration, expected) in cases {
            assert_eq!(Toleration::read(&toleration).tolerates(&taint), expected, "{toleration}");
        }
    }
}

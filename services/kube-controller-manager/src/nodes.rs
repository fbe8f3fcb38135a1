//! What controllers ask about nodes: taints, labels, and whether a pod's own rules let it be there.

use apimachinery::Map;
use apimachinery::meta;
use apimachinery::selector::{Operator, Requirement};
use serde_json::{Value, json};

use crate::object;

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let field = |name: &str| toleration[name].as_str().unwrap_or_default();
    let of_taint = |name: &str| taint[name].as_str().unwrap_or_default();
    if !field("effect").is_empty() && field("effect") != of_taint("effect") {
        return false;
    }
    if !field("key").is_empty() && field("key") != of_taint("key") {
        return false;
    }
    match field("operator") {
        "Exists" => true,
        _ => !field("key").is_empty() && field("value") == of_taint("value"),
    }
}

/// Whether the node has a taint of one of these effects that no toleration covers.
pub fn repels(node: &Value, tolerations: &[Value], effects: &[&str]) -> bool {
    let taints = object::list(node, "/spec/taints").iter();
    let mut relevant = taints.filter(|t| effects.contains(&t["effect"].as_str().unwrap_or_default()));
    relevant.any(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether a pod's nodeSelector and required node affinity accept the node.
pub fn accepted_by(pod_spec: &Value, node: &Value) -> bool {
    let labels = meta::labels(node);
    let wanted = object::map(pod_spec, "/nodeSelector").into_iter().flatten();
    let mut wanted = wanted.map(|(key, value)| labels.is_some_and(|l| l.get(key) == Some(value)));
    if !wanted.all(|found| found) {
        return false;
    }
    let required = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    match pod_spec.pointer(required) {
        None | Some(Value::Null) => true,
        Some(selector) => object::list(selector, "/nodeSelectorTerms").iter().any(|term| term_accepts(term, node)),
    }
}

/// All expressions hold. A term without any accepts nothing, and so does one that cannot be read.
fn term_accepts(term: &Value, node: &Value) -> bool {
    let fields: Map = [("metadata.name".to_owned(), json!(meta::name(node)))].into_iter().collect();
    let (labels, names) = (object::list(term, "/matchExpressions"), object::list(term, "/matchFields"));
    if labels.is_empty() && names.is_empty() {
        return false;
    }
    labels.iter().all(|e| holds(e, meta::labels(node))) && names.iter().all(|e| holds(e, Some(&fields)))
}

fn holds(expression: &Value, labels: Option<&Map>) -> bool {
    let operator = match object::text(expression, "/operator") {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return false,
    };
    let values = object::list(expression, "/values").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Requirement::new(object::text(expression, "/key"), operator, values).is_ok_and(|r| r.matches(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_and_affinity() {
        let node = json!({"metadata": {"name": "a", "labels": {"zone": "x", "cores": "8"}}});
        let affinity = |term: Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [term]}}}})
        };
        let label = |key: &str, operator: &str, values: Value| {
            affinity(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        let cases = [
            ("nothing asked", json!({}), true),
            ("selector", json!({"nodeSelector": {"zone": "x"}}), true),
            ("other selector", json!({"nodeSelector": {"zone": "y"}}), false),
            ("in", label("zone", "In", json!(["x", "y"])), true),
            ("not in", label("zone", "NotIn", json!(["x"])), false),
            ("greater", label("cores", "Gt", json!(["4"])), true),
            ("less", label("cores", "Lt", json!(["4"])), false),
            ("absent", label("gpu", "DoesNotExist", json!([])), true),
            ("empty term", affinity(json!({})), false),
            (
                "name",
                affinity(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]})),
                true,
            ),
            (
                "other name",
                affinity(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]})),
                false,
            ),
        ];
        for (what, spec, expected) in cases {
            assert_eq!(accepted_by(&spec, &node), expected, "{what}");
        }
    }
}

//! What an access review must hold before it is answered. Pure; upstream's rules (pkg/apis/authorization/validation) in its words.

use serde_json::Value;

use crate::errors::FieldError;
use crate::registry::strategy::checks::{named, qualified_name};
use crate::registry::strategy::tree::{at, items, remove, same, str_at};

/// Everything wrong with a SubjectAccessReview, a LocalSubjectAccessReview in `namespace`, or a SelfSubjectAccessReview.
pub fn check(kind: &str, namespace: &str, review: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (resource, path) =
        (at(review, &["spec", "resourceAttributes"]), at(review, &["spec", "nonResourceAttributes"]));
    match (resource, path) {
        (Some(_), Some(path)) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            errors.push(FieldError::invalid("spec.nonResourceAttributes", path.clone(), detail));
        }
        (None, None) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(FieldError::invalid("spec.resourceAttributes", Value::Null, detail));
        }
        _ => {}
    }
    let nobody = str_at(review, &["spec", "user"]).is_empty() && items(review, &["spec", "groups"]).is_empty();
    if kind != "SelfSubjectAccessReview" && nobody {
        errors.push(FieldError::invalid("spec.user", "", "at least one of user or group must be specified"));
    }
    for field in ["fieldSelector", "labelSelector"] {
        if let Some(given) = resource.and_then(|r| at(r, &[field])) {
            selector(&mut errors, field, given);
        }
    }
    let local = kind == "LocalSubjectAccessReview";
    metadata(&mut errors, local, &review["metadata"]);
    if let Some(given) = resource.map(|r| str_at(r, &["namespace"])).filter(|n| local && *n != namespace) {
        let detail = "must match metadata.namespace";
        errors.push(FieldError::invalid("spec.resourceAttributes.namespace", given, detail));
    }
    if let Some(path) = path.filter(|_| local) {
        let detail = "disallowed on this kind of request";
        errors.push(FieldError::invalid("spec.nonResourceAttributes", path.clone(), detail));
    }
    errors
}

fn selector(errors: &mut Vec<FieldError>, field: &str, selector: &Value) {
    let path = format!("spec.resourceAttributes.{field}");
    let (raw, list) = (str_at(selector, &["rawSelector"]), items(selector, &["requirements"]));
    if !raw.is_empty() && !list.is_empty() {
        let detail = "may not specified at the same time as requirements";
        errors.push(FieldError::invalid(format!("{path}.rawSelector"), raw, detail));
    }
    if raw.is_empty() && list.is_empty() {
        let detail = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(FieldError::required(format!("{path}.requirements"), detail));
    }
    for (i, requirement) in list.iter().enumerate() {
        let path = format!("{path}.requirements[{i}]");
        let (key, values) = (str_at(requirement, &["key"]), items(requirement, &["values"]));
        if field == "labelSelector" {
            named(errors, &format!("{path}.key"), key, qualified_name);
        } else if key.is_empty() {
            errors.push(FieldError::required(format!("{path}.key"), "must be specified"));
        }
        // An operator of the future allows nothing, but is no mistake.
        match str_at(requirement, &["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(format!("{path}.values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(format!("{path}.values"), detail));
            }
            _ => {}
        }
    }
}

/// A review is nobody's object: it has no name.
fn metadata(errors: &mut Vec<FieldError>, local: bool, given: &Value) {
    let mut rest = given.clone();
    remove(&mut rest, "managedFields");
    if local {
        remove(&mut rest, "namespace");
    }
    if !same(Some(&rest), None) {
        let detail = if local { "must be empty except for namespace" } else { "must be empty" };
        errors.push(FieldError::invalid("metadata", given.clone(), detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_is_named() {
        let asked = |extra: Value| {
            let mut spec =
                json!({"user": "u", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "a"}});
            for (key, value) in extra.as_object().expect("an object") {
                spec["resourceAttributes"][key] = value.clone();
            }
            json!({"metadata": {"creationTimestamp": null}, "spec": spec})
        };
        let fields = |field: Value| asked(json!({"fieldSelector": field}));
        let labels = |field: Value| asked(json!({"labelSelector": field}));
        let mut both = asked(json!({}));
        both["spec"]["nonResourceAttributes"] = json!({"path": "/x"});
        let path =
            json!({"metadata": {"namespace": "a"}, "spec": {"user": "u", "nonResourceAttributes": {"path": "/x"}}});
        let mut called = asked(json!({}));
        called["metadata"]["name"] = json!("n");
        let (any, local, own) = ("SubjectAccessReview", "LocalSubjectAccessReview", "SelfSubjectAccessReview");
        let table = [
            (any, asked(json!({})), &[][..]),
            (any, labels(json!({"requirements": [{"key": "k", "operator": "new", "values": ["v"]}]})), &[]),
            (any, json!({"spec": {}}), &["spec.resourceAttributes", "spec.user"]),
            (own, json!({"spec": {}}), &["spec.resourceAttributes"]),
            (any, both, &["spec.nonResourceAttributes"]),
            (any, called.clone(), &["metadata"]),
            (local, called, &["metadata"]),
            (local, path, &["spec.nonResourceAttributes"]),
            (local, asked(json!({"namespace": "b"})), &["spec.resourceAttributes.namespace"]),
            (any, fields(json!({})), &["spec.resourceAttributes.fieldSelector.requirements"]),
            (
                any,
                fields(json!({"rawSelector": "a=b", "requirements": [{"key": "k", "operator": "Exists"}]})),
                &["spec.resourceAttributes.fieldSelector.rawSelector"],
            ),
            (
                any,
                labels(json!({"requirements": [{"key": "()", "operator": "In", "values": []}]})),
                &[
                    "spec.resourceAttributes.labelSelector.requirements[0].key",
                    "spec.resourceAttributes.labelSelector.requirements[0].values",
                ],
            ),
        ];
        for (kind, review, want) in table {
            let errors = check(kind, "a", &review);
            let said: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(said, want, "{kind} {review}");
        }
    }
}

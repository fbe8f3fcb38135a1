//! POST pods/<name>/binding: the scheduler's decision.

use super::super::{Target, decode};
use crate::admission::{self, AdmissionRequest, Operation};
use crate::errors::{ApiError, FieldError};
use crate::registry::{Resource, lookup};
use crate::server::body::{Request, Response};
use crate::server::handler::Call;
use crate::server::respond;
use crate::storage::Preconditions;
use apimachinery::meta::{self, Condition};
use serde_json::{Value, json};

/// Binds a pod to a node.
pub async fn create(call: &Call, target: &Target, request: Request) -> Result<Response, ApiError> {
    let mut binding = decode::object(call, request, "", "v1", "Binding").await?.object;
    let target = &pod_of(target, &binding)?;
    let node = node_of(&binding)?;
    if !meta::name(&binding).is_empty() && meta::name(&binding) != target.name {
        return Err(ApiError::bad_request("the name of the binding does not match the name of the pod on the URL"));
    }
    let dry_run = call.dry_run()?;
    let admission = AdmissionRequest {
        operation: Operation::Create,
        resource: target.res,
        subresource: Some("binding"),
        namespace: &target.namespace,
        name: &target.name,
        object: &mut binding,
        old: None,
    };
    admission::admit(&call.context(dry_run), admission).await?;
    let text = |field: &str| Some(binding["metadata"][field].as_str()?.to_string()).filter(|t| !t.is_empty());
    let preconditions = Preconditions { uid: text("uid"), resource_version: text("resourceVersion") };
    let bind = |pod: Value| bound(target.res, pod, &binding, &node, &call.now);
    if dry_run {
        let pod = super::super::read::find(call, target).await?;
        preconditions.check(target.res, &pod)?;
        bind(pod.object())?;
    } else {
        call.state.storage.guaranteed_update(target.res, &target.namespace, &target.name, &preconditions, bind).await?;
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(respond::json(201, &status))
}

/// The pod that is meant: named by the path, or by the body of a POST to the old `bindings` collection.
fn pod_of(target: &Target, binding: &Value) -> Result<Target, ApiError> {
    let res = lookup("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
    let name = if target.name.is_empty() { meta::name(binding) } else { &target.name };
    if name.is_empty() {
        return Err(ApiError::bad_request("name must be provided"));
    }
    Ok(Target { res, sub: target.sub, namespace: target.namespace.clone(), name: name.to_string() })
}

fn node_of(binding: &Value) -> Result<String, ApiError> {
    let target = &binding["target"];
    let kind = target["kind"].as_str().unwrap_or_default();
    let mut errors = Vec::new();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    let name = target["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if errors.is_empty() {
        Ok(name.to_string())
    } else {
        Err(ApiError::invalid("", "Binding", meta::name(binding), &errors))
    }
}

/// The pod after binding.
fn bound(res: &Resource, mut pod: Value, binding: &Value, node: &str, now: &str) -> Result<Value, ApiError> {
    let name = meta::name(&pod).to_string();
    let conflict = |why: String| Err(ApiError::conflict(res.group, "pods/binding", &name, &why));
    if meta::deletion_timestamp(&pod).is_some() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    match pod["spec"]["nodeName"].as_str().unwrap_or_default() {
        "" => {}
        taken => return conflict(format!("pod {name} is already assigned to node {taken:?}")),
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    meta::child_mut(&mut pod, "spec").insert("nodeName".into(), node.into());
    for (key, value) in meta::annotations(binding).into_iter().flatten() {
        meta::set_annotation(&mut pod, key, value.as_str().unwrap_or_default());
    }
    // A nomination says where a pod is expected; now it is there (KEP-5278).
    if let Some(status) = pod.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("nominatedNodeName");
    }
    let scheduled = Condition { kind: "PodScheduled", status: "True", reason: "", message: "" };
    meta::set_condition(&mut pod, scheduled, now);
    strip_empty_condition_texts(&mut pod);
    Ok(pod)
}

/// A condition without reason and message has neither field.
fn strip_empty_condition_texts(pod: &mut Value) {
    let conditions = pod.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten();
    for condition in conditions.filter(|c| c["type"] == "PodScheduled") {
        if let Some(map) = condition.as_object_mut() {
            map.retain(|key, value| !(matches!(key.as_str(), "reason" | "message") && value == ""));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let pods = Resource {
            group: "",
            version: "v1",
            plural: "pods",
            singular: "pod",
            kind: "Pod",
            namespaced: true,
            short_names: &[],
            categories: &[],
            verbs: &[],
            subresources: &[],
            storage: "pods",
            strategy: &crate::registry::Generic,
            virtual_: false,
        };
        let pod = json!({"metadata": {"name": "p"}, "spec": {}, "status": {"nominatedNodeName": "m"}});
        let binding = json!({"metadata": {"annotations": {"a": "b"}}, "target": {"name": "n"}});
        let once = bound(&pods, pod, &binding, "n", "t").expect("bound");
        assert_eq!(once["spec"]["nodeName"], "n");
        assert_eq!(once["status"].get("nominatedNodeName"), None);
        assert_eq!(
            once["status"]["conditions"],
            json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": "t"}])
        );
        assert_eq!(once["metadata"]["annotations"], json!({"a": "b"}));
        let twice = bound(&pods, once, &binding, "m", "t").expect_err("taken");
        assert_eq!(
            twice.to_string(),
            "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\""
        );
    }
}

//! What of a quota is used. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use apimachinery::quantity::Quantity;
use serde_json::{Map, Value, json};

use super::usage::{self, Usage};
use crate::object;

/// A resource by group and plural.
pub(super) type Kind = (String, String);

/// The resources whose objects a quota counts.
pub(super) fn kinds(quota: &Value) -> BTreeSet<Kind> {
    let core = |plural: &str| (String::new(), plural.to_owned());
    let kind = |name: &String| {
        if let Some(counted) = name.strip_prefix("count/") {
            let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
            return (group.to_owned(), plural.to_owned());
        }
        match name.as_str() {
            "services" | "services.nodeports" | "services.loadbalancers" => core("services"),
            "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => core(name),
            "persistentvolumeclaims" | "requests.storage" => core("persistentvolumeclaims"),
            _ if name.contains(".storageclass.storage.k8s.io/") => core("persistentvolumeclaims"),
            _ if name.ends_with(usage::DEVICE_CLASS) => ("resource.k8s.io".to_owned(), "resourceclaims".to_owned()),
            _ => core("pods"),
        }
    };
    object::map(quota, "/spec/hard").into_iter().flatten().map(|(name, _)| kind(name)).collect()
}

/// The status to write, if it differs. `objects` has those of each of [`kinds`].
pub(super) fn status<Objects>(quota: &Value, objects: impl IntoIterator<Item = (Kind, Objects)>) -> Option<Value>
where
    Objects: IntoIterator<Item = Arc<Value>>,
{
    let mut sum = Usage::new();
    for ((group, plural), all) in objects {
        for object in all.into_iter().filter(|o| plural != "pods" || is_in_scopes(quota, o)) {
            usage::add(&mut sum, usage::of(&group, &plural, &object));
            let name = if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") };
            usage::add(&mut sum, Usage::from([(name, Quantity::from_value(1))]));
        }
    }
    let hard = object::map(quota, "/spec/hard").cloned().unwrap_or_default();
    let amount = |name: &String| sum.get(name).copied().unwrap_or(Quantity::ZERO).to_string();
    let used: Map<String, Value> = hard.keys().map(|name| (name.clone(), amount(name).into())).collect();
    let settled = same(&hard, &quota["status"]["hard"]) && same(&used, &quota["status"]["used"]);
    (!settled).then(|| json!({"hard": hard, "used": used}))
}

/// Equal amounts under equal names, however they are written.
fn same(new: &Map<String, Value>, old: &Value) -> bool {
    let amount = |value: &Value| value.as_str().and_then(|text| Quantity::parse(text).ok());
    old.as_object().is_some_and(|old| {
        old.len() == new.len() && new.iter().all(|(name, value)| old.get(name).map(amount) == Some(amount(value)))
    })
}

/// Whether all of the quota's scopes apply to a pod.
pub(super) fn is_in_scopes(quota: &Value, pod: &Value) -> bool {
    let plain = object::list(quota, "/spec/scopes").iter().filter_map(Value::as_str);
    let mut plain = plain.map(|scope| is_in_scope(scope, pod));
    let selected = object::list(quota, "/spec/scopeSelector/matchExpressions");
    plain.all(|applies| applies) && selected.iter().all(|expression| is_selected(expression, pod))
}

fn is_selected(expression: &Value, pod: &Value) -> bool {
    let scope = object::text(expression, "/scopeName");
    if scope != "PriorityClass" {
        let applies = is_in_scope(scope, pod);
        return if object::text(expression, "/operator") == "DoesNotExist" { !applies } else { applies };
    }
    let class = object::text(pod, "/spec/priorityClassName");
    let among = object::list(expression, "/values").iter().any(|value| value == class);
    match object::text(expression, "/operator") {
        "In" => among,
        "NotIn" => !among,
        "Exists" => !class.is_empty(),
        "DoesNotExist" => class.is_empty(),
        _ => false,
    }
}

fn is_in_scope(scope: &str, pod: &Value) -> bool {
    let ends = object::int(pod, "/spec/activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => !object::text(pod, "/spec/priorityClassName").is_empty(),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

/// Nothing asks for CPU or memory.
fn is_best_effort(pod: &Value) -> bool {
    let containers = object::list(pod, "/spec/containers").iter().chain(object::list(pod, "/spec/initContainers"));
    let mut resources = containers.map(|c| &c["resources"]).chain([&pod["spec"]["resources"]]);
    !resources.any(|r| {
        ["requests", "limits"].iter().any(|which| ["cpu", "memory"].iter().any(|name| !r[which][name].is_null()))
    })
}

fn crosses_namespaces(pod: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = &pod["spec"]["affinity"][kind];
        let required = object::list(affinity, "/requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = object::list(affinity, "/preferredDuringSchedulingIgnoredDuringExecution").iter();
        let mut terms = required.chain(preferred.map(|p| &p["podAffinityTerm"]));
        terms.any(|term| !object::list(term, "/namespaces").is_empty() || term["namespaceSelector"].is_object())
    })
}

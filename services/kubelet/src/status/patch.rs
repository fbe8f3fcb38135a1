//! The strategic merge patch that turns one status into another. Pure.

use serde_json::{Map, Value, json};

/// The conditions that the kubelet owns; all others belong to someone else.
const OURS: &[&str] = &[
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
];

/// The reason of a DisruptionTarget that the kubelet itself set.
pub const BY_KUBELET: &str = "TerminationByKubelet";

/// Whether the kubelet writes this condition.
pub fn is_ours(condition: &Value) -> bool {
    condition["type"].as_str().is_some_and(|t| OURS.contains(&t))
        || (condition["type"] == "DisruptionTarget" && condition["reason"] == BY_KUBELET)
}

/// Fields that the kubelet removes when they no longer apply.
const REMOVED: &[&str] = &[
    "podIP",
    "podIPs",
    "reason",
    "message",
    "initContainerStatuses",
    "ephemeralContainerStatuses",
    "containerStatuses",
];

/// The patch, bound to the pod's uid; nothing if nothing changes.
pub fn build(base: &Value, wanted: &Value, uid: &str) -> Option<Value> {
    let mut status = Map::new();
    for (field, value) in wanted.as_object()? {
        let old = &base[field.as_str()];
        if same(old, value) {
            continue;
        }
        let value = match field.as_str() {
            "conditions" => match conditions(old, value) {
                Some(changed) => changed,
                None => continue,
            },
            "podIPs" | "hostIPs" => addresses(old, value),
            _ => value.clone(),
        };
        status.insert(field.clone(), value);
    }
    for field in REMOVED {
        if wanted.get(field).is_none() && !base[*field].is_null() {
            status.insert((*field).to_owned(), Value::Null);
        }
    }
    if status.is_empty() {
        return None;
    }
    Some(json!({"metadata": {"uid": uid}, "status": status}))
}

/// Conditions merge by type: only those that change are sent.
fn conditions(old: &Value, new: &Value) -> Option<Value> {
    let before = |kind: &Value| old.as_array().into_iter().flatten().find(|c| c["type"] == *kind);
    let changed: Vec<Value> = new
        .as_array()
        .into_iter()
        .flatten()
        .filter(|c| is_ours(c) && !before(&c["type"]).is_some_and(|b| same(b, c)))
        .map(|c| without_leftovers(before(&c["type"]), c))
        .collect();
    let is_there = |kind: &Value| new.as_array().into_iter().flatten().any(|c| c["type"] == *kind);
    let gone = old.as_array().into_iter().flatten().filter(|c| is_ours(c) && !is_there(&c["type"]));
    let deleted = gone.map(|c| json!({"$patch": "delete", "type": c["type"]}));
    let all: Vec<Value> = deleted.chain(changed).collect();
    (!all.is_empty()).then(|| all.into())
}

/// Merging keeps fields that the new condition no longer has; they are removed by name.
fn without_leftovers(old: Option<&Value>, new: &Value) -> Value {
    let mut condition = new.clone();
    for field in old.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        if new[field.as_str()].is_null() {
            condition[field.as_str()] = Value::Null;
        }
    }
    condition
}

/// Addresses merge by ip, so those that are gone have to be deleted by name.
fn addresses(old: &Value, new: &Value) -> Value {
    let wanted = new.as_array().cloned().unwrap_or_default();
    let gone = old.as_array().into_iter().flatten().filter(|a| !wanted.contains(a));
    let deleted: Vec<Value> = gone.map(|a| json!({"$patch": "delete", "ip": a["ip"]})).collect();
    deleted.into_iter().chain(wanted.iter().cloned()).collect()
}

/// Equal, where null, a missing field and an empty object mean the same.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let covered = |one: &Map<String, Value>, other: &Map<String, Value>| {
                one.iter().all(|(k, v)| same(v, other.get(k).unwrap_or(&Value::Null)))
            };
            covered(x, y) && covered(y, x)
        }
        (Value::Object(x), Value::Null) | (Value::Null, Value::Object(x)) => x.values().all(|v| same(v, &Value::Null)),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b)),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_changed_means_no_patch() {
        let base = json!({"phase": "Running", "containerStatuses": [{"name": "c", "state": {"running": {}}}], "x": 1});
        let wanted = json!({"phase": "Running", "containerStatuses": [{"name": "c", "state": {"running": {}}, "lastState": {}}]});
        assert_eq!(build(&base, &wanted, "u"), None);
    }

    #[test]
    fn only_what_changed_is_sent() {
        let base = json!({
            "phase": "Pending", "qosClass": "BestEffort", "reason": "Old",
            "conditions": [{"type": "Ready", "status": "False", "reason": "R"}, {"type": "PodScheduled", "status": "True"}, {"type": "x/y", "status": "True"}],
            "podIPs": [{"ip": "1"}],
        });
        let wanted = json!({
            "phase": "Running", "qosClass": "BestEffort",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
            "podIPs": [{"ip": "2"}],
        });
        let expected = json!({"metadata": {"uid": "u"}, "status": {
            "phase": "Running", "reason": null, "conditions": [{"type": "Ready", "status": "True", "reason": null}],
            "podIPs": [{"$patch": "delete", "ip": "1"}, {"ip": "2"}],
        }});
        assert_eq!(build(&base, &wanted, "u"), Some(expected));
    }
}

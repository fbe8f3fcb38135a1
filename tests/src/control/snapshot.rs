//! The state of namespaces in a form that two runs can be compared in: without times, uids, addresses and random names.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use client::{Client, ListParams, Resource};
use serde_json::Value;

/// What differs between two runs and means nothing.
const PASSING: &[&str] = &[
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "managedFields",
    "lastTransitionTime",
    "lastUpdateTime",
    "lastProbeTime",
    "startTime",
    "completionTime",
    "podIP",
    "podIPs",
    "hostIP",
    "hostIPs",
    "clusterIP",
    "clusterIPs",
    "nodeName",
    "finishedAt",
    "startedAt",
    "containerID",
    "generation",
    "observedGeneration",
    "endpoints.kubernetes.io/last-change-trigger-time",
    "zone",
    "ca.crt",
];

/// The start of a random name that admission gives to a pod's volume.
const TOKEN_VOLUME: &str = "kube-api-access-";

/// Objects by `Kind namespace/name`; those that share a name but for its random part are numbered.
pub type Snapshot = BTreeMap<String, Value>;

/// Takes one.
pub async fn take(client: &Client, resources: &[Resource<'static>], namespaces: &[&str]) -> Result<Snapshot> {
    let mut objects = Vec::new();
    for resource in resources {
        let list = client.list(*resource, None, &ListParams::default()).await.context(resource.plural)?;
        objects.extend(list.items.into_iter().filter(|object| {
            let name = if resource.namespaced { "namespace" } else { "name" };
            object["metadata"][name].as_str().is_some_and(|name| namespaces.contains(&name))
        }));
    }
    Ok(normal(objects))
}

/// The normal form of a set of objects.
fn normal(objects: Vec<Value>) -> Snapshot {
    let random: Vec<(String, String)> = objects
        .iter()
        .filter_map(|object| {
            let prefix = object["metadata"]["generateName"].as_str()?;
            Some((object["metadata"]["name"].as_str()?.to_owned(), format!("{prefix}*")))
        })
        .collect();
    let mut by_name: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for mut object in objects {
        clean(&mut object, &random);
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
        by_name.entry(name).or_default().push(object);
    }
    let mut snapshot = Snapshot::new();
    for (name, mut alike) in by_name {
        alike.sort_by_cached_key(Value::to_string);
        snapshot.extend(alike.into_iter().enumerate().map(|(number, object)| (format!("{name} #{number}"), object)));
    }
    snapshot
}

fn clean(value: &mut Value, random: &[(String, String)]) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !PASSING.contains(&key.as_str()));
            fields.values_mut().for_each(|field| clean(field, random));
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| clean(item, random));
            items.sort_by_cached_key(Value::to_string);
        }
        Value::String(text) => {
            if is_uid(text) {
                "*".clone_into(text);
            }
            if text.starts_with(TOKEN_VOLUME) {
                text.truncate(TOKEN_VOLUME.len());
            }
            for (name, stands_for) in random {
                if text.contains(name.as_str()) {
                    *text = text.replace(name, stands_for);
                }
            }
        }
        _ => {}
    }
}

/// 8-4-4-4-12 hexadecimal digits.
fn is_uid(text: &str) -> bool {
    let parts: Vec<usize> = text.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12] && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

/// What differs between what is expected and what is there, in few lines.
pub fn difference(expected: &Snapshot, found: &Snapshot) -> String {
    let missing = expected.keys().filter(|name| !found.contains_key(*name)).map(|name| format!("{name} is missing"));
    let more = found.keys().filter(|name| !expected.contains_key(*name)).map(|name| format!("{name} is too much"));
    let other = expected.iter().filter_map(|(name, one)| {
        let other = found.get(name).filter(|other| *other != one)?;
        let (path, a, b) = first_difference(one, other, String::new())?;
        Some(format!("{name}: {path} is {b}, not {a}"))
    });
    missing.chain(more).chain(other).collect::<Vec<_>>().join("\n")
}

fn first_difference(a: &Value, b: &Value, path: String) -> Option<(String, Value, Value)> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys());
            keys.into_iter().find_map(|key| {
                first_difference(
                    a.get(key).unwrap_or(&Value::Null),
                    b.get(key).unwrap_or(&Value::Null),
                    format!("{path}.{key}"),
                )
            })
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            x.iter().zip(y).enumerate().find_map(|(at, (x, y))| first_difference(x, y, format!("{path}[{at}]")))
        }
        _ => (a != b).then(|| (path, a.clone(), b.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods(suffixes: [&str; 2], phases: [&str; 2]) -> Vec<Value> {
        let pod = |suffix: &str, phase: &str| {
            json!({"kind": "Pod", "metadata": {"namespace": "n", "generateName": "web-", "name": format!("web-{suffix}"),
                "uid": "1", "ownerReferences": [{"name": "web", "uid": "0b6d5a8e-7a4e-4b43-93a8-6a3f0c0d1e2f"}]},
                "status": {"phase": phase}})
        };
        vec![pod(suffixes[0], phases[0]), pod(suffixes[1], phases[1])]
    }

    #[test]
    fn random_names_and_uids_do_not_count_but_states_do() {
        let one = normal(pods(["a", "b"], ["Running", "Pending"]));
        assert_eq!(one, normal(pods(["x", "c"], ["Pending", "Running"])));
        let other = normal(pods(["a", "b"], ["Running", "Running"]));
        assert_eq!(difference(&one, &other), "Pod n/web-* #0: .status.phase is \"Running\", not \"Pending\"");
        let fewer = normal(pods(["a", "b"], ["Running", "Pending"]).split_off(1));
        assert!(difference(&one, &fewer).contains("Pod n/web-* #1 is missing"));
    }
}

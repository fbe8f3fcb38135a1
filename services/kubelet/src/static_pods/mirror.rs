//! Mirror pods: what the API server shows of static pods. [`plan`] decides, pure; the rest asks the server.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Client, DeleteParams, resource};
use serde_json::{Value, json};

use super::source::Manifests;
use crate::pod::{HASH, MIRROR};

/// What has to happen to the mirrors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Static pods without a mirror, by `namespace/name`.
    pub create: Vec<String>,
    /// Mirrors, by name and uid, that show something else or nothing any more.
    pub delete: Vec<(String, String)>,
    /// Mirrors that are right: static uid, mirror uid.
    pub right: Vec<(String, String)>,
}

/// Compares static pods with the mirrors that the server has.
pub fn plan(pods: &Manifests, mirrors: &BTreeMap<String, Arc<Value>>) -> Plan {
    let mut plan = Plan::default();
    for (name, mirror) in mirrors {
        let uid = mirror["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let shown = &mirror["metadata"]["annotations"][MIRROR];
        match pods.get(name) {
            Some(pod) if pod["metadata"]["uid"] == *shown && mirror["metadata"]["deletionTimestamp"].is_null() => {
                plan.right.push((shown.as_str().unwrap_or_default().to_owned(), uid));
            }
            _ => plan.delete.push((name.clone(), uid)),
        }
    }
    plan.create = pods.keys().filter(|name| !mirrors.contains_key(*name)).cloned().collect();
    plan
}

/// The object to create. The node owns it: with the node it goes.
pub fn object(pod: &Value, node: &Value) -> Value {
    let mut object = pod.clone();
    let hash = object["metadata"]["annotations"][HASH].clone();
    object["metadata"]["annotations"][MIRROR] = hash;
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("uid");
        let name = node["metadata"]["name"].clone();
        let uid = node["metadata"]["uid"].clone();
        let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid, "controller": true}]);
        metadata.insert("ownerReferences".into(), owner);
    }
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    object
}

fn split(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or(("default", name))
}

/// Creates one.
///
/// # Errors
/// The server's.
pub async fn create(client: &Client, name: &str, object: &Value) -> Result<(), client::Error> {
    match client.create(resource::PODS, Some(split(name).0), object).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}

/// Deletes one at once: nothing of it runs.
///
/// # Errors
/// The server's.
pub async fn delete(client: &Client, name: &str, uid: &str) -> Result<(), client::Error> {
    let (namespace, name) = split(name);
    let params = DeleteParams { grace_period_seconds: Some(0), uid: Some(uid.to_owned()), ..DeleteParams::default() };
    match client.delete(resource::PODS, Some(namespace), name, &params).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_follow_their_pods() {
        let pod = |uid: &str| json!({"metadata": {"name": "p", "uid": uid, "annotations": {HASH: uid}}});
        let mirror =
            |hash: &str| Arc::new(json!({"metadata": {"uid": format!("m-{hash}"), "annotations": {MIRROR: hash}}}));
        let pods = Manifests::from([("n/a".into(), pod("1")), ("n/b".into(), pod("2")), ("n/c".into(), pod("3"))]);
        let mirrors =
            BTreeMap::from([("n/a".into(), mirror("1")), ("n/b".into(), mirror("old")), ("n/z".into(), mirror("9"))]);
        let plan = plan(&pods, &mirrors);
        assert_eq!(plan.create, ["n/c"]);
        assert_eq!(plan.delete, [("n/b".to_owned(), "m-old".to_owned()), ("n/z".into(), "m-9".into())]);
        assert_eq!(plan.right, [("1".to_owned(), "m-1".to_owned())]);
    }

    #[test]
    fn the_object_names_its_pod_and_its_node() {
        let pod = json!({"metadata": {"name": "p", "uid": "1", "annotations": {HASH: "1"}}, "spec": {}});
        let object = object(&pod, &json!({"metadata": {"name": "n1", "uid": "nu"}}));
        assert_eq!(object["metadata"]["annotations"][MIRROR], "1");
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "nu");
        assert!(object["metadata"].get("uid").is_none());
    }
}

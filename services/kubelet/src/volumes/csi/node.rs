//! What the cluster knows of the node's drivers: the CSINode object, and on the Node the drivers' name for it and its
//! topology labels.

use std::collections::HashMap;

use client::resource::{self, Resource};
use client::{Client, Patch};
use cri_api::csi::NodeGetInfoResponse;
use serde_json::{Value, json};

const CSI_NODES: Resource<'static> = Resource::new("storage.k8s.io", "v1", "csinodes", "CSINode", false);
/// On the Node: JSON, the drivers' names for it.
const NODE_ID: &str = "csi.volume.kubernetes.io/nodeid";
/// A conflict means that somebody else wrote; it is tried this often.
const ATTEMPTS: usize = 5;

/// Makes the object of a node that has no driver yet.
///
/// # Errors
/// The API server's.
pub async fn ensure(client: &Client, node: &str) -> Result<(), client::Error> {
    let owner = client.get(resource::NODES, None, node).await?;
    match client.create(CSI_NODES, None, &empty(&owner)).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}

/// Enters a driver.
///
/// # Errors
/// The API server's, or topology labels that contradict the node's.
pub async fn add(client: &Client, node: &str, driver: &str, info: &NodeGetInfoResponse) -> Result<(), String> {
    let text = |e: client::Error| format!("error updating Node object with CSI driver node info: {e}");
    let object = client.get(resource::NODES, None, node).await.map_err(text)?;
    if let Some(patch) = node_patch(&object, driver, Some(info))? {
        client.patch(resource::NODES, None, node, None, &Patch::Merge(patch)).await.map_err(text)?;
    }
    let text = |e: client::Error| format!("error updating CSINode object with CSI driver node info: {e}");
    change(client, node, |drivers| with(drivers, driver, Some(info))).await.map_err(text)
}

/// Strikes a driver out.
///
/// # Errors
/// The API server's.
pub async fn remove(client: &Client, node: &str, driver: &str) -> Result<(), String> {
    change(client, node, |drivers| with(drivers, driver, None)).await.map_err(|e| e.to_string())?;
    let object = client.get(resource::NODES, None, node).await.map_err(|e| e.to_string())?;
    if let Some(patch) = node_patch(&object, driver, None)? {
        let patched = client.patch(resource::NODES, None, node, None, &Patch::Merge(patch)).await;
        patched.map_err(|e| e.to_string())?;
    }
    Ok(())
}

async fn change(client: &Client, node: &str, wanted: impl Fn(&Value) -> Value) -> Result<(), client::Error> {
    let mut left = ATTEMPTS;
    loop {
        let mut object = match client.get(CSI_NODES, None, node).await {
            Err(error) if error.is_not_found() => {
                ensure(client, node).await?;
                client.get(CSI_NODES, None, node).await?
            }
            other => other?,
        };
        let drivers = wanted(&object["spec"]["drivers"]);
        if object["spec"]["drivers"] == drivers {
            return Ok(());
        }
        object["spec"]["drivers"] = drivers;
        left -= 1;
        match client.update(CSI_NODES, None, node, &object).await {
            Err(error) if error.is_conflict() && left > 0 => {}
            other => return other.map(drop),
        }
    }
}

fn empty(node: &Value) -> Value {
    let name = &node["metadata"]["name"];
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
        "metadata": {"name": name, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]},
        ]},
        "spec": {"drivers": []},
    })
}

/// The list of drivers with what one says, or without it.
fn with(drivers: &Value, name: &str, info: Option<&NodeGetInfoResponse>) -> Value {
    let others = drivers.as_array().into_iter().flatten().filter(|d| d["name"] != name).cloned();
    let mut all: Vec<Value> = others.collect();
    if let Some(info) = info {
        let mut keys: Vec<&String> = info.accessible_topology.iter().flat_map(|t| t.segments.keys()).collect();
        keys.sort();
        let mut driver = json!({"name": name, "nodeID": info.node_id});
        if !keys.is_empty() {
            driver["topologyKeys"] = json!(keys);
        }
        if info.max_volumes_per_node > 0 {
            driver["allocatable"] = json!({"count": info.max_volumes_per_node.min(i64::from(i32::MAX))});
        }
        // A driver that was there keeps its place, so that nothing changes if nothing has changed.
        let place = drivers.as_array().and_then(|list| list.iter().position(|d| d["name"] == name));
        all.insert(place.unwrap_or(all.len()), driver);
    }
    all.into()
}

/// What changes on the Node when a driver comes or goes, if anything does. Topology labels stay: pods may rely on them.
fn node_patch(node: &Value, driver: &str, info: Option<&NodeGetInfoResponse>) -> Result<Option<Value>, String> {
    let metadata = &node["metadata"];
    let before = metadata["annotations"][NODE_ID].as_str().unwrap_or("{}");
    let mut ids: serde_json::Map<String, Value> = serde_json::from_str(before).unwrap_or_default();
    let nothing = HashMap::new();
    let segments = match info {
        Some(info) => {
            ids.insert(driver.to_owned(), info.node_id.as_str().into());
            info.accessible_topology.as_ref().map_or(&nothing, |t| &t.segments)
        }
        None => {
            ids.remove(driver);
            &nothing
        }
    };
    let mut labels = serde_json::Map::new();
    for (key, value) in segments {
        match metadata["labels"][key].as_str() {
            Some(old) if old != value => {
                return Err(format!(
                    "detected topology value collision: driver reported {key:?}:{value:?} but existing label is {key:?}:{old:?}"
                ));
            }
            Some(_) => {}
            None => drop(labels.insert(key.clone(), value.as_str().into())),
        }
    }
    let annotation = if ids.is_empty() { Value::Null } else { Value::Object(ids).to_string().into() };
    if metadata["annotations"][NODE_ID] == annotation && labels.is_empty() {
        return Ok(None);
    }
    Ok(Some(json!({"metadata": {"annotations": {NODE_ID: annotation}, "labels": labels}})))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(keys: &[(&str, &str)], most: i64) -> NodeGetInfoResponse {
        let segments = keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        NodeGetInfoResponse {
            node_id: "id".into(),
            max_volumes_per_node: most,
            accessible_topology: Some(cri_api::csi::Topology { segments }),
        }
    }

    #[test]
    fn drivers_come_go_and_keep_their_places() {
        let one = with(&json!([]), "a", Some(&info(&[("zone", "z"), ("rack", "r")], 3)));
        assert_eq!(
            one,
            json!([{"name": "a", "nodeID": "id", "topologyKeys": ["rack", "zone"], "allocatable": {"count": 3}}])
        );
        let two = with(&one, "b", Some(&info(&[], 0)));
        assert_eq!(two[1], json!({"name": "b", "nodeID": "id"}));
        assert_eq!(with(&two, "a", Some(&info(&[("zone", "z"), ("rack", "r")], 3))), two);
        assert_eq!(with(&two, "a", None), json!([{"name": "b", "nodeID": "id"}]));
    }

    #[test]
    fn the_node_bears_ids_and_labels_that_must_not_collide() {
        let mut node = json!({"metadata": {"labels": {"zone": "z"}, "annotations": {NODE_ID: "{\"o\":\"x\"}"}}});
        let patch = node_patch(&node, "a", Some(&info(&[("zone", "z"), ("rack", "r")], 0))).unwrap().unwrap();
        assert_eq!(patch["metadata"]["labels"], json!({"rack": "r"}));
        assert_eq!(patch["metadata"]["annotations"][NODE_ID], "{\"a\":\"id\",\"o\":\"x\"}");
        node["metadata"]["annotations"][NODE_ID] = "{\"a\":\"id\"}".into();
        assert_eq!(node_patch(&node, "a", Some(&info(&[("zone", "z")], 0))), Ok(None));
        assert!(node_patch(&node, "a", Some(&info(&[("zone", "y")], 0))).unwrap_err().contains("collision"));
        let patch = node_patch(&node, "a", None).unwrap().unwrap();
        assert_eq!(patch["metadata"]["annotations"][NODE_ID], Value::Null);
    }

    #[test]
    fn an_empty_object_belongs_to_its_node() {
        let object = empty(&json!({"metadata": {"name": "n", "uid": "u"}}));
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "u");
    }
}

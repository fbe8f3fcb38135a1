//! What runs here: as the API server says, as the runtime says, and the configuration it runs with.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Json;
use cri_api::v1;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Refusal, find_pod};
use crate::observed::{State as Life, labels};
use crate::shared::Shared;

fn list(items: Vec<Value>) -> Json<Value> {
    Json(json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items}))
}

/// Answers `/pods`: the pods that are bound to this node.
pub async fn bound(State(shared): State<Arc<Shared>>) -> Json<Value> {
    list(shared.pods.list().iter().map(|p| Value::clone(p)).collect())
}

/// Answers `/runningpods`: what the runtime runs, whatever the API server thinks.
///
/// # Errors
/// The runtime does not answer.
pub async fn running(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, Refusal> {
    let filter = v1::ContainerFilter {
        state: Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 }),
        ..Default::default()
    };
    let call = v1::ListContainersRequest { filter: Some(filter) };
    let answer = shared.cri.api.runtime.clone().list_containers(call).await;
    let containers = answer.map_err(|e| Refusal::internal(e.message()))?.into_inner().containers;
    Ok(list(by_pod(containers.into_iter().map(|c| (c.labels, c.image.map(|i| i.image).unwrap_or_default())))))
}

type Labels = std::collections::HashMap<String, String>;

fn by_pod(containers: impl Iterator<Item = (Labels, String)>) -> Vec<Value> {
    let mut pods: BTreeMap<(String, String, String), Vec<Value>> = BTreeMap::new();
    for (labels, image) in containers {
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let pod = (label(labels::POD_NAMESPACE), label(labels::POD_NAME), label(labels::POD_UID));
        let container = json!({"name": label(labels::CONTAINER_NAME), "image": image, "resources": {}});
        pods.entry(pod).or_default().push(container);
    }
    pods.into_iter()
        .map(|((namespace, name, uid), containers)| {
            let metadata = json!({"name": name, "namespace": namespace, "uid": uid});
            json!({"metadata": metadata, "spec": {"containers": containers}, "status": {}})
        })
        .collect()
}

/// Answers `/configz`.
pub async fn configuration(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({"kubeletconfig": shared.config}))
}

/// The query of a checkpoint.
#[derive(Debug, Default, Deserialize)]
pub struct Checkpoint {
    /// Seconds; zero for the runtime's own limit.
    #[serde(default)]
    timeout: i64,
}

/// Answers POST `/checkpoint/<namespace>/<pod>/<container>`: a frozen copy of a running container, if the runtime can.
///
/// # Errors
/// There is no such container, or the runtime cannot, in its words.
pub async fn checkpoint(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(query): Query<Checkpoint>,
) -> Result<Json<Value>, Refusal> {
    if query.timeout < 0 {
        return Err(Refusal::bad_request("timeout must not be negative"));
    }
    let pod = find_pod(&shared, &namespace, &name)?;
    let observed = shared.cri.observe(&pod.metadata.uid).await.map_err(Refusal::internal)?;
    let running = observed.instances(&container).find(|c| c.state == Life::Running);
    let id = running.map(|c| c.id.clone()).ok_or_else(|| {
        Refusal::not_found(format!("container {container:?} of pod {namespace:?}/{name:?} is not running"))
    })?;
    let folder = shared.root.join("checkpoints");
    std::fs::create_dir_all(&folder).map_err(|e| Refusal::internal(format!("{}: {e}", folder.display())))?;
    let stamp = apimachinery::time::now_rfc3339();
    let file = folder.join(format!("checkpoint-{name}_{namespace}-{container}-{stamp}.tar"));
    let location = file.to_string_lossy().into_owned();
    let call = v1::CheckpointContainerRequest { container_id: id, location: location.clone(), timeout: query.timeout };
    match shared.cri.api.runtime.clone().checkpoint_container(call).await {
        Ok(_) => Ok(Json(json!({"items": [location]}))),
        Err(status) => Err(Refusal::internal(format!(
            "checkpointing of {namespace}/{name}/{container} failed (rpc error: code = {:?} desc = {})",
            status.code(),
            status.message()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_listed_with_their_pods() {
        let container = |pod: &str, name: &str| {
            let pairs = [(labels::POD_NAME, pod), (labels::POD_NAMESPACE, "n"), (labels::CONTAINER_NAME, name)];
            (pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Labels>(), "i".to_owned())
        };
        let pods = by_pod([container("b", "x"), container("a", "y"), container("b", "z")].into_iter());
        let names: Vec<&Value> = pods.iter().map(|p| &p["metadata"]["name"]).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(pods[1]["spec"]["containers"].as_array().map(Vec::len), Some(2));
    }
}

//! The pods that were let in, each with the resources it was given: what the next pod is measured against.
//!
//! The specification says what users want, this says what the node has promised; they differ while a resize waits.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};

use crate::admission::{self, Node};
use crate::pod::{Container, Map, Pod};
use crate::status::compute::Failure;

/// The pods by uid. One lock makes two decisions at a time impossible.
#[derive(Debug, Default)]
pub struct Admitted {
    pods: Mutex<HashMap<String, Arc<Pod>>>,
    /// Pods whose resize waits for room, and where they are woken when there may be some.
    waiting: Mutex<BTreeSet<String>>,
    wake: Option<mpsc::UnboundedSender<String>>,
    /// Tells whenever a pod has left.
    pub left: Notify,
}

impl Admitted {
    /// Nobody yet; uids of pods for which there may be room now go to `wake`.
    pub fn new(wake: mpsc::UnboundedSender<String>) -> Self {
        Admitted { wake: Some(wake), ..Admitted::default() }
    }

    /// Lets the pod in beside those that are in already, and beside those of `listed` that ran before this kubelet
    /// started and have not been looked at yet.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, pod: &Arc<Pod>, listed: &[Arc<Value>], node: &Node) -> Result<(), Failure> {
        let mut pods = self.pods.lock();
        let running: Vec<Pod> = listed
            .iter()
            .filter(|object| has_run(object) && !pods.contains_key(uid(object)) && uid(object) != pod.metadata.uid)
            .filter_map(|object| Pod::from_value(object).ok())
            .collect();
        let others: Vec<&Pod> =
            pods.values().filter(|p| p.metadata.uid != pod.metadata.uid).map(AsRef::as_ref).chain(&running).collect();
        admission::admit(pod, &others, node)?;
        pods.insert(pod.metadata.uid.clone(), Arc::clone(pod));
        Ok(())
    }

    /// Takes in a pod that runs already, with what its status says it was given.
    pub fn adopt(&self, pod: &Arc<Pod>) {
        let mut given = Pod::clone(pod);
        restore(&mut given);
        self.pods.lock().entry(pod.metadata.uid.clone()).or_insert_with(|| Arc::new(given));
    }

    /// The pod as it is to run: its newest specification with the resources it was given.
    pub fn effective(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let given = self.pods.lock().get(&pod.metadata.uid).cloned();
        match given {
            Some(given) if differs(pod, &given) => Arc::new(with_resources_of(pod, &given)),
            _ => Arc::clone(pod),
        }
    }

    /// Gives the pod what it now wants if the others leave that much.
    ///
    /// # Errors
    /// The failure that a new pod of this size would meet.
    pub fn resize(&self, pod: &Arc<Pod>, node: &Node) -> Result<(), Failure> {
        let mut pods = self.pods.lock();
        let others: Vec<&Pod> =
            pods.values().filter(|p| p.metadata.uid != pod.metadata.uid).map(AsRef::as_ref).collect();
        if let Err(failure) = admission::resources(pod, &others, node) {
            self.waiting.lock().insert(pod.metadata.uid.clone());
            return Err(failure);
        }
        pods.insert(pod.metadata.uid.clone(), Arc::clone(pod));
        Ok(())
    }

    /// A pod that holds nothing of the node any more.
    pub fn forget(&self, uid: &str) {
        if self.pods.lock().remove(uid).is_none() {
            return;
        }
        self.left.notify_waiters();
        for waiting in std::mem::take(&mut *self.waiting.lock()) {
            self.wake.as_ref().map(|wake| wake.send(waiting));
        }
    }

    /// All of them.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.lock().values().cloned().collect()
    }
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// Whether a kubelet has taken the pod in and has not reported its end.
fn has_run(object: &Value) -> bool {
    let status = &object["status"];
    let mirror = object["metadata"]["annotations"][crate::pod::MIRROR].is_string();
    !mirror && status["startTime"].is_string() && !matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// Whether the pod wants other resources than it was given.
pub fn differs(wanted: &Pod, given: &Pod) -> bool {
    wanted.all_containers().zip(given.all_containers()).any(|(w, g)| w.name == g.name && w.resources != g.resources)
}

fn with_resources_of(pod: &Pod, given: &Pod) -> Pod {
    let mut pod = pod.clone();
    let spec = &mut pod.spec;
    for container in spec.init_containers.iter_mut().chain(&mut spec.containers) {
        if let Some(before) = given.container(&container.name) {
            container.resources = before.resources.clone();
        }
    }
    pod
}

/// Replaces the wanted requests and limits by those that the published status names.
fn restore(pod: &mut Pod) {
    let status = pod.status.clone();
    let spec = &mut pod.spec;
    let lists = [("initContainerStatuses", &mut spec.init_containers), ("containerStatuses", &mut spec.containers)];
    for (list, containers) in lists {
        for container in containers.iter_mut() {
            let found = status[list].as_array().into_iter().flatten().find(|s| s["name"] == container.name.as_str());
            if let Some(known) = found {
                restore_one(container, known);
            }
        }
    }
}

fn restore_one(container: &mut Container, status: &Value) {
    let map = |value: &Value| -> Option<Map> {
        let fields = value.as_object()?;
        Some(fields.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect())
    };
    if let Some(requests) = map(&status["allocatedResources"]) {
        container.resources.requests = requests;
        if let Some(limits) = map(&status["resources"]["limits"]) {
            container.resources.limits = limits;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, cpu: &str) -> Arc<Pod> {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        Arc::new(Pod::from_value(&json!({"metadata": {"uid": uid}, "spec": {"containers": [container]}})).unwrap())
    }

    fn node() -> Node {
        let allocatable = [("cpu", "2"), ("pods", "10")];
        Node { allocatable: allocatable.map(|(k, v)| (k.to_owned(), v.to_owned())).into(), ..Node::default() }
    }

    #[test]
    fn pods_are_measured_against_those_inside_and_those_that_ran_before() {
        let admitted = Admitted::default();
        admitted.admit(&pod("a", "1"), &[], &node()).unwrap();
        assert!(admitted.admit(&pod("b", "1500m"), &[], &node()).is_err());
        let old = json!({"metadata": {"uid": "o"}, "status": {"startTime": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "800m"}}}]}});
        assert!(admitted.admit(&pod("c", "500m"), &[Arc::new(old)], &node()).is_err());
        admitted.forget("a");
        admitted.admit(&pod("b", "1500m"), &[], &node()).unwrap();
        assert_eq!(admitted.pods().len(), 1);
    }

    #[test]
    fn a_resize_takes_effect_when_there_is_room() {
        let admitted = Admitted::default();
        admitted.admit(&pod("a", "1"), &[], &node()).unwrap();
        admitted.admit(&pod("b", "500m"), &[], &node()).unwrap();
        let larger = pod("a", "1800m");
        assert_eq!(admitted.resize(&larger, &node()).unwrap_err().reason, "OutOfcpu");
        assert_eq!(admitted.effective(&larger).spec.containers[0].resources.requests["cpu"], "1");
        admitted.forget("b");
        admitted.resize(&larger, &node()).unwrap();
        assert_eq!(admitted.effective(&larger).spec.containers[0].resources.requests["cpu"], "1800m");
    }

    #[test]
    fn what_was_given_survives_a_restart_through_the_status() {
        let mut running = Pod::clone(&pod("a", "3"));
        running.status = json!({"containerStatuses": [{"name": "c", "allocatedResources": {"cpu": "1"}}]});
        let running = Arc::new(running);
        let admitted = Admitted::default();
        admitted.adopt(&running);
        assert_eq!(admitted.effective(&running).spec.containers[0].resources.requests["cpu"], "1");
    }
}

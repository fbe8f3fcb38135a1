//! Changing the resources of running containers (KEP-1287): whether the node can give what a pod now wants, and giving it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::plan::Plan;
use super::{PodSync, resources};
use crate::admission;
use crate::admitted;
use crate::observed::Observed;
use crate::pod::Pod;

/// How a resize stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resize {
    /// Why the pod has not been given what it wants.
    pub pending: Option<Pending>,
    /// Whether containers are still to get what the pod was given, and what went wrong if something did.
    pub progress: Option<Option<String>>,
}

/// Why not, with the explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// When other pods are gone there may be room.
    Deferred(String),
    /// The node never has that much.
    Infeasible(String),
}

impl Resize {
    /// The conditions that tell it: type, reason and message.
    pub fn conditions(&self) -> Vec<(&'static str, &'static str, String)> {
        let pending = self.pending.as_ref().map(|pending| match pending {
            Pending::Deferred(message) => ("PodResizePending", "Deferred", message.clone()),
            Pending::Infeasible(message) => ("PodResizePending", "Infeasible", message.clone()),
        });
        let progress = self.progress.as_ref().map(|error| match error {
            Some(error) => ("PodResizeInProgress", "Error", error.clone()),
            None => ("PodResizeInProgress", "", String::new()),
        });
        pending.into_iter().chain(progress).collect()
    }
}

/// Decides about a pod that wants other resources than it was given. Pure but for the `give` that takes them.
fn decide(pod: &Pod, node: &admission::Node, give: impl FnOnce() -> Result<(), String>) -> Option<Pending> {
    if pod.is_static() {
        return Some(Pending::Infeasible("In-place resize of static-pods is not supported".into()));
    }
    if let Err(failure) = admission::resources(pod, &[], node) {
        return Some(Pending::Infeasible(failure.message.replacen("Pod was rejected: ", "", 1)));
    }
    give().err().map(|message| Pending::Deferred(message.replacen("Pod was rejected: ", "", 1)))
}

impl PodSync {
    pub(super) fn settle_resize(&mut self, pod: &Arc<Pod>) {
        let shared = &self.shared;
        if !admitted::differs(pod, &shared.admitted.effective(pod)) {
            self.resize.pending = None;
            return;
        }
        let Ok(node) = shared.node_view(pod) else { return };
        let pending = if shared.allocation.cpus.fixes(pod) {
            let message = r#"Resize is infeasible for Guaranteed Pods alongside CPU Manager policy "static""#;
            Some(Pending::Infeasible(message.into()))
        } else {
            decide(pod, &node, || shared.admitted.resize(pod, &node).map_err(|f| f.message))
        };
        if pending != self.resize.pending
            && let Some((_, reason, message)) = (Resize { pending: pending.clone(), progress: None }).conditions().pop()
        {
            let reason = if reason == "Deferred" { "ResizeDeferred" } else { "ResizeInfeasible" };
            shared.event(pod, true, reason, message);
        }
        self.resize.pending = pending;
    }

    /// Gives running containers what the pod was given.
    pub(super) async fn apply_resize(&mut self, pod: &Arc<Pod>, observed: &Observed, plan: &Plan) {
        if plan.resize.is_empty() {
            self.resize.progress = None;
            return;
        }
        self.resize.progress = Some(None);
        self.publish(pod, observed, false);
        self.resize.progress = match self.give(pod, observed, plan).await {
            Ok(()) => None,
            Err(error) => {
                self.shared.event(pod, true, "ResizeError", error.clone());
                Some(Some(error))
            }
        };
    }

    async fn give(&self, pod: &Arc<Pod>, observed: &Observed, plan: &Plan) -> Result<(), String> {
        // The pod's own cgroup must not be the narrower one at any moment, so it grows first and shrinks last.
        let text = |e: std::io::Error| format!("pod cgroup not changed: {e}");
        if let Some(cgroups) = &self.shared.cgroups {
            cgroups.widen(pod).map_err(text)?;
        }
        let node = self.shared.node_facts();
        for id in &plan.resize {
            let Some(instance) = observed.containers.iter().find(|c| c.id == *id) else { continue };
            let Some(container) = pod.container(&instance.name) else { continue };
            let wanted = resources::resources(pod, container, &node);
            self.shared.cri.update(id, wanted).await.map_err(|e| format!("container {}: {e}", container.name))?;
        }
        match &self.shared.cgroups {
            Some(cgroups) => cgroups.apply(pod).map_err(text),
            None => Ok(()),
        }
    }
}

/// The amounts that a container's status shows: what it was given, and what it has.
pub fn shown(container: &crate::pod::Container, settled: bool, before: Option<&Value>) -> (Value, Value) {
    let r = &container.resources;
    let mut has = json!({});
    if !r.requests.is_empty() {
        has["requests"] = json!(r.requests);
    }
    if !r.limits.is_empty() {
        has["limits"] = json!(r.limits);
    }
    let given = if r.requests.is_empty() { Value::Null } else { json!(r.requests) };
    // Until the runtime has changed the container it has what it had.
    let known = before.map(|b| b["resources"].clone()).filter(|known| !settled && known.is_object());
    (given, known.unwrap_or(has))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(cpu: &str) -> Pod {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        Pod::from_value(&json!({"spec": {"containers": [container]}})).unwrap()
    }

    #[test]
    fn a_resize_waits_fails_or_takes_place() {
        let allocatable = [("cpu".to_owned(), "2".to_owned()), ("pods".to_owned(), "9".to_owned())];
        let node = admission::Node { allocatable: allocatable.into(), ..admission::Node::default() };
        assert_eq!(decide(&pod("1"), &node, || Ok(())), None);
        assert_eq!(decide(&pod("1"), &node, || Err("full".into())), Some(Pending::Deferred("full".into())));
        let Some(Pending::Infeasible(message)) = decide(&pod("3"), &node, || Ok(())) else { panic!() };
        assert!(message.starts_with("Node didn't have enough resource: cpu"), "{message}");
        let mut of_node = pod("1");
        of_node.metadata.annotations.insert(crate::pod::SOURCE.into(), "file".into());
        assert!(matches!(decide(&of_node, &node, || Ok(())), Some(Pending::Infeasible(_))));
    }

    #[test]
    fn the_status_shows_the_old_amounts_until_the_runtime_has_the_new() {
        let container = pod("2").spec.containers[0].clone();
        let before = json!({"resources": {"requests": {"cpu": "1"}}});
        assert_eq!(shown(&container, false, Some(&before)), (json!({"cpu": "2"}), before["resources"].clone()));
        assert_eq!(shown(&container, true, Some(&before)).1, json!({"requests": {"cpu": "2"}}));
    }
}

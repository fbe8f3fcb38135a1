//! What selects pods: Services and the owners of replicas. Pods of one workload are spread without being asked.

use std::collections::HashMap;

use apimachinery::selector::LabelSelector;
use client::follow::News;
use serde_json::Value;

use crate::objects::SelectingObject;
use crate::pod::Pod;

/// Namespace and kind.
type Place = (Box<str>, &'static str);

/// The selectors of one kind in one namespace, by name.
type Selectors = HashMap<Box<str>, LabelSelector>;

/// The selectors.
#[derive(Debug, Default)]
pub struct Workloads(HashMap<Place, Selectors>);

pub const SERVICE: &str = "Service";
pub const REPLICASET: &str = "ReplicaSet";
pub const STATEFULSET: &str = "StatefulSet";
pub const CONTROLLER: &str = "ReplicationController";

impl Workloads {
    /// Something that selects pods appeared, changed or went.
    pub fn told(&mut self, kind: &'static str, news: News<SelectingObject>) {
        match news {
            News::Applied(object) => {
                let meta = object.metadata;
                let selectors = self.0.entry((meta.namespace, kind)).or_default();
                match selector(kind, &object.spec.selector) {
                    Some(selector) => drop(selectors.insert(meta.name, selector)),
                    None => drop(selectors.remove(&meta.name)),
                }
            }
            News::Gone(id) => {
                let place = (id.namespace, kind);
                if let Some(selectors) = self.0.get_mut(&place) {
                    selectors.remove(&id.name);
                    if selectors.is_empty() {
                        self.0.remove(&place);
                    }
                }
            }
            News::Synced => {}
        }
    }

    /// The selectors of everything that the pod is a replica of: its Services and its owner.
    pub fn of(&self, pod: &Pod) -> Vec<LabelSelector> {
        let namespace: Box<str> = pod.spec.namespace.as_str().into();
        let owner = pod.waiting.as_ref().and_then(|waiting| waiting.owner.as_ref());
        let owned = owner.and_then(|(owner_kind, name, _)| {
            let kind = [REPLICASET, STATEFULSET, CONTROLLER].into_iter().find(|kind| *kind == &**owner_kind)?;
            self.0.get(&(namespace.clone(), kind))?.get(name)
        });
        let services = self.0.get(&(namespace.clone(), SERVICE)).into_iter().flat_map(HashMap::values);
        let services = services.filter(|selector| selector.matches(Some(&pod.spec.labels)));
        let mut selectors: Vec<LabelSelector> = services.chain(owned).cloned().collect();
        // The order must not depend on a hash: equal workloads ask equal questions.
        selectors.sort_by_cached_key(ToString::to_string);
        selectors
    }
}

/// Services and ReplicationControllers have a plain map; one without entries selects nothing.
fn selector(kind: &str, selector: &Value) -> Option<LabelSelector> {
    let object = selector.as_object().filter(|object| !object.is_empty())?;
    match kind {
        SERVICE | CONTROLLER => Some(LabelSelector::from_map(object)),
        _ => LabelSelector::from_object(selector).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::from_json;
    use serde_json::json;

    #[test]
    fn services_and_the_owner_select() {
        let mut workloads = Workloads::default();
        let object = |name: &str, selector: Value| {
            let object = json!({"metadata": {"namespace": "n", "name": name}, "spec": {"selector": selector}});
            News::Applied(serde_json::from_value(object).unwrap())
        };
        workloads.told(SERVICE, object("web", json!({"app": "web"})));
        workloads.told(SERVICE, object("other", json!({"app": "other"})));
        workloads.told(SERVICE, object("headless", json!(null)));
        workloads.told(REPLICASET, object("web-1", json!({"matchLabels": {"app": "web", "hash": "1"}})));
        workloads.told(REPLICASET, object("web-2", json!({"matchLabels": {"app": "web", "hash": "2"}})));
        let pod = from_json(json!({"metadata": {"namespace": "n", "labels": {"app": "web", "hash": "1"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": true}]}}));
        let texts = |workloads: &Workloads| workloads.of(&pod).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&workloads), ["app in (web),hash in (1)", "app=web"]);
        let gone = client::follow::Identity { namespace: "n".into(), name: "web".into(), ..Default::default() };
        workloads.told(SERVICE, News::Gone(gone));
        assert_eq!(texts(&workloads), ["app in (web),hash in (1)"]);
    }
}

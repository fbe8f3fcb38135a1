//! What selects pods: Services and the owners of replicas. Pods of one workload are spread without being asked.

use std::collections::HashMap;

use apimachinery::selector::LabelSelector;
use client::follow::News;
use serde_json::Value;

use crate::objects::SelectingObject;
use crate::pod::Pod;

/// Kind and name.
type Key = (&'static str, Box<str>);

/// The selectors, by namespace.
#[derive(Debug, Default)]
pub struct Workloads(HashMap<Box<str>, HashMap<Key, LabelSelector>>);

pub const SERVICE: &str = "Service";

impl Workloads {
    /// Something that selects pods appeared, changed or went.
    pub fn told(&mut self, kind: &'static str, news: News<SelectingObject>) {
        match news {
            News::Applied(object) => {
                let meta = object.metadata;
                let of_namespace = self.0.entry(meta.namespace).or_default();
                match selector(kind, &object.spec.selector) {
                    Some(selector) => drop(of_namespace.insert((kind, meta.name), selector)),
                    None => drop(of_namespace.remove(&(kind, meta.name))),
                }
            }
            News::Gone(id) => {
                if let Some(of_namespace) = self.0.get_mut(&id.namespace) {
                    of_namespace.remove(&(kind, id.name));
                    if of_namespace.is_empty() {
                        self.0.remove(&id.namespace);
                    }
                }
            }
            News::Synced => {}
        }
    }

    /// The selectors of everything that the pod is a replica of: its Services and its owner.
    pub fn of(&self, pod: &Pod) -> Vec<LabelSelector> {
        let Some(of_namespace) = self.0.get(pod.spec.namespace.as_str()) else { return Vec::new() };
        let labels = Some(&pod.spec.labels);
        let services = of_namespace.iter().filter(|((kind, _), selector)| *kind == SERVICE && selector.matches(labels));
        let owner = pod.waiting.as_ref().and_then(|waiting| waiting.owner.as_ref());
        let owned = owner.and_then(|(owner_kind, owner_name, _)| {
            of_namespace
                .iter()
                .find(|((kind, name), _)| *kind == &**owner_kind && name == owner_name && *kind != SERVICE)
        });
        let mut selectors: Vec<LabelSelector> = services.chain(owned).map(|(_, selector)| selector.clone()).collect();
        // The order must not depend on a hash: equal workloads ask equal questions.
        selectors.sort_by_cached_key(ToString::to_string);
        selectors
    }
}

/// Services and ReplicationControllers have a plain map; one without entries selects nothing.
fn selector(kind: &str, selector: &Value) -> Option<LabelSelector> {
    let object = selector.as_object().filter(|object| !object.is_empty())?;
    match kind {
        SERVICE | "ReplicationController" => Some(LabelSelector::from_map(object)),
        _ => LabelSelector::from_object(selector).ok(),
    }
}

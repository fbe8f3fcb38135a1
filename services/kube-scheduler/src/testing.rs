//! What the tests of decisions share: small clusters from JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::selector::LabelSelector;
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::cycle::{Task, Turn, Unschedulable, best, feasible};
use crate::node::Offer;
use crate::pod::{Pod, from_json};
use crate::profile::Profile;

pub fn node(name: &str, cpu: &str, change: impl Fn(&mut Value)) -> Arc<Offer> {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {},
        "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "110"}},
    });
    change(&mut node);
    Arc::new(Offer::read(serde_json::from_value(node).unwrap()))
}

pub fn pod(name: &str, change: impl Fn(&mut Value)) -> Pod {
    let mut pod = json!({"metadata": {"name": name, "uid": name, "namespace": "n", "labels": {"app": "web"}},
                         "spec": {"containers": [{}]}});
    change(&mut pod);
    from_json(pod)
}

pub fn ask(pod: &mut Value, cpu: &str) {
    pod["spec"]["containers"] = json!([{"resources": {"requests": {"cpu": cpu}}}]);
}

pub fn cluster(offers: &[Arc<Offer>]) -> Cache {
    let mut cache = Cache::default();
    for offer in offers {
        cache.set_node(Arc::clone(offer));
    }
    cache
}

pub fn place(cache: &mut Cache, pod: &Pod, node: &str) {
    cache.assume(Arc::new(pod.placed_on(node)));
}

pub fn profile() -> Profile {
    Profile::default_with("default-scheduler", &BTreeMap::new()).unwrap()
}

pub fn run(cache: &mut Cache, pod: &Pod, workload: &[LabelSelector]) -> Result<String, Unschedulable> {
    let profile = profile();
    let defaults = profile.defaults(pod, workload);
    let task = Task { pod, profile: &profile, defaults: &defaults };
    let mut turn = Turn::default();
    let slots = feasible(&task, cache, &mut turn)?;
    let slot = best(&task, cache, &slots, &[], &mut turn).unwrap();
    Ok(cache.node(slot).offer.name.to_string())
}

//! NodeUnschedulable: a cordoned node takes only pods that tolerate that.

use crate::cache::Cache;
use crate::framework::{Cycle, Event, Filter, Plugin, Refusal};
use crate::pod::Pod;
use crate::terms::Taint;

pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        if bears_cordons(cycle.pod) {
            return None;
        }
        Some(Box::new(|node| node.offer.cordoned.then(|| Refusal::hopeless("node(s) were unschedulable"))))
    }

    fn is_local(&self) -> bool {
        true
    }

    fn helps(&self, _: &Pod, event: &Event, _: &Cache) -> bool {
        matches!(event, Event::Node { new, .. } if !new.cordoned)
    }
}

fn bears_cordons(pod: &Pod) -> bool {
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        value: String::new(),
        effect: "NoSchedule".to_owned(),
    };
    pod.spec.bears(std::slice::from_ref(&cordon))
}

//! NodePorts: two pods cannot have the same port of a node.

use crate::cache::Cache;
use crate::framework::{Cycle, Event, Filter, Plugin, Refusal};
use crate::pod::Pod;

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let ports = &cycle.pod.spec.ports;
        if ports.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            let taken = node.ports.iter().any(|used| ports.iter().any(|wanted| wanted.conflicts(used)));
            taken.then(|| Refusal::of("node(s) didn't have free ports for the requested pod ports"))
        }))
    }

    fn is_local(&self) -> bool {
        true
    }

    fn helps(&self, pod: &Pod, event: &Event, _: &Cache) -> bool {
        match event {
            Event::Node { old, .. } => old.is_none(),
            Event::Gone(gone) => {
                gone.spec.ports.iter().any(|freed| pod.spec.ports.iter().any(|wanted| wanted.conflicts(freed)))
            }
            Event::NodeGone | Event::Placed { .. } | Event::Storage | Event::Devices => false,
        }
    }
}

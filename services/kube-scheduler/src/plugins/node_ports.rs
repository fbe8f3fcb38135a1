//! NodePorts: two pods cannot have the same port of a node.

use crate::framework::{Cycle, Event, Filter, Plugin};
use crate::pod::Pod;

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter<'a>(&self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let ports = &cycle.pod.ports;
        if ports.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            if node.ports.iter().any(|used| ports.iter().any(|wanted| wanted.conflicts(used))) {
                return vec!["node(s) didn't have free ports for the requested pod ports".into()];
            }
            Vec::new()
        }))
    }

    fn helps(&self, pod: &Pod, event: &Event) -> bool {
        match event {
            Event::Node { old, .. } => old.is_none(),
            Event::Gone(gone) => gone.ports.iter().any(|freed| pod.ports.iter().any(|wanted| wanted.conflicts(freed))),
            Event::NodeGone | Event::Placed(_) => false,
        }
    }
}

//! NodeName: a pod that names its node goes there or nowhere.

use crate::framework::{Cycle, Event, Filter, Plugin};
use crate::pod::Pod;

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter<'a>(&self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let wanted = cycle.pod.node.as_str();
        if wanted.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            if node.offer.name == wanted {
                return Vec::new();
            }
            vec!["node(s) didn't match the requested node name".into()]
        }))
    }

    fn helps(&self, pod: &Pod, event: &Event) -> bool {
        matches!(event, Event::Node { old: None, new } if new.name == pod.node)
    }
}

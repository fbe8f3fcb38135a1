//! NodeName: a pod that names its node goes there or nowhere.

use crate::cache::Cache;
use crate::framework::{Cycle, Event, Filter, Plugin, Refusal};
use crate::pod::Pod;

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let wanted = &*cycle.pod.node;
        if wanted.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            (&*node.offer.name != wanted).then(|| Refusal::hopeless("node(s) didn't match the requested node name"))
        }))
    }

    fn helps(&self, pod: &Pod, event: &Event, _: &Cache) -> bool {
        matches!(event, Event::Node { old: None, new } if new.name == pod.node)
    }
}

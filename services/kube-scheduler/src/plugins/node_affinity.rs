//! NodeAffinity: nodeSelector and required affinity must hold; preferred terms add their weights.

use crate::framework::{Cycle, Event, Filter, Normalize, Plugin, Score};
use crate::node::Node;
use crate::pod::Pod;

pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter<'a>(&self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let pod = cycle.pod;
        if pod.required_nodes.is_none() && pod.node_selector.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            if pod.allows_node(&node.offer.name, &node.offer.labels) {
                return Vec::new();
            }
            vec!["node(s) didn't match Pod's node affinity/selector".into()]
        }))
    }

    fn score<'a>(&self, cycle: &Cycle<'a>, _: &[&'a Node]) -> Option<Score<'a>> {
        let preferred = &cycle.pod.preferred_nodes;
        if preferred.is_empty() {
            return None;
        }
        let of = move |node: &Node| {
            let met = preferred.iter().filter(|(_, term)| term.matches(&node.offer.name, &node.offer.labels));
            met.map(|(weight, _)| weight).sum()
        };
        Some(Score { of: Box::new(of), normalize: Normalize::Largest })
    }

    fn weight(&self) -> i64 {
        2
    }

    fn helps(&self, pod: &Pod, event: &Event) -> bool {
        matches!(event, Event::Node { new, .. } if pod.allows_node(&new.name, &new.labels))
    }
}

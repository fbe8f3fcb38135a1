//! TaintToleration: repelling taints must be tolerated; nodes with fewer discouraging ones are better.

use crate::cache::Cache;
use crate::framework::{Cycle, Event, Filter, Normalize, Plugin, Refusal, Score};
use crate::node::Node;
use crate::pod::Pod;

pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let pod = cycle.pod;
        Some(Box::new(move |node| {
            (!pod.spec.bears(&node.offer.taints)).then(|| Refusal::hopeless("node(s) had untolerated taint(s)"))
        }))
    }

    fn score<'a>(&'a self, cycle: &Cycle<'a>, feasible: &[&'a Node]) -> Option<Score<'a>> {
        let pod = cycle.pod;
        let discouraging = |node: &Node| {
            let taints = node.offer.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
            taints.filter(|taint| !pod.spec.tolerations.iter().any(|t| t.tolerates(taint))).count()
        };
        if feasible.iter().all(|node| discouraging(node) == 0) {
            return None;
        }
        Some(Score {
            of: Box::new(move |node| i64::try_from(discouraging(node)).unwrap_or(i64::MAX)),
            normalize: Normalize::Reversed,
        })
    }

    fn is_local(&self) -> bool {
        true
    }

    fn helps(&self, pod: &Pod, event: &Event, _: &Cache) -> bool {
        matches!(event, Event::Node { new, .. } if pod.spec.bears(&new.taints))
    }
}

//! NodeResourcesFit: what the pod asks for must be free; nodes with more left are better.

use crate::framework::{Cycle, Event, Filter, Normalize, Plugin, Reasons, SCORE_MAX, Score};
use crate::node::{Node, Offer};
use crate::pod::{Amounts, Pod};

pub struct Fit;

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter<'a>(&self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let pod = cycle.pod;
        Some(Box::new(move |node| lacking(&pod.requests, node)))
    }

    fn score<'a>(&self, cycle: &Cycle<'a>, _: &[&'a Node]) -> Option<Score<'a>> {
        let pod = cycle.pod;
        Some(Score { of: Box::new(move |node| least_allocated(&pod.assumed, node)), normalize: Normalize::No })
    }

    fn helps(&self, pod: &Pod, event: &Event) -> bool {
        match event {
            Event::Node { old: None, new } => could_ever_fit(&pod.requests, new),
            Event::Node { old: Some(old), new } => {
                (old.allocatable != new.allocatable || old.pods_max != new.pods_max)
                    && could_ever_fit(&pod.requests, new)
            }
            // Each pod gives back at least its place in the count of pods.
            Event::Gone(_) => true,
            Event::NodeGone | Event::Placed(_) => false,
        }
    }
}

fn lacking(asked: &Amounts, node: &Node) -> Reasons {
    let (offer, used) = (&node.offer.allocatable, &node.requested);
    let mut reasons = Reasons::new();
    if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= node.offer.pods_max {
        reasons.push("Too many pods".into());
    }
    let mut check = |name: &str, asked: i64, offer: i64, used: i64| {
        if asked > 0 && asked > offer - used {
            reasons.push(format!("Insufficient {name}").into());
        }
    };
    check("cpu", asked.milli_cpu, offer.milli_cpu, used.milli_cpu);
    check("memory", asked.memory, offer.memory, used.memory);
    check("ephemeral-storage", asked.storage, offer.storage, used.storage);
    for (name, amount) in &asked.other {
        let of = |amounts: &Amounts| amounts.other.get(name).copied().unwrap_or(0);
        check(name, *amount, of(offer), of(used));
    }
    reasons
}

fn could_ever_fit(asked: &Amounts, offer: &Offer) -> bool {
    let empty = Node { offer: std::sync::Arc::new(offer.clone()), exists: true, ..Node::default() };
    lacking(asked, &empty).is_empty()
}

/// The mean of the shares of cpu and memory that would be left.
fn least_allocated(asked: &Amounts, node: &Node) -> i64 {
    let (offer, used) = (&node.offer.allocatable, &node.assumed);
    let parts = [
        (offer.milli_cpu, used.milli_cpu.saturating_add(asked.milli_cpu)),
        (offer.memory, used.memory.saturating_add(asked.memory)),
    ];
    let (mut sum, mut count) = (0, 0);
    for (offer, used) in parts.into_iter().filter(|(offer, _)| *offer > 0) {
        let left = i128::from((offer - used).max(0)) * i128::from(SCORE_MAX) / i128::from(offer);
        sum += i64::try_from(left).unwrap_or(0);
        count += 1;
    }
    if count == 0 { 0 } else { sum / count }
}

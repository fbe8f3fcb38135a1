//! NodeResourcesBalancedAllocation: a node is better if its cpu and memory would be used to similar shares.

use crate::framework::{Cycle, Event, Normalize, Plugin, SCORE_MAX, Score};
use crate::node::Node;
use crate::pod::{Amounts, Pod};

pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn score<'a>(&self, cycle: &Cycle<'a>, _: &[&'a Node]) -> Option<Score<'a>> {
        let asked = &cycle.pod.requests;
        // A pod that asks for neither changes no balance; scoring it would pile such pods onto one node.
        if asked.milli_cpu == 0 && asked.memory == 0 {
            return None;
        }
        Some(Score { of: Box::new(move |node| balance(asked, node)), normalize: Normalize::No })
    }

    fn helps(&self, _: &Pod, _: &Event) -> bool {
        false
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "shares of 0 to 1, scores of 0 to 100"
)]
fn balance(asked: &Amounts, node: &Node) -> i64 {
    let (offer, used) = (&node.offer.allocatable, &node.requested);
    let share = |offer: i64, used: i64| (offer > 0).then(|| (used as f64 / offer as f64).min(1.0));
    let cpu = share(offer.milli_cpu, used.milli_cpu.saturating_add(asked.milli_cpu));
    let memory = share(offer.memory, used.memory.saturating_add(asked.memory));
    let deviation = match (cpu, memory) {
        (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
        _ => 0.0,
    };
    ((1.0 - deviation) * SCORE_MAX as f64) as i64
}

//! One decision: which node a pod gets, or why none. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::framework::{Cycle, Filter};
use crate::node::Node;
use crate::plugins;

/// With more nodes than this, only some of the feasible ones are scored.
const SCORED_MIN: usize = 100;

/// No node takes the pod.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    nodes: usize,
    reasons: BTreeMap<Cow<'static, str>, usize>,
    /// The plugins that rejected it somewhere: what they wait for may help.
    pub rejected_by: BTreeSet<&'static str>,
}

impl Unschedulable {
    /// Upstream's sentence.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut reasons: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        format!("0/{} nodes are available: {}.", self.nodes, reasons.join(", "))
    }
}

/// Where to go on looking, so that in a large cluster all nodes get their turn, and which of equals to take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    start: usize,
    count: u64,
}

/// Finds the best node; returns its name.
pub fn decide(cycle: &Cycle<'_>, turn: &mut Turn) -> Result<String, Unschedulable> {
    let nodes: Vec<&Node> = cycle.cache.nodes().collect();
    let feasible = feasible(cycle, &nodes, turn)?;
    let best = best(cycle, &feasible);
    turn.count = turn.count.wrapping_add(1);
    let equal = usize::try_from(mix(turn.count)).unwrap_or(0) % best.len().max(1);
    best.get(equal).map(|node| node.offer.name.clone()).ok_or_else(Unschedulable::default)
}

fn feasible<'a>(cycle: &Cycle<'a>, nodes: &[&'a Node], turn: &mut Turn) -> Result<Vec<&'a Node>, Unschedulable> {
    let filters: Vec<(&'static str, Filter<'a>)> =
        plugins::ALL.iter().filter_map(|plugin| Some((plugin.name(), plugin.filter(cycle)?))).collect();
    let enough = enough(nodes.len());
    let mut rejected = Unschedulable { nodes: nodes.len(), ..Unschedulable::default() };
    let mut feasible = Vec::new();
    let mut looked_at = 0;
    for offset in 0..nodes.len() {
        let node = nodes[(turn.start + offset) % nodes.len()];
        looked_at += 1;
        // The first plugin that rejects a node speaks for it.
        let verdict =
            filters.iter().map(|(name, filter)| (name, filter(node))).find(|(_, reasons)| !reasons.is_empty());
        if let Some((name, reasons)) = verdict {
            rejected.rejected_by.insert(name);
            for reason in reasons {
                *rejected.reasons.entry(reason).or_default() += 1;
            }
            continue;
        }
        feasible.push(node);
        if feasible.len() == enough {
            break;
        }
    }
    if nodes.is_empty() || feasible.is_empty() {
        return Err(rejected);
    }
    turn.start = (turn.start + looked_at) % nodes.len();
    Ok(feasible)
}

/// How many feasible nodes are enough: all of up to a hundred, then a share that falls from a half to a twentieth.
fn enough(nodes: usize) -> usize {
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    if nodes <= SCORED_MIN { nodes } else { (nodes * percent / 100).max(SCORED_MIN) }
}

/// All nodes with the highest sum of weighted scores.
fn best<'a>(cycle: &Cycle<'a>, feasible: &[&'a Node]) -> Vec<&'a Node> {
    let mut totals = vec![0_i64; feasible.len()];
    if feasible.len() > 1 {
        for plugin in plugins::ALL {
            let Some(score) = plugin.score(cycle, feasible) else { continue };
            let mut scores: Vec<i64> = feasible.iter().map(|node| (score.of)(node)).collect();
            score.normalize.apply(&mut scores);
            for (total, score) in totals.iter_mut().zip(scores) {
                *total += score * plugin.weight();
            }
        }
    }
    let highest = totals.iter().copied().max().unwrap_or(0);
    feasible.iter().zip(&totals).filter(|(_, total)| **total == highest).map(|(node, _)| *node).collect()
}

/// Scatters a counter: equals are taken in no order, yet the same in every run of a test.
fn mix(count: u64) -> u64 {
    let mut x = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 31)
}

#[cfg(test)]
#[path = "cycle_tests.rs"]
mod tests;

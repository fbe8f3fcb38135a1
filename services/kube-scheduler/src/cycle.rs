//! One decision: which node a pod gets, or why none. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::cache::Cache;
use crate::framework::{Cycle, Filter, Refusal};
use crate::memo::{Memo, Verdict};
use crate::neighbours::Spread;
use crate::node::Node;
use crate::pod::Pod;
use crate::profile::Profile;

/// With more nodes than this, only some of the feasible ones are scored.
const SCORED_MIN: usize = 100;

/// No node takes the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    nodes: usize,
    /// A rule that refused the pod whatever the node.
    admission: Option<String>,
    reasons: BTreeMap<Cow<'static, str>, usize>,
    /// The plugins that rejected it somewhere: what they wait for may help.
    pub rejected_by: BTreeSet<&'static str>,
    /// Nodes that might take it if other pods went, by slot.
    pub hopeful: Vec<usize>,
}

impl Unschedulable {
    /// For the whole cluster, before any answer.
    pub fn of_nodes(nodes: usize) -> Unschedulable {
        Unschedulable { nodes, ..Unschedulable::default() }
    }

    /// Upstream's sentence.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let head = format!("0/{} nodes are available:", self.nodes);
        if let Some(reason) = &self.admission {
            return format!("{head} {reason}.");
        }
        let mut reasons: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        format!("{head} {}.", reasons.join(", "))
    }

    /// Counts nodes that refuse for the same reason.
    pub fn add(&mut self, reason: impl Into<Cow<'static, str>>, nodes: usize) {
        if nodes > 0 {
            *self.reasons.entry(reason.into()).or_default() += nodes;
        }
    }

    /// Counts a node that refuses.
    pub fn refuse(&mut self, slot: usize, by: &'static str, refusal: Refusal) {
        if !refusal.hopeless {
            self.hopeful.push(slot);
        }
        self.refused(&(by, refusal), 1);
    }

    /// Counts nodes that gave the same refusal.
    fn refused(&mut self, (by, refusal): &(&'static str, Refusal), nodes: usize) {
        if nodes > 0 {
            self.rejected_by.insert(by);
            refusal.reasons.iter().for_each(|reason| self.add(reason.clone(), nodes));
        }
    }
}

/// Where to go on looking, so that in a large cluster all nodes get their turn, and which of equals to take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// Where the search starts.
    pub start: usize,
    count: u64,
}

impl Turn {
    /// A number below `limit`, scattered: equals are taken in no order, yet the same in every run of a test.
    pub fn next(&mut self, limit: usize) -> usize {
        self.count = self.count.wrapping_add(1);
        let mut x = self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        usize::try_from(x ^ (x >> 31)).unwrap_or(0) % limit.max(1)
    }
}

/// A pod to be placed, with the rules that hold for it.
#[derive(Clone, Copy)]
pub struct Task<'t> {
    /// The pod.
    pub pod: &'t Pod,
    /// The rules.
    pub profile: &'t Profile,
    /// How replicas of its workload are spread without being asked.
    pub defaults: &'t [Spread],
}

impl<'t> Task<'t> {
    fn cycle<'a>(&self, cache: &'a Cache) -> Cycle<'a>
    where
        't: 'a,
    {
        Cycle { pod: self.pod, cache, defaults: self.defaults }
    }

    fn filters<'a>(&self, cycle: &Cycle<'a>) -> Vec<(&'static str, Filter<'a>)>
    where
        't: 'a,
    {
        let checking = self.profile.rules.iter().filter(|rule| rule.filters);
        checking.filter_map(|rule| Some((rule.plugin.name(), rule.plugin.filter(cycle)?))).collect()
    }

    /// Makes sure that what the rules ask for is counted, and that no answer to another kind of pod is remembered.
    pub fn prepare(&self, cache: &mut Cache) {
        cache.ensure(&self.profile.counts(self.pod, self.defaults));
        let local = {
            let cycle = self.cycle(cache);
            let mut checking = self.profile.rules.iter().filter(|rule| rule.filters);
            checking.all(|rule| rule.plugin.is_local() || rule.plugin.filter(&cycle).is_none())
        };
        let own = cache.slot(self.pod.nominated());
        cache.memo.begin(local.then_some(self.pod.spec.id), own);
    }

    /// Whether one node takes the pod, with the pods it was cleared for in their places as well as without.
    pub fn fits(&self, cache: &mut Cache, slot: usize) -> Result<(), (&'static str, Refusal)> {
        let check = |cache: &Cache| {
            let cycle = self.cycle(cache);
            let refuse = |(name, filter): &(&'static str, Filter<'_>)| Some((*name, filter(cache.node(slot))?));
            self.filters(&cycle).iter().find_map(refuse).map_or(Ok(()), Err)
        };
        let node = cache.node(slot).offer.name.clone();
        let prior: Vec<_> = cache.nominated(&node).iter().filter(|other| self.yields_to(other)).cloned().collect();
        if prior.is_empty() {
            return check(cache);
        }
        let verdict = cache.rehearse(slot, |cache| {
            prior.iter().for_each(|pod| cache.put(pod.clone()));
            let verdict = check(cache);
            prior.iter().for_each(|pod| drop(cache.lift(&pod.uid)));
            verdict
        });
        verdict.and_then(|()| check(cache))
    }

    /// A pod that a node was cleared for keeps its place against less important ones.
    fn yields_to(&self, other: &Pod) -> bool {
        other.uid != self.pod.uid && other.spec.priority >= self.pod.spec.priority
    }
}

/// The nodes that take the pod, by slot: all, or enough to choose from.
///
/// # Errors
/// None does; says why.
pub fn feasible(task: &Task<'_>, cache: &mut Cache, turn: &mut Turn) -> Result<Vec<usize>, Unschedulable> {
    task.prepare(cache);
    let total = cache.order().len();
    let mut rejected = Unschedulable::of_nodes(total);
    if total == 0 {
        return Err(rejected);
    }
    for rule in task.profile.rules.iter().filter(|rule| rule.filters) {
        if let Err(refusal) = rule.plugin.admit(&task.cycle(cache)) {
            rejected.rejected_by.insert(rule.plugin.name());
            rejected.admission = Some(refusal.reasons.join(", "));
            return Err(rejected);
        }
    }
    if let Some(cleared) = cache.slot(task.pod.nominated())
        && task.fits(cache, cleared).is_ok()
    {
        return Ok(vec![cleared]);
    }
    let slots = candidates(task, cache, &mut rejected);
    let enough = enough(slots.len(), task.profile.percentage_of_nodes_to_score);
    let mut memo = std::mem::take(&mut cache.memo);
    let mut search = Search { task, memo: &mut memo, refused: Vec::new(), hopeful: Vec::new(), found: Vec::new() };
    let looked_at = search.run(cache, &slots, turn.start, enough);
    let Search { refused, hopeful, found, .. } = search;
    if slots.len() == total {
        turn.start = (turn.start + looked_at) % slots.len();
    }
    if found.is_empty() {
        refused.iter().enumerate().for_each(|(number, nodes)| rejected.refused(memo.refusal(number), *nodes));
        rejected.hopeful = hopeful;
    }
    cache.memo = memo;
    if found.is_empty() { Err(rejected) } else { Ok(found) }
}

/// Asks nodes until enough have been found.
struct Search<'s, 't> {
    task: &'s Task<'t>,
    memo: &'s mut Memo,
    /// How many nodes gave which refusal, by its number.
    refused: Vec<usize>,
    /// Those that might change their answer if other pods went, by slot.
    hopeful: Vec<usize>,
    found: Vec<usize>,
}

impl Search<'_, '_> {
    /// Returns how many nodes were looked at.
    fn run(&mut self, cache: &mut Cache, slots: &[usize], start: usize, enough: usize) -> usize {
        let (task, mut looked_at) = (self.task, 0);
        // Nodes that were cleared for others need a closer look, which needs the cache for itself.
        while looked_at < slots.len() && self.found.len() < enough {
            let mut crowded = Vec::new();
            {
                let cycle = task.cycle(cache);
                let filters = task.filters(&cycle);
                while looked_at < slots.len() && self.found.len() + crowded.len() < enough {
                    let slot = slots[(start + looked_at) % slots.len()];
                    looked_at += 1;
                    let node = cache.node(slot);
                    if let Some(verdict) = self.memo.verdict(slot, node) {
                        self.count(slot, verdict);
                        continue;
                    }
                    // The first plugin that rejects a node speaks for it.
                    match filters.iter().find_map(|(name, filter)| Some((*name, filter(node)?))) {
                        None if cache.nominated(&node.offer.name).iter().any(|o| task.yields_to(o)) => {
                            crowded.push(slot);
                        }
                        refusal => self.answered(slot, node, refusal.map_or(Ok(()), Err)),
                    }
                }
            }
            for slot in crowded {
                let answer = task.fits(cache, slot);
                self.answered(slot, cache.node(slot), answer);
            }
        }
        looked_at
    }

    fn answered(&mut self, slot: usize, node: &Node, answer: Result<(), (&'static str, Refusal)>) {
        let verdict = self.memo.learn(slot, node, answer);
        self.count(slot, verdict);
    }

    fn count(&mut self, slot: usize, verdict: Verdict) {
        match verdict {
            Verdict::Fits => self.found.push(slot),
            Verdict::Refused(number) => {
                if self.refused.len() <= number {
                    self.refused.resize(number + 1, 0);
                }
                self.refused[number] += 1;
                if !self.memo.refusal(number).1.hopeless {
                    self.hopeful.push(slot);
                }
            }
        }
    }
}

/// The slots worth a look: all nodes, unless rules know the only possible ones.
fn candidates(task: &Task<'_>, cache: &mut Cache, rejected: &mut Unschedulable) -> Vec<usize> {
    let filtering = task.profile.rules.iter().filter(|rule| rule.filters);
    let known: Vec<_> = filtering.filter_map(|r| Some((r.plugin.name(), r.plugin.only(task.pod)?))).collect();
    if known.is_empty() {
        return cache.order().to_vec();
    }
    let names = known.iter().map(|(_, names)| names.clone()).reduce(|a, b| &a & &b).unwrap_or_default();
    let slots: Vec<usize> = names.iter().filter_map(|name| cache.slot(name)).collect();
    let by: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    rejected.add(format!("node(s) didn't satisfy plugin(s) [{}]", by.join(" ")), cache.order().len() - slots.len());
    rejected.rejected_by.extend(by.iter().zip(&known).map(|(_, (name, _))| *name));
    slots
}

/// How many feasible nodes are enough: all of up to a hundred, then a share that falls from a half to a twentieth.
fn enough(nodes: usize, percent: usize) -> usize {
    let adaptive = 50_usize.saturating_sub(nodes / 125).max(5);
    let percent = if percent == 0 { adaptive } else { percent };
    if nodes <= SCORED_MIN || percent >= 100 { nodes } else { (nodes * percent / 100).max(SCORED_MIN) }
}

/// The best of several feasible nodes. `extra` adds what others than plugins think of each.
pub fn best(task: &Task<'_>, cache: &Cache, feasible: &[usize], extra: &[i64], turn: &mut Turn) -> Option<usize> {
    let totals = totals(task, cache, feasible, extra);
    let highest = totals.iter().copied().max()?;
    let best: Vec<usize> =
        feasible.iter().zip(&totals).filter(|(_, t)| **t == highest).map(|(slot, _)| *slot).collect();
    best.get(turn.next(best.len())).copied()
}

/// The weighted sum of scores of each node.
pub fn totals(task: &Task<'_>, cache: &Cache, feasible: &[usize], extra: &[i64]) -> Vec<i64> {
    let mut totals = vec![0_i64; feasible.len()];
    if feasible.len() < 2 {
        return totals;
    }
    let nodes: Vec<&Node> = feasible.iter().map(|slot| cache.node(*slot)).collect();
    let cycle = task.cycle(cache);
    for rule in task.profile.rules.iter().filter(|rule| rule.scores) {
        let Some(score) = rule.plugin.score(&cycle, &nodes) else { continue };
        let mut scores: Vec<i64> = nodes.iter().map(|node| (score.of)(node)).collect();
        score.normalize.apply(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * rule.weight;
        }
    }
    totals.iter_mut().zip(extra).for_each(|(total, more)| *total += more);
    totals
}

#[cfg(test)]
#[path = "cycle_tests.rs"]
mod tests;

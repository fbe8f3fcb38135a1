//! DefaultPreemption: which less important pods have to go so that a pod finds a node. Pure: it takes pods out of the cache,
//! looks, and puts them back, so the rules that decide here are the very rules that decide elsewhere.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use crate::cache::Cache;
use crate::cycle::{Task, Turn, Unschedulable};
use crate::pod::Pod;

/// A node and who has to leave it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The node.
    pub node: Arc<str>,
    /// Pods to remove, the most important first.
    pub victims: Vec<Arc<Pod>>,
    /// How many of them break a disruption budget.
    violations: usize,
    /// Less important pods for which the node had been cleared.
    pub displaced: Vec<Arc<Pod>>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPlan {
    /// In upstream's words.
    pub why: String,
    /// It was looked for: a node that was cleared before is of no use any more.
    pub stale: bool,
}

/// Finds the node where preemption does the least harm.
///
/// # Errors
/// The sentence that says why it cannot help, in upstream's words.
pub fn plan(task: &Task<'_>, cache: &mut Cache, why: &Unschedulable, turn: &mut Turn) -> Result<Plan, NoPlan> {
    let pod = task.pod;
    task.prepare(cache);
    if pod.spec.never_preempts {
        return Err(not_eligible("preemptionPolicy=Never."));
    }
    if waits_for_victims(pod, cache, why) {
        return Err(not_eligible("a terminating pod on the nominated node."));
    }
    let nodes = cache.order().len();
    let (hopeful, wanted) = (&why.hopeful, wanted(task, why.hopeful.len()));
    let start = turn.next(hopeful.len());
    let mut failed = Unschedulable::of_nodes(nodes);
    let (mut plans, mut sound) = (Vec::new(), 0);
    let mut unanswered = nodes;
    for offset in 0..hopeful.len() {
        let slot = hopeful[(start + offset) % hopeful.len()];
        let rehearsal = rehearsal(task, cache, slot);
        match &*rehearsal {
            Ok(plan) => {
                sound += usize::from(plan.violations == 0);
                plans.push(rehearsal);
                if sound > 0 && plans.len() >= wanted {
                    break;
                }
            }
            Err(reasons) => {
                unanswered -= 1;
                reasons.iter().for_each(|reason| failed.add(reason.clone(), 1));
            }
        }
    }
    let Some(mut plan) = gentlest(plans.iter().filter_map(|rehearsal| rehearsal.as_ref().as_ref().ok())).cloned()
    else {
        failed.add("Preemption is not helpful for scheduling", unanswered);
        return Err(NoPlan { why: failed.message(), stale: true });
    };
    let lower = |other: &&Arc<Pod>| other.spec.priority < pod.spec.priority;
    plan.displaced = cache.nominated(&plan.node).iter().filter(lower).cloned().collect();
    Ok(plan)
}

fn not_eligible(why: &str) -> NoPlan {
    NoPlan { why: format!("not eligible due to {why}"), stale: false }
}

/// A node was cleared for the pod and its victims are still leaving.
fn waits_for_victims(pod: &Pod, cache: &Cache, why: &Unschedulable) -> bool {
    let Some(slot) = cache.slot(pod.nominated()) else { return false };
    // That node has become impossible: another may be cleared.
    why.hopeful.contains(&slot)
        && cache.node(slot).pods.iter().any(|p| p.preempted && p.spec.priority < pod.spec.priority)
}

/// How many candidates are enough.
fn wanted(task: &Task<'_>, nodes: usize) -> usize {
    (nodes * task.profile.candidates_percent / 100).max(task.profile.candidates_min).min(nodes)
}

/// Why no removal helps.
type Reasons = Vec<Cow<'static, str>>;

/// What would happen on one node.
pub type Rehearsal = Result<Plan, Reasons>;

/// The same as [`victims_on`], remembered while the node stays as it is.
fn rehearsal(task: &Task<'_>, cache: &mut Cache, slot: usize) -> Arc<Rehearsal> {
    let budgets = cache.budgets.version();
    if let Some(known) = cache.memo.rehearsal(slot, cache.node(slot), budgets) {
        return known;
    }
    let rehearsal = Arc::new(cache.rehearse(slot, |cache| victims_on(task, cache, slot)));
    let mut memo = std::mem::take(&mut cache.memo);
    memo.rehearsed(slot, cache.node(slot), budgets, &rehearsal);
    cache.memo = memo;
    rehearsal
}

/// The fewest victims on one node: all less important pods leave, then each that the pod can do without returning to comes
/// back, first those that a budget protects, the more important ones first.
fn victims_on(task: &Task<'_>, cache: &mut Cache, slot: usize) -> Rehearsal {
    let priority = task.pod.spec.priority;
    let node = Arc::clone(&cache.node(slot).offer.name);
    let mut lower: Vec<Arc<Pod>> =
        cache.node(slot).pods.iter().filter(|p| p.spec.priority < priority).cloned().collect();
    if lower.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".into()]);
    }
    lower.sort_by(|a, b| b.is_more_important_than(a).cmp(&a.is_more_important_than(b)).then(a.uid.cmp(&b.uid)));
    lower.iter().for_each(|pod| drop(cache.lift(&pod.uid)));
    if let Err((_, refusal)) = task.fits(cache, slot) {
        lower.into_iter().for_each(|pod| cache.put(pod));
        return Err(refusal.reasons);
    }
    let broken = cache.budgets.broken_by(lower.iter().map(|pod| &**pod));
    let mut plan = Plan { node, victims: Vec::new(), violations: 0, displaced: Vec::new() };
    for protected in [true, false] {
        for pod in lower.iter().zip(&broken).filter(|(_, broken)| **broken == protected).map(|(pod, _)| pod) {
            cache.put(Arc::clone(pod));
            if task.fits(cache, slot).is_err() {
                cache.lift(&pod.uid);
                plan.violations += usize::from(protected);
                plan.victims.push(Arc::clone(pod));
            }
        }
    }
    plan.victims.iter().for_each(|pod| cache.put(Arc::clone(pod)));
    plan.victims.sort_by(|a, b| b.is_more_important_than(a).cmp(&a.is_more_important_than(b)));
    Ok(plan)
}

/// The plan that does the least harm: fewest broken budgets, then the least important highest victim, the smallest sum of
/// priorities, the fewest victims, and the highest victims that started latest.
fn gentlest<'p>(plans: impl Iterator<Item = &'p Plan>) -> Option<&'p Plan> {
    // Sums count victims as well as their priorities: many unimportant ones outweigh few with negative priorities.
    let weight = |pod: &Arc<Pod>| i128::from(pod.spec.priority) + i128::from(i32::MAX) + 1;
    plans.min_by_key(|plan| {
        let highest = plan.victims.first().map_or(i64::MIN, |pod| pod.spec.priority);
        let sum: i128 = plan.victims.iter().map(weight).sum();
        let top = plan.victims.iter().filter(|pod| pod.spec.priority == highest);
        let earliest = top.map(|pod| pod.started).min().unwrap_or(i64::MAX);
        (plan.violations, highest, sum, plan.victims.len(), Reverse(earliest))
    })
}

#[cfg(test)]
#[path = "preemption_tests.rs"]
mod tests;

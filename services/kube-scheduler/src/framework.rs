//! What a plugin is: a rule that rejects nodes, prefers nodes, or both, and that knows which events may help a pod it
//! rejected.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use apimachinery::selector::LabelSelector;

use crate::cache::Cache;
use crate::index::{Count, Counts};
use crate::neighbours::{Neighbours, Spread};
use crate::node::{Node, Offer};
use crate::pod::Pod;

/// The best score of one plugin.
pub const SCORE_MAX: i64 = 100;

/// Why a node, or every node, does not take a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// In upstream's words.
    pub reasons: Vec<Cow<'static, str>>,
    /// Removing other pods would not change it.
    pub hopeless: bool,
}

impl Refusal {
    /// A refusal that may end when other pods go.
    pub fn of(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { reasons: vec![reason.into()], hopeless: false }
    }

    /// A refusal that other pods have nothing to do with.
    pub fn hopeless(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { reasons: vec![reason.into()], hopeless: true }
    }
}

/// A check of one pod, prepared once, asked for each node.
pub type Filter<'a> = Box<dyn Fn(&Node) -> Option<Refusal> + 'a>;

/// A preference of one pod, prepared once.
pub struct Score<'a> {
    /// A raw score for each feasible node.
    pub of: Box<dyn Fn(&Node) -> i64 + 'a>,
    /// How raw scores become 0 to 100.
    pub normalize: Normalize,
}

/// The ways to bring raw scores into one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalize {
    /// They are in it already.
    No,
    /// The largest becomes 100.
    Largest,
    /// The largest becomes 0, zero becomes 100.
    Reversed,
    /// From the smallest, which becomes 0, to the largest, which becomes 100.
    Range,
    /// As spreading does: the fewest neighbours get most; a negative score is no score.
    Fewest,
}

impl Normalize {
    /// Changes raw scores in place.
    pub fn apply(self, scores: &mut [i64]) {
        let largest = scores.iter().copied().max().unwrap_or(0);
        let smallest = scores.iter().copied().filter(|s| *s >= 0 || self != Normalize::Fewest).min().unwrap_or(0);
        for score in scores {
            *score = match self {
                Normalize::No => *score,
                Normalize::Largest if largest == 0 => 0,
                Normalize::Largest => *score * SCORE_MAX / largest,
                Normalize::Reversed if largest == 0 => SCORE_MAX,
                Normalize::Reversed => SCORE_MAX - *score * SCORE_MAX / largest,
                Normalize::Range if largest == smallest => 0,
                Normalize::Range => (*score - smallest) * SCORE_MAX / (largest - smallest),
                Normalize::Fewest if *score < 0 => 0,
                Normalize::Fewest if largest == 0 => SCORE_MAX,
                Normalize::Fewest => SCORE_MAX * (largest + smallest - *score) / largest,
            };
        }
    }
}

/// All that one decision looks at.
#[derive(Clone, Copy)]
pub struct Cycle<'a> {
    /// The pod that needs a node.
    pub pod: &'a Pod,
    /// The cluster.
    pub cache: &'a Cache,
    /// How replicas of the pod's workload and Services are spread without being asked; empty if it belongs to none.
    pub defaults: &'a [Spread],
}

impl<'a> Cycle<'a> {
    /// The current answer to one of the questions that the plugin gave in [`Plugin::counts`].
    pub fn count(&self, count: &Count) -> Option<&'a Counts> {
        self.cache.index().get(count)
    }

    /// Whether a term means the cycle's pod.
    pub fn is_meant_by(&self, term: &Neighbours) -> bool {
        term.means(&self.pod.spec.namespace, &self.pod.spec.labels, &|name| self.cache.namespace(name))
    }
}

/// Something that happened and that may make room for a pod.
#[derive(Clone, Debug)]
pub enum Event {
    /// A node appeared or changed.
    Node {
        /// What it offered before, if it was there.
        old: Option<Arc<Offer>>,
        /// What it offers now.
        new: Arc<Offer>,
    },
    /// A node is gone.
    NodeGone,
    /// A pod was placed, or a placed one changed.
    Placed {
        /// The pod.
        pod: Arc<Pod>,
        /// It was placed before.
        changed: bool,
    },
    /// A placed pod is gone.
    Gone(Arc<Pod>),
    /// A claim, volume, class or CSINode appeared or changed.
    Storage,
    /// A device, a class of devices or a resource claim appeared, changed or went.
    Devices,
}

/// A rule. Everything defaults to "has no opinion".
pub trait Plugin: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// How replicas of the pod's workload are spread if the pod does not say.
    fn defaults(&self, _pod: &Pod, _workload: &[LabelSelector]) -> Vec<Spread> {
        Vec::new()
    }

    /// Questions about placed pods whose answers the rule needs.
    fn counts(&self, _pod: &Pod, _defaults: &[Spread]) -> Vec<Arc<Count>> {
        Vec::new()
    }

    /// Refuses the pod whatever the node.
    fn admit(&self, _cycle: &Cycle<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    /// The names of the only nodes that are worth a look, if the rule knows them.
    fn only(&self, _pod: &Pod) -> Option<BTreeSet<String>> {
        None
    }

    /// The check for this pod, if the rule concerns it.
    fn filter<'a>(&'a self, _cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        None
    }

    /// Whether the check looks at nothing but the pod's kind, the node and the pods on it.
    fn is_local(&self) -> bool {
        false
    }

    /// The preference for this pod among feasible nodes, if the rule has one.
    fn score<'a>(&'a self, _cycle: &Cycle<'a>, _feasible: &[&'a Node]) -> Option<Score<'a>> {
        None
    }

    /// Whether an event may make this rule accept a pod that it rejected.
    fn helps(&self, pod: &Pod, event: &Event, cache: &Cache) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalizing() {
        let cases = [
            (Normalize::Largest, [0, 5, 10], [0, 50, 100]),
            (Normalize::Largest, [0, 0, 0], [0, 0, 0]),
            (Normalize::Reversed, [0, 1, 2], [100, 50, 0]),
            (Normalize::Reversed, [0, 0, 0], [100, 100, 100]),
            (Normalize::Range, [-10, 0, 10], [0, 50, 100]),
            (Normalize::Fewest, [2, 4, -1], [100, 50, 0]),
            (Normalize::Fewest, [0, 0, 0], [100, 100, 100]),
        ];
        for (how, mut scores, expected) in cases {
            how.apply(&mut scores);
            assert_eq!(scores, expected, "{how:?}");
        }
    }
}

//! What a plugin is: a rule that rejects nodes, prefers nodes, or both, and that knows which events may help a pod it
//! rejected.

use std::borrow::Cow;
use std::sync::Arc;

use apimachinery::selector::LabelSelector;

use crate::cache::Cache;
use crate::node::{Node, Offer};
use crate::pod::Pod;
use crate::terms::Labels;

/// The best score of one plugin.
pub const SCORE_MAX: i64 = 100;

/// The reasons why a node is rejected, in upstream's words; empty if it is not.
pub type Reasons = Vec<Cow<'static, str>>;

/// A check of one pod, prepared once, asked for each node.
pub type Filter<'a> = Box<dyn Fn(&Node) -> Reasons + 'a>;

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
pub struct Cycle<'a> {
    /// The pod that needs a node.
    pub pod: &'a Pod,
    /// The cluster.
    pub cache: &'a Cache,
    /// The selectors of the workload and Services that the pod belongs to; empty if it belongs to none.
    pub workload: &'a [LabelSelector],
    /// A namespace's labels.
    pub of_namespace: &'a dyn Fn(&str) -> Option<Labels>,
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
    Placed(Arc<Pod>),
    /// A placed pod is gone.
    Gone(Arc<Pod>),
}

/// A rule. Everything defaults to "has no opinion".
pub trait Plugin: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// The check for this pod, if the rule concerns it.
    fn filter<'a>(&self, _cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        None
    }

    /// The preference for this pod among feasible nodes, if the rule has one.
    fn score<'a>(&self, _cycle: &Cycle<'a>, _feasible: &[&'a Node]) -> Option<Score<'a>> {
        None
    }

    /// How much the preference counts.
    fn weight(&self) -> i64 {
        1
    }

    /// Whether an event may make this rule accept a pod that it rejected.
    fn helps(&self, pod: &Pod, event: &Event) -> bool;
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

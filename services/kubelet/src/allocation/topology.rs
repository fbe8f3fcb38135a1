//! Which NUMA nodes a container's resources should come from: hints of the resources' managers, merged. Pure.
//!
//! KEP-693. Each manager says for each resource which sets of nodes could serve it and which of them it would like best;
//! the policy decides what is made of their intersection.

use std::collections::BTreeMap;

/// A set of NUMA nodes, one bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nodes(pub u64);

impl Nodes {
    /// A set of these nodes; ids above 63 are left out.
    pub fn of(nodes: impl IntoIterator<Item = usize>) -> Self {
        Nodes(nodes.into_iter().filter(|n| *n < 64).fold(0, |bits, n| bits | 1 << n))
    }

    /// How many.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether the node is among them.
    pub fn has(self, node: usize) -> bool {
        node < 64 && self.0 & (1 << node) != 0
    }

    /// The ids in order.
    pub fn ids(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |n| self.has(*n))
    }

    /// Every set of some of these nodes.
    pub fn subsets(self) -> Vec<Nodes> {
        let ids: Vec<usize> = self.ids().collect();
        let some = |bits: u64| Nodes::of(ids.iter().enumerate().filter(|(i, _)| bits & (1 << i) != 0).map(|(_, n)| *n));
        (1..1u64 << ids.len().min(16)).map(some).collect()
    }

    /// Fewer nodes are narrower, of as many the lower ones.
    fn is_narrower(self, other: Nodes) -> bool {
        (self.count(), self.0) < (other.count(), other.0)
    }
}

/// One way to serve a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// From these nodes; nothing means from anywhere.
    pub nodes: Option<Nodes>,
    /// Whether the manager could not do better.
    pub preferred: bool,
}

/// What one manager says by resource: nothing if it does not care, an empty list if it cannot serve it at all.
pub type Hints = BTreeMap<String, Option<Vec<Hint>>>;

/// What is made of the hints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    #[default]
    None,
    /// The best is taken, whatever it is.
    BestEffort,
    /// A pod that cannot have a preferred one is refused.
    Restricted,
    /// As above, and one node must serve all.
    SingleNumaNode,
}

impl Policy {
    /// By the configuration's word.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "" | "none" => Policy::None,
            "best-effort" => Policy::BestEffort,
            "restricted" => Policy::Restricted,
            "single-numa-node" => Policy::SingleNumaNode,
            _ => return None,
        })
    }
}

/// The machine's nodes as the merging sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numa {
    /// All nodes.
    pub all: Nodes,
    /// Distance from the first to the second node, if nearness counts (`prefer-closest-numa-nodes`).
    pub distances: Option<BTreeMap<(usize, usize), u32>>,
}

impl Numa {
    fn distance(&self, nodes: Nodes) -> Option<f64> {
        let table = self.distances.as_ref()?;
        let pairs = nodes.ids().flat_map(|a| nodes.ids().map(move |b| (a, b)));
        let found: Vec<f64> = pairs.filter_map(|pair| table.get(&pair).map(|d| f64::from(*d))).collect();
        Some(found.iter().sum::<f64>() / f64::from(u32::try_from(found.len().max(1)).unwrap_or(1)))
    }

    /// The better of two sets: fewer nodes, then nearer ones if that counts, then lower ones.
    fn better(&self, one: Nodes, other: Nodes) -> bool {
        if one.count() == other.count()
            && let (Some(a), Some(b)) = (self.distance(one), self.distance(other))
            && a != b
        {
            return a < b;
        }
        one.is_narrower(other)
    }
}

/// Merges: the hint to follow, and whether the pod may come in.
pub fn merge(policy: Policy, numa: &Numa, providers: &[Hints]) -> (Hint, bool) {
    let anywhere = Hint { nodes: None, preferred: true };
    if policy == Policy::None {
        return (anywhere, true);
    }
    let impossible = Hint { nodes: None, preferred: false };
    let mut lists: Vec<Vec<Hint>> = Vec::new();
    for hints in providers.iter().flat_map(BTreeMap::values) {
        lists.push(match hints {
            None => vec![anywhere],
            Some(list) if list.is_empty() => vec![impossible],
            Some(list) => list.clone(),
        });
    }
    let single = policy == Policy::SingleNumaNode;
    if single {
        // Only what one node serves, or what needs none, can lead to one node.
        lists.iter_mut().for_each(|list| list.retain(|h| h.preferred && h.nodes.is_none_or(|n| n.count() == 1)));
    }
    let fewest = |list: &Vec<Hint>| list.iter().filter_map(|h| h.nodes).map(Nodes::count).min().unwrap_or(0);
    let needed = lists.iter().map(fewest).max().unwrap_or(0);
    let mut best: Option<Hint> = None;
    each_combination(&lists, &mut Vec::new(), &mut |chosen| {
        let candidate = intersection(numa.all, chosen);
        if candidate.nodes.is_some_and(|n| n.count() > 0) && best.is_none_or(|b| wins(numa, needed, b, candidate)) {
            best = Some(candidate);
        }
    });
    let mut best = best.unwrap_or(Hint { nodes: Some(numa.all), preferred: false });
    if single && best.nodes == Some(numa.all) {
        best.nodes = None;
    }
    (best, policy == Policy::BestEffort || best.preferred)
}

fn each_combination(lists: &[Vec<Hint>], chosen: &mut Vec<Hint>, visit: &mut impl FnMut(&[Hint])) {
    let Some((first, rest)) = lists.split_first() else { return visit(chosen) };
    for hint in first {
        chosen.push(*hint);
        each_combination(rest, chosen, visit);
        chosen.pop();
    }
}

/// What serves all of them; preferred only if all agree.
fn intersection(all: Nodes, chosen: &[Hint]) -> Hint {
    let sets: Vec<Nodes> = chosen.iter().filter_map(|h| h.nodes).collect();
    let agree = sets.windows(2).all(|pair| pair[0] == pair[1]);
    let nodes = sets.iter().fold(all, |common, set| Nodes(common.0 & set.0));
    Hint { nodes: Some(nodes), preferred: agree && chosen.iter().all(|h| h.preferred) }
}

/// Whether the candidate is better than the best so far. Among those that nobody prefers, the one whose size is nearest
/// to what the most demanding resource needs is best.
fn wins(numa: &Numa, needed: u32, best: Hint, candidate: Hint) -> bool {
    let (Some(old), Some(new)) = (best.nodes, candidate.nodes) else { return best.nodes.is_none() };
    if best.preferred != candidate.preferred {
        return candidate.preferred;
    }
    if candidate.preferred || old.count() > needed {
        return numa.better(new, old);
    }
    if old.count() == needed {
        return new.count() == needed && numa.better(new, old);
    }
    match (new.count().cmp(&needed), new.count().cmp(&old.count())) {
        (std::cmp::Ordering::Greater, _) => false,
        (std::cmp::Ordering::Equal, _) | (_, std::cmp::Ordering::Greater) => true,
        (_, std::cmp::Ordering::Less) => false,
        (_, std::cmp::Ordering::Equal) => numa.better(new, old),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(nodes: &[usize], preferred: bool) -> Hint {
        Hint { nodes: Some(Nodes::of(nodes.iter().copied())), preferred }
    }

    /// The nodes, whether they are preferred, and whether the pod is admitted.
    type Merged = (Option<Vec<usize>>, bool, bool);

    /// What each resource's owner prefers, if it cares.
    type Lists = Vec<Option<Vec<Hint>>>;

    fn run(policy: Policy, lists: &[Option<Vec<Hint>>]) -> Merged {
        let numa = Numa { all: Nodes::of(0..2), distances: None };
        let providers: Vec<Hints> = lists.iter().map(|l| Hints::from([("r".to_owned(), l.clone())])).collect();
        let (hint, admitted) = merge(policy, &numa, &providers);
        (hint.nodes.map(|n| n.ids().collect()), hint.preferred, admitted)
    }

    #[test]
    fn the_best_common_set_is_found() {
        let either = || Some(vec![hint(&[0], true), hint(&[1], true), hint(&[0, 1], false)]);
        let second = || Some(vec![hint(&[1], true), hint(&[0, 1], false)]);
        let both = || Some(vec![hint(&[0, 1], true)]);
        let rows: Vec<(Policy, Lists, Merged)> = vec![
            (Policy::None, vec![either(), Some(vec![])], (None, true, true)),
            (Policy::BestEffort, vec![either()], (Some(vec![0]), true, true)),
            (Policy::BestEffort, vec![either(), second()], (Some(vec![1]), true, true)),
            (Policy::BestEffort, vec![None, second()], (Some(vec![1]), true, true)),
            (Policy::BestEffort, vec![either(), both()], (Some(vec![0, 1]), false, true)),
            (Policy::Restricted, vec![either(), both()], (Some(vec![0, 1]), false, false)),
            (Policy::Restricted, vec![both()], (Some(vec![0, 1]), true, true)),
            (Policy::SingleNumaNode, vec![both()], (None, false, false)),
            (Policy::SingleNumaNode, vec![either(), second()], (Some(vec![1]), true, true)),
            (Policy::SingleNumaNode, vec![None], (None, true, true)),
            (Policy::SingleNumaNode, vec![Some(vec![])], (None, false, false)),
            (Policy::Restricted, vec![Some(vec![]), either()], (Some(vec![0]), false, false)),
            (Policy::Restricted, vec![], (Some(vec![0, 1]), true, true)),
        ];
        for (policy, lists, expected) in rows {
            assert_eq!(run(policy, &lists), expected, "{policy:?} {lists:?}");
        }
    }

    #[test]
    fn near_nodes_are_better_if_that_counts() {
        let far = |a: usize, b: usize| {
            if a == b {
                10
            } else if a.abs_diff(b) == 2 {
                11
            } else {
                20
            }
        };
        let distances = (0..4).flat_map(|a| (0..4).map(move |b| ((a, b), far(a, b)))).collect();
        let hints = Hints::from([("r".into(), Some(vec![hint(&[0, 1], true), hint(&[1, 3], true)]))]);
        let plain = Numa { all: Nodes::of(0..4), distances: None };
        let near = Numa { distances: Some(distances), ..plain.clone() };
        let best = |numa: &Numa| merge(Policy::BestEffort, numa, std::slice::from_ref(&hints)).0.nodes;
        assert_eq!((best(&plain), best(&near)), (Some(Nodes::of([0, 1])), Some(Nodes::of([1, 3]))));
    }

    #[test]
    fn subsets_are_all_of_them() {
        assert_eq!(Nodes::of([1, 3]).subsets(), [Nodes::of([1]), Nodes::of([3]), Nodes::of([1, 3])]);
    }
}

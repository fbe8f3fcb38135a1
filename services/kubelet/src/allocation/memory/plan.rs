//! Which nodes a container's memory can come from, and what that does to the nodes' books. Pure.
//!
//! KEP-1769. A node serves either containers that fit on it alone or, with always the same other nodes, containers that do
//! not: so a container's memory is never spread further than was promised.

use std::collections::BTreeMap;

use super::super::topology::{Hint, Nodes as Set};
use super::state::{Block, Nodes, State};

/// Bytes of each kind that a container asks for.
pub type Wanted = BTreeMap<String, u64>;

/// Bytes that a pod's init containers have done with, by their nodes and kind.
pub type Reusable = BTreeMap<(Set, String), u64>;

fn sum(nodes: &Nodes, set: Set, amount: impl Fn(&super::state::Node) -> u64) -> u64 {
    set.ids().filter_map(|id| nodes.get(&id)).map(amount).sum()
}

fn free(nodes: &Nodes, set: Set, kind: &str) -> u64 {
    sum(nodes, set, |n| n.memory_map.get(kind).map_or(0, |t| t.free))
}

/// Whether a block on these nodes keeps to the rule of groups.
fn allowed(nodes: &Nodes, set: Set) -> bool {
    let single = set.count() == 1;
    set.ids().filter_map(|id| nodes.get(&id)).all(|node| {
        let group = Set::of(node.cells.iter().copied());
        if single { group.count() <= 1 } else { node.number_of_assignments == 0 || group == set }
    })
}

/// The sets of nodes that could serve, of which those with the fewest nodes are preferred.
pub fn hints(nodes: &Nodes, wanted: &Wanted, reusable: &Reusable) -> Vec<Hint> {
    let all = Set::of(nodes.keys().copied());
    let could = |set: &Set| {
        let all = |kind: &str| sum(nodes, *set, |n| n.memory_map.get(kind).map_or(0, |t| t.allocatable));
        wanted.iter().all(|(kind, size)| all(kind) >= *size)
    };
    let large: Vec<Set> = all.subsets().into_iter().filter(could).collect();
    let fewest = large.iter().map(|set| set.count()).min().unwrap_or(all.count());
    let has = |set: Set| {
        wanted.iter().all(|(kind, size)| {
            let again = reusable.get(&(set, kind.clone())).copied().unwrap_or(0);
            free(nodes, set, kind) + again >= *size
        })
    };
    let possible = large.into_iter().filter(|set| allowed(nodes, *set) && has(*set));
    possible.map(|set| Hint { nodes: Some(set), preferred: set.count() == fewest }).collect()
}

/// The preferred one with the fewest nodes.
fn best(hints: Vec<Hint>) -> Option<(Set, bool)> {
    let found = hints.into_iter().filter_map(|h| Some((h.nodes?, h.preferred)));
    found.min_by_key(|(set, preferred)| (!preferred, set.count(), set.0))
}

/// The nodes for a container: those that the topology policy chose, more of them if they do not suffice, or the best if it
/// chose none.
///
/// # Errors
/// No nodes can serve.
pub fn choose(nodes: &Nodes, wanted: &Wanted, reusable: &Reusable, chosen: Hint) -> Result<Set, String> {
    let (mut set, mut preferred) = match chosen.nodes {
        Some(set) => (set, chosen.preferred),
        None => best(hints(nodes, wanted, reusable)).ok_or(
            "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available",
        )?,
    };
    if !preferred && chosen.preferred {
        return Err("[memorymanager] failed to find the default preferred hint".into());
    }
    if !wanted.iter().all(|(kind, size)| free(nodes, set, kind) >= *size) {
        let holds = |hint: &Hint| hint.nodes.is_some_and(|n| n.0 & set.0 == set.0);
        let more = best(hints(nodes, wanted, reusable).into_iter().filter(holds).collect());
        let extended = more.ok_or("[memorymanager] failed to find NUMA nodes to extend the current topology hint")?;
        let before = std::mem::replace(&mut preferred, extended.1);
        if before && !preferred {
            return Err("[memorymanager] failed to find the extended preferred hint".into());
        }
        set = extended.0;
    }
    if set.count() > 1 && !allowed(nodes, set) {
        return Err("[memorymanager] preferred hint violates NUMA node allocation".into());
    }
    Ok(set)
}

/// Books a block: what one node has not, the next one gives.
pub fn book(nodes: &mut Nodes, on: &[usize], kind: &str, mut size: u64) {
    for id in on {
        let Some(node) = nodes.get_mut(id) else { continue };
        node.number_of_assignments += 1;
        node.cells = on.to_vec();
        if let Some(table) = node.memory_map.get_mut(kind) {
            let part = size.min(table.free);
            table.free -= part;
            table.reserved += part;
            size -= part;
        }
    }
}

/// Takes a block off the books.
fn unbook(nodes: &mut Nodes, block: &Block) {
    let mut size = block.size;
    for id in &block.nodes {
        let Some(node) = nodes.get_mut(id) else { continue };
        node.number_of_assignments = node.number_of_assignments.saturating_sub(1);
        if node.number_of_assignments == 0 {
            node.cells = vec![*id];
        }
        if let Some(table) = node.memory_map.get_mut(&block.kind) {
            let part = size.min(table.reserved);
            table.reserved -= part;
            table.free += part;
            size -= part;
        }
    }
}

/// Takes back everything of a pod.
pub fn release(state: &mut State, uid: &str) {
    let gone = state.entries.remove(uid).unwrap_or_default();
    gone.values().flatten().for_each(|block| unbook(&mut state.nodes, block));
}

/// What init containers have done with goes over to the next container: of what they are said to have nothing is counted
/// twice.
pub fn hand_over(earlier: &mut [&mut Vec<Block>], block: &Block) {
    let mut size = block.size;
    for old in earlier.iter_mut().flat_map(|blocks| blocks.iter_mut()) {
        if old.kind == block.kind && old.nodes == block.nodes {
            let part = size.min(old.size);
            old.size -= part;
            size -= part;
        }
    }
}

/// Whether the books are those that the entries lead to from `fresh` ones.
///
/// # Errors
/// The machine or the reservation changed, or the file was written by hand.
pub fn check(fresh: &Nodes, state: State) -> Result<State, String> {
    let mut expected = fresh.clone();
    for (pod, containers) in &state.entries {
        for (name, blocks) in containers {
            for block in blocks {
                let wrong = |what: &str| {
                    format!("[memorymanager] (pod: {pod}, container: {name}) the memory assignment uses {what}")
                };
                for id in &block.nodes {
                    let node = expected.get(id).ok_or_else(|| wrong("the NUMA that does not exist"))?;
                    if !node.memory_map.contains_key(&block.kind) {
                        return Err(wrong("memory resource that does not exist"));
                    }
                }
                book(&mut expected, &block.nodes, &block.kind, block.size);
            }
        }
    }
    // Within a group only the sums say the same: they depend on the order in which blocks came and went.
    let same = expected.len() == state.nodes.len()
        && expected.iter().all(|(id, node)| {
            let Some(other) = state.nodes.get(id) else { return false };
            let group = Set::of(node.cells.iter().copied());
            let shape = (node.number_of_assignments, group, node.memory_map.len())
                == (other.number_of_assignments, Set::of(other.cells.iter().copied()), other.memory_map.len());
            shape
                && node.memory_map.iter().all(|(kind, a)| {
                    let fixed = other.memory_map.get(kind).is_some_and(|b| {
                        (a.total, a.system_reserved, a.allocatable) == (b.total, b.system_reserved, b.allocatable)
                    });
                    fixed && free(&expected, group, kind) == free(&state.nodes, group, kind)
                })
        });
    match same {
        true => Ok(state),
        false => Err("[memorymanager] the expected machine state is different from the real one".into()),
    }
}

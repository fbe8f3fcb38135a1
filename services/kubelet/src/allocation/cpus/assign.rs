//! Which CPUs a container gets. Pure.
//!
//! Whole NUMA nodes and sockets first, then whole cores, then single threads; of several the one that is used most already,
//! so that large units stay free for those who need them (KEP-3570, and KEP-2902 for spreading).

use std::collections::{BTreeMap, BTreeSet};

use super::machine::{Machine, Place};
use super::set::CpuSet;

/// The policy's options that concern the choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// `full-pcpus-only`: cores are not shared.
    pub whole_cores: bool,
    /// `distribute-cpus-across-numa`: evenly over the nodes that are needed.
    pub spread: bool,
    /// `prefer-align-cpus-by-uncorecache`.
    pub by_cache: bool,
}

/// Takes `count` CPUs of those that are free.
///
/// # Errors
/// There are not as many.
pub fn take(machine: &Machine, free: &CpuSet, count: usize, manner: Manner) -> Result<CpuSet, String> {
    if free.len() < count {
        let have = free.len();
        return Err(format!("not enough cpus available to satisfy request: requested={count}, available={have}"));
    }
    let spread = if manner.spread { spread(machine, free, count, manner) } else { None };
    Ok(spread.unwrap_or_else(|| pack(machine, free, count, manner)))
}

type Unit = fn(Place) -> usize;

const NODE: Unit = |p| p.node;
const SOCKET: Unit = |p| p.socket;
const CACHE: Unit = |p| p.cache;
const CORE: Unit = |p| p.core;

fn pack(machine: &Machine, free: &CpuSet, count: usize, manner: Manner) -> CpuSet {
    let mut left = Left { machine, free: free.clone(), taken: CpuSet::default(), missing: count };
    // The larger of the two comes first.
    let wide = machine.count(SOCKET) >= machine.count(NODE);
    for unit in if wide { [NODE, SOCKET] } else { [SOCKET, NODE] } {
        left.take_whole(unit);
    }
    if manner.by_cache {
        left.take_whole(CACHE);
        left.take_rest_of_one_cache();
    }
    left.take_whole(CORE);
    left.take_threads();
    left.taken
}

struct Left<'a> {
    machine: &'a Machine,
    free: CpuSet,
    taken: CpuSet,
    missing: usize,
}

impl Left<'_> {
    fn take(&mut self, cpus: &CpuSet) {
        self.taken = self.taken.with(cpus);
        self.free = self.free.without(cpus);
        self.missing -= cpus.len();
    }

    /// Free CPUs in the order in which they are used up: by how few are free around them.
    fn ordered(&self) -> Vec<usize> {
        let levels: &[Unit] = if self.machine.count(SOCKET) >= self.machine.count(NODE) {
            &[NODE, SOCKET, CORE]
        } else {
            &[SOCKET, NODE, CORE]
        };
        let mut free: Vec<BTreeMap<usize, usize>> = vec![BTreeMap::new(); levels.len()];
        for cpu in &self.free.0 {
            for (level, unit) in levels.iter().enumerate() {
                *free[level].entry(unit(self.machine.place(*cpu))).or_default() += 1;
            }
        }
        let mut cpus: Vec<usize> = self.free.0.iter().copied().collect();
        cpus.sort_by_cached_key(|cpu| {
            let place = self.machine.place(*cpu);
            let key =
                |(level, unit): (usize, &Unit)| (free[level].get(&unit(place)).copied().unwrap_or(0), unit(place));
            (levels.iter().enumerate().map(key).collect::<Vec<_>>(), *cpu)
        });
        cpus
    }

    /// Units that are free as a whole and not larger than what is missing.
    fn take_whole(&mut self, unit: Unit) {
        let mut seen = BTreeSet::new();
        for cpu in self.ordered() {
            if !seen.insert(unit(self.machine.place(cpu))) {
                continue;
            }
            let all = self.machine.around(&[cpu].into_iter().collect(), unit);
            if all.len() <= self.missing && all.without(&self.free).is_empty() {
                self.take(&all);
            }
        }
    }

    /// What is missing comes from one cache if one has it: the one with the fewest to spare.
    fn take_rest_of_one_cache(&mut self) {
        let mut caches: BTreeMap<usize, CpuSet> = BTreeMap::new();
        for cpu in &self.free.0 {
            caches.entry(self.machine.place(*cpu).cache).or_default().0.insert(*cpu);
        }
        let fits = caches.into_values().filter(|cpus| self.missing > 0 && cpus.len() >= self.missing);
        if let Some(cpus) = fits.min_by_key(CpuSet::len) {
            let rest = pack(self.machine, &cpus, self.missing, Manner::default());
            self.take(&rest);
        }
    }

    fn take_threads(&mut self) {
        let rest: CpuSet = self.ordered().into_iter().take(self.missing).collect();
        self.take(&rest);
    }
}

/// Evenly over as few nodes as possible; nothing if that cannot be done.
fn spread(machine: &Machine, free: &CpuSet, count: usize, manner: Manner) -> Option<CpuSet> {
    let group = if manner.whole_cores { machine.threads() } else { 1 };
    let nodes: Vec<usize> = machine.0.values().map(|p| p.node).collect::<BTreeSet<_>>().into_iter().collect();
    let free_of = |node: usize| free.only(|cpu| machine.place(cpu).node == node);
    for size in 1..=nodes.len() {
        let each = count / size / group * group;
        if each == 0 {
            break;
        }
        let fits = |set: &Vec<usize>| {
            set.iter().all(|n| free_of(*n).len() >= each)
                && set.iter().map(|n| free_of(*n).len()).sum::<usize>() >= count
        };
        let sets = combinations(&nodes, size).into_iter().filter(fits);
        // The most even use of what is left is best.
        let Some(best) = sets.min_by_key(|set| {
            let after = set.iter().map(|n| free_of(*n).len() - each);
            (after.clone().max().unwrap_or(0) - after.min().unwrap_or(0), set.clone())
        }) else {
            continue;
        };
        return share(machine, free, count, each, group, &best);
    }
    None
}

fn share(m: &Machine, free: &CpuSet, count: usize, each: usize, group: usize, nodes: &[usize]) -> Option<CpuSet> {
    let mut rest = count - each * nodes.len();
    let mut shares: Vec<(usize, CpuSet)> =
        nodes.iter().map(|n| (each, free.only(|cpu| m.place(cpu).node == *n))).collect();
    while rest > 0 {
        // What does not divide goes in groups to where most is left.
        let step = group.min(rest);
        let open = shares.iter_mut().filter(|(n, cpus)| cpus.len() >= n + step);
        let next = open.min_by_key(|(n, cpus)| std::cmp::Reverse(cpus.len() - n))?;
        next.0 += step;
        rest -= step;
    }
    let parts = shares.iter().map(|(n, cpus)| pack(m, cpus, *n, Manner::default()));
    Some(parts.fold(CpuSet::default(), |all, part| all.with(&part)))
}

fn combinations(items: &[usize], size: usize) -> Vec<Vec<usize>> {
    let Some((first, rest)) = items.split_first().filter(|_| size > 0) else {
        return if size == 0 { vec![Vec::new()] } else { Vec::new() };
    };
    let with = combinations(rest, size - 1).into_iter().map(|mut set| {
        set.insert(0, *first);
        set
    });
    with.chain(combinations(rest, size)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::machine;
    use super::*;

    fn run(shape: (usize, usize, usize, usize), free: &str, count: usize, manner: Manner) -> String {
        let machine = machine(shape.0, shape.1, shape.2, shape.3);
        take(&machine, &CpuSet::parse(free).unwrap(), count, manner).map_or_else(|e| e, |set| set.to_string())
    }

    #[test]
    fn units_are_taken_whole_and_used_ones_filled_up() {
        // Two sockets with a node of four cores of two threads each: node 0 is 0-3,8-11, node 1 is 4-7,12-15.
        let shape = (2, 1, 4, 2);
        for (free, count, expected) in [
            ("0-15", 1, "0"),
            ("0-15", 2, "0,8"),
            ("0-15", 3, "0-1,8"),
            ("0-15", 8, "0-3,8-11"),
            ("0-15", 10, "0-4,8-12"),
            ("1-15", 1, "8"),
            ("1-15", 2, "1,9"),
            ("1-15", 8, "4-7,12-15"),
            ("1-3,9-15", 4, "1-2,9-10"),
            ("0-15", 16, "0-15"),
            ("0-1", 3, "not enough cpus available to satisfy request: requested=3, available=2"),
        ] {
            assert_eq!(run(shape, free, count, Manner::default()), expected, "{count} of {free}");
        }
    }

    #[test]
    fn cpus_are_spread_evenly_over_as_few_nodes_as_needed() {
        let shape = (2, 1, 4, 2);
        let spread = Manner { spread: true, ..Manner::default() };
        for (free, count, manner, expected) in [
            ("0-15", 8, spread, "0-3,8-11"),
            ("0-15", 10, spread, "0-2,4-6,8-9,12-13"),
            ("1-15", 8, spread, "4-7,12-15"),
            ("1-3,5-7,9-11,13-15", 8, spread, "1-2,5-6,9-10,13-14"),
            ("0-15", 10, Manner { whole_cores: true, ..spread }, "0-2,4-5,8-10,12-13"),
        ] {
            assert_eq!(run(shape, free, count, manner), expected, "{count} of {free}");
        }
    }

    #[test]
    fn one_cache_is_better_than_two() {
        let by_cache = Manner { by_cache: true, ..Manner::default() };
        // Four cores of one thread; 0-1 and 2-3 share a cache.
        assert_eq!(run((1, 1, 4, 1), "1-3", 2, Manner::default()), "1-2");
        assert_eq!(run((1, 1, 4, 1), "1-3", 2, by_cache), "2-3");
        assert_eq!(run((1, 1, 4, 1), "0,2-3", 1, by_cache), "0");
    }
}

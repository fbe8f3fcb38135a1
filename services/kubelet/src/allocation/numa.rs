//! The machine's NUMA nodes, read from the kernel (Documentation/ABI/stable/sysfs-devices-node).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::topology::{Nodes, Numa};

/// Reads the nodes under `/sys/devices/system/node`, with their distances if `near` ones are wanted. A kernel without
/// NUMA counts as one node.
pub fn read(folder: &Path, near: bool) -> Numa {
    let id = |name: &str| name.strip_prefix("node")?.parse::<usize>().ok();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut ids: Vec<usize> = entries.filter_map(|e| id(e.file_name().to_str()?)).collect();
    ids.sort_unstable();
    if ids.is_empty() {
        ids.push(0);
    }
    let mut distances = BTreeMap::new();
    for from in &ids {
        let line = fs::read_to_string(folder.join(format!("node{from}/distance"))).unwrap_or_default();
        for (to, distance) in ids.iter().zip(line.split_whitespace()) {
            distances.extend(distance.parse::<u32>().ok().map(|d| ((*from, *to), d)));
        }
    }
    Numa { all: Nodes::of(ids), distances: near.then_some(distances) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_distances_are_read() {
        let base = std::env::temp_dir().join(format!("kubelet-numa-{}", std::process::id()));
        for (node, line) in [("node0", "10 21\n"), ("node2", "21 10\n")] {
            fs::create_dir_all(base.join(node)).unwrap();
            fs::write(base.join(node).join("distance"), line).unwrap();
        }
        let numa = read(&base, true);
        assert_eq!((numa.all, numa.distances.unwrap()[&(0, 2)]), (Nodes::of([0, 2]), 21));
        assert_eq!(read(&base, false).distances, None);
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(read(&base, true).all, Nodes::of([0]));
    }
}

//! The memory of the machine's NUMA nodes, read from the kernel, and the books of a node on which nothing is given yet.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::super::numa;
use super::Sizes;
use super::state::{Node, Nodes, Table};
use crate::config::KubeletConfiguration;
use crate::node_status::machine::{huge_pages, huge_resource};
use crate::pod::amount;

/// Reads what each node under `system` (`/sys/devices/system`) has: all memory, and of it the huge pages.
///
/// # Errors
/// The kernel does not say.
pub fn read(system: &Path) -> Result<Sizes, String> {
    let folder = system.join("node");
    let mut sizes = Sizes::new();
    for id in numa::read(&folder, false).all.ids() {
        let node = folder.join(format!("node{id}"));
        let (file, pages) = (node.join("meminfo"), node.join("hugepages"));
        // A kernel without NUMA has one node and no folder for it.
        let (file, pages) =
            if file.exists() { (file, pages) } else { ("/proc/meminfo".into(), "/sys/kernel/mm/hugepages".into()) };
        let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let total = total(&text).ok_or_else(|| format!("{}: no line MemTotal", file.display()))?;
        let mut kinds = BTreeMap::from([("memory".to_owned(), total)]);
        for (kibibytes, bytes) in huge_pages(&pages) {
            kinds.insert(huge_resource(kibibytes), u64::try_from(bytes).unwrap_or(0));
        }
        sizes.insert(id, kinds);
    }
    Ok(sizes)
}

/// Bytes of `MemTotal`, which a node's file has behind the node's number.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.split_once("MemTotal:"))?.1;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// The books of a node on which nothing is given yet.
///
/// # Errors
/// `reservedMemory` names a node that does not exist, more than one has, or not as much as node allocatable keeps.
pub fn books(sizes: &Sizes, config: &KubeletConfiguration, reserved: i128) -> Result<Nodes, String> {
    let mut kept = Sizes::new();
    for entry in &config.options.reserved_memory {
        let kinds = sizes.get(&entry.numa_node).ok_or_else(|| {
            format!(
                "the reserved memory configuration references a NUMA node {} that does not exist on this machine",
                entry.numa_node
            )
        })?;
        for kind in entry.limits.keys() {
            let bytes = u64::try_from(amount(&entry.limits, kind) / 1000).unwrap_or(0);
            if kinds.get(kind).is_none_or(|all| bytes > *all) {
                return Err(format!(
                    "reservedMemory: NUMA node {} does not have {bytes} bytes of {kind}",
                    entry.numa_node
                ));
            }
            kept.entry(entry.numa_node).or_default().insert(kind.clone(), bytes);
        }
    }
    let total: u64 = kept.values().filter_map(|kinds| kinds.get("memory")).sum();
    if total == 0 {
        return Err("[memorymanager] you should specify the system reserved memory".into());
    }
    if i128::from(total) != reserved {
        return Err(format!(
            "the total amount {total:?} of type \"memory\" is not equal to the value {reserved:?} determined by Node Allocatable feature"
        ));
    }
    let one = |(id, kinds): (&usize, &BTreeMap<String, u64>)| {
        let huge: u64 = kinds.iter().filter(|(kind, _)| *kind != "memory").map(|(_, bytes)| bytes).sum();
        let table = |(kind, total): (&String, &u64)| {
            let system_reserved = kept.get(id).and_then(|k| k.get(kind)).copied().unwrap_or(0);
            let taken = system_reserved + if kind == "memory" { huge } else { 0 };
            let allocatable = total.saturating_sub(taken);
            (kind.clone(), Table { total: *total, system_reserved, allocatable, reserved: 0, free: allocatable })
        };
        (*id, Node { number_of_assignments: 0, memory_map: kinds.iter().map(table).collect(), cells: vec![*id] })
    };
    Ok(sizes.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MemoryReservation, PolicyOptions};

    #[test]
    fn nodes_are_read_with_their_huge_pages() {
        let base = std::env::temp_dir().join(format!("kubelet-numa-memory-{}", std::process::id()));
        let node = base.join("node/node1");
        fs::create_dir_all(node.join("hugepages/hugepages-2048kB")).unwrap();
        fs::write(node.join("meminfo"), "Node 1 MemTotal:       4096 kB\nNode 1 MemFree: 1 kB\n").unwrap();
        fs::write(node.join("hugepages/hugepages-2048kB/nr_hugepages"), "1\n").unwrap();
        let sizes = read(&base).unwrap();
        assert_eq!(sizes[&1], BTreeMap::from([("hugepages-2Mi".into(), 2 << 20), ("memory".into(), 4 << 20)]));
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn the_reservation_must_be_that_of_node_allocatable() {
        let sizes = Sizes::from([(0, [("memory".to_owned(), 1000), ("hugepages-2Mi".to_owned(), 100)].into())]);
        let config = |numa_node: usize, bytes: &str| {
            let limits = [("memory".to_owned(), bytes.to_owned())].into();
            let reserved_memory = vec![MemoryReservation { numa_node, limits }];
            let options = PolicyOptions { reserved_memory, ..PolicyOptions::default() };
            KubeletConfiguration { options, ..KubeletConfiguration::default() }
        };
        let table = books(&sizes, &config(0, "200"), 200).unwrap()[&0].memory_map["memory"].clone();
        assert_eq!((table.total, table.system_reserved, table.allocatable, table.free), (1000, 200, 700, 700));
        for (config, says) in [
            (config(0, "201"), "is not equal to the value 200 determined by Node Allocatable"),
            (config(3, "200"), "NUMA node 3 that does not exist"),
            (config(0, "2000"), "does not have 2000 bytes"),
            (KubeletConfiguration::default(), "you should specify the system reserved memory"),
        ] {
            let error = books(&sizes, &config, 200).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}

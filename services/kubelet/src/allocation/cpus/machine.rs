//! Where each CPU is: core, cache, socket and NUMA node, read from the kernel (Documentation/admin-guide/cputopology.rst).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::set::CpuSet;

/// A CPU's place. Cores and caches are named by their first CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Physical core.
    pub core: usize,
    /// Last-level cache.
    pub cache: usize,
    /// Socket.
    pub socket: usize,
    /// NUMA node.
    pub node: usize,
}

/// The machine's CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine(pub BTreeMap<usize, Place>);

impl Machine {
    /// Reads `/sys/devices/system`: the CPUs that are online.
    ///
    /// # Errors
    /// The list of CPUs cannot be read.
    pub fn read(system: &Path) -> Result<Self, String> {
        let path = system.join("cpu/online");
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut nodes = BTreeMap::new();
        for entry in fs::read_dir(system.join("node")).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let Some(node) = name.strip_prefix("node").and_then(|n| n.parse::<usize>().ok()) else { continue };
            let list = fs::read_to_string(entry.path().join("cpulist")).unwrap_or_default();
            nodes.extend(CpuSet::parse(&list)?.0.into_iter().map(|cpu| (cpu, node)));
        }
        let place = |cpu: usize| {
            let file = |name: &str| fs::read_to_string(system.join(format!("cpu/cpu{cpu}/{name}"))).ok();
            let first = |name: &str| CpuSet::parse(&file(name)?).ok()?.0.first().copied();
            Place {
                core: first("topology/thread_siblings_list").unwrap_or(cpu),
                cache: first("cache/index3/shared_cpu_list").unwrap_or(cpu),
                socket: file("topology/physical_package_id").and_then(|t| t.trim().parse().ok()).unwrap_or(0),
                node: nodes.get(&cpu).copied().unwrap_or(0),
            }
        };
        Ok(Machine(CpuSet::parse(&text)?.0.into_iter().map(|cpu| (cpu, place(cpu))).collect()))
    }

    /// All CPUs.
    pub fn all(&self) -> CpuSet {
        self.0.keys().copied().collect()
    }

    /// A CPU's place.
    pub fn place(&self, cpu: usize) -> Place {
        self.0.get(&cpu).copied().unwrap_or_default()
    }

    /// The CPUs in the same unit as any of these.
    pub fn around(&self, cpus: &CpuSet, unit: fn(Place) -> usize) -> CpuSet {
        let units: std::collections::BTreeSet<usize> = cpus.0.iter().map(|c| unit(self.place(*c))).collect();
        self.0.iter().filter(|(_, p)| units.contains(&unit(**p))).map(|(cpu, _)| *cpu).collect()
    }

    /// How many units of a kind there are.
    pub fn count(&self, unit: fn(Place) -> usize) -> usize {
        self.0.values().map(|p| unit(*p)).collect::<std::collections::BTreeSet<_>>().len()
    }

    /// CPUs on each core.
    pub fn threads(&self) -> usize {
        (self.0.len() / self.count(|p| p.core).max(1)).max(1)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A machine as data: sockets, nodes in each, cores in each of those, threads on each; CPUs are numbered the way most
    /// firmware does, the second threads after all the first ones. Two cores share a cache.
    pub fn machine(sockets: usize, nodes: usize, cores: usize, threads: usize) -> Machine {
        let all = sockets * nodes * cores;
        let place = |cpu: usize| {
            let core = cpu % all;
            Place { core, cache: core / 2 * 2, socket: core / (nodes * cores), node: core / cores }
        };
        Machine((0..all * threads).map(|cpu| (cpu, place(cpu))).collect())
    }

    #[test]
    fn the_kernels_files_are_read() {
        let base = std::env::temp_dir().join(format!("kubelet-cpus-{}", std::process::id()));
        let write = |name: &str, text: &str| {
            let path = base.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("cpu/online", "0-3\n");
        write("node/node0/cpulist", "0,2\n");
        write("node/node1/cpulist", "1,3\n");
        for cpu in 0..4 {
            write(&format!("cpu/cpu{cpu}/topology/thread_siblings_list"), &format!("{},{}", cpu % 2, cpu % 2 + 2));
            write(&format!("cpu/cpu{cpu}/topology/physical_package_id"), &(cpu % 2).to_string());
            write(&format!("cpu/cpu{cpu}/cache/index3/shared_cpu_list"), &format!("{},{}", cpu % 2, cpu % 2 + 2));
        }
        let read = Machine::read(&base).unwrap();
        assert_eq!(read.place(3), Place { core: 1, cache: 1, socket: 1, node: 1 });
        assert_eq!((read.threads(), read.count(|p| p.node)), (2, 2));
        assert_eq!(read.around(&CpuSet::parse("0").unwrap(), |p| p.core).to_string(), "0,2");
        fs::remove_dir_all(&base).unwrap();
        assert!(Machine::read(&base).is_err());
    }
}

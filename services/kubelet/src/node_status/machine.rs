//! The machine's facts, read from the kernel.

use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use crate::pod::Map;

/// Facts that do not change while the kubelet runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors that are online.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: i128,
    /// Bytes of the disk that holds pods' volumes.
    pub disk: u128,
    /// Whether only cgroup v2 is mounted.
    pub cgroup2: bool,
    /// Machine id.
    pub machine_id: String,
    /// Firmware's id of the system.
    pub system_uuid: String,
    /// Id of this boot.
    pub boot_id: String,
    /// Kernel release.
    pub kernel: String,
    /// Name of the operating system.
    pub os_image: String,
}

/// What runs short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Less than 100 MiB of memory are available.
    pub memory: bool,
    /// Less than a tenth of the disk, or a twentieth of its inodes, is free.
    pub disk: bool,
    /// Few process ids are left.
    pub pid: bool,
}

/// Memory that stays with the system, and the threshold of memory pressure.
pub const MEMORY_RESERVE: i128 = 100 << 20;

impl Machine {
    /// Reads the facts.
    pub fn detect(root: &Path) -> Machine {
        let line = |path: &str| fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: meminfo("MemTotal").unwrap_or(0),
            disk: disk(root).map_or(0, |(total, _)| total),
            cgroup2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        }
    }

    /// What pods may use, as quantities.
    pub fn allocatable_amounts(&self, max_pods: u32) -> Map {
        let mut amounts = self.capacity_amounts(max_pods);
        amounts.insert("memory".into(), format!("{}Ki", ((self.memory - MEMORY_RESERVE).max(0)) / 1024));
        amounts.insert("ephemeral-storage".into(), (self.disk / 10 * 9).to_string());
        amounts
    }

    /// What the machine has, as quantities.
    pub fn capacity_amounts(&self, max_pods: u32) -> Map {
        Map::from([
            ("cpu".to_owned(), self.cpus.to_string()),
            ("memory".to_owned(), format!("{}Ki", self.memory / 1024)),
            ("ephemeral-storage".to_owned(), format!("{}Ki", self.disk / 1024)),
            ("pods".to_owned(), max_pods.to_string()),
            ("hugepages-1Gi".to_owned(), "0".to_owned()),
            ("hugepages-2Mi".to_owned(), "0".to_owned()),
        ])
    }
}

/// Bytes of memory that are available now.
pub fn available_memory() -> Option<i128> {
    meminfo("MemAvailable")
}

/// What runs short now.
pub fn pressure(root: &Path) -> Pressure {
    let free_inodes = statvfs(root).ok().map(|s| (s.files(), s.files_available())).filter(|(all, _)| *all > 0);
    let pid_max = fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|t| t.trim().parse::<u64>().ok());
    let running = fs::read_to_string("/proc/loadavg").ok().and_then(|t| tasks(&t));
    Pressure {
        memory: meminfo("MemAvailable").is_some_and(|bytes| bytes < MEMORY_RESERVE),
        disk: disk(root).is_some_and(|(total, free)| free * 10 < total)
            || free_inodes.is_some_and(|(all, free)| free * 20 < all),
        pid: pid_max.zip(running).is_some_and(|(max, running)| running * 10 > max * 9),
    }
}

fn disk(root: &Path) -> Option<(u128, u128)> {
    let stat = statvfs(root).ok()?;
    let unit = u128::from(stat.fragment_size());
    Some((u128::from(stat.blocks()) * unit, u128::from(stat.blocks_available()) * unit))
}

fn meminfo(field: &str) -> Option<i128> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
    let kibibytes: i128 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// The number of tasks in the fourth field of /proc/loadavg: `running/all`.
fn tasks(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split('/').nth(1)?.parse().ok()
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |n| n.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        assert_eq!(tasks("0.00 0.01 0.05 1/123 4567"), Some(123));
        assert_eq!(os_image("ID=x\nPRETTY_NAME=\"Corten 0.1\"\n"), "Corten 0.1");
        assert_eq!(os_image(""), "Linux");
    }

    #[test]
    fn pods_get_less_than_the_machine_has() {
        let machine = Machine { cpus: 2, memory: 1 << 30, disk: 1000, ..Machine::default() };
        assert_eq!(machine.capacity_amounts(110)["memory"], "1048576Ki");
        assert_eq!(machine.allocatable_amounts(110)["memory"], "946176Ki");
        assert_eq!(machine.allocatable_amounts(110)["ephemeral-storage"], "900");
    }
}

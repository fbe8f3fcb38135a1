//! The machine's facts, read from the kernel.

use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use crate::config::KubeletConfiguration;
use crate::eviction::thresholds::{self, Signal};
use crate::pod::Map;

/// Facts that do not change while the kubelet runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors that are online.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: i128,
    /// Bytes of swap.
    pub swap: i128,
    /// Kibibytes of each size of huge pages, with the bytes that were set aside.
    pub huge_pages: Vec<(u64, i128)>,
    /// Bytes of the disk that holds pods' volumes.
    pub disk: u128,
    /// Whether only cgroup v2 is mounted.
    pub cgroup2: bool,
    /// Whether the kernel enforces AppArmor profiles.
    pub apparmor: bool,
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
    /// Memory.
    pub memory: bool,
    /// Space or inodes of a disk.
    pub disk: bool,
    /// Process ids.
    pub pid: bool,
}

impl Machine {
    /// Reads the facts.
    pub fn detect(root: &Path) -> Machine {
        let line = |path: &str| fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: meminfo("MemTotal").unwrap_or(0),
            swap: meminfo("SwapTotal").unwrap_or(0),
            disk: disk(root).map_or(0, |(total, _)| total),
            huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
            cgroup2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            apparmor: line("/sys/module/apparmor/parameters/enabled") == "Y",
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        }
    }

    /// What pods may use, as quantities: what there is less what is reserved and what hard eviction keeps free.
    pub fn allocatable(&self, config: &KubeletConfiguration) -> Map {
        let mut amounts = self.capacity(config);
        let cpu = (i128::try_from(self.cpus).unwrap_or(0) * 1000 - config.reserved("cpu")).max(0);
        let cpu = if cpu % 1000 == 0 { (cpu / 1000).to_string() } else { format!("{cpu}m") };
        let huge: i128 = self.huge_pages.iter().map(|(_, bytes)| bytes).sum();
        let memory = self.memory - huge - self.kept_memory(config);
        let disk = i128::try_from(self.disk).unwrap_or(i128::MAX);
        let disk = disk - config.reserved("ephemeral-storage") / 1000 - self.kept(config, Signal::NodeSpace, disk);
        amounts.insert("cpu".into(), cpu);
        amounts.insert("memory".into(), format!("{}Ki", memory.max(0) / 1024));
        amounts.insert("ephemeral-storage".into(), disk.max(0).to_string());
        amounts
    }

    /// Bytes of memory that pods do not get: reservations and what hard eviction keeps free.
    pub fn kept_memory(&self, config: &KubeletConfiguration) -> i128 {
        config.reserved("memory") / 1000 + self.kept(config, Signal::Memory, self.memory)
    }

    /// What hard eviction keeps free of all there is.
    fn kept(&self, config: &KubeletConfiguration, signal: Signal, all: i128) -> i128 {
        let hard = thresholds::parse(config).unwrap_or_default();
        hard.iter().filter(|t| t.signal == signal && t.grace.is_none()).map(|t| t.below.of(all)).max().unwrap_or(0)
    }

    /// What the machine has, as quantities.
    pub fn capacity(&self, config: &KubeletConfiguration) -> Map {
        let by_cores = u32::try_from(self.cpus).unwrap_or(u32::MAX).saturating_mul(config.pods_per_core);
        let pods = if by_cores > 0 { config.max_pods.min(by_cores) } else { config.max_pods };
        let mut amounts = Map::from([
            ("cpu".to_owned(), self.cpus.to_string()),
            ("memory".to_owned(), format!("{}Ki", self.memory / 1024)),
            ("ephemeral-storage".to_owned(), format!("{}Ki", self.disk / 1024)),
            ("pods".to_owned(), pods.to_string()),
        ]);
        for (kibibytes, bytes) in &self.huge_pages {
            let amount = if *bytes == 0 { "0".to_owned() } else { format!("{}Mi", bytes >> 20) };
            amounts.insert(huge_resource(*kibibytes), amount);
        }
        amounts
    }
}

/// The resource's name of huge pages of this size.
pub fn huge_resource(kibibytes: u64) -> String {
    match kibibytes {
        n if n >= 1 << 20 => format!("hugepages-{}Gi", n >> 20),
        n if n >= 1 << 10 => format!("hugepages-{}Mi", n >> 10),
        n => format!("hugepages-{n}Ki"),
    }
}

/// Kibibytes of each size of huge pages the kernel has, with the bytes that were set aside.
pub fn huge_pages(folder: &Path) -> Vec<(u64, i128)> {
    let mut sizes: Vec<(u64, i128)> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let pages: i128 = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
            (size >= 1024).then(|| (size, pages * i128::from(size) * 1024))
        })
        .collect();
    sizes.sort_unstable();
    sizes
}

/// Bytes of memory that are available now.
pub fn available_memory() -> Option<i128> {
    meminfo("MemAvailable")
}

/// Bytes of memory.
pub fn total_memory() -> Option<i128> {
    meminfo("MemTotal")
}

/// Free process ids and all of them.
pub fn process_ids() -> Option<(i128, i128)> {
    let all: i128 = fs::read_to_string("/proc/sys/kernel/pid_max").ok()?.trim().parse().ok()?;
    let running = tasks(&fs::read_to_string("/proc/loadavg").ok()?)?;
    Some((all - i128::from(running), all))
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
        let huge_pages = vec![(2048, 0), (1 << 20, 0)];
        let machine = Machine { cpus: 2, memory: 1 << 30, disk: 1000, huge_pages, ..Machine::default() };
        let mut config = KubeletConfiguration::default();
        assert_eq!(machine.capacity(&config)["memory"], "1048576Ki");
        assert_eq!(machine.capacity(&config)["hugepages-1Gi"], "0");
        assert_eq!(machine.allocatable(&config)["memory"], "946176Ki");
        assert_eq!(machine.allocatable(&config)["ephemeral-storage"], "900");
        config.kube_reserved = Map::from([("cpu".into(), "250m".into()), ("memory".into(), "100Mi".into())]);
        config.pods_per_core = 10;
        assert_eq!(machine.allocatable(&config)["cpu"], "1750m");
        assert_eq!(machine.allocatable(&config)["memory"], "843776Ki");
        assert_eq!(machine.capacity(&config)["pods"], "20");
    }

    #[test]
    fn huge_pages_are_counted_by_size() {
        let base = std::env::temp_dir().join(format!("kubelet-huge-{}", std::process::id()));
        for (size, pages) in [("hugepages-2048kB", "3"), ("hugepages-1048576kB", "0"), ("hugepages-64kB", "9")] {
            fs::create_dir_all(base.join(size)).unwrap();
            fs::write(base.join(size).join("nr_hugepages"), pages).unwrap();
        }
        let huge_pages = huge_pages(&base);
        assert_eq!(huge_pages, [(2048, 6 << 20), (1 << 20, 0)]);
        let machine = Machine { huge_pages, ..Machine::default() };
        assert_eq!(machine.capacity(&KubeletConfiguration::default())["hugepages-2Mi"], "6Mi");
        fs::remove_dir_all(base).unwrap();
    }
}

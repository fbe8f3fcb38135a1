//! What the machine itself uses, read from the kernel.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::Interface;
use crate::node_status::machine::available_memory;

/// A file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Bytes.
    pub capacity: u64,
    /// Bytes.
    pub available: u64,
    /// Files it can hold.
    pub inodes: u64,
    /// Files it can still hold.
    pub inodes_free: u64,
}

impl Disk {
    /// The file system that a path lies on.
    pub fn of(path: &Path) -> Option<Disk> {
        let stat = statvfs(path).ok()?;
        let unit = stat.fragment_size();
        Some(Disk {
            capacity: stat.blocks() * unit,
            available: stat.blocks_available() * unit,
            inodes: stat.files(),
            inodes_free: stat.files_available(),
        })
    }
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Nanoseconds of processor time since boot.
    pub cpu: u64,
    /// Bytes: all, free, available, anonymous.
    pub memory: [u64; 4],
    /// Bytes of swap: all and free.
    pub swap: (u64, u64),
    /// Page faults, all and those that read from disk.
    pub faults: (u64, u64),
    /// Tasks that exist and may exist.
    pub tasks: (u64, u64),
    /// Seconds since 1970.
    pub booted_at: u64,
    /// Interfaces, the default route's first.
    pub interfaces: Vec<Interface>,
}

impl Host {
    /// Reads it now.
    pub fn read() -> Host {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (stat, memory, vm) = (file("/proc/stat"), file("/proc/meminfo"), file("/proc/vmstat"));
        let kib = |name: &str| field(&memory, &format!("{name}:")) * 1024;
        let available = available_memory().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        Host {
            cpu: processor_time(&stat),
            memory: [kib("MemTotal"), kib("MemFree"), available, kib("AnonPages")],
            swap: (kib("SwapTotal"), kib("SwapFree")),
            faults: (field(&vm, "pgfault"), field(&vm, "pgmajfault")),
            tasks: (tasks(&file("/proc/loadavg")), file("/proc/sys/kernel/pid_max").trim().parse().unwrap_or(0)),
            booted_at: field(&stat, "btime"),
            interfaces: interfaces(&file("/proc/net/dev"), &file("/proc/net/route")),
        }
    }
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix([' ', '\t']));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The first line of /proc/stat counts hundredths of seconds; idle and waiting time (fourth and fifth) are no use.
fn processor_time(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let ticks = line.split_whitespace().skip(1).take(8).map(|n| n.parse::<u64>().unwrap_or(0));
    ticks.enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, n)| n).sum::<u64>() * 10_000_000
}

fn tasks(loadavg: &str) -> u64 {
    loadavg.split_whitespace().nth(3).and_then(|t| t.split('/').nth(1)?.parse().ok()).unwrap_or(0)
}

fn interfaces(devices: &str, routes: &str) -> Vec<Interface> {
    let default = routes.lines().skip(1).find_map(|l| {
        let mut columns = l.split_whitespace();
        let name = columns.next()?;
        (columns.next()? == "00000000").then_some(name)
    });
    let mut found: Vec<Interface> = devices.lines().skip(2).filter_map(interface).collect();
    found.sort_by_key(|i| Some(i.name.as_str()) != default);
    found
}

fn interface(line: &str) -> Option<Interface> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers.split_whitespace().map(|n| n.parse().unwrap_or(0)).collect();
    let name = name.trim();
    // Pods' ends are counted with the pods.
    if name == "lo" || name.starts_with("veth") || numbers.len() < 11 {
        return None;
    }
    Some(Interface { name: name.to_owned(), received: (numbers[0], numbers[2]), sent: (numbers[8], numbers[10]) })
}

/// Bytes and inodes of everything below a folder that lies on its own file system. Links are not followed.
pub fn folder(path: &Path) -> (u64, u64) {
    let Ok(top) = fs::symlink_metadata(path) else { return (0, 0) };
    let (mut bytes, mut inodes) = (top.blocks() * 512, 1);
    let mut waiting = vec![path.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != top.dev() {
                continue;
            }
            bytes += meta.blocks() * 512;
            inodes += 1;
            if meta.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    (bytes, inodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(processor_time("cpu  1 2 3 100 50 4 5 6 7 8\ncpu0 1\n"), 21 * 10_000_000);
        assert_eq!(field("MemFree:        7 kB\nMemTotal: 9 kB\n", "MemTotal:"), 9);
        assert_eq!(field("pgfaults 3\npgfault 4\n", "pgfault"), 4);
        assert_eq!(tasks("0.1 0.2 0.3 1/77 9"), 77);
        let devices = "Inter-|\n face |\n    lo: 1 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0\n  eth1: 5 0 1 0 0 0 0 0 6 0 2 0 0 0 0 0\n  eth0: 7 0 0 0 0 0 0 0 8 0 0 0 0 0 0 0\n veth1: 9 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0\n";
        let routes = "Iface Destination\neth1 0001A8C0 0\neth0 00000000 1\n";
        let found = interfaces(devices, routes);
        assert_eq!(found.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["eth0", "eth1"]);
        assert_eq!((found[1].received, found[1].sent), ((5, 1), (6, 2)));
    }

    #[test]
    fn folders_are_measured_with_what_lies_below() {
        let top = std::env::temp_dir().join(format!("kubelet-folder-{}", std::process::id()));
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/b/c"), vec![1; 100_000]).unwrap();
        let (bytes, inodes) = folder(&top);
        fs::remove_dir_all(&top).unwrap();
        assert!(bytes >= 100_000, "{bytes}");
        assert_eq!(inodes, 4);
        assert_eq!(folder(&top), (0, 0));
    }
}

//! The node around a privileged container that shares its process and network namespaces: what it holds, and harm to it.
//!
//! Tests compare [`content`] before and after, and break things with [`kill`] and [`fill`]; the node itself has no shell to do so.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

/// The node's root directory as PID 1 sees it.
const ROOT: &str = "/proc/1/root";
/// Folders in which each entry belongs to a pod or a container: what is left in them is lost disk space.
const STATE: &[&str] = &[
    "var/lib/kubelet/pods",
    "var/log/pods",
    "run/netns",
    "run/containerd/io.containerd.runtime.v2.task/k8s.io",
    "run/containerd/io.containerd.grpc.v1.cri/containers",
    "run/containerd/io.containerd.grpc.v1.cri/sandboxes",
    "var/lib/containerd/io.containerd.grpc.v1.cri/containers",
    "var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes",
    "var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots",
];
/// A block that fills a disk quickly.
const BLOCK: usize = 1 << 20;
/// What the filler says once nothing more fits.
const FULL: &str = "full";

/// One line per process, interface, mount, control group and nftables rule of the node. Numbers that differ from one look
/// to the next (process numbers, kernel handles) are left out.
pub fn content() -> Result<BTreeSet<String>, String> {
    let mut all: BTreeSet<String> = processes()?.into_iter().map(|(_, name)| format!("process {name}")).collect();
    let mounts = read("/proc/1/mountinfo")?;
    all.extend(mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|target| format!("mount {target}")));
    for folder in STATE {
        let path = Path::new(ROOT).join(folder);
        let entries = fs::read_dir(&path).into_iter().flatten().flatten();
        all.extend(entries.map(|e| format!("state {folder}/{}", e.file_name().to_string_lossy())));
    }
    all.extend(names("/sys/class/net")?.into_iter().map(|name| format!("interface {name}")));
    groups(&Path::new(ROOT).join("sys/fs/cgroup"), &mut all);
    all.extend(rules()?.lines().map(|line| format!("nftables {}", line.trim())));
    Ok(all)
}

/// Kills every process of this name (at most 15 bytes, proc(5)) with SIGKILL.
pub fn kill(name: &str) -> Result<(), String> {
    let matching: Vec<i32> = processes()?.into_iter().filter(|(_, found)| found == name).map(|(pid, _)| pid).collect();
    if matching.is_empty() {
        return Err(format!("no process {name}"));
    }
    for pid in matching {
        send(Pid::from_raw(pid), Signal::SIGKILL).map_err(|e| format!("{name}, process {pid}: {e}"))?;
    }
    Ok(())
}

/// How long [`strike`] waits for the first shim.
const NO_SHIM: Duration = Duration::from_secs(2);

/// Kills the processes of a name after `delay` milliseconds; `shim` stands for one shim of a pod with a variable
/// `CHURN`, the one at this place of those that there are then, or of the first that there are.
pub fn strike(victim: &str, delay: &str, which: &str) -> Result<(), String> {
    let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text}: {e}"));
    let which = usize::try_from(number(which)?).unwrap_or_default();
    std::thread::sleep(Duration::from_millis(number(delay)?));
    if victim != "shim" {
        return kill(victim);
    }
    // The kernel tells of new processes only to who may listen on its connector, which a namespace has none of.
    let start = Instant::now();
    let mut shims = shims()?;
    while shims.is_empty() && start.elapsed() < NO_SHIM {
        std::thread::sleep(Duration::from_millis(10));
        shims = self::shims()?;
    }
    match shims.iter().nth(which % shims.len().max(1)) {
        Some(pid) => {
            println!("killed {pid}, one of {}", shims.len());
            send(Pid::from_raw(*pid), Signal::SIGKILL).map_err(|e| format!("process {pid}: {e}"))
        }
        None => {
            println!("no such shim");
            Ok(())
        }
    }
}

/// Shims of pods with a variable `CHURN`.
fn shims() -> Result<BTreeSet<i32>, String> {
    Ok(processes()?
        .into_iter()
        .filter(|(pid, _)| {
            let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            variables.split(|byte| *byte == 0).any(|v| v.starts_with(b"CHURN="))
        })
        .filter_map(|(pid, _)| parent(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect())
}

/// The second field after the name (proc(5)).
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Fills the file system of `folder` to the last byte, in a process of its own that empties it again after `seconds`:
/// whoever asked may not be able to ask again while it is full.
pub fn fill(folder: &str, seconds: &str) -> Result<(), String> {
    seconds.parse::<u64>().map_err(|e| format!("{seconds}: {e}"))?;
    let mut filler = Command::new("/proc/self/exe");
    filler.args(["node", "filler", folder, seconds]).process_group(0);
    // Nothing of ours is passed on to it: whoever runs us waits until the last holder of our output is gone.
    filler.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = filler.spawn().map_err(|e| e.to_string())?;
    let output = child.stdout.take().ok_or("no output")?;
    let mut said = String::new();
    BufReader::new(output).read_line(&mut said).map_err(|e| e.to_string())?;
    if said.trim() == FULL { Ok(()) } else { Err(format!("{folder}: {}", said.trim())) }
}

/// The process behind [`fill`].
pub fn filler(folder: &str, seconds: &str) -> Result<(), String> {
    let seconds = seconds.parse::<u64>().map_err(|e| format!("{seconds}: {e}"))?;
    let path = PathBuf::from(folder).join("filler");
    match take_everything(&path) {
        Ok(()) => {
            println!("{FULL}");
            std::thread::sleep(Duration::from_secs(seconds));
        }
        Err(error) => println!("{error}"),
    }
    fs::remove_file(&path).map_err(|e| format!("{}: {e}", path.display()))
}

fn take_everything(path: &Path) -> std::io::Result<()> {
    let file = File::create(path)?;
    // Whole extents first, without writing them; what is left after those, byte by byte.
    let mut size: i64 = 0;
    let mut step: i64 = 1 << 30;
    while step >= BLOCK as i64 {
        match nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), size, step) {
            Ok(()) => size += step,
            Err(nix::errno::Errno::ENOSPC) => step /= 2,
            Err(error) => return Err(error.into()),
        }
    }
    let mut tail = fs::OpenOptions::new().append(true).open(path)?;
    let mut block = vec![0x5A; BLOCK];
    while !block.is_empty() {
        match tail.write_all(&block) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => block.truncate(block.len() / 2),
            Err(error) => return Err(error),
        }
    }
    tail.sync_all().or_else(|error| if error.kind() == ErrorKind::StorageFull { Ok(()) } else { Err(error) })
}

fn processes() -> Result<Vec<(i32, String)>, String> {
    let entries = fs::read_dir("/proc").map_err(|e| format!("/proc: {e}"))?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids
        .filter_map(|pid: i32| Some((pid, name_of(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect())
}

/// The name in a line of `/proc/<pid>/stat`; none for a thread of the kernel, which comes and goes as the kernel likes.
/// The name stands in parentheses and may hold any byte; the flags are the seventh field after it (proc(5)).
fn name_of(stat: &str) -> Option<String> {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let (name, rest) = stat.split_once(" (")?.1.rsplit_once(") ")?;
    let flags: u64 = rest.split(' ').nth(6)?.parse().ok()?;
    (flags & PF_KTHREAD == 0).then(|| name.to_owned())
}

fn names(folder: &str) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{folder}: {e}"))?.flatten();
    Ok(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// Folders of the control group tree. A group that goes away meanwhile is as good as gone.
fn groups(folder: &Path, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.insert(format!("cgroup {}", entry.path().display()));
            groups(&entry.path(), all);
        }
    }
}

/// Listed by the node's own nft, from its root.
fn rules() -> Result<String, String> {
    std::os::unix::fs::chroot(ROOT).map_err(|e| format!("{ROOT}: {e}"))?;
    std::env::set_current_dir("/").map_err(|e| e.to_string())?;
    let output = Command::new("/usr/sbin/nft").args(["list", "ruleset"]).output().map_err(|e| format!("nft: {e}"))?;
    if !output.status.success() {
        return Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn threads_of_the_kernel_are_no_processes() {
        assert_eq!(name_of("12 (a) b) S 1 12 12 0 -1 4194560 0 0").as_deref(), Some("a) b"));
        assert_eq!(name_of("40 (kworker/0:1-events) I 2 0 0 0 -1 69238880 0 0"), None);
        assert_eq!(name_of("40 (cut"), None);
        assert_eq!(super::parent("12 (a) b) S 7 12 12 0"), Some(7));
    }
}

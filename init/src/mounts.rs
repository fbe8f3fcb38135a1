//! What is mounted where, as tables.

use crate::boot::Outcome;
use linux::cgroup::Cgroup;
use linux::mount::{self, MsFlags};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// Service logs.
pub const SERVICE_LOGS: &str = "/var/log/services";

struct Mount {
    source: &'static str,
    target: &'static str,
    fstype: &'static str,
    flags: MsFlags,
    data: &'static str,
    /// Some kernels and containers do without it; its absence is not worth a failed step.
    optional: bool,
}

const SAFE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const NO_DEVICES: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

const fn required(fstype: &'static str, target: &'static str, flags: MsFlags, data: &'static str) -> Mount {
    Mount { source: fstype, target, fstype, flags, data, optional: false }
}

const fn optional(fstype: &'static str, target: &'static str, flags: MsFlags, data: &'static str) -> Mount {
    Mount { optional: true, ..required(fstype, target, flags, data) }
}

/// In the initramfs; they move along to the root file system. A namespace finds them mounted by its driver.
const KERNEL: &[Mount] = &[
    required("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=0755"),
    required("proc", "/proc", SAFE, ""),
    required("sysfs", "/sys", SAFE, ""),
    required("tmpfs", "/run", NO_DEVICES, "mode=0755"),
];

/// On the node.
const NODE: &[Mount] = &[
    required("devpts", "/dev/pts", MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC), "mode=0620,ptmxmode=0666,gid=5"),
    required("tmpfs", "/dev/shm", NO_DEVICES, "mode=1777"),
    optional("mqueue", "/dev/mqueue", SAFE, ""),
    required("tmpfs", "/tmp", NO_DEVICES, "mode=1777"),
    required("tmpfs", "/etc/kubernetes", SAFE, "mode=0700"),
    required("cgroup2", "/sys/fs/cgroup", SAFE, "nsdelegate,memory_recursiveprot"),
    optional("bpf", "/sys/fs/bpf", SAFE, "mode=0700"),
    optional("securityfs", "/sys/kernel/security", SAFE, ""),
];

/// Links that programs expect in /dev.
const LINKS: &[(&str, &str)] =
    &[("/proc/self/fd", "/dev/fd"), ("fd/0", "/dev/stdin"), ("fd/1", "/dev/stdout"), ("fd/2", "/dev/stderr")];

/// Folders of the data disk.
const DATA_FOLDERS: &[(&str, u32)] = &[
    ("/var/lib/corten", 0o700),
    ("/var/lib/store", 0o700),
    ("/var/lib/containerd", 0o711),
    ("/var/lib/kubelet", 0o755),
    ("/var/log", 0o755),
    (SERVICE_LOGS, 0o750),
    ("/var/log/pods", 0o755),
    ("/var/log/containers", 0o755),
    ("/var/tmp", 0o1777),
];

/// The kernel's own file systems.
pub fn kernel_interfaces() -> Outcome {
    mount_all(KERNEL)
}

/// Everything else but the data disk.
pub fn node(in_namespace: bool) -> Outcome {
    // Volumes and containers must see mounts that are made later, also those made in a container (CSI drivers).
    mount::propagation(Path::new("/"), MsFlags::MS_SHARED)?;
    for (points_to, link) in LINKS {
        let _ = std::os::unix::fs::symlink(points_to, link);
    }
    for dir in ["/run/lock", "/run/cni/net.d", "/run/corten/args"] {
        make_dir(dir, 0o755)?;
    }
    if !in_namespace {
        return mount_all(NODE);
    }
    let missing: Vec<&Mount> =
        NODE.iter().filter(|m| !mount::is_mount_point(Path::new(m.target)).unwrap_or(false)).collect();
    let count = missing.len();
    missing.into_iter().try_for_each(mount_one)?;
    Ok(format!("{count} mounted, the rest is the driver's"))
}

/// Every service gets a group below /system; the controllers reach down to it.
pub fn control_groups(in_namespace: bool) -> Outcome {
    const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];
    let root = Cgroup::new("");
    if in_namespace && !root.path().join("cgroup.controllers").exists() {
        return Ok("none, as the host has only cgroup v1".to_owned());
    }
    root.enable(&CONTROLLERS)?;
    let system = Cgroup::new("system");
    system.create()?;
    system.enable(&CONTROLLERS)?;
    Ok(root.read("cgroup.subtree_control")?)
}

/// The folders services expect on /var, wherever that is.
pub fn data_folders() -> Outcome {
    for (path, mode) in DATA_FOLDERS {
        make_dir(path, *mode)?;
    }
    let _ = std::os::unix::fs::symlink("/run", "/var/run");
    let _ = std::os::unix::fs::symlink("/run/lock", "/var/lock");
    Ok(format!("{} folders", DATA_FOLDERS.len()))
}

fn mount_all(table: &'static [Mount]) -> Outcome {
    table.iter().try_for_each(mount_one)?;
    Ok(format!("{} mounted", table.len()))
}

fn mount_one(m: &Mount) -> linux::Result<()> {
    let data = (!m.data.is_empty()).then_some(m.data);
    match mount::mount_dir(m.source, Path::new(m.target), m.fstype, m.flags, data) {
        Err(_) if m.optional => Ok(()),
        outcome => outcome,
    }
}

fn make_dir(path: &str, mode: u32) -> linux::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    // The umask, and a folder that was there, may have other ideas about the mode.
    let set = made.and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)));
    set.map_err(|e| linux::Error::new("mkdir", path, e))
}

//! Mounts: the few calls a read-only root needs, and what is mounted now.

use crate::{Error, Result};
pub use nix::mount::MsFlags;
use nix::mount::{MntFlags, umount2};
use std::path::{Path, PathBuf};

/// mount(2).
pub fn mount(
    source: Option<&str>,
    target: &Path,
    fstype: Option<&str>,
    flags: MsFlags,
    data: Option<&str>,
) -> Result<()> {
    nix::mount::mount(source, target, fstype, flags, data).map_err(|e| Error::at("mount", target, e))
}

/// Mounts after making the mount point.
pub fn mount_dir(source: &str, target: &Path, fstype: &str, flags: MsFlags, data: Option<&str>) -> Result<()> {
    std::fs::create_dir_all(target).map_err(|e| Error::at("mkdir", target, e))?;
    mount(Some(source), target, Some(fstype), flags, data)
}

/// Moves a mount to another place.
pub fn move_mount(from: &Path, to: &Path) -> Result<()> {
    nix::mount::mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|e| Error::at("move mount", to, e))
}

/// Bind mount, with everything mounted below it.
pub fn bind(from: &Path, to: &Path) -> Result<()> {
    nix::mount::mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|e| Error::at("bind mount", to, e))
}

/// Sets how mounts below `target` spread to other mount namespaces: pass MS_SHARED, MS_PRIVATE or MS_SLAVE.
pub fn propagation(target: &Path, kind: MsFlags) -> Result<()> {
    nix::mount::mount(None::<&str>, target, None::<&str>, kind | MsFlags::MS_REC, None::<&str>)
        .map_err(|e| Error::at("set propagation of", target, e))
}

/// Makes a mount read-only.
pub fn remount_read_only(target: &Path) -> Result<()> {
    nix::mount::mount(None::<&str>, target, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>)
        .map_err(|e| Error::at("remount", target, e))
}

/// umount2(2); lazily when `detach`.
pub fn unmount(target: &Path, detach: bool) -> Result<()> {
    let flags = if detach { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    umount2(target, flags).map_err(|e| Error::at("umount", target, e))
}

/// From the initramfs into `new_root`: the initramfs cannot be pivoted away (it has no parent mount), so the new root is moved over
/// it and entered with chroot. The result is a root that later pivot_root calls (runc's) accept, because it is a real mount.
pub fn switch_root(new_root: &Path) -> Result<()> {
    nix::unistd::chdir(new_root).map_err(|e| Error::at("chdir", new_root, e))?;
    nix::mount::mount(Some(new_root), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|e| Error::at("move mount", Path::new("/"), e))?;
    nix::unistd::chroot(".").map_err(|e| Error::new("chroot", ".", e))?;
    nix::unistd::chdir("/").map_err(|e| Error::new("chdir", "/", e))
}

/// Enters `new_root` (a mount point) by pivot_root and drops the old root: for a private mount namespace.
pub fn pivot_into(new_root: &Path) -> Result<()> {
    nix::unistd::chdir(new_root).map_err(|e| Error::at("chdir", new_root, e))?;
    // pivot_root(".", ".") stacks the old root under the new one at /, so no directory is needed to put it in.
    nix::unistd::pivot_root(".", ".").map_err(|e| Error::at("pivot_root", new_root, e))?;
    unmount(Path::new("."), true)?;
    nix::unistd::chdir("/").map_err(|e| Error::new("chdir", "/", e))
}

/// One line of /proc/self/mountinfo, as far as anyone here needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Where it is mounted.
    pub target: PathBuf,
    /// File system type.
    pub fstype: String,
    /// Device or other source.
    pub source: String,
}

/// What is mounted in this namespace, oldest first.
pub fn mounted() -> Result<Vec<Mounted>> {
    let path = Path::new("/proc/self/mountinfo");
    let text = std::fs::read_to_string(path).map_err(|e| Error::at("read", path, e))?;
    Ok(text.lines().filter_map(parse_mountinfo).collect())
}

/// True when `target` itself is a mount point.
pub fn is_mount_point(target: &Path) -> Result<bool> {
    Ok(mounted()?.iter().any(|m| m.target == target))
}

fn parse_mountinfo(line: &str) -> Option<Mounted> {
    let (front, back) = line.split_once(" - ")?;
    let target = front.split(' ').nth(4)?;
    let mut back = back.split(' ');
    Some(Mounted {
        target: PathBuf::from(unescape(target)),
        fstype: back.next()?.to_owned(),
        source: unescape(back.next()?),
    })
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let octal = (bytes[i] == b'\\')
            .then(|| bytes.get(i + 1..i + 4))
            .flatten()
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                i += 4;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines() {
        let line = r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let want = Mounted { target: "/mnt 2".into(), fstype: "ext3".into(), source: "/dev/root".into() };
        assert_eq!(parse_mountinfo(line), Some(want));
        assert_eq!(parse_mountinfo("nonsense"), None);
    }

    #[test]
    fn proc_is_mounted() {
        assert!(is_mount_point(Path::new("/proc")).unwrap());
    }
}

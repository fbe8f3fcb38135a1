//! Mounts that the kubelet makes itself: tmpfs for secrets and memory-backed volumes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts a file system that needs no device on `path` unless something is mounted there.
pub fn ensure(path: &Path, kind: &str, options: Option<&str>) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    if mount_points()?.iter().any(|p| p == path) {
        return Ok(());
    }
    mount(Some(kind), path, Some(kind), MsFlags::empty(), options).map_err(io::Error::from)
}

/// Mounts an open file or folder on `target`, in place of what an earlier container was given there.
pub fn bind(source: &OwnedFd, target: &Path, folder: bool) -> io::Result<()> {
    while mount_points()?.iter().any(|p| p == target) {
        umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(io::Error::from)?;
    }
    if folder {
        std::fs::create_dir_all(target)?;
    } else {
        target.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::OpenOptions::new().create(true).append(true).open(target)?;
    }
    let opened = format!("/proc/self/fd/{}", source.as_raw_fd());
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(opened.as_str()), target, None::<&str>, flags, None::<&str>).map_err(io::Error::from)
}

/// Unmounts everything at or below `folder`, the deepest first.
pub fn unmount_below(folder: &Path) -> io::Result<()> {
    let mut points: Vec<PathBuf> = mount_points()?.into_iter().filter(|p| p.starts_with(folder)).collect();
    points.sort();
    for point in points.iter().rev() {
        umount2(point, MntFlags::UMOUNT_NOFOLLOW).map_err(io::Error::from)?;
    }
    Ok(())
}

fn mount_points() -> io::Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect())
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'\\' {
            let digits: Vec<u8> = bytes.by_ref().take(3).collect();
            let code = std::str::from_utf8(&digits).ok().and_then(|d| u8::from_str_radix(d, 8).ok());
            out.extend(code);
        } else {
            out.push(byte);
        }
    }
    PathBuf::from(std::ffi::OsString::from(String::from_utf8_lossy(&out).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_are_read() {
        assert_eq!(unescape("/a\\040b\\134c"), Path::new("/a b\\c"));
    }
}

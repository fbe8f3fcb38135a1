//! A `subPath` of a volume, safe from links that a container makes while it is looked up.
//!
//! The path is opened by the kernel with the rule that it stays below the volume (openat2(2), RESOLVE_BENEATH), and what was
//! opened, not its name, is mounted where the container gets it from. A link that is swapped in between changes nothing.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};

use super::mounts;

/// A file of variables is no larger than what a process can be given.
const TEXT_MAX: u64 = 1 << 20;

/// Mounts `sub` of `volume` on `target` and returns it. Missing folders are made with the volume's permissions.
///
/// # Errors
/// It leaves the volume, or cannot be made or mounted.
pub fn bind(volume: &Path, sub: &str, target: &Path) -> Result<PathBuf, String> {
    let text = |e: io::Error| format!("failed to prepare subPath {sub:?} of volume: {e}");
    let found = open(volume, sub)?;
    let folder = File::from(found.try_clone().map_err(text)?).metadata().map_err(text)?.is_dir();
    mounts::bind(&found, target, folder).map_err(text)?;
    Ok(target.to_owned())
}

/// The text of a file below a volume; nothing if there is none.
///
/// # Errors
/// It leaves the volume, is no plain file, is too large for what such files are for, or cannot be read.
pub fn read(volume: &Path, sub: &str) -> Result<Option<String>, String> {
    let text = |e: io::Error| format!("file {sub:?} of volume not read: {e}");
    let root = OwnedFd::from(File::open(volume).map_err(text)?);
    let found = match beneath(&root, Path::new(sub)) {
        Err(Errno::ENOENT) => return Ok(None),
        other => File::from(other.map_err(|e| refused(sub, e))?),
    };
    let facts = found.metadata().map_err(text)?;
    if !facts.is_file() || facts.len() > TEXT_MAX {
        return Err(format!("file {sub:?} of volume: not a plain file of at most {TEXT_MAX} bytes"));
    }
    // What was found is opened, whatever its name means by now.
    fs::read_to_string(format!("/proc/self/fd/{}", found.as_raw_fd())).map(Some).map_err(text)
}

/// Opens it, made if it is missing.
fn open(volume: &Path, sub: &str) -> Result<OwnedFd, String> {
    if sub.starts_with('/') || sub.split('/').any(|part| part == "..") {
        return Err(format!("subPath {sub:?} must be relative and must not contain '..'"));
    }
    let text = |e: io::Error| format!("failed to prepare subPath {sub:?} of volume: {e}");
    let root = OwnedFd::from(File::open(volume).map_err(text)?);
    let mode = fs::metadata(volume).map_err(text)?.permissions().mode();
    match beneath(&root, Path::new(sub)) {
        Err(Errno::ENOENT) => {}
        other => return other.map_err(|e| refused(sub, e)),
    }
    let mut path = PathBuf::new();
    let mut parent = root.try_clone().map_err(text)?;
    for part in Path::new(sub).components() {
        path.push(part);
        parent = match beneath(&root, &path) {
            Err(Errno::ENOENT) => {
                let name = part.as_os_str();
                let bits = Mode::from_bits_truncate(mode);
                mkdirat(&parent, name, bits).map_err(|e| refused(sub, e))?;
                // The process's umask took bits away.
                fchmodat(&parent, name, bits, FchmodatFlags::FollowSymlink).map_err(|e| refused(sub, e))?;
                beneath(&root, &path)
            }
            other => other,
        }
        .map_err(|e| refused(sub, e))?;
    }
    Ok(parent)
}

fn beneath(root: &impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root.as_fd(), path, how)
}

fn refused(sub: &str, errno: Errno) -> String {
    match errno {
        Errno::EXDEV => format!("subPath {sub:?} leaves the volume"),
        other => format!("failed to prepare subPath {sub:?} of volume: {}", other.desc()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_paths_cannot_leave_the_volume() {
        let volume = std::env::temp_dir().join(format!("kubelet-subpath-{}", std::process::id()));
        fs::create_dir_all(volume.join("in")).unwrap();
        fs::write(volume.join("in/file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("in", volume.join("inner")).unwrap();
        for good in ["in", "in/file", "inner/file", "made/here", "inner/new"] {
            assert!(open(&volume, good).is_ok(), "{good}");
        }
        assert!(volume.join("made/here").is_dir() && volume.join("in/new").is_dir());
        for bad in ["out", "out/passwd", "out/new", "../x", "/etc", "in/../.."] {
            assert!(open(&volume, bad).is_err(), "{bad}");
        }
        assert!(!Path::new("/etc/new").exists());
        fs::remove_dir_all(volume).unwrap();
    }
}

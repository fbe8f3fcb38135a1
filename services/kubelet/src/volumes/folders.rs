//! emptyDir and hostPath.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::{mounts, payload};
use crate::pod::{EmptyDir, HostPath};

/// Scratch space on the disk or in memory, writable by everyone, group-owned by the pod's fsGroup.
pub fn empty_dir(path: &Path, volume: &EmptyDir, group: Option<u32>) -> io::Result<()> {
    let mut fresh = !path.exists();
    if volume.medium == "Memory" {
        // After a reboot the folder is still there, but what is mounted on it is new.
        fresh |= mounts::ensure_tmpfs(path, payload::size_limit(volume.size_limit.as_ref()))?;
    } else {
        fs::create_dir_all(path)?;
    }
    if fresh {
        // The pod decides about owners and modes after its first start.
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        if group.is_some() {
            chown(path, None, group)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o2777))?;
        }
    }
    Ok(())
}

/// A path of the node, made or checked as its type says.
pub fn host_path(volume: &HostPath) -> Result<PathBuf, String> {
    let path = PathBuf::from(&volume.path);
    let text = |e: io::Error| e.to_string();
    let kind = volume.kind.as_deref().unwrap_or_default();
    match kind {
        "DirectoryOrCreate" if !path.exists() => {
            fs::create_dir_all(&path).map_err(text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(text)?;
        }
        "FileOrCreate" if !path.exists() => {
            fs::File::create(&path).map_err(text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(text)?;
        }
        _ => {}
    }
    let found = fs::metadata(&path).map(|m| m.file_type());
    let fits = match kind {
        "" => true,
        "Directory" | "DirectoryOrCreate" => found.is_ok_and(|t| t.is_dir()),
        "File" | "FileOrCreate" => found.is_ok_and(|t| t.is_file()),
        "Socket" => found.is_ok_and(|t| t.is_socket()),
        "CharDevice" => found.is_ok_and(|t| t.is_char_device()),
        "BlockDevice" => found.is_ok_and(|t| t.is_block_device()),
        _ => return Err(format!("hostPath type {kind:?} is unknown")),
    };
    if fits { Ok(path) } else { Err(format!("hostPath type check failed: {} is not a {kind}", path.display())) }
}

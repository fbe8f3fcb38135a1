//! Gives a volume's files to the pod's fsGroup.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// What members of the group may do with files and folders: read and write, and in folders pass the group on.
const FILE: u32 = 0o660;
const FOLDER: u32 = 0o2770;

/// Makes everything below `path` belong to `group`. With `only_if_root_differs` (`fsGroupChangePolicy: OnRootMismatch`)
/// a volume whose root is right already is left alone.
///
/// # Errors
/// The file system's.
pub fn give(path: &Path, group: u32, only_if_root_differs: bool) -> io::Result<()> {
    let root = fs::metadata(path)?;
    if only_if_root_differs && root.gid() == group && root.mode() & FOLDER == FOLDER {
        return Ok(());
    }
    below(path, group)
}

fn below(path: &Path, group: u32) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if meta.is_symlink() {
        return Ok(());
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            below(&entry?.path(), group)?;
        }
    }
    let more = if meta.is_dir() { FOLDER } else { FILE };
    fs::set_permissions(path, fs::Permissions::from_mode(meta.mode() & 0o7777 | more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_below_becomes_the_groups() {
        let base = std::env::temp_dir().join(format!("kubelet-owner-{}", std::process::id()));
        fs::create_dir_all(base.join("d")).unwrap();
        fs::write(base.join("d/f"), "").unwrap();
        fs::set_permissions(base.join("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", base.join("l")).unwrap();
        let group = fs::metadata(&base).unwrap().gid();
        give(&base, group, false).unwrap();
        assert_eq!(fs::metadata(base.join("d/f")).unwrap().mode() & 0o777, 0o660);
        assert_eq!(fs::metadata(base.join("d")).unwrap().mode() & 0o7770, 0o2770);
        fs::set_permissions(base.join("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        give(&base, group, true).unwrap();
        assert_eq!(fs::metadata(base.join("d/f")).unwrap().mode() & 0o777, 0o600, "the root was right");
        fs::remove_dir_all(base).unwrap();
    }
}

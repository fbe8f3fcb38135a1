//! Writes a set of files so that readers see either the old set or the new one.
//!
//! ```text
//! volume/..2026_01_01_00_00_00.123456789/   the files
//! volume/..data -> ..2026_01_01...          swapped by one rename
//! volume/name   -> ..data/name              what containers open
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Content.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner, if not root.
    pub uid: Option<u32>,
}

/// Files by relative path.
pub type Payload = BTreeMap<String, File>;

/// Whether a path stays inside the volume: relative, without `..`.
pub fn is_safe(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with("..")
        && Path::new(path).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
}

/// Makes `volume` hold exactly `payload`, group-owned by `group`. Returns whether anything changed.
///
/// # Errors
/// The file system's.
pub fn write(volume: &Path, payload: &Payload, group: Option<u32>, stamp: &str) -> io::Result<bool> {
    fs::create_dir_all(volume)?;
    let data = volume.join("..data");
    let old = fs::read_link(&data).ok();
    if let Some(old) = &old
        && same(&volume.join(old), payload)
    {
        return Ok(false);
    }
    let name = format!("..{stamp}");
    let folder = volume.join(&name);
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        write_file(&folder, path, file, group)?;
    }
    if group.is_some() {
        chown(volume, None, group)?;
        chown(&folder, None, group)?;
    }
    let fresh = volume.join("..data_tmp");
    let _ = fs::remove_file(&fresh);
    symlink(&name, &fresh)?;
    fs::rename(&fresh, &data)?;
    link_top_level(volume, payload)?;
    if let Some(old) = old {
        let _ = fs::remove_dir_all(volume.join(old));
    }
    Ok(true)
}

fn write_file(folder: &Path, path: &str, file: &File, group: Option<u32>) -> io::Result<()> {
    let target = folder.join(path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    // Group owners must be able to read what the pod's fsGroup gives them.
    let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
    let mut handle = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&target)?;
    handle.write_all(&file.data)?;
    handle.set_permissions(fs::Permissions::from_mode(mode))?;
    if group.is_some() || file.uid.is_some() {
        chown(&target, file.uid, group)?;
    }
    Ok(())
}

/// The visible names are links through `..data`; names that are gone lose theirs.
fn link_top_level(volume: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<PathBuf> = payload
        .keys()
        .filter_map(|p| Path::new(p).components().find(|c| matches!(c, Component::Normal(_))))
        .map(|c| PathBuf::from(c.as_os_str()))
        .collect();
    for name in &wanted {
        match symlink(Path::new("..data").join(name), volume.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        if !name.to_string_lossy().starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn same(folder: &Path, payload: &Payload) -> bool {
    let mut found = 0;
    for (path, file) in payload {
        match fs::read(folder.join(path)) {
            Ok(data) if data == file.data => found += 1,
            _ => return false,
        }
    }
    found == count_files(folder)
}

fn count_files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return usize::MAX };
    entries
        .flatten()
        .map(|e| if e.file_type().is_ok_and(|t| t.is_dir()) { count_files(&e.path()) } else { 1 })
        .fold(0, usize::saturating_add)
}

/// A name for the folder of this moment.
pub fn stamp() -> String {
    let now = jiff::Timestamp::now().to_string();
    let digits: String = now.chars().map(|c| if c.is_ascii_digit() { c } else { '_' }).collect();
    format!("{digits}.{:08x}", rand::random::<u32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("kubelet-atomic-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(p, d)| ((*p).to_owned(), File { data: d.as_bytes().to_vec(), mode: 0o644, uid: None }))
            .collect()
    }

    #[test]
    fn a_change_swaps_all_files_and_removes_what_is_gone() {
        let volume = folder("swap");
        assert!(write(&volume, &payload(&[("a", "1"), ("d/b", "2")]), None, "one").unwrap());
        assert_eq!(fs::read_to_string(volume.join("d/b")).unwrap(), "2");
        assert!(!write(&volume, &payload(&[("a", "1"), ("d/b", "2")]), None, "same").unwrap());
        assert!(write(&volume, &payload(&[("a", "3")]), None, "two").unwrap());
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "3");
        assert!(!volume.join("d").exists() && !volume.join("..one").exists());
        assert_eq!(fs::read_link(volume.join("..data")).unwrap(), Path::new("..two"));
        fs::remove_dir_all(volume).unwrap();
    }

    #[test]
    fn modes_are_exact() {
        let volume = folder("mode");
        let files = Payload::from([("k".to_owned(), File { data: vec![], mode: 0o400, uid: None })]);
        write(&volume, &files, None, "m").unwrap();
        assert_eq!(fs::metadata(volume.join("k")).unwrap().permissions().mode() & 0o777, 0o400);
        fs::remove_dir_all(volume).unwrap();
    }

    #[test]
    fn paths_cannot_leave_the_volume() {
        for (path, safe) in [
            ("a", true),
            ("a/b", true),
            ("../a", false),
            ("/a", false),
            ("a/../b", false),
            ("..data", false),
            ("", false),
        ] {
            assert_eq!(is_safe(path), safe, "{path}");
        }
    }
}

//! A pod's volumes on the node: made before its containers, kept current while they run, removed after them.
//!
//! Each kind is a file: [`payload`] decides the content of generated ones, [`atomic`] writes it, [`folders`] makes the
//! others.

pub mod atomic;
mod folders;
pub mod mounts;
pub mod payload;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::pod::{Pod, Volume};
use payload::Sources;

/// Where each volume is on the node, by name.
pub type Mounted = HashMap<String, PathBuf>;

/// The folder of everything that belongs to a pod.
pub fn pod_folder(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// Makes or updates all volumes of a pod.
///
/// # Errors
/// The first volume that cannot be made, by name.
pub fn setup(root: &Path, pod: &Pod, sources: &Sources<'_>) -> Result<Mounted, String> {
    let folder = pod_folder(root, &pod.metadata.uid);
    let group = pod.spec.security_context.fs_group.and_then(|g| u32::try_from(g).ok());
    let mut mounted = Mounted::new();
    for volume in &pod.spec.volumes {
        let path = one(&folder, volume, group, sources)
            .map_err(|e| format!("MountVolume.SetUp failed for volume {:?} : {e}", volume.name))?;
        mounted.insert(volume.name.clone(), path);
    }
    Ok(mounted)
}

fn one(folder: &Path, volume: &Volume, group: Option<u32>, sources: &Sources<'_>) -> Result<PathBuf, String> {
    let path = |kind: &str| folder.join("volumes").join(format!("kubernetes.io~{kind}")).join(&volume.name);
    let text = |e: std::io::Error| e.to_string();
    if let Some(v) = &volume.empty_dir {
        let path = path("empty-dir");
        folders::empty_dir(&path, v, group).map_err(text)?;
        return Ok(path);
    }
    if let Some(v) = &volume.host_path {
        return folders::host_path(v);
    }
    let Some(files) = payload::payload(volume, sources)? else {
        return Err("this kind of volume is not supported".into());
    };
    let kind = match volume {
        v if v.config_map.is_some() => "configmap",
        v if v.secret.is_some() => "secret",
        v if v.downward_api.is_some() => "downward-api",
        _ => "projected",
    };
    let path = path(kind);
    // Secrets and tokens never reach the disk.
    if matches!(kind, "secret" | "projected") {
        mounts::ensure_tmpfs(&path, None).map_err(text)?;
    }
    atomic::write(&path, &files, group, &atomic::stamp()).map_err(text)?;
    Ok(path)
}

/// Unmounts and removes everything of a pod.
///
/// # Errors
/// Something is still in use; it can be tried again.
pub fn teardown(root: &Path, uid: &str) -> std::io::Result<()> {
    let folder = pod_folder(root, uid);
    mounts::unmount_below(&folder)?;
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Pods that have a folder on this node.
pub fn present(root: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(root.join("pods")) else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
}

/// The host path of a `subPath`, which must stay inside the volume whatever links it goes through.
///
/// # Errors
/// It leaves the volume or cannot be made.
pub fn sub_path(volume: &Path, sub: &str) -> Result<PathBuf, String> {
    if sub.starts_with('/') || sub.split('/').any(|part| part == "..") {
        return Err(format!("subPath {sub:?} must be relative and must not contain '..'"));
    }
    let wanted = volume.join(sub);
    let text = |e: std::io::Error| format!("subPath {sub:?}: {e}");
    if !wanted.exists() {
        std::fs::create_dir_all(&wanted).map_err(text)?;
        if let Ok(meta) = std::fs::metadata(volume) {
            let _ = std::fs::set_permissions(&wanted, meta.permissions());
        }
    }
    let real = wanted.canonicalize().map_err(text)?;
    let base = volume.canonicalize().map_err(text)?;
    if real.starts_with(&base) { Ok(real) } else { Err(format!("subPath {sub:?} leaves the volume")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_paths_cannot_leave_the_volume() {
        let volume = std::env::temp_dir().join(format!("kubelet-subpath-{}", std::process::id()));
        std::fs::create_dir_all(volume.join("in")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        assert!(sub_path(&volume, "in").unwrap().ends_with("in"));
        assert!(sub_path(&volume, "made/here").unwrap().is_dir());
        for bad in ["out", "../x", "/etc", "in/../.."] {
            assert!(sub_path(&volume, bad).is_err(), "{bad}");
        }
        std::fs::remove_dir_all(volume).unwrap();
    }
}

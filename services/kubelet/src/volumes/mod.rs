//! A pod's volumes on the node: made before its containers, kept current while they run, removed after them.
//!
//! Each kind is a file: [`payload`] decides the content of generated ones and [`atomic`] writes it; the others are
//! [`empty_dir`], [`host_path`], [`claim`] and [`csi`]. A [`sub_path`] is a part of any of them.

pub mod atomic;
pub mod claim;
pub mod csi;
mod empty_dir;
mod host_path;
pub mod mounts;
mod ownership;
pub mod payload;
pub mod sub_path;
pub mod trust_bundle;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::pod::{Pod, Volume};
use payload::Sources;

/// What a container is given of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file or folder of the node.
    Path(PathBuf),
    /// A block device of the node.
    Device(PathBuf),
    /// The files of an image, which the runtime mounts.
    Image(String),
}

/// Each volume by name.
pub type Mounted = HashMap<String, Source>;

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
        let source = one(&folder, volume, group, sources).map_err(|e| failed(volume, &e))?;
        mounted.insert(volume.name.clone(), source);
    }
    Ok(mounted)
}

/// What users are told about a volume that cannot be made.
pub fn failed(volume: &Volume, error: &str) -> String {
    format!("MountVolume.SetUp failed for volume {:?} : {error}", volume.name)
}

fn one(folder: &Path, volume: &Volume, group: Option<u32>, sources: &Sources<'_>) -> Result<Source, String> {
    let path = |kind: &str| folder.join("volumes").join(format!("kubernetes.io~{kind}")).join(&volume.name);
    let text = |e: std::io::Error| e.to_string();
    if let Some(v) = &volume.empty_dir {
        let path = path("empty-dir");
        empty_dir::setup(&path, sources.pod, v, group)?;
        return Ok(Source::Path(path));
    }
    if let Some(v) = &volume.host_path {
        return host_path::setup(v).map(Source::Path);
    }
    if let Some(source) = sources.prepared.get(&volume.name) {
        return Ok(source.clone());
    }
    if let Some(v) = &volume.image {
        return Ok(Source::Image(v.reference.clone()));
    }
    if let Some(pv) = sources.volumes.get(&volume.name) {
        return claim::setup(sources.pod, pv, group);
    }
    let Some(files) = payload::payload(volume, sources)? else {
        return Err(unsupported(volume.other.keys().next().map_or("unknown", String::as_str)));
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
        mounts::ensure(&path, "tmpfs", None).map_err(text)?;
    }
    atomic::write(&path, &files, group, &atomic::stamp()).map_err(text)?;
    Ok(Source::Path(path))
}

/// What is told about a kind of volume that is not built.
fn unsupported(kind: &str) -> String {
    let why = match kind {
        "nfs" => "this node has no NFS client",
        "iscsi" => "this node has no iSCSI initiator",
        _ => "not supported by this kubelet",
    };
    format!("volume kind {kind}: {why}")
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_that_are_not_built_are_named() {
        let of = |volume: serde_json::Value| {
            let pod = Pod::from_value(&json!({"metadata": {"uid": "u"}, "spec": {"volumes": [volume]}})).unwrap();
            let none = (HashMap::new(), Mounted::new(), HashMap::new());
            let sources = Sources {
                pod: &pod,
                around: &Default::default(),
                lookup: &|_, _| None,
                volumes: &none.0,
                prepared: &none.1,
                anchors: &|_| Err("none".into()),
                tokens: &none.2,
            };
            setup(Path::new("/nonexistent"), &pod, &sources).unwrap_err()
        };
        assert_eq!(
            of(json!({"name": "v", "nfs": {"server": "s", "path": "/"}})),
            "MountVolume.SetUp failed for volume \"v\" : volume kind nfs: this node has no NFS client"
        );
        assert!(of(json!({"name": "v", "fc": {}})).ends_with("volume kind fc: not supported by this kubelet"));
    }
}

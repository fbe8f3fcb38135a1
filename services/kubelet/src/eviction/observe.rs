//! What there is of everything that can run short, and what each pod uses of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::plan::Observations;
use super::thresholds::Signal;
use crate::node_status::machine;
use crate::pod::Pod;
use crate::volumes::pod_folder;

/// Looks at memory, at the file systems of pods (`node`) and of images, and at process ids.
pub fn observe(node: &Path, images: Option<&Path>) -> Observations {
    let mut seen = Observations::new();
    if let (Some(available), Some(all)) = (machine::available_memory(), machine::total_memory()) {
        seen.insert(Signal::Memory, (available, all));
    }
    file_system(&mut seen, node, Signal::NodeSpace, Signal::NodeInodes);
    file_system(&mut seen, images.unwrap_or(node), Signal::ImageSpace, Signal::ImageInodes);
    if let Some((free, all)) = machine::process_ids() {
        seen.insert(Signal::Pids, (free, all));
    }
    seen
}

fn file_system(seen: &mut Observations, path: &Path, space: Signal, inodes: Signal) {
    let Ok(stat) = statvfs(path) else { return };
    let unit = i128::from(stat.fragment_size());
    seen.insert(space, (i128::from(stat.blocks_available()) * unit, i128::from(stat.blocks()) * unit));
    // Some file systems make inodes as they need them and report none.
    if stat.files() > 0 {
        seen.insert(inodes, (i128::from(stat.files_available()), i128::from(stat.files())));
    }
}

/// Bytes and files of one pod on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Bytes of each emptyDir that lies on the disk.
    pub volumes: BTreeMap<String, i128>,
    /// Bytes of each container's logs and writable layer.
    pub containers: BTreeMap<String, i128>,
    /// Files and folders of all.
    pub inodes: i128,
}

impl Disk {
    /// All bytes.
    pub fn total(&self) -> i128 {
        self.volumes.values().chain(self.containers.values()).sum()
    }
}

/// Walks a pod's folders; blocks for as long as the disk takes.
pub fn disk(root: &Path, pod: &Pod, layers: &BTreeMap<String, i128>) -> Disk {
    let mut disk = Disk { containers: layers.clone(), ..Disk::default() };
    let folder = pod_folder(root, &pod.metadata.uid).join("volumes/kubernetes.io~empty-dir");
    for volume in pod.spec.volumes.iter().filter(|v| v.empty_dir.as_ref().is_some_and(|e| e.medium.is_empty())) {
        let (bytes, files) = usage(&folder.join(&volume.name));
        disk.volumes.insert(volume.name.clone(), bytes);
        disk.inodes += files;
    }
    for container in pod.every_container() {
        let (bytes, files) = usage(&Path::new(&pod.log_directory()).join(&container.name));
        *disk.containers.entry(container.name.clone()).or_default() += bytes;
        disk.inodes += files;
    }
    disk
}

/// Bytes and files below a path, on its own file system; a file with several names counts once.
fn usage(path: &Path) -> (i128, i128) {
    let Ok(top) = fs::symlink_metadata(path) else { return (0, 0) };
    let (mut bytes, mut files) = (0, 0);
    let mut seen = BTreeSet::new();
    let mut open = vec![path.to_owned()];
    while let Some(next) = open.pop() {
        let Ok(meta) = fs::symlink_metadata(&next) else { continue };
        if meta.dev() != top.dev() || (meta.nlink() > 1 && !meta.is_dir() && !seen.insert(meta.ino())) {
            continue;
        }
        bytes += i128::from(meta.blocks()) * 512;
        files += 1;
        if meta.is_dir() {
            open.extend(fs::read_dir(&next).into_iter().flatten().flatten().map(|e| e.path()));
        }
    }
    (bytes, files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_file_count_once() {
        let base = std::env::temp_dir().join(format!("kubelet-du-{}", std::process::id()));
        fs::create_dir_all(base.join("d")).unwrap();
        fs::write(base.join("d/f"), vec![1; 100_000]).unwrap();
        fs::hard_link(base.join("d/f"), base.join("g")).unwrap();
        let (bytes, files) = usage(&base);
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
        assert_eq!(files, 3);
        assert_eq!(usage(&base.join("none")), (0, 0));
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn the_machine_has_memory_space_and_process_ids() {
        let seen = observe(Path::new("/"), None);
        for signal in [Signal::Memory, Signal::NodeSpace, Signal::ImageSpace, Signal::Pids] {
            let (available, all) = seen[&signal];
            assert!(available > 0 && available <= all, "{signal:?}");
        }
    }
}

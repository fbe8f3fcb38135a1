//! Cgroups of pods on a cgroup v2 node, made through plain files.
//!
//! ```text
//! kubepods/pod<uid>              guaranteed
//! kubepods/burstable/pod<uid>
//! kubepods/besteffort/pod<uid>
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::pod::{Pod, QosClass};
use crate::sync::resources::{PodLimits, pod_limits};

const CONTROLLERS: &[&str] = &["cpu", "memory", "pids", "cpuset", "io", "hugetlb"];

/// The tree of pod cgroups.
#[derive(Clone, Debug)]
pub struct Cgroups {
    root: PathBuf,
}

impl Cgroups {
    /// Makes the tree under the cgroup2 mount.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(root: &Path) -> io::Result<Self> {
        enable(root)?;
        for path in ["kubepods", "kubepods/burstable", "kubepods/besteffort"] {
            let path = root.join(path);
            fs::create_dir_all(&path)?;
            enable(&path)?;
        }
        // Best-effort pods get what the others leave.
        let _ = fs::write(root.join("kubepods/besteffort/cpu.weight"), "1");
        Ok(Cgroups { root: root.to_owned() })
    }

    /// The pod's cgroup as the runtime names it.
    pub fn parent(&self, pod: &Pod) -> String {
        format!("/{}", relative(pod.qos(), &pod.metadata.uid))
    }

    /// Makes the pod's cgroup with its limits.
    pub fn ensure(&self, pod: &Pod) -> io::Result<()> {
        let path = self.root.join(relative(pod.qos(), &pod.metadata.uid));
        if path.is_dir() {
            return Ok(());
        }
        fs::create_dir(&path)?;
        enable(&path)?;
        for (file, value) in settings(&pod_limits(pod)) {
            // A controller that the kernel lacks has no file; the limit cannot be kept then.
            if path.join(file).exists() {
                fs::write(path.join(file), value)?;
            }
        }
        Ok(())
    }

    /// Removes the pod's cgroup with everything in it, whatever its class was.
    pub fn remove(&self, pod: &Pod) -> io::Result<()> {
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            remove_tree(&self.root.join(relative(class, &pod.metadata.uid)))?;
        }
        Ok(())
    }
}

fn relative(class: QosClass, uid: &str) -> String {
    match class {
        QosClass::Guaranteed => format!("kubepods/pod{uid}"),
        QosClass::Burstable => format!("kubepods/burstable/pod{uid}"),
        QosClass::BestEffort => format!("kubepods/besteffort/pod{uid}"),
    }
}

/// Passes on to children what the cgroup itself has.
fn enable(path: &Path) -> io::Result<()> {
    let available = fs::read_to_string(path.join("cgroup.controllers"))?;
    for controller in CONTROLLERS.iter().filter(|c| available.split_whitespace().any(|a| a == **c)) {
        // One that cannot be passed on must not hold back the others.
        let _ = fs::write(path.join("cgroup.subtree_control"), format!("+{controller}"));
    }
    Ok(())
}

fn remove_tree(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        return Ok(());
    }
    let _ = fs::write(path.join("cgroup.kill"), "1");
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Files and values for a pod's limits.
fn settings(limits: &PodLimits) -> Vec<(&'static str, String)> {
    let mut list = vec![("cpu.weight", weight(limits.shares).to_string())];
    if let Some(quota) = limits.quota {
        list.push(("cpu.max", format!("{quota} 100000")));
    }
    if let Some(memory) = limits.memory {
        list.push(("memory.max", memory.to_string()));
    }
    list
}

/// cgroup v2 weights run from 1 to 10000 where v1 shares ran from 2 to 262144.
fn weight(shares: i64) -> i64 {
    (1 + ((shares - 2) * 9999) / 262_142).clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }

    #[test]
    fn only_limits_that_exist_are_written() {
        let some = settings(&PodLimits { shares: 2, quota: None, memory: Some(1 << 20) });
        assert_eq!(some, [("cpu.weight", "1".to_owned()), ("memory.max", "1048576".to_owned())]);
    }
}

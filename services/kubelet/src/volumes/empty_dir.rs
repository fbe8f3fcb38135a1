//! emptyDir: scratch space on the disk, in memory or in huge pages, for as long as the pod lives.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use super::mounts;
use super::payload::size_limit;
use crate::pod::{EmptyDir, Pod, amount};

/// Makes it, writable by everyone, group-owned by the pod's fsGroup.
///
/// # Errors
/// The kernel's, or a medium that does not exist.
pub fn setup(path: &Path, pod: &Pod, volume: &EmptyDir, group: Option<u32>) -> Result<(), String> {
    let text = |e: io::Error| e.to_string();
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    // Whoever dies half-way: a volume is there with its owner and mode, or not at all. Later they are the pod's business.
    let options = |own: String| {
        let group = group.map(|id| format!(",gid={id}")).unwrap_or_default();
        format!("mode={mode:o}{group}{own}")
    };
    match volume.medium.as_str() {
        "" => folder(path, mode, group).map_err(text),
        "Memory" => {
            let size = memory_size(pod, volume).map(|bytes| format!(",size={bytes}")).unwrap_or_default();
            mounts::ensure(path, "tmpfs", Some(&options(size))).map_err(text)
        }
        medium => {
            let size = huge_page_options(medium, volume)?;
            mounts::ensure(path, "hugetlbfs", Some(&options(size))).map_err(text)
        }
    }
}

fn folder(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    // No volume has a dot in its name.
    let making = path.with_extension("new");
    fs::create_dir_all(&making)?;
    chown(&making, None, group)?;
    fs::set_permissions(&making, fs::Permissions::from_mode(mode))?;
    fs::rename(making, path)
}

/// The smaller of the volume's limit and what the pod's containers may use of memory, if either is known.
fn memory_size(pod: &Pod, volume: &EmptyDir) -> Option<i64> {
    let own = size_limit(volume.size_limit.as_ref());
    let limits: Vec<i128> = pod.all_containers().map(|c| amount(&c.resources.limits, "memory") / 1000).collect();
    let unlimited = limits.contains(&0);
    let all = (!unlimited).then(|| crate::admission::limit(pod, "memory") / 1000);
    let whole = all.and_then(|bytes| i64::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    match (own, whole) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Mount options for `HugePages` or `HugePages-SIZE`.
fn huge_page_options(medium: &str, volume: &EmptyDir) -> Result<String, String> {
    let unknown = || format!("emptyDir medium {medium:?} is unknown");
    let size = match medium.strip_prefix("HugePages").ok_or_else(unknown)? {
        "" => "2Mi",
        rest => rest.strip_prefix('-').ok_or_else(unknown)?,
    };
    let bytes = apimachinery::quantity::Quantity::parse(size).map_err(|_| unknown())?.value();
    let limit = size_limit(volume.size_limit.as_ref()).map(|limit| format!(",size={limit}")).unwrap_or_default();
    Ok(format!(",pagesize={bytes}{limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn memory_is_limited_by_the_volume_and_by_the_pod() {
        let size = |limit: Option<&str>, memory: &[Option<&str>]| {
            let containers: Vec<_> = memory
                .iter()
                .map(|m| m.map_or(json!({}), |m| json!({"resources": {"limits": {"memory": m}}})))
                .collect();
            let pod = Pod::from_value(&json!({"spec": {"containers": containers}})).unwrap();
            memory_size(&pod, &EmptyDir { medium: "Memory".into(), size_limit: limit.map(Into::into) })
        };
        assert_eq!(size(None, &[None]), None);
        assert_eq!(size(Some("1Mi"), &[None]), Some(1 << 20));
        assert_eq!(size(Some("8Mi"), &[Some("2Mi"), Some("2Mi")]), Some(4 << 20));
        assert_eq!(size(None, &[Some("2Mi"), None]), None);
    }

    #[test]
    fn a_folder_appears_with_its_mode_and_keeps_what_the_pod_made_of_it() {
        let base = std::env::temp_dir().join(format!("kubelet-emptydir-{}", std::process::id()));
        let (path, pod) = (base.join("scratch"), Pod::default());
        // What a kubelet left that was killed before.
        fs::create_dir_all(base.join("scratch.new")).unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        setup(&path, &pod, &EmptyDir::default(), None).unwrap();
        assert_eq!(mode(), 0o777);
        assert!(!base.join("scratch.new").exists());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        setup(&path, &pod, &EmptyDir::default(), None).unwrap();
        assert_eq!(mode(), 0o700);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn huge_pages_are_mounted_by_size() {
        let volume = EmptyDir { size_limit: Some("4Mi".into()), ..EmptyDir::default() };
        assert_eq!(huge_page_options("HugePages", &EmptyDir::default()).unwrap(), ",pagesize=2097152");
        assert_eq!(huge_page_options("HugePages-1Gi", &volume).unwrap(), ",pagesize=1073741824,size=4194304");
        assert!(huge_page_options("Disk", &volume).is_err() && huge_page_options("HugePagesX", &volume).is_err());
    }
}

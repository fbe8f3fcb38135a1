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
    let mut fresh = !path.exists();
    match volume.medium.as_str() {
        "" => fs::create_dir_all(path).map_err(text)?,
        // After a reboot the folder is still there, but what is mounted on it is new.
        "Memory" => fresh |= mounts::ensure_tmpfs(path, memory_size(pod, volume)).map_err(text)?,
        medium => {
            let options = huge_page_options(medium, volume)?;
            fresh |= mounts::ensure(path, "hugetlbfs", Some(&options)).map_err(text)?;
        }
    }
    if fresh {
        // The pod decides about owners and modes after its first start.
        let mode = if group.is_some() { 0o2777 } else { 0o777 };
        if group.is_some() {
            chown(path, None, group).map_err(text)?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(text)?;
    }
    Ok(())
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
    Ok(format!("pagesize={bytes}{limit}"))
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
    fn huge_pages_are_mounted_by_size() {
        let volume = EmptyDir { size_limit: Some("4Mi".into()), ..EmptyDir::default() };
        assert_eq!(huge_page_options("HugePages", &EmptyDir::default()).unwrap(), "pagesize=2097152");
        assert_eq!(huge_page_options("HugePages-1Gi", &volume).unwrap(), "pagesize=1073741824,size=4194304");
        assert!(huge_page_options("Disk", &volume).is_err() && huge_page_options("HugePagesX", &volume).is_err());
    }
}

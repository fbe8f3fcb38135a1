//! Control groups of a node: one per hierarchy of the host, below the group that this process is in.
//!
//! Works with cgroup v1, v2 or both, as the host has them: the node sees its own group as the root of each hierarchy.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use linux::mount::{self, MsFlags};

use crate::wait::{Deadline, PROCESS_END};

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The folder below /sys/fs/cgroup; empty where cgroup v2 is all there is.
    name: String,
    fstype: String,
    /// Mount data that names the hierarchy again.
    data: String,
    /// Our own group in it.
    group: String,
}

const MOUNT_ROOT: &str = "/sys/fs/cgroup";

impl Hierarchy {
    fn folder(&self) -> PathBuf {
        Path::new(MOUNT_ROOT).join(&self.name)
    }

    fn node_group(&self, name: &str) -> PathBuf {
        self.folder().join(self.group.trim_start_matches('/')).join(name)
    }
}

/// The host's hierarchies as this process sees them.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let groups = fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
    let mounted = mount::mounted()?;
    let at = |name: &str| {
        let target = Path::new(MOUNT_ROOT).join(name);
        mounted.iter().find(|m| m.target == target && m.fstype.starts_with("cgroup"))
    };
    Ok(parse(&groups, |name| at(name).map(|m| m.fstype.clone())))
}

/// `/proc/self/cgroup` (cgroups(7)) joined with what is mounted under each name.
fn parse(groups: &str, mounted: impl Fn(&str) -> Option<String>) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let candidates = match controllers {
            "" => vec!["".to_owned(), "unified".to_owned()],
            named if named.starts_with("name=") => vec![named["name=".len()..].to_owned()],
            list => vec![list.to_owned()],
        };
        for name in candidates {
            if let Some(fstype) = mounted(&name) {
                let data = match controllers {
                    named if named.starts_with("name=") => format!("none,{named}"),
                    other => other.to_owned(),
                };
                found.push(Hierarchy { name, fstype, data, group: group.to_owned() });
                break;
            }
        }
    }
    found
}

/// Moves this process into new groups of this name. Call it before a new cgroup namespace is made.
pub fn enter(hierarchies: &[Hierarchy], name: &str) -> Result<()> {
    for hierarchy in hierarchies {
        let group = hierarchy.node_group(name);
        fs::create_dir_all(&group).with_context(|| group.display().to_string())?;
        inherit_cpuset(&group);
        let procs = group.join("cgroup.procs");
        fs::write(&procs, std::process::id().to_string()).with_context(|| procs.display().to_string())?;
    }
    Ok(())
}

/// A new v1 cpuset has no processors and takes no process until it has. Other hierarchies have no such files.
fn inherit_cpuset(group: &Path) {
    let Some(parent) = group.parent() else { return };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = fs::read_to_string(parent.join(file)) {
            let _ = fs::write(group.join(file), value);
        }
    }
}

/// Mounts the hierarchies below `root`, inside the node's cgroup namespace.
pub fn mount_all(hierarchies: &[Hierarchy], root: &Path) -> Result<()> {
    let base = root.join(MOUNT_ROOT.trim_start_matches('/'));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let only_v2 = hierarchies.iter().any(|h| h.name.is_empty());
    if !only_v2 {
        mount::mount(Some("tmpfs"), &base, Some("tmpfs"), flags, Some("mode=0755"))?;
    }
    for hierarchy in hierarchies {
        let target = base.join(&hierarchy.name);
        fs::create_dir_all(&target).with_context(|| target.display().to_string())?;
        let data = (hierarchy.fstype == "cgroup").then_some(hierarchy.data.as_str());
        mount::mount(Some("cgroup"), &target, Some(&hierarchy.fstype), flags, data)?;
    }
    Ok(())
}

/// Removes the groups of a node that is off.
pub fn remove(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let group = hierarchy.node_group(name);
        // Killed processes leave their groups a moment after the kill.
        Deadline::after(PROCESS_END).until("empty control groups", || Ok(remove_tree(&group).then_some(())))?;
    }
    Ok(())
}

fn remove_tree(group: &Path) -> bool {
    let Ok(entries) = fs::read_dir(group) else { return true };
    let children = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    // Every child is tried, even after one has failed.
    let left = children.filter(|child| !remove_tree(&child.path())).count();
    left == 0 && fs::remove_dir(group).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generations_are_found() {
        let text = "9:name=systemd:/\n4:memory:/some/group\n0::/\n";
        let mounted = |name: &str| match name {
            "systemd" | "memory" => Some("cgroup".to_owned()),
            "unified" => Some("cgroup2".to_owned()),
            _ => None,
        };
        let names: Vec<(String, String)> = parse(text, mounted).into_iter().map(|h| (h.name, h.data)).collect();
        let expected = [("systemd", "none,name=systemd"), ("memory", "memory"), ("unified", "")];
        assert_eq!(names, expected.map(|(name, data)| (name.to_owned(), data.to_owned())));
    }

    #[test]
    fn a_host_with_only_v2_has_one() {
        let found = parse("0::/user.slice\n", |name| name.is_empty().then(|| "cgroup2".to_owned()));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].node_group("n"), Path::new("/sys/fs/cgroup/user.slice/n"));
    }
}

//! cgroup v2 as files: make a group, set a value, list its processes, kill them.

use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Where the unified hierarchy is mounted on a node.
pub const ROOT: &str = "/sys/fs/cgroup";

/// A group in the hierarchy; it may not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// The group of this name under the usual root: `system/kubelet`.
    pub fn new(name: &str) -> Cgroup {
        Cgroup::under(Path::new(ROOT), name)
    }

    /// The group of this name under another root.
    pub fn under(root: &Path, name: &str) -> Cgroup {
        Cgroup(root.join(name.trim_matches('/')))
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file that moves a process into it.
    pub fn procs_file(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// Makes it and its parents.
    pub fn create(&self) -> Result<()> {
        std::fs::create_dir_all(&self.0).map_err(|e| Error::at("mkdir", &self.0, e))
    }

    /// Lets children use those of the named controllers that this group has.
    pub fn enable(&self, controllers: &[&str]) -> Result<()> {
        let have = self.read("cgroup.controllers")?;
        let have: Vec<&str> = have.split_ascii_whitespace().collect();
        for controller in controllers.iter().filter(|c| have.contains(c)) {
            self.write("cgroup.subtree_control", &format!("+{controller}"))?;
        }
        Ok(())
    }

    /// Sets one value: `memory.max`, `cpu.weight`.
    pub fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.0.join(file);
        std::fs::write(&path, value).map_err(|e| Error::at("write", &path, e))
    }

    /// Reads one value, without the line end.
    pub fn read(&self, file: &str) -> Result<String> {
        let path = self.0.join(file);
        std::fs::read_to_string(&path).map(|v| v.trim_end().to_owned()).map_err(|e| Error::at("read", &path, e))
    }

    /// A flat keyed file (`cpu.stat`, `memory.stat`, `memory.events`): the number beside a key.
    pub fn read_key(&self, file: &str, key: &str) -> Result<Option<u64>> {
        Ok(find_key(&self.read(file)?, key))
    }

    /// Its processes, not those of groups below it.
    pub fn processes(&self) -> Result<Vec<i32>> {
        Ok(self.read("cgroup.procs")?.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Kills every process in it and below it.
    pub fn kill(&self) -> Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Removes it; the kernel refuses while processes or groups are in it.
    pub fn remove(&self) -> Result<()> {
        std::fs::remove_dir(&self.0).map_err(|e| Error::at("rmdir", &self.0, e))
    }
}

fn find_key(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_files() {
        let text = "usage_usec 12\nuser_usec 7\nsystem_usec 5\n";
        assert_eq!(find_key(text, "user_usec"), Some(7));
        assert_eq!(find_key(text, "usage"), None);
    }

    #[test]
    fn only_present_controllers_are_enabled() {
        let root = std::env::temp_dir().join(format!("corten-cgroup-{}", std::process::id()));
        let group = Cgroup::under(&root, "/a/b/");
        group.create().unwrap();
        group.write("cgroup.controllers", "cpu memory\n").unwrap();
        group.enable(&["memory", "io"]).unwrap();
        assert_eq!(group.read("cgroup.subtree_control").unwrap(), "+memory");
        std::fs::remove_dir_all(root).unwrap();
    }
}

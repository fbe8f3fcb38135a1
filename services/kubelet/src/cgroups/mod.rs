//! Cgroups of pods, made through plain files.
//!
//! ```text
//! kubepods/pod<uid>              guaranteed
//! kubepods/burstable/pod<uid>
//! kubepods/besteffort/pod<uid>
//! ```
//!
//! With version 2 of the kernel's interface there is one such tree, with version 1 one in every hierarchy. [`settings`] says
//! what is written to which file; a file that a tree lacks belongs to another one, or to a controller that the kernel lacks.

mod settings;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use linux::process::PidFd;

use crate::config::KubeletConfiguration;
use crate::pod::{Map, Pod, QosClass};
use crate::sync::resources::{pod_limits, shares};
use settings::{Setting, is_wider};

pub use settings::Version;

const CONTROLLERS: &[&str] = &["cpu", "memory", "pids", "cpuset", "io", "hugetlb"];
/// signal(7).
const SIGKILL: i32 = 9;
const CLASSES: [QosClass; 3] = [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort];

/// The trees of pod cgroups.
#[derive(Clone, Debug)]
pub struct Cgroups {
    version: Version,
    trees: Vec<PathBuf>,
    pids: Option<i64>,
}

impl Cgroups {
    /// Makes the trees where control groups are mounted, with the node's limits on all pods together.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(root: &Path, config: &KubeletConfiguration, capacity: &Map, tasks: Option<i128>) -> io::Result<Self> {
        let version = Version::of(root);
        let trees = match version {
            Version::One => hierarchies(root)?,
            Version::Two => {
                enable(root)?;
                vec![root.to_owned()]
            }
        };
        let cgroups = Cgroups { version, trees, pids: Some(config.pod_pids_limit).filter(|n| *n > 0) };
        for class in CLASSES {
            cgroups.make(folder(class))?;
        }
        cgroups.write("kubepods", &version.node(config, capacity, tasks))?;
        cgroups.balance(&[])?;
        Ok(cgroups)
    }

    /// The pod's cgroup as the runtime names it.
    pub fn parent(&self, pod: &Pod) -> String {
        format!("/{}", relative(pod.qos(), &pod.metadata.uid))
    }

    /// Makes the pod's cgroup with its limits.
    pub fn ensure(&self, pod: &Pod) -> io::Result<()> {
        let path = relative(pod.qos(), &pod.metadata.uid);
        if self.trees.iter().all(|tree| tree.join(&path).is_dir()) {
            return Ok(());
        }
        self.make(&path)?;
        self.apply(pod)
    }

    /// Gives the pod's cgroup the limits that the pod has now.
    pub fn apply(&self, pod: &Pod) -> io::Result<()> {
        let huge = crate::pod::huge_pages(pod);
        self.write(&relative(pod.qos(), &pod.metadata.uid), &self.version.pod(&pod_limits(pod), self.pids, &huge))
    }

    /// As [`Cgroups::apply`], but where a limit shrinks the larger one stays.
    pub fn widen(&self, pod: &Pod) -> io::Result<()> {
        let path = relative(pod.qos(), &pod.metadata.uid);
        let limits = self.version.pod(&pod_limits(pod), None, &[]);
        for folder in self.trees.iter().map(|tree| tree.join(&path)) {
            let old = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
            let wider: Vec<Setting> =
                limits.iter().filter(|(file, value)| is_wider(&old(file), value)).cloned().collect();
            write(&folder, &wider)?;
        }
        Ok(())
    }

    /// Divides the CPU between the classes by what their pods asked for; best-effort pods get what the others leave.
    pub fn balance(&self, pods: &[Arc<Pod>]) -> io::Result<()> {
        let burstable: i128 =
            pods.iter().filter(|p| p.qos() == QosClass::Burstable).map(|p| crate::admission::request(p, "cpu")).sum();
        self.write(folder(QosClass::Burstable), &self.version.class(shares(burstable)))?;
        self.write(folder(QosClass::BestEffort), &self.version.class(shares(0)))
    }

    /// Pods that have a cgroup on this node.
    pub fn present(&self) -> BTreeSet<String> {
        let folders = self.trees.iter().flat_map(|tree| CLASSES.map(|class| tree.join(folder(class))));
        let entries = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        entries.filter_map(|e| e.file_name().to_str()?.strip_prefix("pod").map(str::to_owned)).collect()
    }

    /// Removes the pod's cgroup with everything in it, whatever its class was; what still runs there is killed.
    ///
    /// # Errors
    /// The kernel's; a cgroup is busy until the last process that was killed has ended, so it can be tried again.
    pub fn remove(&self, uid: &str) -> io::Result<()> {
        let all = self.trees.iter().flat_map(|tree| CLASSES.map(|class| tree.join(relative(class, uid))));
        // Every tree is tried, even after one has failed.
        let outcomes: Vec<io::Result<()>> = all.map(|path| remove_tree(&path)).collect();
        outcomes.into_iter().collect()
    }

    fn make(&self, path: &str) -> io::Result<()> {
        for folder in self.trees.iter().map(|tree| tree.join(path)) {
            fs::create_dir_all(&folder)?;
            match self.version {
                Version::One => inherit(&folder)?,
                Version::Two => enable(&folder)?,
            }
        }
        Ok(())
    }

    fn write(&self, path: &str, settings: &[Setting]) -> io::Result<()> {
        self.trees.iter().try_for_each(|tree| write(&tree.join(path), settings))
    }
}

fn folder(class: QosClass) -> &'static str {
    match class {
        QosClass::Guaranteed => "kubepods",
        QosClass::Burstable => "kubepods/burstable",
        QosClass::BestEffort => "kubepods/besteffort",
    }
}

fn relative(class: QosClass, uid: &str) -> String {
    format!("{}/pod{uid}", folder(class))
}

/// The mounted hierarchies of version 1. Links are other names of the same ones (`cpu` of `cpu,cpuacct`).
fn hierarchies(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.path().join("cgroup.procs").exists() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Writes what there is a file for.
fn write(path: &Path, settings: &[Setting]) -> io::Result<()> {
    for (file, value) in settings.iter().filter(|(file, _)| path.join(file).exists()) {
        fs::write(path.join(file), value)?;
    }
    Ok(())
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

/// A new cpuset of version 1 is empty, and takes no process until it has processors and memory.
fn inherit(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = fs::read_to_string(path.join(file));
        if own.is_ok_and(|own| own.trim().is_empty()) {
            fs::write(path.join(file), fs::read_to_string(parent.join(file))?)?;
        }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        return Ok(());
    }
    kill(path);
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

/// Kills what is in a cgroup. Version 2 has a file for it, which means everything below too; with version 1 processes that
/// fork meanwhile are met when it is tried again.
fn kill(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path.join("cgroup.kill"));
    if file.and_then(|mut file| file.write_all(b"1")).is_ok() {
        return;
    }
    for pid in processes(path) {
        // The number may have gone to another process before the descriptor was opened, but not after.
        if let Ok(process) = PidFd::open(pid)
            && processes(path).contains(&pid)
        {
            let _ = process.signal_number(SIGKILL);
        }
    }
}

fn processes(path: &Path) -> Vec<i32> {
    let list = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    list.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The kernel's files are stood in for by plain ones.
    fn root(name: &str, files: &[&str]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("kubelet-cgroups-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for file in files.iter().map(|file| root.join(file)) {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        root
    }

    fn pod(resources: serde_json::Value) -> Pod {
        let spec = json!({"containers": [{"name": "c", "resources": resources}]});
        Pod::from_value(&json!({"metadata": {"uid": "u"}, "spec": spec})).unwrap()
    }

    #[test]
    fn the_tree_follows_the_classes() {
        let root = root("classes", &["kubepods/burstable/cpu.weight", "kubepods/besteffort/cpu.weight"]);
        let cgroups = Cgroups { version: Version::Two, trees: vec![root.clone()], pids: None };
        assert_eq!(cgroups.parent(&pod(json!({}))), "/kubepods/besteffort/podu");
        assert_eq!(cgroups.parent(&pod(json!({"requests": {"cpu": "1"}}))), "/kubepods/burstable/podu");
        assert_eq!(cgroups.parent(&pod(json!({"limits": {"cpu": "1", "memory": "1Mi"}}))), "/kubepods/podu");
        for path in ["kubepods/poda", "kubepods/burstable/podb/c", "kubepods/besteffort/podd"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        assert_eq!(cgroups.present().into_iter().collect::<Vec<_>>(), ["a", "b", "d"], "the classes are no pods");
        cgroups.balance(&[Arc::new(pod(json!({"requests": {"cpu": "1"}})))]).unwrap();
        assert_eq!(fs::read_to_string(root.join("kubepods/burstable/cpu.weight")).unwrap(), "39");
        assert_eq!(fs::read_to_string(root.join("kubepods/besteffort/cpu.weight")).unwrap(), "1");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn version_one_has_a_tree_in_every_hierarchy() {
        let files = ["cpu,cpuacct/cgroup.procs", "memory/cgroup.procs", "pids/cgroup.procs", "none/file"];
        let root = root("hierarchies", &files);
        std::os::unix::fs::symlink("cpu,cpuacct", root.join("cpu")).unwrap();
        let config = KubeletConfiguration { pod_pids_limit: 64, ..KubeletConfiguration::default() };
        let cgroups = Cgroups::new(&root, &config, &Map::new(), None).unwrap();
        let names: Vec<_> = cgroups.trees.iter().map(|t| t.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["cpu,cpuacct", "memory", "pids"]);
        let amounts = json!({"cpu": "1", "memory": "1Mi"});
        let limited = pod(json!({"requests": amounts, "limits": amounts}));
        for file in ["cpu,cpuacct/kubepods/podu/cpu.shares", "memory/kubepods/podu/memory.limit_in_bytes"] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), "").unwrap();
        }
        cgroups.ensure(&limited).unwrap();
        let read = |file: &str| fs::read_to_string(root.join(file)).ok();
        assert_eq!(read("cpu,cpuacct/kubepods/podu/cpu.shares").as_deref(), Some("1024"));
        assert_eq!(read("memory/kubepods/podu/memory.limit_in_bytes").as_deref(), Some("1048576"));
        assert_eq!(read("memory/kubepods/podu/cpu.shares"), None, "what a hierarchy lacks is not written there");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_new_cpuset_gets_its_parents_processors() {
        let root = root("cpuset", &["a/cpuset.cpus", "a/cpuset.mems", "a/b/cpuset.cpus", "a/b/cpuset.mems"]);
        for (file, value) in [("a/cpuset.cpus", "0-3\n"), ("a/cpuset.mems", "0\n"), ("a/b/cpuset.cpus", "2\n")] {
            fs::write(root.join(file), value).unwrap();
        }
        inherit(&root.join("a/b")).unwrap();
        let read = |file: &str| fs::read_to_string(root.join(file)).unwrap();
        assert_eq!((read("a/b/cpuset.cpus").as_str(), read("a/b/cpuset.mems").as_str()), ("2\n", "0\n"));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_runs_in_a_removed_cgroup_is_killed_in_every_tree() {
        let mut sleeper = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let root = root("kill", &["one/kubepods/podu/c/cgroup.procs", "two/kubepods/besteffort/podu/c/x"]);
        let procs = root.join("one/kubepods/podu/c/cgroup.procs");
        fs::write(&procs, format!("{}\n", sleeper.id())).unwrap();
        fs::remove_file(root.join("two/kubepods/besteffort/podu/c/x")).unwrap();
        let trees = vec![root.join("one"), root.join("two")];
        let cgroups = Cgroups { version: Version::One, trees, pids: None };
        assert_eq!(cgroups.present().into_iter().collect::<Vec<_>>(), ["u"]);
        assert!(cgroups.remove("u").is_err(), "plain files keep the folder busy, as a process does");
        assert!(!sleeper.wait().unwrap().success());
        assert!(!root.join("two/kubepods/besteffort/podu").exists(), "one that fails does not hold back the others");
        fs::remove_file(procs).unwrap();
        cgroups.remove("u").unwrap();
        assert!(cgroups.present().is_empty());
        fs::remove_dir_all(root).unwrap();
    }
}

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
use std::sync::Arc;

use crate::config::KubeletConfiguration;
use crate::pod::{Map, Pod, QosClass, amount};
use crate::sync::resources::{PodLimits, pod_limits, shares};

const CONTROLLERS: &[&str] = &["cpu", "memory", "pids", "cpuset", "io", "hugetlb"];

/// A file of a cgroup and what is written to it.
type Setting = (String, String);

/// The tree of pod cgroups.
#[derive(Clone, Debug)]
pub struct Cgroups {
    root: PathBuf,
    pids: Option<i64>,
}

impl Cgroups {
    /// Makes the tree under the cgroup2 mount, with the node's limits on all pods together.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(root: &Path, config: &KubeletConfiguration, capacity: &Map) -> io::Result<Self> {
        enable(root)?;
        for path in ["kubepods", "kubepods/burstable", "kubepods/besteffort"] {
            let path = root.join(path);
            fs::create_dir_all(&path)?;
            enable(&path)?;
        }
        let cgroups = Cgroups { root: root.to_owned(), pids: Some(config.pod_pids_limit).filter(|n| *n > 0) };
        write(&root.join("kubepods"), &node_settings(config, capacity))?;
        cgroups.balance(&[])?;
        Ok(cgroups)
    }

    /// The pod's cgroup as the runtime names it.
    pub fn parent(&self, pod: &Pod) -> String {
        format!("/{}", relative(pod.qos(), &pod.metadata.uid))
    }

    fn path(&self, pod: &Pod) -> PathBuf {
        self.root.join(relative(pod.qos(), &pod.metadata.uid))
    }

    /// Makes the pod's cgroup with its limits.
    pub fn ensure(&self, pod: &Pod) -> io::Result<()> {
        let path = self.path(pod);
        if path.is_dir() {
            return Ok(());
        }
        fs::create_dir(&path)?;
        enable(&path)?;
        self.apply(pod)
    }

    /// Gives the pod's cgroup the limits that the pod has now.
    pub fn apply(&self, pod: &Pod) -> io::Result<()> {
        let huge = crate::pod::huge_pages(pod);
        write(&self.path(pod), &settings(&pod_limits(pod), self.pids, &huge))
    }

    /// As [`Cgroups::apply`], but where a limit shrinks the larger one stays.
    pub fn widen(&self, pod: &Pod) -> io::Result<()> {
        let path = self.path(pod);
        let wider = settings(&pod_limits(pod), None, &[]).into_iter().filter(|(file, value)| {
            let old = fs::read_to_string(path.join(file)).unwrap_or_default();
            is_wider(&old, value)
        });
        write(&path, &wider.collect::<Vec<_>>())
    }

    /// Divides the CPU between the classes by what their pods asked for; best-effort pods get what the others leave.
    pub fn balance(&self, pods: &[Arc<Pod>]) -> io::Result<()> {
        let burstable: i128 =
            pods.iter().filter(|p| p.qos() == QosClass::Burstable).map(|p| crate::admission::request(p, "cpu")).sum();
        let value = |shares: i64| vec![("cpu.weight".to_owned(), weight(shares).to_string())];
        write(&self.root.join("kubepods/burstable"), &value(shares(burstable)))?;
        write(&self.root.join("kubepods/besteffort"), &value(shares(0)))
    }

    /// Pods that have a cgroup on this node.
    pub fn present(&self) -> Vec<String> {
        let classes = ["kubepods", "kubepods/burstable", "kubepods/besteffort"];
        let entries = classes.iter().filter_map(|class| fs::read_dir(self.root.join(class)).ok()).flatten().flatten();
        entries.filter_map(|e| e.file_name().to_str()?.strip_prefix("pod").map(str::to_owned)).collect()
    }

    /// Removes the pod's cgroup with everything in it, whatever its class was.
    pub fn remove(&self, uid: &str) -> io::Result<()> {
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            remove_tree(&self.root.join(relative(class, uid)))?;
        }
        Ok(())
    }
}

/// A controller that the kernel lacks has no file; its limit cannot be kept then.
fn write(path: &Path, settings: &[Setting]) -> io::Result<()> {
    for (file, value) in settings.iter().filter(|(file, _)| path.join(file).exists()) {
        fs::write(path.join(file), value)?;
    }
    Ok(())
}

/// Whether a new value of a limit file (`max` or a number first) leaves more than the old one.
fn is_wider(old: &str, new: &str) -> bool {
    let first = |text: &str| -> Option<i128> {
        match text.split_whitespace().next()? {
            "max" => Some(i128::MAX),
            number => number.parse().ok(),
        }
    };
    first(new) > first(old)
}

/// What all pods together may use: what the machine has less what is reserved.
fn node_settings(config: &KubeletConfiguration, capacity: &Map) -> Vec<Setting> {
    if !config.enforce_node_allocatable.iter().any(|e| e == "pods") {
        return Vec::new();
    }
    let left = |resource: &str| (amount(capacity, resource) - config.reserved(resource)).max(0);
    vec![
        ("cpu.weight".into(), weight(shares(left("cpu"))).to_string()),
        ("memory.max".into(), (left("memory") / 1000).to_string()),
    ]
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

/// Files and values for a pod's limits; `huge` are limits of huge pages by the kernel's name of their size.
fn settings(limits: &PodLimits, pids: Option<i64>, huge: &[(String, i128)]) -> Vec<Setting> {
    let text = |limit: Option<i64>| limit.map_or_else(|| "max".to_owned(), |number| number.to_string());
    let mut list = vec![
        ("cpu.weight".to_owned(), weight(limits.shares).to_string()),
        ("cpu.max".to_owned(), format!("{} 100000", text(limits.quota))),
        ("memory.max".to_owned(), text(limits.memory)),
    ];
    if let Some(pids) = pids {
        list.push(("pids.max".to_owned(), pids.to_string()));
    }
    list.extend(huge.iter().map(|(size, bytes)| (format!("hugetlb.{size}.max"), bytes.to_string())));
    list
}

/// cgroup v2 weights run from 1 to 10000 where v1 shares ran from 2 to 262144.
fn weight(shares: i64) -> i64 {
    (1 + ((shares - 2) * 9999) / 262_142).clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pairs(settings: Vec<Setting>) -> Vec<String> {
        settings.into_iter().map(|(file, value)| format!("{file}={value}")).collect()
    }

    #[test]
    fn shares_become_weights() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }

    #[test]
    fn a_pods_limits_become_files() {
        let some = settings(&PodLimits { shares: 2, quota: None, memory: Some(1 << 20) }, None, &[]);
        assert_eq!(pairs(some), ["cpu.weight=1", "cpu.max=max 100000", "memory.max=1048576"]);
        let all = settings(
            &PodLimits { shares: 1024, quota: Some(50_000), memory: None },
            Some(64),
            &[("2MB".into(), 4 << 20)],
        );
        let expected =
            ["cpu.weight=39", "cpu.max=50000 100000", "memory.max=max", "pids.max=64", "hugetlb.2MB.max=4194304"];
        assert_eq!(pairs(all), expected);
    }

    #[test]
    fn all_pods_together_leave_what_is_reserved() {
        let capacity = Map::from([("cpu".into(), "2".into()), ("memory".into(), "1048576Ki".into())]);
        let system_reserved = Map::from([("cpu".into(), "1".into()), ("memory".into(), "24Mi".into())]);
        let mut config = KubeletConfiguration { system_reserved, ..KubeletConfiguration::default() };
        assert_eq!(pairs(node_settings(&config, &capacity)), ["cpu.weight=39", "memory.max=1048576000"]);
        config.enforce_node_allocatable = vec!["none".into()];
        assert!(node_settings(&config, &capacity).is_empty());
    }

    #[test]
    fn limits_grow_before_they_shrink() {
        for (old, new, wider) in
            [("100\n", "200", true), ("200", "100", false), ("100", "max", true), ("max 100000\n", "5 100000", false)]
        {
            assert_eq!(is_wider(old, new), wider, "{old} {new}");
        }
    }

    #[test]
    fn the_tree_follows_the_classes() {
        let root = std::env::temp_dir().join(format!("kubelet-cgroups-{}", std::process::id()));
        let class = |resources: serde_json::Value| {
            let spec = json!({"containers": [{"name": "c", "resources": resources}]});
            Pod::from_value(&json!({"metadata": {"uid": "u"}, "spec": spec})).unwrap()
        };
        let cgroups = Cgroups { root: root.clone(), pids: None };
        assert_eq!(cgroups.parent(&class(json!({}))), "/kubepods/besteffort/podu");
        assert_eq!(cgroups.parent(&class(json!({"requests": {"cpu": "1"}}))), "/kubepods/burstable/podu");
        assert_eq!(cgroups.parent(&class(json!({"limits": {"cpu": "1", "memory": "1Mi"}}))), "/kubepods/podu");
        // The kernel's files are stood in for by plain ones.
        for folder in ["kubepods/burstable", "kubepods/besteffort"] {
            fs::create_dir_all(root.join(folder)).unwrap();
            fs::write(root.join(folder).join("cpu.weight"), "0").unwrap();
        }
        for path in ["kubepods/poda", "kubepods/burstable/podb/c", "kubepods/besteffort/podd"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        assert_eq!(cgroups.present(), ["a", "b", "d"], "the classes are no pods");
        cgroups.balance(&[Arc::new(class(json!({"requests": {"cpu": "1"}})))]).unwrap();
        assert_eq!(fs::read_to_string(root.join("kubepods/burstable/cpu.weight")).unwrap(), "39");
        assert_eq!(fs::read_to_string(root.join("kubepods/besteffort/cpu.weight")).unwrap(), "1");
        fs::remove_dir_all(root).unwrap();
    }
}

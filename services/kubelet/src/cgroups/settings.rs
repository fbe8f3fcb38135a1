//! Limits as the kernel's files want them, in either version of control groups. Pure.

use std::path::Path;

use crate::config::KubeletConfiguration;
use crate::pod::{Map, amount};
use crate::sync::resources::{PodLimits, shares};

/// A file of a cgroup and what is written to it.
pub type Setting = (String, String);

/// The kernel's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller (cgroups(7)).
    One,
    /// One hierarchy for all.
    Two,
}

impl Version {
    /// What is mounted there.
    pub fn of(root: &Path) -> Version {
        if root.join("cgroup.controllers").exists() { Version::Two } else { Version::One }
    }

    fn cpu(self, shares: i64) -> Setting {
        match self {
            Version::One => ("cpu.shares".into(), shares.to_string()),
            Version::Two => ("cpu.weight".into(), weight(shares).to_string()),
        }
    }

    fn memory(self, bytes: Option<i128>) -> Setting {
        match self {
            Version::One => ("memory.limit_in_bytes".into(), or(bytes, "-1")),
            Version::Two => ("memory.max".into(), or(bytes, "max")),
        }
    }

    /// CPU time in each 100 ms.
    fn quota(self, microseconds: Option<i64>) -> Setting {
        match self {
            Version::One => ("cpu.cfs_quota_us".into(), or(microseconds, "-1")),
            Version::Two => ("cpu.max".into(), format!("{} 100000", or(microseconds, "max"))),
        }
    }

    fn huge_pages(self, size: &str, bytes: i128) -> Setting {
        let file = match self {
            Version::One => "limit_in_bytes",
            Version::Two => "max",
        };
        (format!("hugetlb.{size}.{file}"), bytes.to_string())
    }

    /// A pod's limits; `huge` are limits of huge pages by the kernel's name of their size.
    pub fn pod(self, limits: &PodLimits, pids: Option<i64>, huge: &[(String, i128)]) -> Vec<Setting> {
        let memory = self.memory(limits.memory.map(i128::from));
        let mut list = vec![self.cpu(limits.shares), self.quota(limits.quota), memory];
        list.extend(pids.map(tasks));
        list.extend(huge.iter().map(|(size, bytes)| self.huge_pages(size, *bytes)));
        list
    }

    /// The part of a class of pods in the CPU.
    pub fn class(self, shares: i64) -> Vec<Setting> {
        vec![self.cpu(shares)]
    }

    /// What all pods together may use: what the machine has less what is reserved. `pids` is how many tasks the kernel can
    /// have, if that is known.
    pub fn node(self, config: &KubeletConfiguration, capacity: &Map, pids: Option<i128>) -> Vec<Setting> {
        if !config.enforce_node_allocatable.iter().any(|e| e == "pods") {
            return Vec::new();
        }
        let left = |resource: &str| (amount(capacity, resource) - config.reserved(resource)).max(0);
        let mut list = vec![self.cpu(shares(left("cpu"))), self.memory(Some(left("memory") / 1000))];
        let pids = pids.and_then(|all| i64::try_from(all - config.reserved("pid") / 1000).ok());
        list.extend(pids.filter(|n| *n > 0).map(tasks));
        list
    }
}

/// Both versions name it alike.
fn tasks(limit: i64) -> Setting {
    ("pids.max".into(), limit.to_string())
}

fn or(limit: Option<impl ToString>, none: &str) -> String {
    limit.map_or_else(|| none.to_owned(), |number| number.to_string())
}

/// cgroup v2 weights run from 1 to 10000 where v1 shares ran from 2 to 262144.
fn weight(shares: i64) -> i64 {
    (1 + ((shares - 2) * 9999) / 262_142).clamp(1, 10_000)
}

/// Whether a new value of a limit file (`max`, -1 or a number first) leaves more than the old one.
pub fn is_wider(old: &str, new: &str) -> bool {
    let first = |text: &str| -> Option<i128> {
        match text.split_whitespace().next()? {
            "max" | "-1" => Some(i128::MAX),
            number => number.parse().ok(),
        }
    };
    first(new) > first(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(settings: Vec<Setting>) -> Vec<String> {
        settings.into_iter().map(|(file, value)| format!("{file}={value}")).collect()
    }

    #[test]
    fn shares_become_weights() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }

    /// The version, a pod's limits of the three kinds, and what is written.
    type Row<'a> = (Version, &'a PodLimits, Option<i64>, &'a [(String, i128)], &'a [&'a str]);

    #[test]
    fn a_pods_limits_become_files() {
        let none = PodLimits { shares: 2, quota: None, memory: None };
        let all = PodLimits { shares: 1024, quota: Some(50_000), memory: Some(1 << 20) };
        let huge = [("2MB".to_owned(), 4 << 20)];
        let table: [Row<'_>; 4] = [
            (Version::Two, &none, None, &[], &["cpu.weight=1", "cpu.max=max 100000", "memory.max=max"]),
            (
                Version::Two,
                &all,
                Some(64),
                &huge,
                &[
                    "cpu.weight=39",
                    "cpu.max=50000 100000",
                    "memory.max=1048576",
                    "pids.max=64",
                    "hugetlb.2MB.max=4194304",
                ],
            ),
            (Version::One, &none, None, &[], &["cpu.shares=2", "cpu.cfs_quota_us=-1", "memory.limit_in_bytes=-1"]),
            (
                Version::One,
                &all,
                Some(64),
                &huge,
                &[
                    "cpu.shares=1024",
                    "cpu.cfs_quota_us=50000",
                    "memory.limit_in_bytes=1048576",
                    "pids.max=64",
                    "hugetlb.2MB.limit_in_bytes=4194304",
                ],
            ),
        ];
        for (version, limits, pids, huge, expected) in table {
            assert_eq!(pairs(version.pod(limits, pids, huge)), expected, "{version:?}");
        }
    }

    #[test]
    fn all_pods_together_leave_what_is_reserved() {
        let capacity = Map::from([("cpu".into(), "2".into()), ("memory".into(), "1048576Ki".into())]);
        let reserved = [("cpu", "1"), ("memory", "24Mi"), ("pid", "1000")];
        let system_reserved = reserved.map(|(name, amount)| (name.to_owned(), amount.to_owned())).into();
        let mut config = KubeletConfiguration { system_reserved, ..KubeletConfiguration::default() };
        let given = |config: &KubeletConfiguration, pids| pairs(Version::Two.node(config, &capacity, pids));
        assert_eq!(given(&config, Some(32_768)), ["cpu.weight=39", "memory.max=1048576000", "pids.max=31768"]);
        assert_eq!(given(&config, None).len(), 2);
        let old = pairs(Version::One.node(&config, &capacity, None));
        assert_eq!(old, ["cpu.shares=1024", "memory.limit_in_bytes=1048576000"]);
        config.enforce_node_allocatable = vec!["none".into()];
        assert!(given(&config, Some(32_768)).is_empty());
    }

    #[test]
    fn limits_grow_before_they_shrink() {
        let table = [
            ("100\n", "200", true),
            ("200", "100", false),
            ("100", "max", true),
            ("max 100000\n", "5 100000", false),
            ("100", "-1", true),
            ("-1\n", "100", false),
        ];
        for (old, new, wider) in table {
            assert_eq!(is_wider(old, new), wider, "{old} {new}");
        }
    }
}

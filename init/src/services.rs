//! The service table: every process PID 1 starts, as data. Adding a service is adding a row.

use init_api::Target;
use linux::cap::Capability;

/// Which of its capabilities (all of root's) a service keeps.
#[derive(Debug, Clone, Copy)]
pub enum Privileges {
    /// All of them.
    All,
    /// Only these; it cannot gain others through exec.
    Only(&'static [Capability]),
}

/// One service.
#[derive(Debug)]
pub struct Spec {
    /// Its name: for requests, its cgroup `/system/<name>`, its log file, its extra arguments.
    pub name: &'static str,
    /// The constant part of its command line; lines of `/run/corten/args/<name>` follow.
    pub argv: &'static [&'static str],
    /// The smallest target that runs it.
    pub target: Target,
    /// Started after these run; stopped, when everything stops, before them. Only an optimisation for the start: every service
    /// tolerates that its peers are away.
    pub after: &'static [&'static str],
    /// How long it may take to end after SIGTERM before SIGKILL.
    pub grace_ms: u64,
    /// What it may do.
    pub privileges: Privileges,
    /// Who dies first when memory runs out: -999 is nearly never, 0 is a normal process.
    pub oom_score_adj: i32,
}

const NODE: i32 = -999;
const CONTROL_PLANE: i32 = -997;

/// The table, in start order.
pub const SERVICES: &[Spec] = &[
    Spec {
        name: "machined",
        argv: &["/usr/bin/machined"],
        target: Target::Maintenance,
        after: &[],
        grace_ms: 10_000,
        privileges: Privileges::All,
        oom_score_adj: NODE,
    },
    Spec {
        name: "containerd",
        argv: &["/usr/bin/containerd"],
        target: Target::Worker,
        after: &["machined"],
        grace_ms: 10_000,
        privileges: Privileges::All,
        oom_score_adj: NODE,
    },
    Spec {
        name: "store",
        argv: &["/usr/bin/store"],
        target: Target::ControlPlane,
        after: &["machined"],
        grace_ms: 10_000,
        privileges: Privileges::Only(&[]),
        oom_score_adj: CONTROL_PLANE,
    },
    Spec {
        name: "kube-apiserver",
        argv: &["/usr/bin/kube-apiserver"],
        target: Target::ControlPlane,
        after: &["store"],
        grace_ms: 10_000,
        privileges: Privileges::Only(&[]),
        oom_score_adj: CONTROL_PLANE,
    },
    Spec {
        name: "kube-controller-manager",
        argv: &["/usr/bin/kube-controller-manager"],
        target: Target::ControlPlane,
        after: &["kube-apiserver"],
        grace_ms: 10_000,
        privileges: Privileges::Only(&[]),
        oom_score_adj: CONTROL_PLANE,
    },
    Spec {
        name: "kube-scheduler",
        argv: &["/usr/bin/kube-scheduler"],
        target: Target::ControlPlane,
        after: &["kube-apiserver"],
        grace_ms: 10_000,
        privileges: Privileges::Only(&[]),
        oom_score_adj: CONTROL_PLANE,
    },
    Spec {
        name: "metal-controller-manager",
        argv: &["/usr/bin/metal-controller-manager"],
        target: Target::Worker,
        after: &["machined"],
        grace_ms: 5_000,
        privileges: Privileges::Only(&[Capability::NetRaw]),
        oom_score_adj: CONTROL_PLANE,
    },
    Spec {
        name: "kubelet",
        argv: &["/usr/bin/kubelet"],
        target: Target::Worker,
        after: &["containerd"],
        grace_ms: 30_000,
        privileges: Privileges::All,
        oom_score_adj: NODE,
    },
    Spec {
        name: "pod-network",
        argv: &["/usr/bin/pod-network"],
        target: Target::Worker,
        after: &["machined"],
        grace_ms: 5_000,
        privileges: Privileges::All,
        oom_score_adj: NODE,
    },
    Spec {
        name: "kube-proxy",
        argv: &["/usr/bin/kube-proxy"],
        target: Target::Worker,
        after: &["machined"],
        grace_ms: 5_000,
        privileges: Privileges::All,
        oom_score_adj: NODE,
    },
    Spec {
        name: "cluster-dns",
        argv: &["/usr/bin/cluster-dns"],
        target: Target::Worker,
        after: &["machined"],
        grace_ms: 5_000,
        privileges: Privileges::Only(&[Capability::NetBindService, Capability::NetAdmin]),
        oom_score_adj: NODE,
    },
];

/// The row of this name.
pub fn position(specs: &[Spec], name: &str) -> Option<usize> {
    specs.iter().position(|spec| spec.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_name_earlier_rows_that_every_target_of_theirs_has() {
        for (index, spec) in SERVICES.iter().enumerate() {
            assert_eq!(position(SERVICES, spec.name), Some(index), "{} is there twice", spec.name);
            assert!(spec.argv[0].starts_with('/'), "{}: the program is an absolute path", spec.name);
            for after in spec.after {
                let other = position(SERVICES, after).unwrap();
                assert!(other < index, "{} stands before {after}", spec.name);
                assert!(SERVICES[other].target <= spec.target, "{} would wait for ever for {after}", spec.name);
            }
        }
    }
}

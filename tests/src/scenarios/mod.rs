//! The scenarios, one file each, in the order in which they run on one cluster. Each leaves the cluster as it found it.

use qemu::DriverName;

use crate::e2e::Run;

mod commands;
mod configuration;
mod controllers;
mod devices;
mod full_disk;
mod kills;
mod kubelet;
mod leftovers;
mod limits;
mod load_balancer;
mod machine;
mod node_faults;
mod orderly;
mod pair;
mod power;
mod refusals;
mod restarts;
mod restore;
mod storage;
mod streams;
mod verdicts;
mod workload;

/// One scenario.
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// Where it means something.
    pub drivers: &'static [DriverName],
    /// Why not elsewhere.
    pub why_not: &'static str,
    /// What it does.
    pub run: Run,
}

const EVERYWHERE: &[DriverName] = &[DriverName::Qemu, DriverName::Namespace];

const QEMU: &[DriverName] = &[DriverName::Qemu];
const NAMESPACE: &[DriverName] = &[DriverName::Namespace];

const fn everywhere(name: &'static str, run: Run) -> Scenario {
    Scenario { name, drivers: EVERYWHERE, why_not: "", run }
}

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    everywhere("machine", machine::run),
    everywhere("commands", commands::run),
    everywhere("workload", workload::run),
    everywhere("kubelet", kubelet::run),
    everywhere("verdicts", verdicts::run),
    everywhere("controllers", controllers::run),
    everywhere("streams", streams::run),
    everywhere("refusals", refusals::run),
    everywhere("configuration", configuration::run),
    everywhere("restarts", restarts::run),
    everywhere("restore", restore::run),
    everywhere("kills", kills::run),
    everywhere("leftovers", leftovers::run),
    Scenario {
        name: "limits",
        drivers: NAMESPACE,
        why_not: "it looks at log files of the node from this host",
        run: limits::run,
    },
    Scenario {
        name: "node_faults",
        drivers: NAMESPACE,
        why_not: "on an emulated machine it takes half an hour",
        run: node_faults::run,
    },
    Scenario {
        name: "load_balancer",
        drivers: NAMESPACE,
        why_not: "nobody stands beside a virtual machine on its network yet",
        run: load_balancer::run,
    },
    Scenario {
        name: "pair",
        drivers: NAMESPACE,
        why_not: "virtual machines do not share a network yet",
        run: pair::run,
    },
    Scenario {
        name: "storage",
        drivers: NAMESPACE,
        why_not: "its storage driver is a process of this host",
        run: storage::run,
    },
    Scenario {
        name: "devices",
        drivers: NAMESPACE,
        why_not: "its device plugin is a process of this host",
        run: devices::run,
    },
    Scenario {
        name: "orderly",
        drivers: QEMU,
        why_not: "a node in namespaces has its host's kernel",
        run: orderly::run,
    },
    everywhere("power", power::run),
    // Last: for five minutes afterwards the node takes no pods, as with upstream's kubelet (disk pressure).
    Scenario { name: "full_disk", drivers: QEMU, why_not: "the node's disk is this host's", run: full_disk::run },
];

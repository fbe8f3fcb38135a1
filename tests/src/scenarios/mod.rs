//! The scenarios, one file each, in the order in which they run on one cluster. Each leaves the cluster as it found it.

use qemu::DriverName;

use crate::e2e::Run;

mod configuration;
mod controllers;
mod kills;
mod leftovers;
mod machine;
mod power;
mod refusals;
mod restarts;
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

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "machine", drivers: EVERYWHERE, why_not: "", run: machine::run },
    Scenario { name: "workload", drivers: EVERYWHERE, why_not: "", run: workload::run },
    Scenario { name: "controllers", drivers: EVERYWHERE, why_not: "", run: controllers::run },
    Scenario { name: "refusals", drivers: EVERYWHERE, why_not: "", run: refusals::run },
    Scenario { name: "configuration", drivers: EVERYWHERE, why_not: "", run: configuration::run },
    Scenario { name: "restarts", drivers: EVERYWHERE, why_not: "", run: restarts::run },
    Scenario {
        name: "kills",
        drivers: &[DriverName::Namespace],
        why_not: "from outside a machine no process can be killed",
        run: kills::run,
    },
    Scenario {
        name: "leftovers",
        drivers: &[DriverName::Namespace],
        why_not: "from outside a machine its mounts and rules cannot be seen",
        run: leftovers::run,
    },
    Scenario { name: "power", drivers: EVERYWHERE, why_not: "", run: power::run },
];

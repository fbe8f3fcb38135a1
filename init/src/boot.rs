//! The boot as a list of named steps. Each prints one console line with the milliseconds since the kernel started, and ends up
//! in the boot report.
//!
//! In the initramfs a failed step is the end (there is no root to run from): the kernel panics and restarts. On the node a failed step is
//! reported and the boot goes on, because a node that can still be asked what is wrong is worth more than one that is silent.

use crate::cmdline::Cmdline;
use crate::console::Console;
use crate::{disks, hostfiles, modules, mounts, now_ms, root};
use init_api::Stage;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error(transparent)]
    Linux(#[from] linux::Error),
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

/// What a step answers: what it found or did, in words.
pub type Outcome = Result<String, Error>;

struct Step {
    name: &'static str,
    /// Also where the node is a set of namespaces on a host, which gives kernel, modules and disks.
    in_namespace: bool,
    run: fn(&mut Booted) -> Outcome,
}

const fn everywhere(name: &'static str, run: fn(&mut Booted) -> Outcome) -> Step {
    Step { name, in_namespace: true, run }
}

const fn machine_only(name: &'static str, run: fn(&mut Booted) -> Outcome) -> Step {
    Step { name, in_namespace: false, run }
}

/// From the kernel's start to the root file system.
const INITRAMFS: &[Step] =
    &[machine_only("drivers", |_| modules::load("drivers")), machine_only("root file system", |_| root::mount_image())];

/// From the root file system to supervision.
const NODE: &[Step] = &[
    everywhere("file systems", |booted| mounts::node(booted.cmdline.in_namespace)),
    machine_only("drivers", |_| modules::load("drivers")),
    machine_only("module loader", modules::start_loading_the_rest),
    everywhere("kernel parameters", |_| Ok(hostfiles::kernel_parameters())),
    everywhere("control groups", |booted| mounts::control_groups(booted.cmdline.in_namespace)),
    machine_only("data disk", disks::mount_data),
    everywhere("data folders", |_| mounts::data_folders()),
    everywhere("host files", |_| hostfiles::write()),
];

/// Where the initramfs leaves its part of the report for the node's init: both are the same program, one executes the other.
const HANDED_OVER: &str = "/run/init.stages";

/// The state of a boot, and what is known when it is done.
pub struct Booted {
    /// The console.
    pub console: Console,
    /// The kernel's arguments.
    pub cmdline: Cmdline,
    /// The boot report.
    pub stages: Vec<Stage>,
    /// Why there is no data disk, when there is none.
    pub data_error: Option<String>,
    /// The modules that are loaded while the boot goes on; `None` once they are all there.
    pub loading: Option<modules::Loading>,
}

/// The initramfs part; ends by executing the node's init from the root file system.
pub fn from_initramfs() -> ! {
    let interfaces = mounts::kernel_interfaces();
    let mut booted = Booted {
        console: Console::open(false),
        cmdline: Cmdline::read(),
        stages: Vec::new(),
        data_error: None,
        loading: None,
    };
    booted.record("kernel interfaces", interfaces);
    for step in INITRAMFS {
        booted.take(step);
    }
    let failed = booted.stages.iter().any(|stage| !stage.ok);
    let error =
        if failed { "a step above failed".to_owned() } else { root::enter(|| hand_over(&booted.stages)).to_string() };
    booted.console.line(&format!("there is no root file system to run from: {error}"));
    // PID 1 ends: the kernel panics and, as its arguments say, restarts the machine.
    std::process::exit(1);
}

/// The node part.
pub fn node() -> Booted {
    let cmdline = Cmdline::read();
    let mut booted = Booted {
        console: Console::open(cmdline.in_namespace),
        cmdline,
        stages: taken_over(),
        data_error: None,
        loading: None,
    };
    for step in NODE {
        if step.in_namespace || !booted.cmdline.in_namespace {
            booted.take(step);
        }
    }
    booted
}

impl Booted {
    fn take(&mut self, step: &Step) {
        let outcome = (step.run)(self);
        self.record(step.name, outcome);
    }

    /// Prints and keeps what a step answered.
    pub fn record(&mut self, name: &str, outcome: Outcome) {
        let (ok, detail) = match outcome {
            Ok(detail) => (true, detail),
            Err(error) => (false, error.to_string()),
        };
        self.console.line(&format!("{name}: {}{detail}", if ok { "" } else { "FAILED: " }));
        self.stages.push(Stage { name: name.to_owned(), done_ms: now_ms(), detail, ok });
    }
}

fn hand_over(stages: &[Stage]) {
    let line =
        |s: &Stage| format!("{}\t{}\t{}\t{}\n", s.name, s.done_ms, u8::from(s.ok), s.detail.replace(['\t', '\n'], " "));
    // Without it the report is shorter, that is all.
    let _ = std::fs::write(HANDED_OVER, stages.iter().map(line).collect::<String>());
}

fn taken_over() -> Vec<Stage> {
    let text = std::fs::read_to_string(HANDED_OVER).unwrap_or_default();
    let _ = std::fs::remove_file(HANDED_OVER);
    text.lines().filter_map(stage_from_line).collect()
}

fn stage_from_line(line: &str) -> Option<Stage> {
    let mut fields = line.splitn(4, '\t');
    Some(Stage {
        name: fields.next()?.to_owned(),
        done_ms: fields.next()?.parse().ok()?,
        ok: fields.next()? == "1",
        detail: fields.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_survives_the_change_of_root() {
        let stage = stage_from_line("drivers\t812\t1\t12 modules").unwrap();
        assert_eq!(stage, Stage { name: "drivers".into(), done_ms: 812, detail: "12 modules".into(), ok: true });
        assert_eq!(stage_from_line("nonsense"), None);
    }
}

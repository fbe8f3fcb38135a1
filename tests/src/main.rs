//! `cargo e2e` and `cargo verify`: scenarios on a whole cluster, and everything that continuous integration runs.
//!
//! Owns the list of scenarios and the order of checks. A scenario sees a cluster only as its users do: through kubectl,
//! cortenctl, the console and the power button. It must never reach around those, and never sleeps: it waits for
//! something with a deadline. Start reading at [`scenarios`].

mod api;
mod bench;
mod context;
mod control;
mod docker_save;
mod e2e;
mod inspector;
mod plugin;
mod random;
mod scenarios;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use qemu::DriverName;

/// Checks of the whole project.
#[derive(Parser)]
#[command(name = "cargo", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs scenarios on a cluster of their own.
    E2e {
        /// How the cluster's nodes run.
        #[arg(long, value_enum, default_value = "qemu")]
        driver: DriverName,
        /// Leave the cluster running after a failure.
        #[arg(long)]
        keep: bool,
        /// Only these scenarios; all when none is named.
        scenario: Vec<String>,
    },
    /// Measures parts of the system.
    #[command(subcommand)]
    Bench(bench::command::Bench),
    /// Checks of the API server alone, on one of its own with a store: what a cluster would hide or not survive.
    Api {
        /// Only these checks; all when none is named.
        check: Vec<String>,
    },
    /// Checks of controllers and scheduler alone, with nodes that have no machines: killed, at rest, and with input that makes no sense.
    Control {
        /// Kill after so many writes, again and again; may be repeated.
        #[arg(long)]
        every: Vec<usize>,
        /// Only these checks; all when none is named.
        check: Vec<String>,
    },
    /// Runs everything that continuous integration runs.
    Verify,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::E2e { driver, keep, scenario } => e2e::run(driver, keep, &scenario),
        Command::Bench(bench) => bench::command::run(bench),
        Command::Api { check } => api::run(&check),
        Command::Control { every, check } => control::run(&check, &every),
        Command::Verify => verify::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

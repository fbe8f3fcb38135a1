//! `cargo up` and `cargo down` beside a cluster that runs.

use std::process::Command;

use anyhow::{Result, ensure};
use qemu::kubectl::output;

use crate::context::Context;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    let before = context.kubectl("get nodes -o name")?;
    let said = run_program(context, &["up", "--name", &context.cluster.name])?;
    for wanted in [&context.node().name, "running", &context.cluster.kubeconfig().display().to_string()] {
        ensure!(said.contains(wanted), "a second cargo up does not say {wanted:?}: {said}");
    }
    ensure!(context.kubectl("get nodes -o name")? == before, "a second cargo up changed the cluster");
    let said = run_program(context, &["down", "--name", "nosuchcluster"])?;
    ensure!(said.contains("no cluster nosuchcluster"), "cargo down of nothing says: {said}");
    let said = match run_program(context, &["up", "--name", "Not_A_Name"]) {
        Ok(said) => said,
        Err(error) => format!("{error:#}"),
    };
    ensure!(said.contains("--name Not_A_Name"), "a wrong name is answered by: {said}");
    Ok(())
}

fn run_program(context: &Context, arguments: &[&str]) -> Result<String> {
    output(Command::new(context.artifacts.helper()).args(arguments))
}

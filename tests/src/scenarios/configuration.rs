//! Machines with a wrong configuration: the console says in one line what is wrong, and the machine waits.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use qemu::{Cluster, down, setup};
use serde_json::Value;

use crate::context::Context;

const CLUSTER: &str = "e2ewrong";
/// What the machine says when it waits for a better configuration.
const WAITS: &str = "target is Maintenance";

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    let unknown_field = |cluster: &mut Cluster| -> Result<()> {
        let file = cluster.machine_config(cluster.control_plane());
        let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
        config["machine"]["hostnam"] = "x".into();
        fs::write(&file, serde_json::to_vec_pretty(&config)?).context("machine configuration")
    };
    boots_into_maintenance(context, "machine.hostnam", unknown_field)?;
    boots_into_maintenance(context, "/nonexistent/config.yaml", |cluster| {
        cluster.config_argument = Some("/nonexistent/config.yaml".to_owned());
        Ok(())
    })
}

/// Boots a machine that `spoil` has prepared; its console must name `culprit`.
fn boots_into_maintenance(context: &Context, culprit: &str, spoil: impl Fn(&mut Cluster) -> Result<()>) -> Result<()> {
    down::down(CLUSTER)?;
    let mut cluster = Cluster::create(CLUSTER, context.cluster.driver, 1)?;
    setup::write_configs(&cluster, &context.artifacts.cortenctl())?;
    spoil(&mut cluster)?;
    let driver = context.driver();
    driver.prepare(&cluster, &context.artifacts)?;
    let node = cluster.control_plane().clone();
    driver.power_on(&cluster, &node, &context.artifacts)?;
    let waited = context.eventually(&format!("a console line about {culprit}"), || {
        let console = fs::read_to_string(cluster.console_log(&node))?;
        let lines = console.lines().filter(|line| line.contains(culprit)).count();
        ensure!(lines > 0 && console.contains(WAITS), "the console says:\n{console}");
        Ok(())
    });
    down::down(CLUSTER)?;
    waited.map(drop)
}

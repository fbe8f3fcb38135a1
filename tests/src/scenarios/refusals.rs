//! Wrong input: one clear line each, and nothing is lost.

use std::fs;

use anyhow::{Result, ensure};
use qemu::kubectl::output;
use std::process::Command;

use crate::context::Context;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    unknown_flag(context)?;
    foreign_certificate(context)?;
    wrong_credentials_file(context)?;
    Ok(())
}

fn failure(command: &mut Command) -> Result<String> {
    match output(command) {
        Ok(text) => anyhow::bail!("should have failed but said: {text}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn unknown_flag(context: &Context) -> Result<()> {
    let said = failure(Command::new(context.artifacts.cortenctl()).args(["version", "--wrong"]))?;
    ensure!(said.contains("--wrong"), "an unknown flag is answered by: {said}");
    Ok(())
}

/// Another cluster's administrator is nobody here.
fn foreign_certificate(context: &Context) -> Result<()> {
    let folder = context.cluster.folder.join("foreign");
    fs::create_dir_all(&folder)?;
    let mut generate = Command::new(context.artifacts.cortenctl());
    generate.args(["gen", "config", "foreign", "https://127.0.0.1:1", "-o"]).arg(&folder);
    output(&mut generate)?;
    let endpoint = format!("127.0.0.1:{}", context.node().machine_port);
    let mut command = Command::new(context.artifacts.cortenctl());
    command.arg("--config").arg(folder.join("cortenctl.yaml")).args(["-e", &endpoint, "version"]);
    let said = failure(&mut command)?;
    fs::remove_dir_all(&folder)?;
    ensure!(said.contains("certificate"), "a foreign certificate is answered by: {said}");
    ensure!(said.trim().lines().count() <= 2, "more than one line: {said}");
    Ok(())
}

fn wrong_credentials_file(context: &Context) -> Result<()> {
    let mut command = Command::new(context.artifacts.cortenctl());
    command.args(["--config", "/nonexistent/cortenctl.yaml", "version"]);
    let said = failure(&mut command)?;
    ensure!(said.contains("/nonexistent/cortenctl.yaml"), "a missing file is answered by: {said}");
    Ok(())
}

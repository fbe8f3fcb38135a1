//! Where things are: the workspace, its target folder, cargo; and the one time every file of an image has.

use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::Command;

/// The root of the workspace this program was built from.
pub fn root() -> Result<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).context("the image crate lies in the workspace's root")
}

/// cargo, the one that runs us when one does.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo tells the program it runs must not reach the cargo that program runs.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}

/// The folder cargo builds into.
pub fn target_dir() -> Result<PathBuf> {
    Ok(PathBuf::from(metadata(true)?["target_directory"].as_str().context("cargo metadata names no target folder")?))
}

/// Builds all programs for the host in the common profile and returns the folder they are in.
///
/// Always the whole workspace: cargo gives a dependency the features that the chosen packages ask for, so another choice would
/// compile the same dependency once more.
pub fn host_binaries() -> Result<PathBuf> {
    crate::ensure_tools(crate::COMPILERS)?;
    let status = cargo().args(["build", "--workspace", "--bins"]).current_dir(root()?).status().context("run cargo")?;
    ensure!(status.success(), "cargo build of the programs failed");
    Ok(target_dir()?.join("debug"))
}

/// `cargo metadata` as JSON.
pub fn metadata(no_deps: bool) -> Result<serde_json::Value> {
    let mut command = cargo();
    command.args(["metadata", "--format-version=1"]).current_dir(root()?);
    if no_deps {
        command.arg("--no-deps");
    }
    Ok(serde_json::from_slice(&crate::run(&mut command)?)?)
}

/// The time of every file and document of an image, in seconds since 1970 (reproducible-builds.org has the convention).
pub fn source_date_epoch() -> i64 {
    std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

//! kube-rs: `client/` drives it over the golden corpus. It is a workspace of its own, built when this check first runs: its types would cost every build
//! of ours a minute.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::bench::stack::Stack;

pub async fn run(stack: Stack) -> Result<()> {
    tokio::task::block_in_place(|| drive(&stack, &build()?))
}

/// The client's program.
fn build() -> Result<PathBuf> {
    let root = qemu::cluster::workspace();
    let target = root.join(".corten/kube-rs");
    let status = image::cargo()
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(root.join("tests/src/api/kube_rs/client/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()
        .context("cargo")?;
    ensure!(status.success(), "the client does not build: {status}");
    Ok(target.join("debug/kube-rs-check"))
}

fn drive(stack: &Stack, program: &Path) -> Result<()> {
    let status = Command::new(program)
        .arg(format!("https://{}", stack.api_address()))
        .args(["ca.crt", "admin.crt", "admin.key"].map(|name| stack.path(name)))
        .arg(qemu::cluster::workspace().join("tests/src/api/golden"))
        .status()
        .with_context(|| program.display().to_string())?;
    ensure!(status.success(), "kube-rs-check: {status}");
    Ok(())
}

//! The official Python client: `clients.py` drives it over the golden corpus.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::bench::stack::Stack;

/// The client's release for Kubernetes 1.35.
const CLIENT: &str = "kubernetes==35.0.0";

pub async fn run(stack: Stack) -> Result<()> {
    if Command::new("python3").args(["-m", "pip", "--version"]).output().is_ok_and(|o| o.status.success()) {
        let modules = modules()?;
        return tokio::task::block_in_place(|| drive(&stack, modules));
    }
    println!("  left out: python3 -m pip does not work here (Debian package python3-pip)");
    Ok(())
}

/// The folder of the client and of what it needs, which pip fills once.
fn modules() -> Result<PathBuf> {
    let folder = qemu::cluster::workspace().join(".corten").join(CLIENT.replace("==", "-"));
    let complete = folder.join("complete");
    if !complete.exists() {
        let outcome = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
            .arg(&folder)
            .arg(CLIENT)
            .output()
            .context("pip")?;
        // It also complains of what else is installed on this machine, which is not used here.
        ensure!(outcome.status.success(), "pip install {CLIENT}: {}", String::from_utf8_lossy(&outcome.stderr));
        std::fs::write(&complete, CLIENT)?;
    }
    Ok(folder)
}

fn drive(stack: &Stack, modules: PathBuf) -> Result<()> {
    let own = qemu::cluster::workspace().join("tests/src/api");
    let status = Command::new("python3")
        .env("PYTHONPATH", modules)
        .arg("-B")
        .arg(own.join("python/clients.py"))
        .arg(format!("https://{}", stack.api_address()))
        .args(["ca.crt", "admin.crt", "admin.key"].map(|name| stack.path(name)))
        .arg(own.join("golden"))
        .status()
        .context("python3")?;
    ensure!(status.success(), "clients.py: {status}");
    Ok(())
}

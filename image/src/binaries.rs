//! Our own programs: corten (dynamic, with the host's compiler), and init, pause and the test web server (static).

use crate::workspace::{cargo, host_binaries, root, target_dir};
use crate::{run, say};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Naming the target, though it is the host's, keeps these flags away from build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const STATIC: &[&str] = &["init", "pause", "test-web"];

/// Where they are.
#[derive(Debug, Clone)]
pub struct Binaries {
    pub corten: PathBuf,
    pub init: PathBuf,
    pub pause: PathBuf,
    pub test_web: PathBuf,
}

/// Builds them, or takes the given corten.
pub fn build(corten: Option<&Path>) -> Result<Binaries> {
    let corten = match corten {
        Some(path) => path.to_owned(),
        None => {
            say("building corten");
            host_binaries()?.join("corten")
        }
    };
    say("building init, pause and test-web");
    // A folder of its own: with other flags in the same one, cargo would build everything again each time.
    let target = target_dir()?.join("static");
    let mut command = cargo();
    command.args(["build", "--target", TARGET]).arg("--target-dir").arg(&target);
    command
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(root()?);
    for package in STATIC {
        command.args(["-p", package]);
    }
    let status = command.status().context("run cargo")?;
    ensure!(status.success(), "cargo build of the static programs failed");
    let folder = target.join(TARGET).join("debug");
    Ok(Binaries { corten, init: folder.join("init"), pause: folder.join("pause"), test_web: folder.join("test-web") })
}

impl Binaries {
    /// Copies without symbols.
    pub fn stripped(&self, work: &Path) -> Result<Binaries> {
        let strip = |from: &Path, name: &str| -> Result<PathBuf> {
            let to = work.join(name);
            run(Command::new("strip").arg("-o").arg(&to).arg(from))?;
            Ok(to)
        };
        Ok(Binaries {
            corten: strip(&self.corten, "corten")?,
            init: strip(&self.init, "init")?,
            pause: strip(&self.pause, "pause")?,
            test_web: strip(&self.test_web, "test-web")?,
        })
    }
}

//! What a test cluster is made from: the image, and the programs that this host runs.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use image::Tool;

/// What the host needs to run clusters, besides what building an image needs.
const TOOLS: &[Tool] = &[
    // QEMU 7.2 corrupts its guests under emulation with two processors.
    Tool::at_least("qemu-system-x86_64", "qemu-system-x86", 9),
    Tool::new("nbdkit", "nbdkit"),
];

/// An image and the host's programs.
#[derive(Clone, Debug)]
pub struct Artifacts {
    /// The image.
    pub image: image::Built,
    /// The folder of the host's programs.
    programs: PathBuf,
}

impl Artifacts {
    /// Installs what the host lacks and builds everything.
    ///
    /// # Errors
    /// A tool is missing and cannot be installed, or a build failed.
    pub fn build() -> Result<Artifacts> {
        // All at once: whoever has to install them by hand should be asked once.
        image::ensure_tools(&[TOOLS, image::COMPILERS, image::TOOLS].concat())?;
        ensure_kubectl()?;
        let programs = image::host_binaries()?;
        let corten = Some(programs.join("corten"));
        let image = image::build(&image::Request { board: "qemu-x86_64".to_owned(), corten, refresh: false })?;
        Ok(Artifacts { image, programs })
    }

    /// The administrator's tool.
    pub fn cortenctl(&self) -> PathBuf {
        self.programs.join("cortenctl")
    }

    /// This crate's own program, for its helper processes.
    pub fn helper(&self) -> PathBuf {
        self.programs.join("qemu")
    }
}

/// The oldest kubectl that speaks the protocols of this Kubernetes level (WebSocket exec is on by default from 1.31 on).
const KUBECTL_MINOR: u32 = 31;

/// Debian's own kubectl may be older than the servers it has to talk to; a later suite's runs on any Debian.
fn ensure_kubectl() -> Result<()> {
    if kubectl_minor().is_some_and(|minor| minor >= KUBECTL_MINOR) {
        return Ok(());
    }
    image::install_program("kubectl", "kubectl")?;
    match kubectl_minor() {
        Some(minor) if minor >= KUBECTL_MINOR => Ok(()),
        Some(minor) => bail!("kubectl 1.{KUBECTL_MINOR} or later is needed; PATH finds 1.{minor} first"),
        None => bail!("kubectl was installed into /usr/local/bin, but PATH finds none"),
    }
}

fn kubectl_minor() -> Option<u32> {
    let output =
        Command::new("kubectl").args(["version", "--client", "--output=json"]).output().context("kubectl").ok()?;
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    version["clientVersion"]["minor"].as_str()?.trim_end_matches('+').parse().ok()
}

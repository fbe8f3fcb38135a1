//! The stock clients, pointed at a test cluster.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::cluster::Cluster;

/// A finished program's standard output.
///
/// # Errors
/// It could not be started or failed; holds its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let shown: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    bail!("{} ({status}): {}", shown.join(" "), String::from_utf8_lossy(&stderr).trim())
}

/// `kubectl` with the cluster's administrator as user.
pub fn kubectl(cluster: &Cluster) -> Command {
    let mut command = Command::new("kubectl");
    // A discovery cache of its own: clusters of the same address follow each other.
    command.arg("--kubeconfig").arg(cluster.kubeconfig()).arg("--cache-dir").arg(cluster.folder.join("kubectl-cache"));
    command
}

/// `cortenctl` with the cluster's administrator as user.
pub fn cortenctl(cluster: &Cluster, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--config").arg(cluster.machine_credentials());
    command
}

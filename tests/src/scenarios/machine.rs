//! The machine API as administrators use it.

use anyhow::{Result, ensure};

use crate::context::Context;

/// Services that every control-plane node runs.
pub const SERVICES: &[&str] = &[
    "containerd",
    "store",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "pod-network",
    "cluster-dns",
];

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    let version = context.cortenctl(&["version"])?;
    ensure!(version.contains(env!("CARGO_PKG_VERSION")), "version: {version}");
    let services = context.cortenctl(&["services"])?;
    for service in SERVICES {
        let line = services.lines().find(|line| line.split_whitespace().any(|word| word == *service));
        ensure!(line.is_some_and(|line| line.contains("Running")), "{service} does not run:\n{services}");
    }
    let log = context.cortenctl(&["logs", "kube-apiserver", "--tail", "5"])?;
    ensure!(!log.trim().is_empty(), "the API server's log is empty");
    context.cortenctl(&["services", "restart", "kube-scheduler"])?;
    context.eventually("the scheduler's restart", || {
        let services = context.cortenctl(&["services"])?;
        let line = services.lines().find(|line| line.contains("kube-scheduler")).unwrap_or_default();
        ensure!(line.contains("Running"), "{line}");
        Ok(())
    })?;
    Ok(())
}

//! The machine API as administrators use it.

use anyhow::{Result, ensure};

use crate::context::Context;
use crate::docker_save;

/// Services that every control-plane node runs.
pub const SERVICES: &[&str] = &[
    "containerd",
    "store",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "metal-controller-manager",
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
    store(context)?;
    docker_archive(context)
}

/// What an administrator asks of the store, all but what would change its content.
fn store(context: &Context) -> Result<()> {
    let members = context.cortenctl(&["store", "members"])?;
    let id = members.lines().nth(1).and_then(|line| line.split_whitespace().next()).unwrap_or_default().to_owned();
    let file = context.cluster.folder.join("store.snapshot").display().to_string();
    let asked: [(&[&str], &str); 5] = [
        (&["store", "status"], "leader"),
        (&["store", "alarm", "disarm"], ""),
        (&["store", "defrag"], "defragmented"),
        (&["store", "move-leader", &id], "leads"),
        (&["store", "snapshot", &file], &file),
    ];
    for (arguments, expected) in asked {
        let said = context.cortenctl(arguments)?;
        ensure!(said.contains(expected), "cortenctl {} says: {said}", arguments.join(" "));
    }
    let alarms = context.cortenctl(&["store", "alarm"])?;
    ensure!(alarms.trim().is_empty(), "alarms: {alarms}");
    Ok(std::fs::remove_file(&file)?)
}

/// An archive as `docker save` writes it is taken like an OCI archive, and its image runs.
fn docker_archive(context: &Context) -> Result<()> {
    const IMAGE: &str = "corten.local/saved:v1";
    let archive = context.cluster.folder.join("saved.tar");
    docker_save::convert(&context.artifacts.image.test_web, IMAGE, &archive)?;
    let said = context.cortenctl(&["image", "import", &archive.display().to_string()])?;
    ensure!(said.contains(IMAGE), "image import says: {said}");
    let run = format!("run saved --image={IMAGE} --image-pull-policy=Never --restart=Never -- sleep");
    context.kubectl(&run)?;
    context.kubectl("wait --for=condition=Ready pod/saved --timeout=300s")?;
    context.kubectl("delete pod saved --grace-period=1 --timeout=120s").map(drop)
}

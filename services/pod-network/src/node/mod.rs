//! The node's part of the cluster network: the CNI configuration, routes to other nodes' pods, masquerading.
//!
//! [`plan`] is pure: from Node objects to what should be; this file makes it so whenever a Node changes.

mod plan;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use client::{Client, Informer, InformerParams, resource};
use daemon::{Outcome, Shutdown};
use ipnet::Ipv4Net;
use netlink::{Handle, RouteEntry};
use plan::Plan;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tracing::{info, warn};

/// Where containerd looks for network configurations.
const CONFIGURATION: &str = "/run/cni/net.d/10-corten.conflist";
/// How long to wait before a failed application is tried again, as no event may come.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps this node's part of the pod network in place.
#[derive(Debug, Parser)]
#[command(name = "pod-network")]
struct Config {
    /// How to reach and authenticate to the API server.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The Node object of this machine.
    #[arg(long)]
    node_name: String,
    /// All pods' addresses: traffic to anywhere else leaves with the node's address.
    #[arg(long)]
    cluster_cidr: Ipv4Net,
}

/// Runs until `shutdown`.
///
/// # Errors
/// Wrong arguments, an unusable kubeconfig or no netlink socket.
pub async fn run(args: Vec<String>, shutdown: Shutdown) -> Outcome {
    let config = Config::try_parse_from(args)?;
    let client = Client::from_kubeconfig(&config.kubeconfig)?;
    let nodes = Informer::start(client, resource::NODES, InformerParams::default());
    let handle = Handle::new()?;
    let mut changes = nodes.subscribe();
    let mut applied = None;
    tokio::select! {
        () = nodes.synced() => {}
        () = shutdown.wait() => return Ok(()),
    }
    loop {
        let wanted = plan::plan(&nodes.list(), &config.node_name, config.cluster_cidr);
        let mut retry = false;
        if applied.as_ref() != Some(&wanted) {
            match apply(&handle, &wanted, config.cluster_cidr).await {
                Ok(()) => {
                    info!(subnet = ?wanted.subnet, routes = wanted.routes.len(), "pod network configured");
                    applied = Some(wanted);
                }
                Err(error) => {
                    warn!(error = %daemon::chain(error.as_ref()), "pod network not configured");
                    retry = true;
                }
            }
        }
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            changed = changes.recv() => if changed.is_none() { return Ok(()) },
            () = tokio::time::sleep(RETRY), if retry => {}
        }
        while changes.try_recv().is_ok() {}
    }
}

async fn apply(handle: &Handle, plan: &Plan, cluster: Ipv4Net) -> Outcome {
    let present: Vec<RouteEntry> = handle.routes().await?;
    for stale in plan::stale_routes(&present, plan, cluster) {
        handle.delete_route(&stale).await?;
    }
    for route in &plan.routes {
        handle.replace_route(route).await?;
    }
    nft(&plan::masquerade_rules(cluster)).await?;
    // Last, because containerd calls the node's network ready as soon as the file is there.
    match plan.cni_configuration() {
        Some(text) => write_atomically(Path::new(CONFIGURATION), &text)?,
        None => info!("this node has no pod addresses yet"),
    }
    Ok(())
}

fn write_atomically(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)
}

/// Applies a rule set in one kernel transaction.
async fn nft(rules: &str) -> Outcome {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}

//! Services on a node: ClusterIP, NodePort and the addresses of load balancers by nftables, as upstream's nftables mode does it.
//!
//! Owns the table `ip kube-proxy` and nothing else; it must never touch pod interfaces or routes. Start reading at
//! [`services`] (from API objects to service ports), then [`rules`] (from service ports to a rule set): both pure. This
//! file watches and applies; [`health`] answers load balancers.

mod health;
mod rules;
mod services;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use clap::Parser;
use client::{Changes, Client, Informer, InformerParams, resource};
use daemon::{Outcome, Shutdown};
use ipnet::Ipv4Net;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tracing::{debug, info, warn};

/// How long a failed application waits for its next attempt if no event comes first.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps the node's service rules equal to the cluster's Services and EndpointSlices.
#[derive(Debug, Parser)]
#[command(name = "kube-proxy")]
struct Config {
    /// How to reach and authenticate to the API server.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// All pods' addresses; traffic to a Service from elsewhere is masqueraded.
    #[arg(long)]
    cluster_cidr: Ipv4Net,
    /// The Node object of this machine.
    #[arg(long)]
    hostname_override: String,
}

/// Runs until `shutdown`. The rules stay in place afterwards, so that Services survive a restart.
///
/// # Errors
/// Wrong arguments or an unusable kubeconfig.
pub async fn run(args: Vec<String>, shutdown: Shutdown) -> Outcome {
    let config = Config::try_parse_from(args)?;
    let client = Client::from_kubeconfig(&config.kubeconfig)?;
    let services = Informer::start(client.clone(), resource::SERVICES, InformerParams::default());
    let slices = Informer::start(client, resource::ENDPOINTSLICES, InformerParams::default());
    let mut changes = (services.subscribe(), slices.subscribe());
    let synced = async {
        services.synced().await;
        slices.synced().await;
    };
    tokio::select! {
        () = synced => {}
        () = shutdown.wait() => return Ok(()),
    }
    let mut applied = String::new();
    let mut checks = health::Servers::default();
    loop {
        let (services, slices) = (services.list(), slices.list());
        let ports = services::ports(&services, &slices, &config.hostname_override);
        checks.set(health::wanted(&services, &slices, &config.hostname_override));
        let wanted = rules::rule_set(&ports, config.cluster_cidr);
        let mut retry = false;
        if wanted != applied {
            match apply(&wanted).await {
                Ok(()) => {
                    info!(ports = ports.len(), "service rules applied");
                    applied = wanted;
                }
                Err(error) => {
                    warn!(%error, "service rules not applied");
                    retry = true;
                }
            }
        }
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            alive = next(&mut changes) => if !alive { return Ok(()) },
            () = tokio::time::sleep(RETRY), if retry => {}
        }
    }
}

/// Waits for a change and takes all that are there with it, so that a burst is applied once.
async fn next(changes: &mut (Changes, Changes)) -> bool {
    let first = tokio::select! {
        change = changes.0.recv() => change,
        change = changes.1.recv() => change,
    };
    while let Ok(change) = changes.0.try_recv() {
        debug!(name = %change.object()["metadata"]["name"], "service changed");
    }
    while changes.1.try_recv().is_ok() {}
    first.is_some()
}

/// Replaces the table in one kernel transaction.
async fn apply(rules: &str) -> Outcome {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
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

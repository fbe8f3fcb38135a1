//! metal-controller-manager: what a cloud does for a cluster, done for one that has none.
//!
//! Owns the addresses of Services of type LoadBalancer ([`pools`]: which Service has which; [`announce`]: which machine
//! answers for it on the local network) and what Nodes say about their machines ([`nodes`]). One process of the cluster's
//! control plane assigns; every machine may announce, for which a worker runs it with `--announce-only`. It must never
//! translate packets (kube-proxy does) and never give an interface an address: it only answers who has it. Start reading at
//! [`pools`]' plan, then [`announce`].

mod announce;
mod nodes;
mod pools;

use std::path::PathBuf;

use clap::Parser;
use client::{Client, Informer, InformerParams, resource};
use daemon::{Outcome, Shutdown};

use crate::pools::Pool;

const NAME: &str = "metal-controller-manager";
const NAMESPACE: &str = "kube-system";

/// Flags.
#[derive(Clone, Debug, Parser)]
#[command(name = NAME, about = "Node identities and load balancer addresses of machines without a cloud")]
struct Config {
    /// How to reach and authenticate to the API server
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The Node object of this machine
    #[arg(long)]
    node_name: String,
    /// Addresses for Services of type LoadBalancer, as NAME=NETWORK|FIRST-LAST|ADDRESS[,...]; may be repeated
    #[arg(long = "load-balancer-pool", value_name = "POOL")]
    load_balancer_pools: Vec<Pool>,
    /// Announce addresses that others assign, and nothing else: what a worker does
    #[arg(long, conflicts_with = "load_balancer_pools")]
    announce_only: bool,
}

/// Runs until `shutdown`.
///
/// # Errors
/// Wrong arguments or an unusable kubeconfig.
pub async fn run(args: Vec<String>, shutdown: Shutdown) -> Outcome {
    let config = Config::try_parse_from(args)?;
    let client = Client::from_kubeconfig(&config.kubeconfig)?;
    // Who assigns also looks for those that are no load balancers any more.
    let field_selector = if config.announce_only { "spec.type=LoadBalancer".to_owned() } else { String::new() };
    let params = InformerParams { field_selector, ..InformerParams::default() };
    let services = Informer::start(client.clone(), resource::SERVICES, params);
    tokio::select! {
        () = shutdown.wait() => return Ok(()),
        () = services.synced() => {}
    }
    let announcing = announce::run(&client, &config.node_name, &services, &shutdown);
    if config.announce_only {
        announcing.await;
        return Ok(());
    }
    let leading = lead(&client, &config.load_balancer_pools, &services);
    tokio::pin!(leading);
    tokio::select! {
        // Ends with the shutdown, after it has handed its addresses on.
        () = announcing => Ok(()),
        never = &mut leading => match never {},
    }
}

/// Assigns addresses and looks after Nodes whenever this process leads. Losing the lead is no reason to stop announcing.
async fn lead(client: &Client, pools: &[Pool], services: &Informer) -> std::convert::Infallible {
    let identity = client::leader::identity(NAME);
    loop {
        let held = client::leader::acquire(client, NAMESPACE, NAME, &identity).await;
        tokio::select! {
            () = held.lost() => tracing::warn!("leadership was lost"),
            () = pools::run(client, pools, services) => {}
            () = nodes::run(client) => {}
        }
    }
}

//! Cluster DNS on every node: names of Services and pods, everything else forwarded.
//!
//! Owns the cluster's zone as the Kubernetes DNS specification (version 1.1.0) describes it. It must never answer for
//! names outside the zone by itself and never keeps state of its own: the API is the source. Start reading at [`zone`]
//! (from API objects to names) and [`answer`] (from a question to an answer), both pure; [`server`] has the sockets,
//! [`forward`] the upstream servers.

mod answer;
mod forward;
mod server;
mod zone;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use client::{Change, Changes, Client, Informer, InformerParams, resource};
use daemon::{Outcome, Shutdown};
use ipnet::IpNet;
use parking_lot::RwLock;
use tracing::info;
use zone::Zone;

const DNS_PORT: u16 = 53;

/// Answers DNS questions of this node's pods.
#[derive(Debug, Parser)]
#[command(name = "cluster-dns")]
struct Config {
    /// How to reach and authenticate to the API server.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The zone of the cluster.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// The address that pods ask; it is added to this node's loopback interface.
    #[arg(long)]
    cluster_ip: IpAddr,
    /// Where the servers for all other names stand.
    #[arg(long, default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,
}

/// Runs until `shutdown`.
///
/// # Errors
/// Wrong arguments, an unusable kubeconfig, or an address that cannot be served.
pub async fn run(args: Vec<String>, shutdown: Shutdown) -> Outcome {
    let config = Config::try_parse_from(args)?;
    let client = Client::from_kubeconfig(&config.kubeconfig)?;
    let services = Informer::start(client.clone(), resource::SERVICES, InformerParams::default());
    let slices = Informer::start(client, resource::ENDPOINTSLICES, InformerParams::default());
    let zone = Arc::new(RwLock::new(Zone::new(&config.cluster_domain)));
    tokio::spawn(feed(services.subscribe(), slices.subscribe(), Arc::clone(&zone)));
    add_to_loopback(config.cluster_ip).await?;
    let synced = {
        let (services, slices) = (services.clone(), slices.clone());
        move || services.is_synced() && slices.is_synced()
    };
    let resolver = Arc::new(server::Resolver::new(zone, config.resolv_conf, synced));
    let address = SocketAddr::new(config.cluster_ip, DNS_PORT);
    info!(%address, zone = config.cluster_domain, "serving");
    server::serve(address, resolver, shutdown).await
}

/// Pods reach the address through their default route; being local, it never leaves the node.
async fn add_to_loopback(address: IpAddr) -> Outcome {
    let handle = netlink::Handle::new()?;
    let loopback = handle.link_by_name("lo").await?.ok_or("this network namespace has no loopback interface")?;
    handle.add_address(loopback.index, IpNet::from(address)).await?;
    Ok(())
}

/// Keeps the zone equal to the API.
async fn feed(mut services: Changes, mut slices: Changes, zone: Arc<RwLock<Zone>>) {
    loop {
        tokio::select! {
            Some(change) = services.recv() => match change {
                Change::Applied { new, .. } => zone.write().apply_service(&new),
                Change::Deleted(last) => zone.write().remove_service(&last),
            },
            Some(change) = slices.recv() => match change {
                Change::Applied { new, .. } => zone.write().apply_slice(&new),
                Change::Deleted(last) => zone.write().remove_slice(&last),
            },
            else => return,
        }
    }
}

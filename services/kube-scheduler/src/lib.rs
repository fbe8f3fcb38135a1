//! kube-scheduler: gives every pod that has none a node.
//!
//! Owns the decision which node; the API server's `binding` subresource makes it true. Beside that it writes only why a pod
//! waits, removes pods that have to make room, and reserves volumes. It must never decide on anything but what the API
//! server said. Start reading at [`scheduler`] (the loop), then [`cycle`] (one pure decision) and [`preemption`]; the rules
//! are one file each in [`plugins`], what they count is kept in [`index`].

mod amounts;
mod budgets;
mod cache;
mod config;
mod cycle;
mod devices;
mod extender;
mod framework;
mod index;
mod memo;
mod metrics;
mod neighbours;
mod node;
mod objects;
mod plugins;
mod pod;
mod preemption;
mod profile;
mod queue;
#[cfg(test)]
mod reference_tests;
mod scheduler;
mod server;
pub mod simulation;
mod spec;
mod terms;
#[cfg(test)]
mod testing;
mod volumes;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use client::Client;
use daemon::Shutdown;

const NAME: &str = "kube-scheduler";

/// Flags, with upstream's names.
#[derive(Clone, Debug, Parser)]
#[command(name = "kube-scheduler", about = "Assigns pods to nodes")]
struct Flags {
    /// KubeSchedulerConfiguration file
    #[arg(long)]
    config: Option<PathBuf>,
    /// Kubeconfig with the server and this process's identity
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Schedule only while holding the Lease
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// The Lease's name
    #[arg(long, default_value = NAME)]
    leader_elect_resource_name: String,
    /// The Lease's namespace
    #[arg(long, default_value = "kube-system")]
    leader_elect_resource_namespace: String,
    /// Address for health checks and metrics
    #[arg(long, default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// Port for health checks and metrics; 0 serves none
    #[arg(long, default_value_t = 10259)]
    secure_port: u16,
    /// Certificate of the port; self-signed by default
    #[arg(long, requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Authorities of clients that present certificates
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
}

/// Schedules until the process is told to end or leadership is lost.
///
/// # Errors
/// Wrong arguments or configuration, an unreadable kubeconfig, a port that is taken, or lost leadership.
pub async fn run(args: Vec<String>, shutdown: Shutdown) -> daemon::Outcome {
    let flags = Flags::try_parse_from(args)?;
    let file = config::read(flags.config.as_deref())?;
    let kubeconfig = flags.kubeconfig.as_ref().or(file.client_connection.kubeconfig.as_ref());
    let client = Client::from_kubeconfig(kubeconfig.ok_or("--kubeconfig or clientConnection.kubeconfig is needed")?)?;
    let settings = file.settings(&client)?;
    let metrics = Arc::new(metrics::Metrics::default());
    let serving = serve(&flags, &client, &metrics, &shutdown);
    let scheduling = async {
        let election = &file.leader_election;
        if !election.leader_elect.unwrap_or(flags.leader_elect) {
            scheduler::run(client.clone(), settings, Arc::clone(&metrics)).await;
            return "the scheduler ended";
        }
        let name = election.resource_name.as_ref().unwrap_or(&flags.leader_elect_resource_name);
        let namespace = election.resource_namespace.as_ref().unwrap_or(&flags.leader_elect_resource_namespace);
        // A standby is ready as soon as it can take over.
        metrics.synced();
        let held = client::leader::acquire(&client, namespace, name, &client::leader::identity(NAME)).await;
        tokio::select! {
            () = held.lost() => "leadership was lost",
            () = scheduler::run(client.clone(), settings, Arc::clone(&metrics)) => "the scheduler ended",
        }
    };
    tokio::select! {
        () = shutdown.wait() => Ok(()),
        served = serving => served,
        why = scheduling => Err(why.into()),
    }
}

/// Serves health checks and metrics; without a port, nothing and for ever.
async fn serve(
    flags: &Flags,
    client: &Client,
    metrics: &Arc<metrics::Metrics>,
    shutdown: &Shutdown,
) -> daemon::Outcome {
    if flags.secure_port == 0 {
        return std::future::pending().await;
    }
    let settings = server::Settings {
        address: flags.bind_address,
        port: flags.secure_port,
        identity: flags.tls_cert_file.clone().zip(flags.tls_private_key_file.clone()),
        client_ca: flags.client_ca_file.clone(),
    };
    server::run(settings, client.clone(), Arc::clone(metrics), shutdown.clone()).await
}

//! kube-scheduler: gives every pod that has none a node.
//!
//! Owns the decision which node; the API server's `binding` subresource makes it true. It must never write anything else
//! of a pod than its PodScheduled condition and never decide on anything but informers' content. Start reading at
//! [`scheduler`] (the loop), then [`cycle`] (one pure decision); the rules are one file each in [`plugins`].

mod cache;
mod cycle;
mod framework;
mod node;
mod plugins;
mod pod;
mod queue;
mod scheduler;
mod terms;

use std::path::PathBuf;

use clap::Parser;
use client::Client;
use daemon::Shutdown;

const NAME: &str = "kube-scheduler";

/// Flags, with upstream's names.
#[derive(Clone, Debug, Parser)]
#[command(name = "kube-scheduler", about = "Assigns pods to nodes")]
struct Config {
    /// Kubeconfig with the server and this process's identity
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Schedule only while holding the kube-system/kube-scheduler Lease
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    leader_elect: bool,
}

/// Schedules until the process is told to end or leadership is lost.
///
/// # Errors
/// Wrong arguments, an unreadable kubeconfig, or lost leadership.
pub async fn run(args: Vec<String>, shutdown: Shutdown) -> daemon::Outcome {
    let config = Config::try_parse_from(args)?;
    let client = Client::from_kubeconfig(&config.kubeconfig)?;
    let mut leadership = None;
    if config.leader_elect {
        let identity = client::leader::identity(NAME);
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            held = client::leader::acquire(&client, "kube-system", NAME, &identity) => leadership = Some(held),
        }
    }
    let lost = async {
        match &leadership {
            Some(held) => held.lost().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = shutdown.wait() => Ok(()),
        () = lost => Err("leadership was lost".into()),
        () = scheduler::run(client) => Err("the scheduler ended".into()),
    }
}

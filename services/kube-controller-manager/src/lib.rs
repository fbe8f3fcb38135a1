//! kube-controller-manager: the loops that move the cluster from what is to what was asked for.
//!
//! Owns the controllers named in [`controllers::TABLE`]; each is a folder with a pure `plan` (what should be done, given
//! what was observed) and a thin `mod` (watch, call the plan, act). It must never keep state that the API does not hold,
//! never list in a loop and never write anything but through the API server. Start reading at [`controllers`], then any
//! controller's `plan`; what they share is in [`context`], [`worker`], [`pods`] and [`owners`].

mod clock;
mod config;
mod context;
mod controllers;
mod deployment;
mod discovery;
mod endpoints;
mod endpointslice;
mod error;
mod events;
mod expectations;
mod garbage_collector;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod object;
mod owners;
mod pod_gc;
mod pods;
mod replicaset;
mod resources;
mod root_ca;
mod service_account;
mod services;
mod taint_eviction;
mod worker;

use std::sync::Arc;

use clap::Parser;
use client::{Client, EventRecorder};
use daemon::Shutdown;

use crate::config::Config;
use crate::context::{Context, Informers};
use crate::events::Events;

const NAME: &str = "kube-controller-manager";

/// Runs all enabled controllers until the process is told to end or leadership is lost.
///
/// # Errors
/// Wrong arguments, an unreadable kubeconfig or CA file, lost leadership, or a controller that ended by itself.
pub async fn run(args: Vec<String>, shutdown: Shutdown) -> daemon::Outcome {
    let config = Config::try_parse_from(args)?;
    let enabled = controllers::enabled(&config.controllers)?;
    let root_ca = config.read_root_ca()?;
    let cluster_cidrs = config.parse_cluster_cidrs()?;
    let client = Client::from_kubeconfig(&config.kubeconfig)?;

    let mut leadership = None;
    if config.leader_elect {
        let identity = identity();
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            held = client::leader::acquire(&client, "kube-system", NAME, &identity) => leadership = Some(held),
        }
    }

    let informers = Informers::new(client.clone());
    let context = Context {
        resources: Arc::new(resources::Resources::new(client.clone(), informers.clone())),
        events: Events::new(EventRecorder::new(client.clone(), NAME, None)),
        client,
        informers,
        root_ca: root_ca.into(),
        cluster_cidrs: cluster_cidrs.into(),
        shutdown: shutdown.clone(),
    };
    let lost = async {
        match &leadership {
            Some(held) => held.lost().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = shutdown.wait() => Ok(()),
        () = lost => Err("leadership was lost".into()),
        failure = controllers::run(enabled, context) => Err(failure.into()),
    }
}

/// The name in the Lease. One that the machine keeps lets a restarted process go on at once instead of waiting for its
/// own Lease to expire; the lock file, held until the process ends, makes sure that only one process has it.
fn identity() -> String {
    let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let host = read("/proc/sys/kernel/hostname");
    let machine = read("/etc/machine-id");
    let lock = std::fs::File::create(format!("/run/{NAME}.lock")).ok().filter(|file| file.try_lock().is_ok());
    match lock {
        Some(lock) if !machine.is_empty() => {
            // Dropping the file would free the lock.
            std::mem::forget(lock);
            format!("{host}_{machine}")
        }
        _ => format!("{host}_{}", uuid::Uuid::new_v4()),
    }
}

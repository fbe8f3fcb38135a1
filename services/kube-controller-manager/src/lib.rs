//! kube-controller-manager: the loops that move the cluster from what is to what was asked for.
//!
//! Owns the controllers named in [`controllers::TABLE`]; each is a folder with a pure `plan` (what should be done, given
//! what was observed) and a thin `mod` (watch, call the plan, act). It must never keep state that the API does not hold,
//! never list in a loop and never write anything but through the API server. Start reading at [`controllers`], then any
//! controller's `plan`; what they share is in [`context`], [`worker`], [`pods`] and [`owners`].

mod attach_detach;
mod bootstrap_signer;
mod clock;
mod clusterrole_aggregation;
mod config;
mod context;
mod controllers;
mod credentials;
mod cronjob;
mod csr_approving;
mod csr_cleaner;
mod csr_signing;
mod daemonset;
mod deployment;
mod discovery;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslice_mirroring;
mod ephemeral_volume;
mod error;
mod events;
mod expectations;
mod garbage_collector;
mod hash;
mod horizontal_pod_autoscaler;
mod job;
mod legacy_token_cleaner;
mod metrics;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod node_ttl;
mod nodes;
mod object;
mod owners;
mod pod_control;
mod pod_gc;
mod pods;
mod policy_status;
mod protection;
mod pv_binder;
mod pv_protection;
mod pvc_protection;
mod replicaset;
mod replicationcontroller;
mod resource;
mod resource_claim;
mod resource_quota;
mod resources;
mod revisions;
mod root_ca;
mod server;
mod service_account;
mod service_account_token;
mod service_cidrs;
mod services;
mod statefulset;
mod storage_version_gc;
mod taint_eviction;
mod token_cleaner;
mod trim;
mod ttl_after_finished;
mod vac_protection;
mod volume_expand;
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
    let legacy_token_period = config.legacy_token_period()?;
    let cluster_cidrs = config.parse_cluster_cidrs()?;
    let election = config.election()?;
    worker::set_concurrency(config.concurrent.by_queue());
    let signing = config.read_signing()?.map(Arc::new);
    let client = Client::from_kubeconfig(&config.kubeconfig)?;

    server::start(&config, client.clone(), shutdown.clone()).await?;

    let mut leadership = None;
    if config.leader_elect {
        let identity = client::leader::identity(NAME);
        let (namespace, name) = (&config.leader_elect_resource_namespace, &config.leader_elect_resource_name);
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            held = client::leader::acquire_with(&client, namespace, name, &identity, election) => leadership = Some(held),
        }
    }

    let informers = Informers::new(client.clone());
    let context = Context {
        resources: Arc::new(resources::Resources::new(client.clone(), informers.clone())),
        events: Events::new(EventRecorder::new(client.clone(), NAME, None)),
        client,
        informers,
        root_ca: root_ca.into(),
        signing,
        cluster_cidrs: cluster_cidrs.into(),
        legacy_token_period,
        own_identities: config.use_service_account_credentials,
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

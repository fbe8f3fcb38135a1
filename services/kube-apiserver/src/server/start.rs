//! Start order: flags, store, caches, listener, bootstrap, ready.

use super::listener::{self, Peers};
use super::{Metrics, Shared, State};
use crate::admission::config::Configuration;
use crate::audit::Auditor;
use crate::authn::Outside;
use crate::authz::Authorizer;
use crate::bootstrap;
use crate::config::Config;
use crate::flowcontrol::watchers::Watchers;
use crate::flowcontrol::{self, Admission};
use crate::proxy::Backends;
use crate::registry::alloc::Allocators;
use crate::registry::{self, lookup};
use crate::storage::encryption::Encryption;
use crate::storage::{Storage, Store, compactor};
use crate::tokens::Tokens;
use clap::Parser;
use daemon::backoff::Backoff;
use daemon::tls::ClientAuth;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

/// Caches that admission and authentication read without waiting: filled before the server says it is ready. The others start when used.
const NEEDED: &[(&str, &str, &str)] = &[
    ("", "v1", "namespaces"),
    ("", "v1", "serviceaccounts"),
    ("", "v1", "services"),
    ("", "v1", "pods"),
    ("", "v1", "nodes"),
    ("", "v1", "persistentvolumes"),
];

/// The process.
pub async fn run(args: Vec<String>, shutdown: daemon::Shutdown) -> daemon::Outcome {
    let config = Config::try_parse_from(args)?;
    let proxies = config.front_proxy.requestheader_client_ca_file.as_deref();
    let authorities: Vec<&Path> = std::iter::once(config.client_ca_file.as_path()).chain(proxies).collect();
    let tls = daemon::tls::server_config_of(
        &config.tls_cert_file,
        &config.tls_private_key_file,
        &authorities,
        ClientAuth::Optional,
        &[b"h2", b"http/1.1"],
    )?;
    let listener = TcpListener::bind(SocketAddr::new(config.bind_address, config.secure_port)).await?;
    let state = build(config, shutdown)?;
    tracing::info!(address = %listener.local_addr()?, store = ?state.config.etcd_servers, "serving");
    tokio::spawn(compactor::run(
        state.storage.store().clone(),
        state.config.etcd_compaction_interval,
        state.shutdown.clone(),
    ));
    tokio::spawn(become_ready(state.clone()));
    listener::serve(state, listener, tls).await;
    tracing::info!("stopped");
    Ok(())
}

/// Puts the state together; nothing is awaited, so that health can be answered at once.
pub fn build(config: Config, shutdown: daemon::Shutdown) -> Result<Shared, daemon::Failure> {
    let store = Store::connect(&config)?;
    let event_ttl = i64::try_from(config.event_ttl.as_secs()).unwrap_or(i64::MAX);
    let encryption = Encryption::new(&config)?;
    if config.encryption_provider_config_automatic_reload {
        tokio::spawn(encryption.clone().follow(shutdown.clone()));
    }
    let outside = Outside::new(&config)?;
    tokio::spawn(outside.clone().follow(shutdown.clone()));
    let storage = Storage::new(store, encryption, event_ttl);
    Ok(Arc::new(State {
        authorizer: Authorizer::new(storage.clone(), &config.authorization_mode),
        tokens: Tokens::new(&config)?,
        outside,
        peers: Peers::new(&config)?,
        backends: Backends::new(&config)?,
        alloc: Allocators::new(&config)?,
        admission: Configuration::read(config.admission_control_config_file.as_deref())?,
        table: registry::table(),
        ready: AtomicBool::new(false),
        audit: Auditor::new(&config)?,
        flow: Admission::new(&config)?,
        watchers: Watchers::default(),
        metrics: Metrics::default(),
        storage,
        closing: delayed(&shutdown, config.shutdown_delay_duration),
        config,
        shutdown,
    }))
}

/// Load balancers have to see /readyz fail before connections end.
fn delayed(shutdown: &daemon::Shutdown, delay: Duration) -> daemon::Shutdown {
    if delay.is_zero() {
        return shutdown.clone();
    }
    let (close, closing) = daemon::Shutdown::pair();
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        shutdown.wait().await;
        tokio::time::sleep(delay).await;
        close.trigger();
    });
    closing
}

async fn become_ready(state: Shared) {
    state.authorizer.filled().await;
    for (group, version, plural) in NEEDED {
        if let Some(res) = lookup(group, version, plural) {
            state.storage.cache(res).synced().await;
        }
    }
    let mut backoff = Backoff::default();
    while let Err(error) = bootstrap::run(state.clone()).await {
        tracing::warn!(%error, "bootstrap objects; trying again");
        tokio::time::sleep(backoff.next_delay()).await;
    }
    tokio::spawn(flowcontrol::keeper::run(state.clone()));
    state.ready.store(true, Ordering::Release);
    tracing::info!("ready");
}

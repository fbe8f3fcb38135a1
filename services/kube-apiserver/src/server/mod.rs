//! The process: state, start order, listener and the handler chain.
//!
//! A request passes, in this order: [`handler`] (panic guard, request info, authentication, priority and fairness, authorization) and then
//! [`crate::endpoints`] for objects or [`routes`] for everything that is not one.

pub mod activity;
pub mod body;
pub mod guard;
pub mod handler;
pub mod health;
pub mod listener;
pub mod metrics;
pub mod negotiate;
pub mod query;
pub mod request_info;
pub mod respond;
pub mod routes;
mod start;

pub use metrics::Metrics;
pub use start::run;

use crate::audit::Auditor;
use crate::authn::Outside;
use crate::authz::Authorizer;
use crate::config::Config;
use crate::flowcontrol::Admission;
use crate::flowcontrol::watchers::Watchers;
use crate::proxy::Backends;
use crate::registry::alloc::Allocators;
use crate::registry::{self, Resource};
use crate::storage::Storage;
use crate::tokens::Tokens;
use listener::Peers;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The version this server implements.
pub const GIT_VERSION: &str = "v1.35.0+corten";

/// What every request may use.
pub struct State {
    /// The flags.
    pub config: Config,
    /// Objects.
    pub storage: Storage,
    /// The resource table.
    pub table: &'static [Resource],
    /// Service-account tokens.
    pub tokens: Tokens,
    /// Who is known from outside the cluster.
    pub outside: Arc<Outside>,
    /// Who may connect as what.
    pub peers: Peers,
    /// RBAC and Node rules.
    pub authorizer: Authorizer,
    /// Connections to kubelets, pods and services.
    pub backends: Backends,
    /// Service addresses and node ports.
    pub alloc: Allocators,
    /// What admission plugins are told.
    pub admission: crate::admission::config::Configuration,
    /// Who runs when many requests come at once.
    pub flow: Admission,
    /// Who watches what, for the width of writes.
    pub watchers: Watchers,
    /// The shutdown signal: from now on /readyz says no.
    pub shutdown: daemon::Shutdown,
    /// Connections and long-running responses are to end: the shutdown signal, or a while after it (`--shutdown-delay-duration`).
    pub closing: daemon::Shutdown,
    /// Set once the caches the chain needs are filled and the bootstrap objects exist.
    pub ready: AtomicBool,
    /// The audit log, if one is kept.
    pub audit: Option<Arc<Auditor>>,
    /// Counters for /metrics.
    pub metrics: Metrics,
}

/// State as handlers share it.
pub type Shared = Arc<State>;

impl State {
    /// The row of a resource the server itself relies on.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        registry::lookup(group, version, plural)
    }

    /// Whether everything that is done once at start has been done.
    pub fn is_started(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

//! What every controller is given.

use std::collections::HashMap;
use std::sync::Arc;

use client::{Client, Informer, InformerParams, Resource};
use daemon::Shutdown;
use parking_lot::Mutex;

use crate::csr_signing::Signing;
use crate::events::Events;
use crate::node_ipam::plan::Cidr;
use crate::resources::Resources;
use crate::trim;

/// Shared handles; cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The API.
    pub client: Client,
    /// One informer per resource, shared by all controllers.
    pub informers: Informers,
    /// Every deletable resource of the cluster, found by discovery.
    pub resources: Arc<Resources>,
    /// Writes events as this process.
    pub events: Events,
    /// The bundle to publish as kube-root-ca.crt; empty if none.
    pub root_ca: Arc<str>,
    /// Signs certificates, if there is an authority to do it with.
    pub signing: Option<Arc<Signing>>,
    /// Where nodes' pod ranges come from.
    pub cluster_cidrs: Arc<[Cidr]>,
    /// Seconds after which a legacy token that nobody used is marked, and once more after which it goes.
    pub legacy_token_period: i64,
    /// Each controller acts as a service account of its own.
    pub own_identities: bool,
    /// The end of the process.
    pub shutdown: Shutdown,
}

/// Starts each informer once, on first use.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    started: Arc<Mutex<HashMap<Resource<'static>, Informer>>>,
}

impl Informers {
    /// None started yet.
    pub fn new(client: Client) -> Self {
        Informers { client, started: Arc::default() }
    }

    /// The informer on all objects of a resource.
    pub fn get(&self, resource: Resource<'static>) -> Informer {
        let mut started = self.started.lock();
        let params = InformerParams {
            trim: trim::of(resource),
            compact: trim::MANY.contains(&resource),
            ..InformerParams::default()
        };
        let start = || Informer::start(self.client.clone(), resource, params);
        started.entry(resource).or_insert_with(start).clone()
    }

    /// Lets go of an informer whose resource is gone; it ends with its last user.
    pub fn stop(&self, resource: Resource<'static>) {
        self.started.lock().remove(&resource);
    }
}

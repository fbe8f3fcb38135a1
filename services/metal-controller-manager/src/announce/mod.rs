//! Answers for load balancer addresses on the local network. Which machine answers is decided in [`election`] from the
//! announcers' Leases; [`frames`] are the words, [`links`] the mouths.
//!
//! A machine that dies misses its renewals, and the others take its addresses over within two seconds: three of their own
//! renewals later, with an announcement that moves every neighbour's entry at once.

mod election;
mod frames;
mod lease;
mod links;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::meta;
use client::{Change, Client, Informer, InformerParams, resource};
use daemon::Shutdown;
use serde_json::Value;
use tokio::sync::mpsc;
use tracing::{info, warn};

use self::election::{Addresses, Members};
use self::lease::Own;
use self::links::Responders;
use crate::pools::{self, Pool};

/// Between two renewals while there is something to announce, and somebody who would take it over.
const PACE: Duration = Duration::from_millis(400);
/// The same while nobody would. Another machine's first Lease quickens the pace before that machine could miss a renewal.
const PACE_ALONE: Duration = Duration::from_secs(10);
/// A renewal that takes longer has failed.
const RENEWAL_MAX: Duration = Duration::from_secs(1);
/// A machine whose renewals fail for this long leaves its addresses to the others.
const ISOLATED_AFTER: Duration = Duration::from_secs(5);
/// A new owner says so this often, one [`PACE`] apart: a frame may be lost.
const REPEATS: u32 = 3;
/// Names a slice's Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// After an interface could not be used.
const RETRY: Duration = Duration::from_secs(1);

struct Announcer {
    me: String,
    own: Own,
    members: Members,
    /// All addresses of the cluster's load balancers.
    addresses: Addresses,
    ours: BTreeSet<IpAddr>,
    /// New ones of ours, and how often they are still to be announced.
    fresh: (BTreeSet<IpAddr>, u32),
    /// Since when renewals fail.
    failing: Option<Instant>,
    responders: Responders,
    /// When interfaces are to be looked at again.
    retry: Option<tokio::time::Instant>,
}

/// Runs until `shutdown`, then hands this machine's addresses on.
pub async fn run(client: &Client, node: &str, pools: &[Pool], services: &Informer, shutdown: &Shutdown) {
    let params = InformerParams {
        namespace: Some(crate::NAMESPACE.to_owned()),
        label_selector: format!("{}=true", lease::LABEL),
        ..InformerParams::default()
    };
    let leases = Informer::start(client.clone(), resource::LEASES, params);
    let params = InformerParams { trim: Some(trim), compact: true, ..InformerParams::default() };
    let slices = Informer::start(client.clone(), resource::ENDPOINTSLICES, params);
    let (mut service_changes, mut lease_changes) = (services.subscribe(), leases.subscribe());
    let mut slice_changes = slices.subscribe();
    let (ended, mut endings) = mpsc::unbounded_channel();
    let mut announcer = Announcer {
        me: node.to_owned(),
        own: Own::new(client.clone(), node),
        members: Members::default(),
        addresses: Addresses::new(),
        ours: BTreeSet::new(),
        fresh: (BTreeSet::new(), 0),
        failing: None,
        responders: Responders::new(ended),
        retry: None,
    };
    leases.synced().await;
    let mut beat = tokio::time::Instant::now();
    loop {
        let (retry, idle) = (announcer.retry, announcer.is_idle());
        tokio::select! {
            () = shutdown.wait() => break,
            change = service_changes.recv() => {
                if change.is_none() { break }
                while service_changes.try_recv().is_ok() {}
                announcer.addresses = balanced(&services.list(), &slices, pools);
                announcer.settle().await;
            }
            change = slice_changes.recv() => {
                if change.is_none() { break }
                while slice_changes.try_recv().is_ok() {}
                if announcer.addresses.values().any(Option::is_some) {
                    announcer.addresses = balanced(&services.list(), &slices, pools);
                    announcer.settle().await;
                }
            }
            change = lease_changes.recv() => {
                let Some(change) = change else { break };
                if announcer.lease(&change) {
                    announcer.settle().await;
                }
            }
            () = tokio::time::sleep_until(beat), if !idle => {
                announcer.beat().await;
                beat = tokio::time::Instant::now() + PACE_ALONE;
            }
            _ = endings.recv() => announcer.retry = Some(tokio::time::Instant::now() + RETRY),
            () = sleep_until(retry), if retry.is_some() => announcer.settle().await,
        }
        beat = beat.min(tokio::time::Instant::now() + announcer.pace());
    }
    announcer.own.give_up().await;
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

/// The addresses that Services have from the pools. One that is to see its clients' addresses is served only where it has
/// endpoints.
fn balanced(services: &[Arc<Value>], slices: &Informer, pools: &[Pool]) -> Addresses {
    let mut found = Addresses::new();
    for service in services.iter().filter(|service| pools::is_ours(service)) {
        let local = service["spec"]["externalTrafficPolicy"] == "Local";
        let able = local.then(|| machines(service, slices.each_in(meta::namespace(service))));
        let addresses = pools::addresses(service).into_iter();
        found.extend(addresses.filter(|ip| pools.iter().any(|pool| pool.contains(*ip))).map(|ip| (ip, able.clone())));
    }
    found
}

/// The nodes with ready endpoints of a Service.
fn machines(service: &Value, slices: impl Iterator<Item = Arc<Value>>) -> BTreeSet<String> {
    let mut nodes = BTreeSet::new();
    for slice in slices.filter(|slice| slice["metadata"]["labels"][SERVICE_LABEL] == service["metadata"]["name"]) {
        let ready = |endpoint: &&Value| endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
        let endpoints = slice["endpoints"].as_array().into_iter().flatten().filter(ready);
        nodes.extend(endpoints.filter_map(|endpoint| endpoint["nodeName"].as_str().map(str::to_owned)));
    }
    nodes
}

/// Keeps of an EndpointSlice on which nodes something is ready.
fn trim(slice: &mut Value) {
    for endpoint in slice["endpoints"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        endpoint.retain(|field, _| field == "nodeName" || field == "conditions");
    }
}

impl Announcer {
    /// Nothing to announce and no Lease to take back: nothing is written at rest.
    fn is_idle(&self) -> bool {
        self.addresses.is_empty() && !self.own.is_held()
    }

    fn pace(&self) -> Duration {
        let repeats = self.fresh.1 > 0;
        if repeats || self.failing.is_some() || self.members.living().next().is_some() { PACE } else { PACE_ALONE }
    }

    /// Notes another machine's Lease; returns whether the machines that live are others now.
    fn lease(&mut self, change: &Change) -> bool {
        let name = change.object()["spec"]["holderIdentity"].as_str().unwrap_or_default();
        if name.is_empty() || name == self.me {
            return false;
        }
        let lived = self.members.living().any(|other| other == name);
        match change {
            Change::Applied { .. } => self.members.seen(name),
            Change::Deleted(_) => self.members.left(name),
        }
        lived != matches!(change, Change::Applied { .. })
    }

    /// One beat: our Lease, and announcements that are still to be repeated.
    async fn beat(&mut self) {
        if self.addresses.is_empty() {
            self.own.give_up().await;
            return;
        }
        let was_isolated = self.is_isolated();
        let died = match tokio::time::timeout(RENEWAL_MAX, self.own.renew()).await {
            Ok(Ok(())) => {
                self.failing = None;
                self.members.renewed()
            }
            failed => {
                if let Ok(Err(error)) = failed
                    && !error.is_conflict()
                    && self.failing.is_none()
                {
                    warn!("renewing the announcer's Lease: {error}");
                }
                self.failing.get_or_insert_with(Instant::now);
                false
            }
        };
        if died || was_isolated != self.is_isolated() {
            self.settle().await;
        }
        let (addresses, left) = &mut self.fresh;
        if *left > 0 {
            *left -= 1;
            self.responders.announce(addresses).await;
        }
    }

    fn is_isolated(&self) -> bool {
        self.failing.is_some_and(|since| since.elapsed() >= ISOLATED_AFTER)
    }

    /// Answers for what is ours now, and says aloud what has become so.
    async fn settle(&mut self) {
        self.retry = None;
        let ours = self.members.ours(&self.me, &self.addresses, self.is_isolated());
        if ours.is_empty() && self.ours.is_empty() {
            return;
        }
        let ports = match netlink::Handle::new() {
            Ok(handle) => links::ports(&handle).await,
            Err(error) => Err(error),
        };
        let fine = match ports {
            Ok(ports) => self.responders.set(&ours, &ports),
            Err(error) => {
                warn!("interfaces: {error}");
                false
            }
        };
        if !fine {
            self.retry = Some(tokio::time::Instant::now() + RETRY);
        }
        let gained: BTreeSet<IpAddr> = ours.difference(&self.ours).copied().collect();
        if ours != self.ours {
            info!("announcing {ours:?}");
        }
        if !gained.is_empty() {
            self.responders.announce(&gained).await;
            self.fresh = (gained, REPEATS);
        }
        self.ours = ours;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_that_sees_its_clients_is_served_where_it_is_ready() {
        let slice = |service: &str, endpoints: Value| {
            let mut slice = json!({"metadata": {"labels": {SERVICE_LABEL: service}}, "endpoints": endpoints});
            trim(&mut slice);
            assert!(slice["endpoints"][0]["addresses"].is_null());
            Arc::new(slice)
        };
        let slices = [
            slice(
                "web",
                json!([{"addresses": ["10.0.0.1"], "nodeName": "a", "conditions": {"ready": true}},
                                {"addresses": ["10.0.1.1"], "nodeName": "b", "conditions": {"ready": false}}]),
            ),
            slice("web", json!([{"addresses": ["10.0.2.1"], "nodeName": "c"}])),
            slice("other", json!([{"addresses": ["10.0.3.1"], "nodeName": "d"}])),
        ];
        let nodes = machines(&json!({"metadata": {"name": "web"}}), slices.into_iter());
        assert_eq!(nodes.into_iter().collect::<Vec<_>>(), ["a", "c"]);
    }
}

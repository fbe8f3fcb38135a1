//! Service addresses and node ports.
//!
//! Two servers, or two requests to one, must never hand out the same address. The claim is therefore a write to the store that only one
//! can win: for an address the creation of an IPAddress object of that name, for a port a compare-and-swap of the bitmap at
//! ranges/servicenodeports; both are where upstream keeps them. The claim comes before the Service is written. If that then fails,
//! the claim stands without a Service: it is taken over by the next one who wants it, or swept at the next start ([`sweep`]).

pub mod addresses;
pub mod ports;
pub mod range;

use std::net::IpAddr;

use parking_lot::Mutex;
use serde_json::Value;

use crate::config::Config;
use crate::errors::{ApiError, FieldError};
use crate::registry::strategy::service::{self, family_of, is_headless, wants_cluster_ip};
use crate::registry::strategy::tree::{int_at, items, set, str_at};
use crate::registry::{Context, Resource, lookup};
use crate::server::State;
use range::Range;

/// The flags do not describe ranges that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More than one range of one family, or none at all.
    #[error("--service-cluster-ip-range needs one range, or one of each family")]
    Families,
}

/// The ranges.
pub struct Allocators {
    ranges: Vec<Range>,
    ports: (u16, u16),
    /// Ports claimed by requests of this process that have not been answered long ago.
    pending: Mutex<Vec<(u16, std::time::Instant)>>,
}

impl Allocators {
    /// From the flags.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let nets = &config.service_cluster_ip_range;
        let twice = nets.len() == 2 && nets[0].addr().is_ipv4() == nets[1].addr().is_ipv4();
        if nets.is_empty() || nets.len() > 2 || twice {
            return Err(Error::Families);
        }
        let ranges = nets.iter().map(|n| Range::new(*n)).collect();
        Ok(Self { ranges, ports: config.service_node_port_range, pending: Mutex::new(Vec::new()) })
    }

    /// The cluster's families, the preferred one first.
    pub fn families(&self) -> Vec<&'static str> {
        self.ranges.iter().map(|r| family_of(r.first())).collect()
    }

    /// The first address: the kubernetes Service's own.
    pub fn kubernetes_address(&self) -> Option<IpAddr> {
        self.ranges.first().map(Range::first)
    }

    fn range_of(&self, family: &str) -> Option<&Range> {
        self.ranges.iter().find(|r| family_of(r.first()) == family)
    }
}

fn invalid(svc: &Value, errors: &[FieldError]) -> ApiError {
    ApiError::invalid("", "Service", str_at(svc, &["metadata", "name"]), errors)
}

fn row(group: &str, plural: &str) -> Result<&'static Resource, ApiError> {
    lookup(group, "v1", plural).ok_or_else(|| ApiError::internal(format!("the resource table has no {plural}")))
}

/// Gives a new or changed Service what its type calls for. `old` is the stored one on updates.
pub async fn assign(cx: &Context<'_>, svc: &mut Value, old: Option<&Value>) -> Result<(), ApiError> {
    let alloc = &cx.state.alloc;
    let errors = service::families(svc, &alloc.families());
    if !errors.is_empty() {
        return Err(invalid(svc, &errors));
    }
    if wants_cluster_ip(svc) && !is_headless(svc) {
        assign_addresses(cx, svc, old).await?;
    }
    if let Err(error) = ports::assign(cx, svc, old).await {
        let held = old.map(|o| items(o, &["spec", "clusterIPs"]).to_vec()).unwrap_or_default();
        addresses::release(
            cx,
            svc,
            addresses_of(svc).into_iter().filter(|ip| !held.iter().any(|h| h == ip.as_str())).collect(),
        );
        return Err(error);
    }
    Ok(())
}

async fn assign_addresses(cx: &Context<'_>, svc: &mut Value, old: Option<&Value>) -> Result<(), ApiError> {
    let families: Vec<String> =
        items(svc, &["spec", "ipFamilies"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let held: Vec<Value> = old.map(|o| items(o, &["spec", "clusterIPs"]).to_vec()).unwrap_or_default();
    let asked: Vec<Value> = items(svc, &["spec", "clusterIPs"]).to_vec();
    let mut given: Vec<Value> = Vec::new();
    for (i, family) in families.iter().enumerate() {
        let Some(range) = cx.state.alloc.range_of(family) else { continue };
        let wanted = asked.get(i).filter(|w| **w != "");
        let result = match wanted {
            Some(ip) if held.contains(ip) => Ok(ip.clone()),
            Some(ip) => addresses::claim(cx, svc, range, ip.as_str().unwrap_or_default()).await,
            None => addresses::any(cx, svc, range).await,
        };
        match result {
            Ok(ip) => given.push(ip),
            Err(error) => {
                let fresh: Vec<String> =
                    given.iter().filter(|ip| !held.contains(ip)).filter_map(Value::as_str).map(str::to_owned).collect();
                addresses::release(cx, svc, fresh);
                return Err(error);
            }
        }
    }
    if let Some(first) = given.first().cloned() {
        set(&mut svc["spec"], "clusterIP", first);
        set(&mut svc["spec"], "clusterIPs", given);
    }
    Ok(())
}

/// Gives back everything a Service held; in the background, because the answer does not depend on it.
pub fn release(cx: &Context<'_>, svc: &Value) {
    if cx.dry_run {
        return;
    }
    addresses::release(cx, svc, addresses_of(svc));
    ports::release(cx, node_ports(svc));
}

/// Gives back what a Service held before a change and no longer holds after it.
pub fn release_dropped(cx: &Context<'_>, new: &Value, old: &Value) {
    let (addresses, ports) = (addresses_of(new), node_ports(new));
    let dropped = addresses_of(old).into_iter().filter(|ip| !addresses.contains(ip)).collect();
    addresses::release(cx, old, dropped);
    ports::release(cx, node_ports(old).into_iter().filter(|p| !ports.contains(p)).collect());
}

fn addresses_of(svc: &Value) -> Vec<String> {
    items(svc, &["spec", "clusterIPs"])
        .iter()
        .filter_map(Value::as_str)
        .filter(|ip| *ip != "None")
        .map(str::to_owned)
        .collect()
}

/// Every node port of a Service.
fn node_ports(svc: &Value) -> Vec<u16> {
    let ports = items(svc, &["spec", "ports"]).iter().filter_map(|p| int_at(p, &["nodePort"]));
    ports
        .chain(int_at(svc, &["spec", "healthCheckNodePort"]))
        .filter_map(|n| u16::try_from(n).ok())
        .filter(|n| *n != 0)
        .collect()
}

/// Brings the records in line with the Services that exist: at start, before anyone asks for an address.
pub async fn sweep(state: &State, now: &str) -> Result<(), ApiError> {
    let (services, _) = state.storage.list(row("", "services")?, None).await?;
    let services: Vec<Value> = services.iter().map(|s| s.object()).collect();
    addresses::sweep(state, &services, now).await?;
    ports::sweep(state, &services).await
}

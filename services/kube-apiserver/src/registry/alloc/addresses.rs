//! Claims on addresses: one IPAddress object each, whose creation only one request can win.

use std::collections::HashSet;
use std::net::IpAddr;

use apimachinery::time;
use serde_json::{Value, json};

use super::range::Range;
use super::{invalid, row};
use crate::errors::{ApiError, FieldError};
use crate::registry::Context;
use crate::registry::strategy::service::family_of;
use crate::registry::strategy::tree::{items, str_at};
use crate::server::State;
use crate::storage::{Preconditions, Storage, Stored, Swap};

const GROUP: &str = "networking.k8s.io";
/// A claim without a Service is someone's request in flight for this long; then it is nobody's.
const IN_FLIGHT_SECONDS: i64 = 60;

/// Claims the address a client asked for.
pub async fn claim(cx: &Context<'_>, svc: &Value, range: &Range, text: &str) -> Result<Value, ApiError> {
    let fail = |why: String| {
        let list = svc["spec"]["clusterIPs"].clone();
        invalid(svc, &[FieldError::invalid("spec.clusterIPs", list, format!("failed to allocate IP {text}: {why}"))])
    };
    let ip: IpAddr = text.parse().map_err(|_| fail("it is not an address".into()))?;
    if !range.contains(ip) {
        return Err(fail(format!(
            "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}",
            range.net()
        )));
    }
    if try_claim(cx, svc, ip).await? { Ok(json!(text)) } else { Err(fail("provided IP is already allocated".into())) }
}

/// Claims any free address.
pub async fn any(cx: &Context<'_>, svc: &Value, range: &Range) -> Result<Value, ApiError> {
    let taken: HashSet<String> =
        cx.state.storage.cached(row(GROUP, "ipaddresses")?).iter().map(|s| s.name.clone()).collect();
    let random = rand::random::<u128>();
    // The cache keeps most tries from being in vain; the store decides.
    for ip in range.order(random).filter(|ip| !taken.contains(&ip.to_string())) {
        if try_claim(cx, svc, ip).await? {
            return Ok(json!(ip.to_string()));
        }
    }
    // Nothing looks free. Claims of failed requests may still be there for the taking.
    for ip in range.order(random).filter(|ip| taken.contains(&ip.to_string())) {
        if try_claim(cx, svc, ip).await? {
            return Ok(json!(ip.to_string()));
        }
    }
    Err(ApiError::internal("failed to allocate a serviceIP: range is full"))
}

async fn try_claim(cx: &Context<'_>, svc: &Value, ip: IpAddr) -> Result<bool, ApiError> {
    let res = row(GROUP, "ipaddresses")?;
    let storage = &cx.state.storage;
    let (namespace, name) = (str_at(svc, &["metadata", "namespace"]), str_at(svc, &["metadata", "name"]));
    if cx.dry_run {
        return Ok(storage.get(res, "", &ip.to_string()).await?.is_none());
    }
    match storage.create(res, record(ip, namespace, name, &cx.now)).await {
        Ok(_) => return Ok(true),
        Err(e) if e.code() == 409 => {}
        Err(e) => return Err(e),
    }
    let Some(found) = storage.get(res, "", &ip.to_string()).await? else { return Ok(false) };
    if !is_free(storage, &found, ip, namespace, name, &cx.now).await? {
        return Ok(false);
    }
    let taken_over = storage.swap(res, record(ip, namespace, name, &cx.now), found.revision).await?;
    Ok(matches!(taken_over, Swap::Done(_)))
}

/// A claim is free for us when it is our own from an earlier try, or old and without a Service that holds the address.
async fn is_free(
    storage: &Storage,
    found: &Stored,
    ip: IpAddr,
    namespace: &str,
    name: &str,
    now: &str,
) -> Result<bool, ApiError> {
    let claim = found.object();
    let parent = &claim["spec"]["parentRef"];
    let (home, owner) = (str_at(parent, &["namespace"]), str_at(parent, &["name"]));
    if str_at(parent, &["resource"]) != "services" {
        return Ok(false);
    }
    let holder = storage.get(row("", "services")?, home, owner).await?;
    if holder.is_some_and(|s| holds(&s.object(), ip)) {
        return Ok(false);
    }
    Ok((home, owner) == (namespace, name) || is_old(&claim, now))
}

fn holds(svc: &Value, ip: IpAddr) -> bool {
    items(svc, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str).any(|t| t.parse() == Ok(ip))
}

fn is_old(claim: &Value, now: &str) -> bool {
    let created = time::parse_rfc3339(str_at(claim, &["metadata", "creationTimestamp"]));
    match (created, time::parse_rfc3339(now)) {
        (Ok(c), Ok(n)) => n.as_second() - c.as_second() > IN_FLIGHT_SECONDS,
        _ => true,
    }
}

fn record(ip: IpAddr, namespace: &str, name: &str, now: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": ip.to_string(),
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": now,
            "generation": 1,
            "labels": {
                "ipaddress.kubernetes.io/ip-family": family_of(ip),
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}},
    })
}

/// Gives addresses back, if they are still this Service's.
pub fn release(cx: &Context<'_>, svc: &Value, ips: Vec<String>) {
    if cx.dry_run || ips.is_empty() {
        return;
    }
    let storage = cx.state.storage.clone();
    let owner = (str_at(svc, &["metadata", "namespace"]).to_owned(), str_at(svc, &["metadata", "name"]).to_owned());
    tokio::spawn(async move {
        for ip in ips {
            if let Err(error) = drop_claim(&storage, &ip, &owner).await {
                tracing::warn!(%ip, %error, "a service address is not given back; the next start will do it");
            }
        }
    });
}

async fn drop_claim(storage: &Storage, ip: &str, owner: &(String, String)) -> Result<(), ApiError> {
    let res = row(GROUP, "ipaddresses")?;
    let Some(found) = storage.get(res, "", ip).await? else { return Ok(()) };
    let claim = found.object();
    let parent = &claim["spec"]["parentRef"];
    let ours = (str_at(parent, &["namespace"]), str_at(parent, &["name"])) == (owner.0.as_str(), owner.1.as_str());
    // A Service of the same name may have been made again and hold the address already.
    let again = storage.get(row("", "services")?, &owner.0, &owner.1).await?;
    let held = again.is_some_and(|s| ip.parse().is_ok_and(|ip| holds(&s.object(), ip)));
    if ours && !held {
        storage.remove(res, &found).await?;
    }
    Ok(())
}

/// One claim for every address in use, none for the others (except very young ones: another server may be at it).
pub async fn sweep(state: &State, services: &[Value], now: &str) -> Result<(), ApiError> {
    let res = row(GROUP, "ipaddresses")?;
    let mut used = HashSet::new();
    for svc in services {
        for ip in items(svc, &["spec", "clusterIPs"]).iter().filter_map(|v| v.as_str()?.parse::<IpAddr>().ok()) {
            used.insert(ip.to_string());
            if state.storage.get(res, "", &ip.to_string()).await?.is_some() {
                continue;
            }
            let claim = record(ip, str_at(svc, &["metadata", "namespace"]), str_at(svc, &["metadata", "name"]), now);
            match state.storage.create(res, claim).await {
                Err(e) if e.code() != 409 => return Err(e),
                _ => {}
            }
        }
    }
    for claim in state.storage.list(res, None).await?.0 {
        let object = claim.object();
        let managed =
            str_at(&object, &["metadata", "labels", "ipaddress.kubernetes.io/managed-by"]) == "ipallocator.k8s.io";
        if managed && !used.contains(&claim.name) && is_old(&object, now) {
            let same = Preconditions { resource_version: Some(claim.revision.to_string()), ..Preconditions::default() };
            match state.storage.delete(res, "", &claim.name, &same).await {
                Err(e) if !matches!(e.code(), 404 | 409) => return Err(e),
                _ => {}
            }
        }
    }
    Ok(())
}

//! Leader election through a coordination/v1 Lease, compatible with client-go's.
//!
//! [`decide`] is the pure rule: from the Lease as it stands and when this process first saw it so, to what to do next.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::error::Error;
use crate::requests::Client;
use crate::resource::LEASES;

const LEASE_SECONDS: u64 = 15;
const RENEW_LIMIT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// Proof of leadership while it lasts.
#[derive(Debug)]
pub struct Leadership(watch::Receiver<bool>);

impl Leadership {
    /// Resolves when leadership is lost; the process must then stop acting.
    pub async fn lost(&self) {
        let mut held = self.0.clone();
        let _ = held.wait_for(|held| !held).await;
    }
}

/// What a candidate does with the Lease it read.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Write our name (again).
    Take,
    /// Somebody else holds it; look again later.
    Wait,
}

/// A foreign holder is respected for as long as its record was seen to change within the lease duration. Clocks of
/// other machines are never compared: only how long this process saw the same record counts (client-go's rule).
fn decide(lease: Option<&Value>, identity: &str, unchanged_for: Duration) -> Decision {
    let holder = lease.and_then(|l| l["spec"]["holderIdentity"].as_str()).unwrap_or_default();
    let seconds = lease.and_then(|l| l["spec"]["leaseDurationSeconds"].as_u64()).unwrap_or(LEASE_SECONDS);
    if holder.is_empty() || holder == identity || unchanged_for >= Duration::from_secs(seconds) {
        Decision::Take
    } else {
        Decision::Wait
    }
}

/// Waits until this process leads, then keeps the Lease renewed in the background.
pub async fn acquire(client: &Client, namespace: &str, name: &str, identity: &str) -> Leadership {
    let mut candidate = Candidate {
        client: client.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        identity: identity.to_owned(),
        seen: (String::new(), Instant::now()),
    };
    loop {
        match candidate.attempt().await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => warn!(lease = name, %error, "leader election"),
        }
        tokio::time::sleep(RETRY).await;
    }
    info!(lease = name, identity, "leading");
    let (sender, receiver) = watch::channel(true);
    tokio::spawn(async move {
        candidate.renew_until_lost().await;
        sender.send_replace(false);
    });
    Leadership(receiver)
}

struct Candidate {
    client: Client,
    namespace: String,
    name: String,
    identity: String,
    /// The record last seen and when it was first seen so.
    seen: (String, Instant),
}

impl Candidate {
    async fn renew_until_lost(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RETRY).await;
            match tokio::time::timeout(RENEW_LIMIT, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => warn!(lease = %self.name, %error, "renewing leadership"),
                Err(_) => warn!(lease = %self.name, "renewing leadership takes too long"),
            }
            if renewed.elapsed() >= RENEW_LIMIT {
                return;
            }
        }
    }

    /// Reads the Lease and takes or renews it if allowed; `Ok(true)` means that we hold it.
    async fn attempt(&mut self) -> Result<bool, Error> {
        let lease = match self.client.get(LEASES, Some(&self.namespace), &self.name).await {
            Ok(lease) => Some(lease),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let record = lease.as_ref().map(|l| l["spec"].to_string()).unwrap_or_default();
        if record != self.seen.0 {
            self.seen = (record, Instant::now());
        }
        if decide(lease.as_ref(), &self.identity, self.seen.1.elapsed()) == Decision::Wait {
            return Ok(false);
        }
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let written = match lease {
            None => {
                let fresh = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": self.name, "namespace": self.namespace},
                    "spec": {"holderIdentity": self.identity, "leaseDurationSeconds": LEASE_SECONDS,
                             "acquireTime": now, "renewTime": now, "leaseTransitions": 0},
                });
                self.client.create(LEASES, Some(&self.namespace), &fresh).await
            }
            Some(mut lease) => {
                let spec = &mut lease["spec"];
                if spec["holderIdentity"].as_str() != Some(&self.identity) {
                    spec["acquireTime"] = now.as_str().into();
                    spec["leaseTransitions"] = (spec["leaseTransitions"].as_u64().unwrap_or(0) + 1).into();
                }
                spec["holderIdentity"] = self.identity.as_str().into();
                spec["leaseDurationSeconds"] = LEASE_SECONDS.into();
                spec["renewTime"] = now.as_str().into();
                self.client.update(LEASES, Some(&self.namespace), &self.name, &lease).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            // Another candidate was quicker.
            Err(error) if error.is_conflict() || error.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_free_ours_or_stale() {
        let held = json!({"spec": {"holderIdentity": "other", "leaseDurationSeconds": 15}});
        let cases = [
            (None, 0, Decision::Take),
            (Some(json!({"spec": {"holderIdentity": ""}})), 0, Decision::Take),
            (Some(json!({"spec": {"holderIdentity": "me"}})), 0, Decision::Take),
            (Some(held.clone()), 14, Decision::Wait),
            (Some(held), 15, Decision::Take),
        ];
        for (lease, seconds, expected) in cases {
            assert_eq!(decide(lease.as_ref(), "me", Duration::from_secs(seconds)), expected, "{lease:?}");
        }
    }
}

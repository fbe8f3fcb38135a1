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

/// The times of an election; client-go's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long a record that does not change is respected, in whole seconds.
    pub lease: Duration,
    /// A leader that has not renewed for this long gives up.
    pub renew_limit: Duration,
    /// Between two attempts.
    pub retry: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let [lease, renew_limit, retry] = [15, 10, 2].map(Duration::from_secs);
        Times { lease, renew_limit, retry }
    }
}

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

/// A candidate's name in its Lease. One that the machine keeps lets a restarted process go on at once instead of waiting
/// for its own Lease to expire; the lock file, held until the process ends, makes sure that only one process has it.
pub fn identity(component: &str) -> String {
    let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let host = read("/proc/sys/kernel/hostname");
    let machine = read("/etc/machine-id");
    let lock = std::fs::File::create(format!("/run/{component}.lock")).ok().filter(|file| file.try_lock().is_ok());
    match lock {
        Some(lock) if !machine.is_empty() => {
            // Dropping the file would free the lock.
            std::mem::forget(lock);
            format!("{host}_{machine}")
        }
        _ => format!("{host}_{:032x}", rand::random::<u128>()),
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
    let seconds = lease.and_then(|l| l["spec"]["leaseDurationSeconds"].as_u64());
    let respected = seconds.map_or(Times::default().lease, Duration::from_secs);
    if holder.is_empty() || holder == identity || unchanged_for >= respected { Decision::Take } else { Decision::Wait }
}

/// Waits until this process leads, then keeps the Lease renewed in the background.
pub async fn acquire(client: &Client, namespace: &str, name: &str, identity: &str) -> Leadership {
    acquire_with(client, namespace, name, identity, Times::default()).await
}

/// As [`acquire`], with other times.
pub async fn acquire_with(client: &Client, namespace: &str, name: &str, identity: &str, times: Times) -> Leadership {
    let mut candidate = Candidate {
        client: client.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        identity: identity.to_owned(),
        seen: (String::new(), Instant::now()),
        held: None,
        times,
    };
    loop {
        match candidate.attempt().await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => warn!(lease = name, %error, "leader election"),
        }
        tokio::time::sleep(times.retry).await;
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
    /// The record as our last write left it.
    held: Option<Value>,
    times: Times,
}

impl Candidate {
    async fn renew_until_lost(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.times.retry).await;
            match tokio::time::timeout(self.times.renew_limit, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => warn!(lease = %self.name, %error, "renewing leadership"),
                Err(_) => warn!(lease = %self.name, "renewing leadership takes too long"),
            }
            if renewed.elapsed() >= self.times.renew_limit {
                return;
            }
        }
    }

    /// Takes or renews the Lease if allowed; `Ok(true)` means that we hold it. While nobody interferes, the record that
    /// the last write returned is still the newest, so a renewal is one request.
    async fn attempt(&mut self) -> Result<bool, Error> {
        let lease = match self.held.take() {
            Some(lease) => Some(lease),
            None => self.read().await?,
        };
        if decide(lease.as_ref(), &self.identity, self.seen.1.elapsed()) == Decision::Wait {
            return Ok(false);
        }
        let renewing = lease.as_ref().is_some_and(|l| l["spec"]["holderIdentity"] == self.identity.as_str());
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let written = match lease {
            None => {
                let fresh = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": self.name, "namespace": self.namespace},
                    "spec": {"holderIdentity": self.identity, "leaseDurationSeconds": self.times.lease.as_secs(),
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
                spec["leaseDurationSeconds"] = self.times.lease.as_secs().into();
                spec["renewTime"] = now.as_str().into();
                self.client.update(LEASES, Some(&self.namespace), &self.name, &lease).await
            }
        };
        match written {
            Ok(lease) => {
                self.held = Some(lease);
                Ok(true)
            }
            // Another candidate was quicker, or something else touched the record: who holds it is read at the next attempt.
            Err(error) if error.is_conflict() || error.is_already_exists() => Ok(renewing && self.still_holds().await?),
            Err(error) => Err(error),
        }
    }

    async fn read(&mut self) -> Result<Option<Value>, Error> {
        let lease = match self.client.get(LEASES, Some(&self.namespace), &self.name).await {
            Ok(lease) => Some(lease),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let record = lease.as_ref().map(|l| l["spec"].to_string()).unwrap_or_default();
        if record != self.seen.0 {
            self.seen = (record, Instant::now());
        }
        Ok(lease)
    }

    /// A renewal met a newer record: ours all the same if it still carries our name.
    async fn still_holds(&mut self) -> Result<bool, Error> {
        self.held = self.read().await?.filter(|lease| lease["spec"]["holderIdentity"] == self.identity.as_str());
        Ok(self.held.is_some())
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

//! Learns from the runtime which pods changed, and wakes their workers. The runtime's event stream is the source; a
//! listing finds what a broken stream missed. It comes often after a reconnect, when an event may have gone to the old
//! stream, and rarely later.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cri_api::v1;
use daemon::Shutdown;
use daemon::backoff::Backoff;
use futures_util::StreamExt;

use crate::observed::labels;
use crate::pod_workers::PodWorkers;
use crate::runtime::Listed;
use crate::shared::Shared;
use crate::volumes;

const FIRST_LISTING: Duration = Duration::from_secs(1);
const RARE_LISTING: Duration = Duration::from_secs(300);

/// Follows the runtime.
pub struct Pleg {
    shared: Arc<Shared>,
    workers: PodWorkers,
    known: HashMap<String, Listed>,
}

impl Pleg {
    /// Knows nothing yet.
    pub fn new(shared: Arc<Shared>, workers: PodWorkers) -> Self {
        Pleg { shared, workers, known: HashMap::new() }
    }

    /// Follows until the end.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut pause = Backoff::default();
        while !shutdown.triggered() {
            let mut runtime = self.shared.cri.api.runtime.clone();
            match runtime.get_container_events(v1::GetEventsRequest {}).await {
                Ok(stream) => {
                    pause.reset();
                    tokio::select! {
                        () = shutdown.wait() => return,
                        () = self.follow(stream.into_inner()) => {}
                    }
                }
                Err(error) => tracing::debug!(%error, "no event stream from the runtime"),
            }
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(pause.next_delay()) => {}
            }
        }
    }

    async fn follow(&mut self, mut events: tonic::Streaming<v1::ContainerEventResponse>) {
        let mut listing = Backoff::new(FIRST_LISTING, RARE_LISTING);
        // Whatever waited for the runtime need not wait any longer.
        self.workers.wake_all();
        self.list().await;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => self.event(&event),
                    Some(Err(error)) => {
                        tracing::info!(%error, "the runtime's event stream broke");
                        return;
                    }
                    None => return,
                },
                () = tokio::time::sleep(listing.next_delay()) => self.list().await,
            }
        }
    }

    fn event(&self, event: &v1::ContainerEventResponse) {
        // Nobody listens unless someone follows a log.
        let _ = self.shared.container_events.send(event.container_id.clone());
        let sandbox = event.pod_sandbox_status.as_ref();
        let from_sandbox = sandbox.and_then(|s| s.metadata.as_ref()).map(|m| m.uid.clone());
        let from_container = || event.containers_statuses.first().and_then(|c| c.labels.get(labels::POD_UID).cloned());
        match from_sandbox.or_else(from_container) {
            Some(uid) => self.workers.wake(&uid),
            None => tracing::debug!(id = %event.container_id, "event without a pod"),
        }
    }

    /// Compares everything with what was known and wakes the pods that differ.
    async fn list(&mut self) {
        let now = match self.shared.cri.list().await {
            Ok(now) => now,
            Err(error) => {
                tracing::warn!(%error, "runtime not listed");
                return;
            }
        };
        for uid in changed(&self.known, &now) {
            self.workers.wake(&uid);
        }
        self.known = now;
        if self.shared.pods.is_synced() && self.shared.static_pods_read.load(Ordering::Relaxed) {
            self.remove_orphans();
        }
    }

    /// What belongs to no pod of this node any more is removed: containers by a worker, bare folders, cgroups and claims at
    /// once. A cgroup can outlive its containers when the runtime is killed while it makes one.
    fn remove_orphans(&self) {
        let wanted: BTreeSet<String> =
            self.shared.pods.list().iter().filter_map(|p| p["metadata"]["uid"].as_str().map(str::to_owned)).collect();
        let mut orphans: BTreeMap<&str, &Listed> = BTreeMap::new();
        for listed in self.known.values().filter(|l| !wanted.contains(&l.uid)) {
            orphans.insert(&listed.uid, listed);
        }
        for (uid, listed) in &orphans {
            if !self.workers.knows(uid) {
                self.workers.adopt_orphan(listed);
            }
        }
        let shared = &self.shared;
        let nobodys =
            |uid: &String| !wanted.contains(uid) && !orphans.contains_key(uid.as_str()) && !self.workers.knows(uid);
        for uid in shared.claims.uids().into_iter().filter(nobodys) {
            let claims = Arc::clone(&shared.claims);
            tokio::spawn(async move { told(&uid, "claims", claims.release(&uid).await) });
        }
        for uid in volumes::present(&shared.root).into_iter().filter(nobodys) {
            told(&uid, "folder", volumes::teardown(&shared.root, &uid));
        }
        if let Some(cgroups) = &shared.cgroups {
            for uid in cgroups.present().into_iter().filter(nobodys) {
                told(&uid, "cgroup", cgroups.remove(&uid));
            }
        }
    }
}

fn told(uid: &str, what: &str, outcome: Result<(), impl std::fmt::Display>) {
    if let Err(error) = outcome {
        tracing::warn!(uid, %error, "{what} of a pod that no longer exists not removed");
    }
}

/// Pods of which something appeared, vanished or changed its state.
fn changed(before: &HashMap<String, Listed>, now: &HashMap<String, Listed>) -> BTreeSet<String> {
    let differs = |(id, listed): &(&String, &Listed), other: &HashMap<String, Listed>| other.get(*id) != Some(*listed);
    let fresh = now.iter().filter(|pair| differs(pair, before));
    let gone = before.iter().filter(|pair| differs(pair, now));
    fresh.chain(gone).map(|(_, listed)| listed.uid.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_that_differ_are_woken() {
        let listed =
            |uid: &str, running| Listed { uid: uid.into(), name: String::new(), namespace: String::new(), running };
        let before = HashMap::from([
            ("1".into(), listed("same", true)),
            ("2".into(), listed("ended", true)),
            ("3".into(), listed("gone", true)),
        ]);
        let now = HashMap::from([
            ("1".into(), listed("same", true)),
            ("2".into(), listed("ended", false)),
            ("4".into(), listed("new", true)),
        ]);
        let uids: Vec<String> = changed(&before, &now).into_iter().collect();
        assert_eq!(uids, ["ended", "gone", "new"]);
    }
}

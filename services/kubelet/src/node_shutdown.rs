//! The machine is going down: pods are ended in order, the critical ones last, and the API server is told.
//!
//! A kubelet that is merely restarted touches nothing: the two are told apart by a file that init leaves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::pod::Pod;
use crate::pod_workers::PodWorkers;
use crate::shared::Shared;
use crate::status::compute::Failure;

/// A group of pods and the seconds it has.
type Stage = (Vec<Arc<Pod>>, u64);

/// Ends the pods if the machine is going down and the configuration gives them time.
pub async fn run(shared: &Arc<Shared>, workers: &PodWorkers) {
    let config = &shared.config;
    if config.shutdown_grace_period.is_zero() || !Path::new(init_api::ENDING).exists() {
        return;
    }
    shared.shutting_down.store(true, Ordering::Relaxed);
    let critical = config.shutdown_grace_period_critical_pods.0.as_secs();
    let regular = config.shutdown_grace_period.0.as_secs().saturating_sub(critical);
    for (pods, seconds) in stages(shared.admitted.pods(), regular, critical) {
        end(shared, workers, &pods, seconds).await;
    }
    // The last statuses are on their way; a moment lets them out.
    shared.publisher.drained(Instant::now() + LAST_WORDS).await;
}

const LAST_WORDS: Duration = Duration::from_secs(2);

/// First what users run, then what the node and the cluster need.
fn stages(pods: Vec<Arc<Pod>>, regular: u64, critical: u64) -> [Stage; 2] {
    let (last, first): (Vec<_>, Vec<_>) = pods.into_iter().partition(|p| p.is_critical());
    [(first, regular), (last, critical)]
}

async fn end(shared: &Shared, workers: &PodWorkers, pods: &[Arc<Pod>], seconds: u64) {
    let limit = i64::try_from(seconds).unwrap_or(i64::MAX);
    for pod in pods {
        let failure = Failure {
            reason: "Terminated".into(),
            message: "Pod was terminated in response to imminent node shutdown.".into(),
            disruption: true,
        };
        workers.end(&pod.metadata.uid, failure, pod.grace_period().min(limit));
    }
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let left = shared.admitted.left.notified();
        let still = shared.admitted.pods();
        if !pods.iter().any(|p| still.iter().any(|s| s.metadata.uid == p.metadata.uid)) {
            return;
        }
        if timeout_at(deadline, left).await.is_err() {
            tracing::warn!("pods are left after {seconds} s");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn critical_pods_end_last() {
        let pod = |name: &str, priority: i64| {
            Arc::new(Pod::from_value(&json!({"metadata": {"name": name}, "spec": {"priority": priority}})).unwrap())
        };
        let [(first, regular), (last, critical)] = stages(vec![pod("dns", 2_000_001_000), pod("web", 0)], 15, 10);
        assert_eq!((first[0].metadata.name.as_str(), regular), ("web", 15));
        assert_eq!((last[0].metadata.name.as_str(), critical), ("dns", 10));
    }
}

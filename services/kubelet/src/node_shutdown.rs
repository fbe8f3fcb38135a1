//! The machine is going down: pods are ended in order of their priority, and the API server is told.
//!
//! A kubelet that is merely restarted touches nothing: the two are told apart by a file that init leaves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::config::{KubeletConfiguration, ShutdownPeriod};
use crate::pod::{CRITICAL_PRIORITY, Pod};
use crate::pod_workers::PodWorkers;
use crate::shared::Shared;
use crate::status::compute::Failure;

/// A group of pods and the seconds it has.
type Stage = (Vec<Arc<Pod>>, u64);

/// Ends the pods if the machine is going down and the configuration gives them time.
pub async fn run(shared: &Arc<Shared>, workers: &PodWorkers) {
    let periods = periods(&shared.config);
    if periods.is_empty() || !Path::new(init_api::ENDING).exists() {
        return;
    }
    shared.shutting_down.store(true, Ordering::Relaxed);
    for (pods, seconds) in stages(shared.admitted.pods(), &periods) {
        end(shared, workers, &pods, seconds).await;
    }
    // The last statuses are on their way; a moment lets them out.
    shared.publisher.drained(Instant::now() + LAST_WORDS).await;
}

const LAST_WORDS: Duration = Duration::from_secs(2);

/// From the lowest priority on. Without a list first what users run ends, then what the node and the cluster need.
fn periods(config: &KubeletConfiguration) -> Vec<ShutdownPeriod> {
    let mut periods = config.options.shutdown_grace_period_by_pod_priority.clone();
    if !config.shutdown_grace_period.is_zero() {
        let critical = config.shutdown_grace_period_critical_pods.0.as_secs();
        let regular = config.shutdown_grace_period.0.as_secs().saturating_sub(critical);
        let one = |priority, shutdown_grace_period_seconds| ShutdownPeriod { priority, shutdown_grace_period_seconds };
        periods = vec![one(0, regular), one(CRITICAL_PRIORITY, critical)];
    }
    periods.sort_by_key(|p| p.priority);
    periods
}

/// A pod belongs to the highest period that its priority reaches; one below all of them to the lowest.
fn stages(pods: Vec<Arc<Pod>>, periods: &[ShutdownPeriod]) -> Vec<Stage> {
    let mut stages: Vec<Stage> = periods.iter().map(|p| (Vec::new(), p.shutdown_grace_period_seconds)).collect();
    for pod in pods {
        let priority = pod.spec.priority.unwrap_or(0);
        // A static pod is critical whatever number it has.
        let priority = if pod.is_critical() { priority.max(CRITICAL_PRIORITY) } else { priority };
        let reached = periods.iter().take_while(|p| p.priority <= priority).count();
        if let Some((members, _)) = stages.get_mut(reached.saturating_sub(1)) {
            members.push(pod);
        }
    }
    stages
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

    fn ended(config: &str, pods: &[(&str, i64)]) -> Vec<(Vec<String>, u64)> {
        let config: KubeletConfiguration = serde_saphyr::from_str(config).unwrap();
        let pod = |(name, priority): &(&str, i64)| {
            Arc::new(Pod::from_value(&json!({"metadata": {"name": name}, "spec": {"priority": priority}})).unwrap())
        };
        let stages = stages(pods.iter().map(pod).collect(), &periods(&config));
        let names = |pods: Vec<Arc<Pod>>| pods.iter().map(|p| p.metadata.name.clone()).collect();
        stages.into_iter().map(|(pods, seconds)| (names(pods), seconds)).collect()
    }

    #[test]
    fn critical_pods_end_last() {
        let pods = [("dns", 2_000_001_000), ("web", 0), ("batch", -5)];
        let config = "{shutdownGracePeriod: 25s, shutdownGracePeriodCriticalPods: 10s}";
        let (web, dns) = (vec!["web".to_owned(), "batch".to_owned()], vec!["dns".to_owned()]);
        assert_eq!(ended(config, &pods), [(web, 15), (dns, 10)]);
        assert!(ended("{}", &pods).is_empty());
    }

    #[test]
    fn pods_end_in_the_order_of_their_priorities() {
        let pods = [("high", 9000), ("edge", 1000), ("low", 5), ("none", 0), ("between", 999)];
        let period =
            |priority: i32, seconds: u64| format!("{{priority: {priority}, shutdownGracePeriodSeconds: {seconds}}}");
        let config = format!(
            "{{shutdownGracePeriodByPodPriority: [{}, {}, {}]}}",
            period(5000, 3),
            period(5, 10),
            period(1000, 5)
        );
        let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let want = [(names(&["low", "none", "between"]), 10), (names(&["edge"]), 5), (names(&["high"]), 3)];
        assert_eq!(ended(&config, &pods), want);
    }
}

//! Requests and limits in the kernel's terms. Pure.

use std::collections::HashMap;

use cri_api::v1;

use crate::pod::{Container, Pod, QosClass, amount};

const PERIOD: i64 = 100_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const MIN_QUOTA: i64 = 1000;

/// CPU shares for an amount in thousandths of a core.
pub fn shares(milli: i128) -> i64 {
    i64::try_from(milli * 1024 / 1000).unwrap_or(MAX_SHARES).clamp(MIN_SHARES, MAX_SHARES)
}

/// CPU time per period for a limit in thousandths of a core; zero means no limit.
pub fn quota(milli: i128) -> i64 {
    if milli <= 0 { 0 } else { i64::try_from(milli * i128::from(PERIOD) / 1000).unwrap_or(0).max(MIN_QUOTA) }
}

/// How readily the kernel kills a container when memory runs out.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory: i128) -> i64 {
    match pod.qos() {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = amount(&container.resources.requests, "memory") / 1000;
            let share = if node_memory > 0 { 1000 * request / node_memory } else { 0 };
            // Stays above guaranteed containers and below best-effort ones.
            i64::try_from(1000 - share).unwrap_or(999).clamp(3, 999)
        }
    }
}

/// The container's resources.
pub fn resources(pod: &Pod, container: &Container, node_memory: i128, cgroup2: bool) -> v1::LinuxContainerResources {
    let r = &container.resources;
    let cpu_limit = amount(&r.limits, "cpu");
    let cpu_request = match amount(&r.requests, "cpu") {
        0 if !r.requests.contains_key("cpu") => cpu_limit,
        request => request,
    };
    let memory = i64::try_from(amount(&r.limits, "memory") / 1000).unwrap_or(0);
    let mut unified = HashMap::new();
    if cgroup2 {
        // A container whose main process died of memory pressure must not limp on with its other processes.
        unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    v1::LinuxContainerResources {
        cpu_period: PERIOD,
        cpu_quota: quota(cpu_limit),
        cpu_shares: shares(cpu_request),
        memory_limit_in_bytes: memory,
        oom_score_adj: oom_score_adj(pod, container, node_memory),
        unified,
        ..Default::default()
    }
}

/// What a pod's own cgroup is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodLimits {
    /// CPU shares.
    pub shares: i64,
    /// CPU time per 100 ms, if every container is limited.
    pub quota: Option<i64>,
    /// Bytes, if every container is limited.
    pub memory: Option<i64>,
}

/// The sum over the containers that run together.
pub fn pod_limits(pod: &Pod) -> PodLimits {
    let running = || pod.spec.containers.iter().chain(pod.spec.init_containers.iter().filter(|c| c.is_sidecar()));
    let sum = |get: &dyn Fn(&Container) -> i128| -> i128 { running().map(get).sum() };
    let all = |resource: &str| {
        let limits: Vec<i128> = running().map(|c| amount(&c.resources.limits, resource)).collect();
        let init = pod.spec.init_containers.iter().map(|c| amount(&c.resources.limits, resource)).max().unwrap_or(0);
        let unlimited_init = pod.spec.init_containers.iter().any(|c| amount(&c.resources.limits, resource) == 0);
        (!unlimited_init && limits.iter().all(|l| *l > 0)).then(|| limits.iter().sum::<i128>().max(init))
    };
    PodLimits {
        shares: shares(sum(&|c| amount(&c.resources.requests, "cpu"))),
        quota: all("cpu").map(quota),
        memory: all("memory").and_then(|m| i64::try_from(m / 1000).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: serde_json::Value) -> Pod {
        Pod::from_value(&json!({"spec": {"containers": containers}})).unwrap()
    }

    #[test]
    fn cpu_becomes_shares_and_quota() {
        assert_eq!((shares(0), shares(1000), shares(250)), (2, 1024, 256));
        assert_eq!((quota(0), quota(500), quota(1)), (0, 50_000, 1000));
        let pod = pod(json!([{"resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}}]));
        let r = resources(&pod, &pod.spec.containers[0], 1 << 30, true);
        assert_eq!((r.cpu_shares, r.cpu_quota, r.memory_limit_in_bytes), (512, 50_000, 64 << 20));
    }

    #[test]
    fn oom_scores_order_the_classes() {
        let score = |resources: serde_json::Value| {
            let pod = pod(json!([{"resources": resources}]));
            oom_score_adj(&pod, &pod.spec.containers[0], 4 << 30)
        };
        assert_eq!(score(json!({})), 1000);
        assert_eq!(score(json!({"requests": {"memory": "1Gi"}})), 750);
        assert_eq!(score(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), -997);
    }

    #[test]
    fn a_pod_is_limited_only_if_all_its_containers_are() {
        let some = json!([{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}, {"resources": {"requests": {"cpu": "100m"}}}]);
        assert_eq!(pod_limits(&pod(some)), PodLimits { shares: 102, quota: None, memory: None });
        let all = json!([{"resources": {"limits": {"memory": "1Gi"}}}, {"resources": {"limits": {"memory": "1Gi"}}}]);
        assert_eq!(pod_limits(&pod(all)).memory, Some(2 << 30));
    }
}

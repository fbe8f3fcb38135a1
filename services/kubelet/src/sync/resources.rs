//! Requests and limits in the kernel's terms. Pure.

use std::collections::HashMap;

use cri_api::v1;

use crate::observed::{Amounts, Instance};
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
    let requests = |c: &Container| amount(&c.resources.requests, "memory") / 1000;
    match pod.qos() {
        _ if pod.is_node_critical() => -997,
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let mut request = requests(container);
            if container.is_sidecar() {
                // A sidecar does not go before the containers that it serves (KEP-753).
                request = request.max(pod.spec.containers.iter().map(requests).min().unwrap_or(0));
            }
            request += unclaimed_memory(pod);
            let share = if node_memory > 0 { 1000 * request / node_memory } else { 0 };
            // Stays above guaranteed containers and below best-effort ones.
            i64::try_from(1000 - share).unwrap_or(999).clamp(3, 999)
        }
    }
}

/// What a pod as a whole asks for beyond its containers, by container, in bytes (KEP-2837).
fn unclaimed_memory(pod: &Pod) -> i128 {
    let whole = pod.spec.resources.as_ref().map_or(0, |r| amount(&r.requests, "memory"));
    let claimed = crate::admission::request_of_containers(pod, "memory");
    let containers = i128::try_from(pod.all_containers().count()).unwrap_or(1).max(1);
    (whole - claimed).max(0) / 1000 / containers
}

/// A container's limit: its own, or what the pod as a whole may have (KEP-2837).
pub fn limit(pod: &Pod, container: &Container, resource: &str) -> i128 {
    match amount(&container.resources.limits, resource) {
        0 => pod.spec.resources.as_ref().map_or(0, |r| amount(&r.limits, resource)),
        own => own,
    }
}

/// What of the node a container's resources depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Bytes of memory.
    pub memory: i128,
    /// Whether only cgroup v2 is mounted.
    pub cgroup2: bool,
    /// Whether a process that runs out of memory dies alone (`singleProcessOOMKill`).
    pub single_process_oom: bool,
    /// Whether CPU limits are enforced (`cpuCFSQuota`).
    pub cpu_quota: bool,
    /// Whether burstable containers may swap (`memorySwap.swapBehavior: LimitedSwap`), and the node's bytes of swap.
    pub swap: Option<i128>,
}

/// A container's amounts.
pub fn amounts(pod: &Pod, container: &Container, node: &NodeFacts) -> Amounts {
    let r = &container.resources;
    let cpu_limit = limit(pod, container, "cpu");
    let cpu_request = match amount(&r.requests, "cpu") {
        0 if !r.requests.contains_key("cpu") => cpu_limit,
        request => request,
    };
    Amounts {
        shares: shares(cpu_request),
        quota: if node.cpu_quota { quota(cpu_limit) } else { 0 },
        memory: i64::try_from(limit(pod, container, "memory") / 1000).unwrap_or(0),
    }
}

/// Which resources a running container has in another amount than its specification says. A node that enforces no CPU
/// limits never sees those change.
pub fn changed(pod: &Pod, container: &Container, instance: &Instance) -> Vec<&'static str> {
    let Some(has) = instance.resources else { return Vec::new() };
    let wants = amounts(pod, container, &NodeFacts { cpu_quota: true, ..NodeFacts::default() });
    let mut changed = Vec::new();
    if has.shares != wants.shares || (has.quota != wants.quota && has.quota != 0 && wants.quota != 0) {
        changed.push("cpu");
    }
    if has.memory != wants.memory {
        changed.push("memory");
    }
    changed
}

/// The container's resources.
pub fn resources(pod: &Pod, container: &Container, node: &NodeFacts) -> v1::LinuxContainerResources {
    let amounts = amounts(pod, container, node);
    let mut unified = HashMap::new();
    if node.cgroup2 && !node.single_process_oom {
        // A container whose main process died of memory pressure must not limp on with its other processes.
        unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    if node.cgroup2 {
        unified.insert("memory.swap.max".to_owned(), swap_limit(pod, container, node).to_string());
    }
    v1::LinuxContainerResources {
        cpu_period: PERIOD,
        cpu_quota: amounts.quota,
        cpu_shares: amounts.shares,
        memory_limit_in_bytes: amounts.memory,
        oom_score_adj: oom_score_adj(pod, container, node.memory),
        hugepage_limits: huge_pages(container),
        unified,
        ..Default::default()
    }
}

/// Swap in proportion to the memory request, for burstable containers that leave room above it (KEP-2400).
fn swap_limit(pod: &Pod, container: &Container, node: &NodeFacts) -> i128 {
    let Some(swap) = node.swap else { return 0 };
    let request = amount(&container.resources.requests, "memory") / 1000;
    let limit = amount(&container.resources.limits, "memory") / 1000;
    let eligible = pod.qos() == QosClass::Burstable && !pod.is_critical() && request > 0 && request != limit;
    if eligible && node.memory > 0 { request * swap / node.memory } else { 0 }
}

/// Limits of huge pages in the kernel's spelling of sizes: `2MB`, `1GB`.
fn huge_pages(container: &Container) -> Vec<v1::HugepageLimit> {
    let limits = container.resources.limits.keys().filter_map(|key| Some((key, key.strip_prefix("hugepages-")?)));
    limits
        .map(|(key, size)| v1::HugepageLimit {
            page_size: size.replace('i', "B"),
            limit: u64::try_from(amount(&container.resources.limits, key) / 1000).unwrap_or(0),
        })
        .collect()
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
    let all = |resource: &str| {
        let whole = pod.spec.resources.as_ref().map_or(0, |r| amount(&r.limits, resource));
        let unlimited = pod.all_containers().any(|c| amount(&c.resources.limits, resource) == 0);
        (whole > 0 || !unlimited).then(|| crate::admission::limit(pod, resource))
    };
    PodLimits {
        shares: shares(crate::admission::request(pod, "cpu")),
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
        let node = NodeFacts { memory: 1 << 30, cgroup2: true, cpu_quota: true, ..NodeFacts::default() };
        let r = resources(&pod, &pod.spec.containers[0], &node);
        assert_eq!((r.cpu_shares, r.cpu_quota, r.memory_limit_in_bytes), (512, 50_000, 64 << 20));
    }

    #[test]
    fn swap_is_shared_in_proportion_to_requests() {
        let node = NodeFacts { memory: 8 << 30, cgroup2: true, swap: Some(4 << 30), ..NodeFacts::default() };
        let limit = |resources: serde_json::Value| {
            let pod = pod(json!([{"resources": resources}]));
            resources_of(&pod, &node).unified["memory.swap.max"].clone()
        };
        assert_eq!(limit(json!({"requests": {"memory": "2Gi"}})), (1i64 << 30).to_string());
        assert_eq!(limit(json!({})), "0");
        assert_eq!(
            limit(json!({"limits": {"cpu": "1", "memory": "2Gi"}, "requests": {"cpu": "1", "memory": "2Gi"}})),
            "0"
        );
    }

    fn resources_of(pod: &Pod, node: &NodeFacts) -> v1::LinuxContainerResources {
        resources(pod, &pod.spec.containers[0], node)
    }

    #[test]
    fn huge_pages_are_limited_by_size() {
        let pod = pod(json!([{"resources": {"limits": {"hugepages-2Mi": "4Mi", "hugepages-1Gi": "2Gi"}}}]));
        let limits = resources_of(&pod, &NodeFacts::default()).hugepage_limits;
        let found: Vec<(&str, u64)> = limits.iter().map(|l| (l.page_size.as_str(), l.limit)).collect();
        assert_eq!(found, [("1GB", 2 << 30), ("2MB", 4 << 20)]);
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
    fn a_sidecar_goes_no_sooner_than_what_it_serves_and_a_critical_pod_last() {
        let score = |spec: serde_json::Value, name: &str| {
            let pod = Pod::from_value(&json!({"spec": spec})).unwrap();
            oom_score_adj(&pod, pod.container(name).unwrap(), 4 << 30)
        };
        let memory = |amount: &str| json!({"requests": {"memory": amount}});
        let spec = json!({
            "initContainers": [{"name": "side", "restartPolicy": "Always", "resources": memory("1Mi")}, {"name": "first"}],
            "containers": [{"name": "a", "resources": memory("1Gi")}, {"name": "b", "resources": memory("2Gi")}],
        });
        assert_eq!(["side", "first", "a", "b"].map(|name| score(spec.clone(), name)), [750, 999, 750, 500]);
        let whole = json!({"resources": memory("3Gi"), "containers": [{"name": "a", "resources": memory("1Gi")}, {"name": "b"}]});
        assert_eq!(["a", "b"].map(|name| score(whole.clone(), name)), [500, 750]);
        let critical = json!({"priority": 2_000_001_000, "priorityClassName": "system-node-critical", "containers": [{"name": "a"}]});
        assert_eq!(score(critical, "a"), -997);
    }

    #[test]
    fn what_the_pod_may_have_limits_containers_without_limits() {
        let pod = Pod::from_value(&json!({"spec": {
            "resources": {"limits": {"cpu": "1", "memory": "64Mi"}},
            "containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "500m"}}}],
        }}))
        .unwrap();
        let node = NodeFacts { cpu_quota: true, ..NodeFacts::default() };
        let of = |name: &str| amounts(&pod, pod.container(name).unwrap(), &node);
        assert_eq!(of("a"), Amounts { shares: 1024, quota: 100_000, memory: 64 << 20 });
        assert_eq!(of("b"), Amounts { shares: 512, quota: 50_000, memory: 64 << 20 });
    }

    #[test]
    fn a_pod_is_limited_only_if_all_its_containers_are() {
        let some = json!([{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}, {"resources": {"requests": {"cpu": "100m"}}}]);
        assert_eq!(pod_limits(&pod(some)), PodLimits { shares: 102, quota: None, memory: None });
        let all = json!([{"resources": {"limits": {"memory": "1Gi"}}}, {"resources": {"limits": {"memory": "1Gi"}}}]);
        assert_eq!(pod_limits(&pod(all)).memory, Some(2 << 30));
    }
}

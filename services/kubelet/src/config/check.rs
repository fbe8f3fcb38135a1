//! What values the fields may have. Pure; the text of a refusal begins with the field's path.

use std::time::Duration;

use apimachinery::quantity::Quantity;

use super::KubeletConfiguration;
use crate::allocation::cpus::set::CpuSet;
use crate::eviction::thresholds;
use crate::pod::Map;

/// What is left of the time that init gives a service, with room to tell the API server.
const SHUTDOWN_MAX: Duration = Duration::from_secs(25);

/// Refuses what cannot be kept.
///
/// # Errors
/// The field and what is wrong with it.
pub fn check(config: &KubeletConfiguration) -> Result<(), String> {
    only("cgroupDriver", &config.cgroup_driver, &["cgroupfs"])?;
    only("authorization.mode", &config.authorization.mode, &["", "Webhook"])?;
    only("memorySwap.swapBehavior", &config.memory_swap.swap_behavior, &["", "NoSwap", "LimitedSwap"])?;
    cpu_manager(config)?;
    memory_manager(config)?;
    let policies = ["", "none", "best-effort", "restricted", "single-numa-node"];
    only("topologyManagerPolicy", &config.topology_manager_policy, &policies)?;
    only("topologyManagerScope", &config.topology_manager_scope, &["", "container", "pod"])?;
    topology_options(config)?;
    if config.read_only_port != 0 {
        return Err("readOnlyPort: an unauthenticated port is not supported, only 0".into());
    }
    let restart = config.crash_loop_back_off.max_container_restart_period.map(|p| p.0);
    if restart.is_some_and(|p| p < Duration::from_secs(1) || p > Duration::from_secs(300)) {
        return Err("crashLoopBackOff.maxContainerRestartPeriod: must be between 1s and 300s".into());
    }
    for (index, value) in config.enforce_node_allocatable.iter().enumerate() {
        only(&format!("enforceNodeAllocatable[{index}]"), value, &["pods", "none"])?;
    }
    reservation("systemReserved", &config.system_reserved)?;
    reservation("kubeReserved", &config.kube_reserved)?;
    images(config)?;
    thresholds::parse(config).map(drop)?;
    shutdown(config)?;
    if config.max_parallel_image_pulls.is_some_and(|n| n > 1) && config.serialize_image_pulls {
        return Err("maxParallelImagePulls: must not be larger than 1 unless serializeImagePulls is false".into());
    }
    if config.container_log_max_files < 2 {
        return Err("containerLogMaxFiles: must be at least 2".into());
    }
    match Quantity::parse(&config.container_log_max_size) {
        Ok(size) if size.value() > 0 => Ok(()),
        _ => Err(format!("containerLogMaxSize: {:?} is not a size", config.container_log_max_size)),
    }
}

fn shutdown(config: &KubeletConfiguration) -> Result<(), String> {
    let most = SHUTDOWN_MAX.as_secs();
    let by_priority = &config.options.shutdown_grace_period_by_pod_priority;
    if config.shutdown_grace_period.0 > SHUTDOWN_MAX {
        return Err(format!("shutdownGracePeriod: at most {most}s: init ends a service after 30s"));
    }
    if config.shutdown_grace_period_critical_pods > config.shutdown_grace_period {
        return Err("shutdownGracePeriodCriticalPods: must not be longer than shutdownGracePeriod".into());
    }
    if !by_priority.is_empty() && !config.shutdown_grace_period.is_zero() {
        return Err("shutdownGracePeriodByPodPriority: cannot be set together with shutdownGracePeriod".into());
    }
    let together = by_priority.iter().fold(0_u64, |sum, p| sum.saturating_add(p.shutdown_grace_period_seconds));
    if together > most {
        return Err(format!(
            "shutdownGracePeriodByPodPriority: at most {most}s together: init ends a service after 30s"
        ));
    }
    Ok(())
}

const CPU_OPTIONS: &[&str] = &[
    "full-pcpus-only",
    "distribute-cpus-across-numa",
    "align-by-socket",
    "strict-cpu-reservation",
    "prefer-align-cpus-by-uncorecache",
];

fn cpu_manager(config: &KubeletConfiguration) -> Result<(), String> {
    only("cpuManagerPolicy", &config.cpu_manager_policy, &["", "none", "static"])?;
    CpuSet::parse(&config.reserved_system_cpus).map_err(|e| format!("reservedSystemCPUs: {e}"))?;
    let options = &config.options.cpu_manager_policy_options;
    let is_static = config.cpu_manager_policy == "static";
    for (name, value) in options {
        let field = format!("cpuManagerPolicyOptions[{name}]");
        if !CPU_OPTIONS.contains(&name.as_str()) {
            return Err(format!("{field}: unknown option, only {}", CPU_OPTIONS.join(", ")));
        }
        only(&field, value, &["true", "false"])?;
        if !is_static {
            return Err(format!("{field}: only with cpuManagerPolicy static"));
        }
    }
    let is = |name: &str| options.get(name).is_some_and(|v| v == "true");
    if is("prefer-align-cpus-by-uncorecache") && is("distribute-cpus-across-numa") {
        return Err("cpuManagerPolicyOptions: prefer-align-cpus-by-uncorecache and distribute-cpus-across-numa exclude each other".into());
    }
    if is("align-by-socket") && config.topology_manager_policy == "single-numa-node" {
        return Err("cpuManagerPolicyOptions[align-by-socket]: not with topologyManagerPolicy single-numa-node".into());
    }
    if is_static && config.reserved_system_cpus.is_empty() && config.reserved("cpu") <= 0 {
        return Err(
            "cpuManagerPolicy: static needs reservedSystemCPUs, or cpu in systemReserved or kubeReserved".into()
        );
    }
    Ok(())
}

/// Whether the amounts fit the machine is known only there.
fn memory_manager(config: &KubeletConfiguration) -> Result<(), String> {
    only("memoryManagerPolicy", &config.memory_manager_policy, &["", "None", "Static"])?;
    for (index, entry) in config.options.reserved_memory.iter().enumerate() {
        for (kind, text) in &entry.limits {
            let field = format!("reservedMemory[{index}].limits.{kind}");
            if kind != "memory" && !kind.starts_with("hugepages-") {
                return Err(format!("{field}: only memory and hugepages-<size> can be reserved"));
            }
            if !Quantity::parse(text).is_ok_and(|q| q.value() > 0) {
                return Err(format!("{field}: {text:?} is not an amount above zero"));
            }
        }
    }
    if config.memory_manager_policy == "Static" && config.options.reserved_memory.is_empty() {
        return Err("reservedMemory: memoryManagerPolicy Static needs it".into());
    }
    Ok(())
}

fn topology_options(config: &KubeletConfiguration) -> Result<(), String> {
    for (name, value) in &config.options.topology_manager_policy_options {
        let field = format!("topologyManagerPolicyOptions[{name}]");
        match name.as_str() {
            "prefer-closest-numa-nodes" => only(&field, value, &["true", "false"])?,
            "max-allowable-numa-nodes" => {
                let least = crate::allocation::NUMA_NODES_MAX;
                if value.parse::<u32>().map_or(true, |n| n < least || n > 16) {
                    return Err(format!("{field}: {value:?} is not a number from {least} to 16"));
                }
            }
            _ => return Err(format!("{field}: unknown option")),
        }
    }
    Ok(())
}

fn only(field: &str, value: &str, allowed: &[&str]) -> Result<(), String> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let known: Vec<String> = allowed.iter().filter(|a| !a.is_empty()).map(|a| format!("{a:?}")).collect();
    let known = if known.is_empty() { "no value".to_owned() } else { known.join(", ") };
    Err(format!("{field}: {value:?} is not supported, only {known}"))
}

fn reservation(field: &str, amounts: &Map) -> Result<(), String> {
    for (resource, text) in amounts {
        if !matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage" | "pid") {
            return Err(format!("{field}.{resource}: only cpu, memory, ephemeral-storage and pid can be reserved"));
        }
        Quantity::parse(text).map_err(|_| format!("{field}.{resource}: {text:?} is not a quantity"))?;
    }
    Ok(())
}

fn images(config: &KubeletConfiguration) -> Result<(), String> {
    let percent = [
        ("imageGCHighThresholdPercent", config.image_gc_high_threshold_percent),
        ("imageGCLowThresholdPercent", config.image_gc_low_threshold_percent),
    ];
    for (field, value) in percent {
        if !(0..=100).contains(&value) {
            return Err(format!("{field}: {value} is not a percentage"));
        }
    }
    if config.image_gc_low_threshold_percent >= config.image_gc_high_threshold_percent {
        return Err("imageGCLowThresholdPercent: must be below imageGCHighThresholdPercent".into());
    }
    Ok(())
}

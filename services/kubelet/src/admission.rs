//! Whether a pod that is bound to this node can really run here, decided once before anything of it is made. Pure.
//!
//! The scheduler decided the same from what it knew; pods with a preset node and pods of the node itself meet these rules
//! only here. Reasons and messages are upstream's: users and controllers know them.

use std::collections::BTreeSet;

use crate::node_status::machine::Pressure;
use crate::pod::{Container, Map, NodeSelectorTerm, Pod, QosClass, Requirement, Resources, Toleration, amount};
use crate::status::compute::Failure;

/// What the rules look at beside the pod.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// The node's name.
    pub name: String,
    /// Its labels.
    pub labels: Map,
    /// Taints as key, value and effect.
    pub taints: Vec<(String, String, String)>,
    /// What pods may use.
    pub allocatable: Map,
    /// Sysctls beyond the safe ones, `*` at the end for all below.
    pub unsafe_sysctls: Vec<String>,
    /// Whether the kernel has AppArmor.
    pub apparmor: bool,
    /// What runs short.
    pub pressure: Pressure,
    /// Whether the machine is being switched off.
    pub shutting_down: bool,
}

/// Sysctls that have effect in the pod alone.
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Judges `pod` beside the `others` that are on the node.
///
/// # Errors
/// Why the pod fails.
pub fn admit(pod: &Pod, others: &[&Pod], node: &Node) -> Result<(), Failure> {
    pressure(pod, node)?;
    sysctls(pod, node)?;
    resources(pod, others, node)?;
    selectors(pod, node)?;
    ports(pod, others)?;
    taints(pod, node)?;
    apparmor(pod, node)?;
    if node.shutting_down {
        return Err(rejected("NodeShutdown", "Pod was rejected as the node is shutting down."));
    }
    Ok(())
}

fn rejected(reason: impl Into<String>, message: impl std::fmt::Display) -> Failure {
    Failure { reason: reason.into(), message: format!("Pod was rejected: {message}"), disruption: false }
}

/// A node that runs short takes critical pods; with memory alone short, also those that asked for some or put up with it.
fn pressure(pod: &Pod, node: &Node) -> Result<(), Failure> {
    let low = node.pressure;
    if pod.is_critical() || !(low.memory || low.disk || low.pid) {
        return Ok(());
    }
    let patient = || {
        let taint = "node.kubernetes.io/memory-pressure";
        pod.spec.tolerations.iter().any(|t| tolerates(t, taint, "", "NoSchedule"))
    };
    if !low.disk && !low.pid && (pod.qos() != QosClass::BestEffort || patient()) {
        return Ok(());
    }
    let names = [(low.memory, "MemoryPressure"), (low.disk, "DiskPressure"), (low.pid, "PIDPressure")];
    let names: Vec<&str> = names.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
    Err(rejected("Evicted", format_args!("The node had condition: [{}]. ", names.join(" "))))
}

fn predicate(name: &str, description: &str) -> Failure {
    rejected(name, format_args!("Predicate {name} failed: {description}"))
}

// ---- sysctls --------------------------------------------------------------------------------------------------------

fn sysctls(pod: &Pod, node: &Node) -> Result<(), Failure> {
    for sysctl in &pod.spec.security_context.sysctls {
        let name = sysctl.name.replace('/', ".");
        let shared_with_host =
            (pod.spec.host_network && name.starts_with("net."))
                .then_some("net")
                .or((pod.spec.host_ipc && is_ipc(&name)).then_some("ipc"));
        if let Some(what) = shared_with_host {
            let message = format!("forbidden sysctl: {name:?} not allowed with host {what} enabled");
            return Err(rejected("SysctlForbidden", message));
        }
        let allowed = node.unsafe_sysctls.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *pattern,
        });
        if !allowed && !SAFE_SYSCTLS.contains(&name.as_str()) {
            return Err(rejected("SysctlForbidden", format_args!("forbidden sysctl: {name:?} not allowlisted")));
        }
    }
    Ok(())
}

fn is_ipc(name: &str) -> bool {
    name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix))
}

// ---- resources ------------------------------------------------------------------------------------------------------

/// What a pod takes of a resource, in thousandths: the larger of what runs together and what each init container needs
/// beside the sidecars before it, plus the runtime's overhead (KEP-753). Amounts of the pod as a whole come first.
pub fn request(pod: &Pod, resource: &str) -> i128 {
    total(pod, resource, &|r, name| amount(&r.requests, name)) + amount(&pod.spec.overhead, resource)
}

/// As [`request`], of limits.
pub fn limit(pod: &Pod, resource: &str) -> i128 {
    total(pod, resource, &|r, name| amount(&r.limits, name)) + amount(&pod.spec.overhead, resource)
}

fn total(pod: &Pod, resource: &str, of: &dyn Fn(&Resources, &str) -> i128) -> i128 {
    if let Some(whole) = pod.spec.resources.as_ref()
        && (whole.requests.contains_key(resource) || whole.limits.contains_key(resource))
    {
        return of(whole, resource);
    }
    of_containers(pod, resource, of)
}

/// What the containers together ask for, whatever the pod as a whole does.
pub fn request_of_containers(pod: &Pod, resource: &str) -> i128 {
    of_containers(pod, resource, &|r, name| amount(&r.requests, name))
}

fn of_containers(pod: &Pod, resource: &str, of: &dyn Fn(&Resources, &str) -> i128) -> i128 {
    let of = |c: &Container| of(&c.resources, resource);
    let (mut sidecars, mut peak) = (0, 0);
    for container in &pod.spec.init_containers {
        if container.is_sidecar() {
            sidecars += of(container);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + of(container));
        }
    }
    peak.max(sidecars + pod.spec.containers.iter().map(of).sum::<i128>())
}

/// Every resource that a pod asks for.
fn requested(pod: &Pod) -> BTreeSet<&str> {
    let whole = pod.spec.resources.iter();
    whole
        .chain(pod.all_containers().map(|c| &c.resources))
        .flat_map(|r| r.requests.keys())
        .map(String::as_str)
        .collect()
}

/// Whether the node has what the pod asks for beside the others.
///
/// # Errors
/// What it lacks.
pub fn resources(pod: &Pod, others: &[&Pod], node: &Node) -> Result<(), Failure> {
    let lacks = |resource: &str, requested: i128, used: i128, capacity: i128| {
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Err(rejected(format!("OutOf{resource}"), message))
    };
    let pods = amount(&node.allocatable, "pods") / 1000;
    let count = i128::try_from(others.len()).unwrap_or(i128::MAX);
    if count + 1 > pods {
        return lacks("pods", 1, count, pods);
    }
    for resource in requested(pod) {
        // What nobody on the node offers was the scheduler's business: device plugins may come later.
        if !node.allocatable.contains_key(resource) {
            continue;
        }
        let wanted = request(pod, resource);
        let used: i128 = others.iter().map(|p| request(p, resource)).sum();
        let capacity = amount(&node.allocatable, resource);
        // Upstream counts CPU in thousandths and everything else in units.
        let unit = if resource == "cpu" { 1 } else { 1000 };
        if wanted > 0 && used + wanted > capacity {
            return lacks(resource, wanted / unit, used / unit, capacity / unit);
        }
    }
    Ok(())
}

// ---- selectors, ports, taints ---------------------------------------------------------------------------------------

fn selectors(pod: &Pod, node: &Node) -> Result<(), Failure> {
    let simple = pod.spec.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let required = pod.spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution.as_ref();
    let terms = required.is_none_or(|r| r.node_selector_terms.iter().any(|term| term_matches(term, node)));
    if simple && terms {
        Ok(())
    } else {
        Err(predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"))
    }
}

/// A term without requirements matches nothing.
pub fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let label = |r: &Requirement| holds(r, node.labels.get(&r.key).map(String::as_str));
    let field = |r: &Requirement| r.key == "metadata.name" && holds(r, Some(&node.name));
    !(term.match_expressions.is_empty() && term.match_fields.is_empty())
        && term.match_expressions.iter().all(label)
        && term.match_fields.iter().all(field)
}

/// Whether a label's value meets a requirement.
pub fn holds(requirement: &Requirement, value: Option<&str>) -> bool {
    let listed = value.is_some_and(|v| requirement.values.iter().any(|w| w == v));
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = requirement.values.first().and_then(|text| number(text));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value.and_then(number).zip(bound).is_some_and(|(v, b)| v > b),
        "Lt" => value.and_then(number).zip(bound).is_some_and(|(v, b)| v < b),
        _ => false,
    }
}

/// Ports of the node that a pod takes: address, protocol, number.
fn host_ports(pod: &Pod) -> impl Iterator<Item = (&str, &str, i32)> + '_ {
    // With the host's network a port is the host's; the API server writes that down, a static pod's file need not.
    let number =
        |p: &crate::pod::Port| if p.host_port == 0 && pod.spec.host_network { p.container_port } else { p.host_port };
    let ports = pod.lasting_containers().flat_map(|c| &c.ports).map(move |p| (p, number(p)));
    ports.filter(|(_, number)| *number > 0).map(|(p, number)| {
        let ip = if p.host_ip.is_empty() { "0.0.0.0" } else { p.host_ip.as_str() };
        (ip, if p.protocol.is_empty() { "TCP" } else { p.protocol.as_str() }, number)
    })
}

fn ports(pod: &Pod, others: &[&Pod]) -> Result<(), Failure> {
    for (ip, protocol, port) in host_ports(pod) {
        let clash = others.iter().flat_map(|p| host_ports(p)).any(|(other, kind, number)| {
            number == port && kind == protocol && (other == ip || other == "0.0.0.0" || ip == "0.0.0.0")
        });
        if clash {
            return Err(predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports"));
        }
    }
    Ok(())
}

/// Only taints that would end the pod at once count here; static pods run whatever the taints.
fn taints(pod: &Pod, node: &Node) -> Result<(), Failure> {
    let refused = |(key, value, effect): &(String, String, String)| {
        effect == "NoExecute" && !pod.spec.tolerations.iter().any(|t| tolerates(t, key, value, effect))
    };
    if !pod.is_static() && node.taints.iter().any(refused) {
        return Err(predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate"));
    }
    Ok(())
}

fn tolerates(toleration: &Toleration, key: &str, value: &str, effect: &str) -> bool {
    (toleration.effect.is_empty() || toleration.effect == effect)
        && (toleration.key.is_empty() || toleration.key == key)
        && match toleration.operator.as_str() {
            "Exists" => true,
            "" | "Equal" => !toleration.key.is_empty() && toleration.value == value,
            _ => false,
        }
}

fn apparmor(pod: &Pod, node: &Node) -> Result<(), Failure> {
    let wants = |profile: &Option<crate::pod::SeccompProfile>| profile.as_ref().is_some_and(|p| p.kind != "Unconfined");
    let any = wants(&pod.spec.security_context.app_armor_profile)
        || pod.every_container().any(|c| wants(&c.security_context.app_armor_profile));
    if any && !node.apparmor {
        let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        return Err(Failure { reason: "AppArmor".into(), message: message.into(), disruption: false });
    }
    Ok(())
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;

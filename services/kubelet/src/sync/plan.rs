//! What has to happen for a pod, decided from its specification and what the runtime has. Pure.

use std::collections::{HashMap, HashSet};

use crate::observed::{Instance, Observed, State};
use crate::pod::{Container, Pod, RestartPolicy};
use crate::sync::resources;

/// Which probe condemned a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedProbe {
    /// The liveness probe.
    Liveness,
    /// The startup probe.
    Startup,
}

/// What the probes say, by container id.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Containers whose startup is complete.
    pub started: HashSet<String>,
    /// Containers whose readiness probe succeeds, or that have none.
    pub ready: HashSet<String>,
    /// Containers that must be restarted.
    pub failed: HashMap<String, FailedProbe>,
}

/// Why a running container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// A probe failed.
    Probe(FailedProbe),
    /// Its specification changed.
    Changed,
    /// The runtime lost track of it.
    Unknown,
    /// Its sandbox is gone or the pod is over.
    Sandbox,
    /// It wants other resources and asks to be restarted for them.
    Resize,
}

impl KillReason {
    /// Whether the container did something wrong, rather than its specification being another.
    fn is_failure(self) -> bool {
        !matches!(self, KillReason::Changed | KillReason::Resize)
    }
}

/// A container to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Runtime id.
    pub id: String,
    /// Container name.
    pub name: String,
    /// Why.
    pub reason: KillReason,
}

/// A container to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Container name.
    pub name: String,
    /// Restarts before this instance.
    pub attempt: u32,
    /// When the instance before ended, in nanoseconds: the base of the restart back-off.
    pub ended_at: Option<i64>,
    /// The container whose processes an ephemeral one joins, by runtime id.
    pub target: Option<String>,
}

/// What to do now, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Containers to stop.
    pub kill: Vec<Kill>,
    /// Running containers that get other resources, by runtime id.
    pub resize: Vec<String>,
    /// Stop the old sandbox and make one with this attempt number.
    pub new_sandbox: Option<u32>,
    /// Container records to remove.
    pub remove: Vec<String>,
    /// Sandboxes to remove.
    pub remove_sandboxes: Vec<String>,
    /// Containers to start, in order.
    pub start: Vec<Start>,
    /// All init containers are done.
    pub initialized: bool,
}

/// The hash that marks what a container was made from. Only what may change while a pod runs takes part.
pub fn spec_hash(container: &Container) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(format!("{}\0{}", container.name, container.image));
    digest.iter().take(4).map(|b| format!("{b:02x}")).collect()
}

/// Decides.
pub fn plan(pod: &Pod, observed: &Observed, health: &Health) -> Plan {
    let mut plan = Plan::default();
    // With the host's network a sandbox has no address of its own.
    let usable = observed.ready_sandbox().filter(|s| pod.spec.host_network || !s.ips.is_empty());
    let sandbox_id = usable.map(|s| s.id.clone());
    let current = |name: &str| -> Option<&Instance> {
        observed.latest(name).filter(|c| Some(&c.sandbox_id) == sandbox_id.as_ref())
    };
    for container in &pod.spec.ephemeral_containers {
        // Started once, never again, whatever becomes of it or its sandbox.
        if observed.latest(&container.name).is_none() && !is_published(pod, &container.name) && usable.is_some() {
            start(pod, container, observed, &mut plan);
        }
    }
    plan_init(pod, observed, health, &current, &mut plan);
    if plan.initialized {
        for container in &pod.spec.containers {
            plan_main(pod, container, observed, health, &current, &mut plan);
        }
    }
    if usable.is_none() {
        // A pod that must not restart ends with its sandbox.
        let ran = pod.spec.containers.iter().any(|c| observed.latest(&c.name).is_some());
        if ran && pod.spec.restart_policy == RestartPolicy::Never {
            plan.start.clear();
        }
        // Containers cannot outlive their sandbox; what is still listed as running there is stopped first.
        plan.kill = observed
            .containers
            .iter()
            .filter(|c| matches!(c.state, State::Running | State::Unknown))
            .map(|c| Kill { id: c.id.clone(), name: c.name.clone(), reason: KillReason::Sandbox })
            .collect();
        if !plan.start.is_empty() {
            plan.new_sandbox = Some(observed.sandboxes.iter().map(|s| s.attempt + 1).max().unwrap_or(0));
        }
    }
    collect_garbage(pod, observed, sandbox_id.as_deref(), &mut plan);
    plan
}

type Current<'a> = dyn Fn(&str) -> Option<&'a Instance> + 'a;

/// Init containers run one after the other; sidecars among them keep running.
fn plan_init<'a>(pod: &Pod, observed: &'a Observed, health: &Health, current: &Current<'a>, plan: &mut Plan) {
    let began = |name: &str| current(name).is_some();
    let mut blocked = false;
    for (index, container) in pod.spec.init_containers.iter().enumerate() {
        // Once something after it ran, an init container has done its work in this sandbox, whatever record remains.
        let passed = pod.spec.init_containers[index + 1..].iter().any(|c| began(&c.name))
            || pod.spec.containers.iter().any(|c| began(&c.name));
        if container.is_sidecar() {
            if blocked && !passed {
                break;
            }
            let ready_to_go_on = plan_sidecar(pod, container, observed, health, current, plan);
            blocked |= !ready_to_go_on && !passed;
        } else if !passed && !blocked {
            blocked = !plan_one_init(pod, container, observed, health, current, plan);
        }
        if blocked && !passed {
            return;
        }
    }
    plan.initialized = !blocked;
}

/// Returns whether the next container may go on.
fn plan_one_init<'a>(
    pod: &Pod,
    container: &Container,
    observed: &Observed,
    health: &Health,
    current: &Current<'a>,
    plan: &mut Plan,
) -> bool {
    match current(&container.name) {
        None => start(pod, container, observed, plan),
        Some(c) => match c.state {
            State::Running => {
                if let Some(reason) = condemned(container, c, health) {
                    plan.kill.push(Kill { id: c.id.clone(), name: c.name.clone(), reason });
                }
            }
            State::Exited if c.exit_code == 0 => return true,
            State::Created => replace(pod, container, observed, c, plan),
            State::Exited if init_restarts(pod, container, c.exit_code) => start(pod, container, observed, plan),
            State::Exited => {}
            State::Unknown => kill_and_restart(pod, container, observed, c, KillReason::Unknown, plan),
        },
    }
    false
}

fn plan_sidecar<'a>(
    pod: &Pod,
    container: &Container,
    observed: &Observed,
    health: &Health,
    current: &Current<'a>,
    plan: &mut Plan,
) -> bool {
    match current(&container.name) {
        None => start(pod, container, observed, plan),
        Some(c) => match c.state {
            State::Running => match condemned(container, c, health) {
                Some(reason) => kill_and_restart(pod, container, observed, c, reason, plan),
                None => {
                    if resize(pod, container, c, plan).is_some() {
                        kill_and_restart(pod, container, observed, c, KillReason::Resize, plan);
                        return false;
                    }
                    return health.started.contains(&c.id);
                }
            },
            State::Exited => start(pod, container, observed, plan),
            State::Created => replace(pod, container, observed, c, plan),
            State::Unknown => kill_and_restart(pod, container, observed, c, KillReason::Unknown, plan),
        },
    }
    false
}

fn plan_main<'a>(
    pod: &Pod,
    container: &Container,
    observed: &Observed,
    health: &Health,
    current: &Current<'a>,
    plan: &mut Plan,
) {
    match current(&container.name) {
        None => {
            // In a new sandbox, what had ended for good before stays ended.
            let over = observed
                .latest(&container.name)
                .is_some_and(|c| c.state == State::Exited && !restarts(pod, container, c.exit_code));
            if !over {
                start(pod, container, observed, plan);
            }
        }
        Some(c) => match c.state {
            State::Running => {
                let Some(reason) = condemned(container, c, health).or_else(|| resize(pod, container, c, plan)) else {
                    return;
                };
                // A killed process ends with the code of SIGKILL or SIGTERM, which rules may mean.
                if !restarts(pod, container, KILLED) && reason.is_failure() {
                    plan.kill.push(Kill { id: c.id.clone(), name: c.name.clone(), reason });
                } else {
                    kill_and_restart(pod, container, observed, c, reason, plan);
                }
            }
            State::Exited => {
                if restarts(pod, container, c.exit_code) {
                    start(pod, container, observed, plan);
                }
            }
            State::Created => replace(pod, container, observed, c, plan),
            State::Unknown => kill_and_restart(pod, container, observed, c, KillReason::Unknown, plan),
        },
    }
}

/// The exit code of a process that was killed.
const KILLED: i32 = 137;

/// Whether a container that ended with `exit_code` is started again: its rules come first, then its own policy, then the
/// pod's.
pub fn restarts(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    restart_rule(container, exit_code).unwrap_or(match pod.spec.restart_policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => exit_code != 0,
        RestartPolicy::Never => false,
    })
}

/// As [`restarts`] for an init container that failed: what it does is needed, so any policy but Never tries again.
pub fn init_restarts(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    restart_rule(container, exit_code).unwrap_or(pod.spec.restart_policy != RestartPolicy::Never)
}

/// What the container itself says about its restart (KEP-5307), if anything.
fn restart_rule(container: &Container, exit_code: i32) -> Option<bool> {
    let matches = |rule: &crate::pod::RestartRule| {
        rule.exit_codes.as_ref().is_some_and(|codes| match codes.operator.as_str() {
            "In" => codes.values.contains(&exit_code),
            "NotIn" => !codes.values.contains(&exit_code),
            _ => false,
        })
    };
    if container.restart_policy_rules.iter().any(|rule| rule.action == "Restart" && matches(rule)) {
        return Some(true);
    }
    match container.restart_policy.as_deref() {
        Some("Always") => Some(true),
        Some("OnFailure") => Some(exit_code != 0),
        Some("Never") => Some(false),
        _ => None,
    }
}

/// Whether the API server has been told of an instance of the container.
fn is_published(pod: &Pod, name: &str) -> bool {
    let statuses = pod.status["ephemeralContainerStatuses"].as_array().into_iter().flatten();
    statuses.filter(|s| s["name"] == name).any(|s| s["containerID"].as_str().is_some_and(|id| !id.is_empty()))
}

fn condemned(container: &Container, instance: &Instance, health: &Health) -> Option<KillReason> {
    if let Some(probe) = health.failed.get(&instance.id) {
        return Some(KillReason::Probe(*probe));
    }
    (!instance.hash.is_empty() && instance.hash != spec_hash(container)).then_some(KillReason::Changed)
}

/// Notes a container that can get its new resources while it runs; gives the reason to restart one that cannot.
fn resize(pod: &Pod, container: &Container, instance: &Instance, plan: &mut Plan) -> Option<KillReason> {
    let changed = resources::changed(pod, container, instance);
    if changed.is_empty() {
        return None;
    }
    let restart = |resource: &&str| {
        container.resize_policy.iter().any(|p| p.resource_name == **resource && p.restart_policy == "RestartContainer")
    };
    if changed.iter().any(restart) {
        return Some(KillReason::Resize);
    }
    plan.resize.push(instance.id.clone());
    None
}

fn start(pod: &Pod, container: &Container, observed: &Observed, plan: &mut Plan) {
    let ended_at = observed.instances(&container.name).find(|c| c.state == State::Exited).map(|c| c.finished_at);
    let target = observed.latest(&container.target_container_name).filter(|c| c.state == State::Running);
    let (name, attempt) = (container.name.clone(), next_attempt(pod, container, observed));
    plan.start.push(Start { name, attempt, ended_at, target: target.map(|c| c.id.clone()) });
}

/// A record that was made but never started has no process; another takes its place.
fn replace(pod: &Pod, container: &Container, observed: &Observed, instance: &Instance, plan: &mut Plan) {
    plan.remove.push(instance.id.clone());
    start(pod, container, observed, plan);
}

fn kill_and_restart(
    pod: &Pod,
    container: &Container,
    observed: &Observed,
    instance: &Instance,
    reason: KillReason,
    plan: &mut Plan,
) {
    plan.kill.push(Kill { id: instance.id.clone(), name: instance.name.clone(), reason });
    start(pod, container, observed, plan);
}

/// Counts on from the runtime's records, or from the published status when the runtime has lost them.
fn next_attempt(pod: &Pod, container: &Container, observed: &Observed) -> u32 {
    if let Some(last) = observed.instances(&container.name).map(|c| c.restart_count).max() {
        return last + 1;
    }
    let lists = ["containerStatuses", "initContainerStatuses"];
    let statuses = lists.iter().filter_map(|list| pod.status[*list].as_array()).flatten();
    for status in statuses.filter(|s| s["name"] == container.name.as_str()) {
        if status["containerID"].as_str().is_some_and(|id| !id.is_empty()) {
            return u32::try_from(status["restartCount"].as_u64().unwrap_or(0)).unwrap_or(0) + 1;
        }
    }
    0
}

/// One ended instance of each container is kept for its logs and last state.
fn collect_garbage(pod: &Pod, observed: &Observed, sandbox_id: Option<&str>, plan: &mut Plan) {
    let mut kept: HashSet<&str> = HashSet::new();
    for container in pod.every_container() {
        let starting = plan.start.iter().any(|s| s.name == container.name);
        // The newest record is current; when a start follows it becomes the one to keep.
        let keep = if starting { 1 } else { 2 };
        for (index, c) in observed.instances(&container.name).filter(|c| !plan.remove.contains(&c.id)).enumerate() {
            if index < keep || c.state == State::Running {
                kept.insert(&c.id);
            }
        }
    }
    for c in &observed.containers {
        let listed = plan.remove.contains(&c.id);
        if !kept.contains(c.id.as_str()) && !listed && c.state != State::Running {
            plan.remove.push(c.id.clone());
        }
    }
    for sandbox in observed.sandboxes.iter().skip(1) {
        let used = observed.containers.iter().any(|c| c.sandbox_id == sandbox.id && !plan.remove.contains(&c.id));
        if !used && Some(sandbox.id.as_str()) != sandbox_id {
            plan.remove_sandboxes.push(sandbox.id.clone());
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

//! Brings one pod from what is to what should be: observe, [`plan`], act, publish.
//!
//! [`plan`] decides and everything named "Pure" in this folder computes; [`start`] and [`stop`] talk to the runtime.

pub mod container;
pub mod dns;
pub mod env;
mod env_file;
pub mod fields;
pub mod plan;
mod prepare;
pub mod resize;
pub mod resources;
pub mod sandbox;
pub mod security;
mod start;
mod stop;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::backoff::Backoffs;
use crate::observed::{Observed, State};
use crate::pod::Pod;
use crate::probes::{Probes, Wake};
use crate::shared::Shared;
use crate::status::compute::{self, Failure, Waiting};
use crate::status::{messages, overlay};
use crate::volumes::{Mounted, csi};
use plan::KillReason;

/// Everything that is remembered about one pod between its rounds.
pub struct PodSync {
    shared: Arc<Shared>,
    probes: Probes,
    backoffs: Backoffs,
    waiting: HashMap<String, Waiting>,
    messages: HashMap<String, String>,
    mounted: Option<Mounted>,
    published: Option<Value>,
    pre_stopped: HashSet<String>,
    failure: Option<Failure>,
    admitted: bool,
    claims: HashMap<String, Arc<Value>>,
    resize: resize::Resize,
}

/// What a round came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Nothing of the pod will run again.
    pub over: bool,
    /// When to look again although nothing happens.
    pub again_in: Option<Duration>,
}

impl PodSync {
    /// Nothing known yet.
    pub fn new(shared: Arc<Shared>, wake: Wake) -> Self {
        let probes = Probes::new(Arc::clone(&shared), wake);
        let longest = shared.config.crash_loop_back_off.max_container_restart_period;
        let longest = longest.and_then(|p| i64::try_from(p.0.as_nanos()).ok()).unwrap_or(crate::backoff::LIMIT);
        PodSync {
            shared,
            probes,
            backoffs: Backoffs::up_to(longest),
            waiting: HashMap::new(),
            messages: HashMap::new(),
            mounted: None,
            published: None,
            pre_stopped: HashSet::new(),
            failure: None,
            admitted: false,
            claims: HashMap::new(),
            resize: resize::Resize::default(),
        }
    }

    /// Has the pod fail for this reason once its containers have ended.
    pub fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// One round.
    ///
    /// # Errors
    /// The pod could not be brought further for now; the text was recorded as an event where users need it.
    pub async fn sync(&mut self, pod: &Arc<Pod>) -> Result<Round, String> {
        let observed = self.shared.cri.observe(&pod.metadata.uid).await?;
        self.admit(pod, &observed).await?;
        self.settle_resize(pod);
        let pod = &self.shared.admitted.effective(pod);
        self.adopt(pod, &observed);
        let deadline = self.check_deadline(pod);
        if self.publish(pod, &observed, false) || self.failure.is_some() {
            return Ok(Round { over: true, again_in: None });
        }
        let plan = plan::plan(pod, &observed, &self.probes.health());
        self.waiting.retain(|name, _| plan.start.iter().any(|s| s.name == *name));
        let prepared = self.prepare(pod).await;
        let mut again_in = soonest(deadline, self.token_renewal(pod));
        again_in = soonest(again_in, self.shared.csi.republishes(&pod.metadata.uid).then_some(csi::REPUBLISH));
        let acted = match prepared {
            Ok(()) => self.act(pod, &observed, &plan).await,
            Err(error) => Err(error),
        };
        // Whatever was reached is published, also when the round failed half-way.
        let fresh = self.shared.cri.observe(&pod.metadata.uid).await?;
        self.adopt(pod, &fresh);
        let over = self.publish(pod, &fresh, false);
        again_in = soonest(again_in, acted?);
        Ok(Round { over, again_in })
    }

    /// Decides once whether the pod may run here. What already runs stays, also after a restart of the kubelet.
    async fn admit(&mut self, pod: &Arc<Pod>, observed: &Observed) -> Result<(), String> {
        if self.admitted || self.failure.is_some() {
            return Ok(());
        }
        if compute::is_over(&pod.status) {
            return Ok(());
        }
        if observed.sandboxes.is_empty() && observed.containers.is_empty() {
            let node = self.shared.node_view(pod)?;
            let mut let_in = self.shared.admitted.admit(pod, &self.shared.pods.list(), &node);
            if let_in.is_ok() {
                let_in = self.allocate(pod).await;
            }
            if let Err(failure) = let_in {
                let message = failure.message.replacen("Pod was rejected: ", "", 1);
                self.shared.event(pod, true, failure.reason.clone(), message);
                self.failure = Some(failure);
                return Ok(());
            }
        } else {
            self.shared.admitted.adopt(pod);
        }
        self.admitted = true;
        Ok(())
    }

    /// Gives the pod's containers what they have for themselves.
    async fn allocate(&self, pod: &Pod) -> Result<(), Failure> {
        let shared = &self.shared;
        // Until all sources were read, a pod that nobody knows may be one that runs.
        let known = shared.pods.is_synced() && shared.static_pods_read.load(std::sync::atomic::Ordering::Relaxed);
        let mut live: HashSet<String> = shared.admitted.pods().iter().map(|p| p.metadata.uid.clone()).collect();
        let listed = shared.pods.list();
        let unfinished = listed.iter().filter(|p| !compute::is_over(&p["status"]));
        live.extend(unfinished.filter_map(|p| p["metadata"]["uid"].as_str().map(str::to_owned)));
        let given = shared.allocation.admit(pod, &|uid| !known || live.contains(uid)).await;
        if given.is_err() {
            shared.admitted.forget(&pod.metadata.uid);
        }
        given
    }

    /// Acts on the plan; gives the time of the next back-off's end.
    async fn act(
        &mut self,
        pod: &Arc<Pod>,
        observed: &Observed,
        plan: &plan::Plan,
    ) -> Result<Option<Duration>, String> {
        for kill in &plan.kill {
            self.kill(pod, &kill.id, &kill.name, kill.reason).await?;
        }
        self.apply_resize(pod, observed, plan).await;
        for id in &plan.remove {
            if let Some(instance) = observed.containers.iter().find(|c| c.id == *id) {
                self.shared.cri.remove(id).await?;
                remove_log(instance);
            }
        }
        for id in &plan.remove_sandboxes {
            self.shared.cri.stop_sandbox(id).await?;
            self.shared.cri.remove_sandbox(id).await?;
        }
        if plan.start.is_empty() {
            return Ok(None);
        }
        let (id, config, ips) = match (plan.new_sandbox, observed.ready_sandbox()) {
            (Some(attempt), _) => self.make_sandbox(pod, observed, attempt).await?,
            (None, Some(sandbox)) => {
                (sandbox.id.clone(), self.sandbox_config(pod, sandbox.attempt)?, sandbox.ips.clone())
            }
            (None, None) => return Ok(None),
        };
        self.write_hosts(pod, &ips)?;
        let mut again_in = None;
        for start in &plan.start {
            again_in = soonest(again_in, self.start(pod, start, &id, &config, &ips).await);
        }
        Ok(again_in)
    }

    fn adopt(&mut self, pod: &Arc<Pod>, observed: &Observed) {
        // The status that was published last knows more than the one that came back from the server.
        let mut current = Pod::clone(pod);
        current.status = overlay(&pod.status, self.published.as_ref());
        self.probes.adopt(&Arc::new(current), observed);
        self.read_messages(observed);
    }

    /// Termination messages are read once, when a container has ended.
    fn read_messages(&mut self, observed: &Observed) {
        self.messages.retain(|id, _| observed.containers.iter().any(|c| c.id == *id));
        for instance in observed.containers.iter().filter(|c| c.state == State::Exited) {
            if !self.messages.contains_key(&instance.id) {
                let text = messages::read(instance);
                self.messages.insert(instance.id.clone(), text);
            }
        }
        self.messages.shrink_to_fit();
    }

    /// Computes and publishes the status; says whether nothing of the pod will run again.
    fn publish(&mut self, pod: &Pod, observed: &Observed, terminal: bool) -> bool {
        // A pod that had completed before this kubelet started has said all there is to say.
        if self.published.is_none() && compute::is_over(&pod.status) {
            return true;
        }
        let mut current = pod.clone();
        current.status = overlay(&pod.status, self.published.as_ref());
        let now = apimachinery::time::now_rfc3339();
        let told: HashMap<String, String> =
            self.messages.iter().filter(|(_, m)| !m.is_empty()).map(|(k, v)| (k.clone(), v.clone())).collect();
        let input = compute::Input {
            pod: &current,
            observed,
            health: &self.probes.health(),
            waiting: &self.waiting,
            messages: &told,
            terminal,
            // Not before its containers have ended: a replacement must not run beside them.
            failure: self.failure.as_ref().filter(|_| terminal),
            host_ips: &self.shared.host_ips,
            resize: &self.resize,
            now: &now,
        };
        let mut status = compute::status(&input);
        let over = compute::is_over(&status);
        compute::hold_end(&mut status, &input);
        self.published = Some(status.clone());
        self.shared.publisher.publish(pod, status);
        over
    }

    /// A pod with a deadline fails when it has been active for that long.
    fn check_deadline(&mut self, pod: &Arc<Pod>) -> Option<Duration> {
        let limit = pod.spec.active_deadline_seconds?;
        let status = overlay(&pod.status, self.published.as_ref());
        let started: jiff::Timestamp = status["startTime"].as_str()?.parse().ok()?;
        let left = started.as_second() + limit - jiff::Timestamp::now().as_second();
        if left > 0 {
            return u64::try_from(left).ok().map(Duration::from_secs);
        }
        let message = "Pod was active on the node longer than the specified deadline";
        self.shared.event(pod, false, "DeadlineExceeded", message);
        self.fail(Failure { reason: "DeadlineExceeded".into(), message: message.into(), disruption: false });
        None
    }

    fn token_renewal(&self, pod: &Pod) -> Option<Duration> {
        let due = self.shared.tokens.next_renewal(&pod.metadata.uid)?;
        let left = due - jiff::Timestamp::now().as_second();
        Some(Duration::from_secs(u64::try_from(left).unwrap_or(0).max(1)))
    }

    async fn kill(&mut self, pod: &Arc<Pod>, id: &str, name: &str, reason: KillReason) -> Result<(), String> {
        let message = match reason {
            KillReason::Probe(plan::FailedProbe::Liveness) => {
                format!("Container {name} failed liveness probe, will be restarted")
            }
            KillReason::Probe(plan::FailedProbe::Startup) => {
                format!("Container {name} failed startup probe, will be restarted")
            }
            KillReason::Changed => format!("Container {name} definition changed, will be restarted"),
            KillReason::Unknown => format!("Container {name} is in unknown state, try killing it before restart"),
            KillReason::Sandbox => format!("Stopping container {name}"),
            KillReason::Resize => format!("Container {name} resize requires restart"),
        };
        let probe = pod.container(name).and_then(|c| match reason {
            KillReason::Probe(plan::FailedProbe::Liveness) => c.liveness_probe.as_ref(),
            KillReason::Probe(plan::FailedProbe::Startup) => c.startup_probe.as_ref(),
            _ => None,
        });
        let grace = probe
            .and_then(|p| p.termination_grace_period_seconds)
            .or(pod.spec.termination_grace_period_seconds)
            .unwrap_or(30);
        self.stop_container(pod, id, name, grace, &message).await
    }
}

/// The earlier of two moments.
fn soonest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// Logs go with the record of their container, rotated parts included.
fn remove_log(instance: &crate::observed::Instance) {
    let path = std::path::Path::new(&instance.log_path);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else { return };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|n| n.starts_with(name)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

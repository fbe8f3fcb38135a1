//! Probes: one task for each running container that has any. Results go to the pod's [`Health`]; a change wakes the pod's
//! worker.
//!
//! ```text
//! container runs ─▶ startup probe (if any) ──ok──▶ started ─▶ readiness and liveness side by side
//!                         └──failed──▶ condemned                    └──liveness failed──▶ condemned
//! ```
//!
//! A pod that ends is asked for its readiness until its containers have ended, and for nothing else.

pub mod tally;
mod threshold;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::actions::{self, Failure, Target};
use crate::observed::{Instance, Observed, State};
use crate::pod::{Container, Pod, Probe};
use crate::shared::Shared;
use crate::sync::plan::{FailedProbe, Health};
use tally::Probed;
use threshold::Threshold;

/// Calls back when a verdict changed.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// The probes of one pod.
pub struct Probes {
    shared: Arc<Shared>,
    health: Arc<Mutex<Health>>,
    tasks: HashMap<String, Task>,
    wake: Wake,
    news: Arc<Notify>,
    ending: watch::Sender<bool>,
}

struct Task(Option<AbortHandle>);

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.abort();
        }
    }
}

/// What a container's task works with.
#[derive(Clone)]
struct Subject {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    container: Container,
    target: Target,
    started_at: i64,
    health: Arc<Mutex<Health>>,
    wake: Wake,
    ending: watch::Receiver<bool>,
}

impl Probes {
    /// None yet.
    pub fn new(shared: Arc<Shared>, wake: Wake) -> Self {
        let news = Arc::new(Notify::new());
        let told = Arc::clone(&news);
        let wake: Wake = Arc::new(move || {
            told.notify_one();
            wake();
        });
        Probes { shared, health: Arc::default(), tasks: HashMap::new(), wake, news, ending: watch::Sender::new(false) }
    }

    /// Tells whenever a verdict changed, to who ends the pod and is not woken.
    pub fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.news)
    }

    /// What the probes say now.
    pub fn health(&self) -> Health {
        self.health.lock().clone()
    }

    /// Probes exactly the containers that run.
    pub fn adopt(&mut self, pod: &Arc<Pod>, observed: &Observed) {
        let running: HashMap<&str, &Instance> =
            observed.containers.iter().filter(|c| c.state == State::Running).map(|c| (c.id.as_str(), c)).collect();
        self.tasks.retain(|id, _| running.contains_key(id.as_str()));
        {
            let mut health = self.health.lock();
            health.started.retain(|id| running.contains_key(id.as_str()));
            health.ready.retain(|id| running.contains_key(id.as_str()));
            health.failed.retain(|id, _| running.contains_key(id.as_str()));
        }
        let sandbox_ip = observed.sandboxes.first().and_then(|s| s.ips.first());
        let ip =
            if pod.spec.host_network { self.shared.host_ips.first() } else { sandbox_ip }.cloned().unwrap_or_default();
        for (id, instance) in running {
            if self.tasks.contains_key(id) {
                continue;
            }
            if let Some(container) = pod.container(&instance.name) {
                let task = self.start(pod, container, instance, &ip);
                self.tasks.insert(id.to_owned(), task);
            }
        }
    }

    /// A pod that ends is no longer restarted, whatever its probes say; it may still say that it is not ready.
    pub fn end(&mut self) {
        self.ending.send_replace(true);
        self.health.lock().failed.clear();
    }

    /// Nothing is left to ask.
    pub fn stop_all(&mut self) {
        self.tasks.clear();
    }

    fn start(&self, pod: &Arc<Pod>, container: &Container, instance: &Instance, ip: &str) -> Task {
        let before = published(pod, &instance.id);
        {
            let mut health = self.health.lock();
            if container.startup_probe.is_none() || before.is_some_and(|s| s["started"] == true) {
                health.started.insert(instance.id.clone());
                // A container that was ready before this kubelet started stays so until a probe says otherwise.
                if container.readiness_probe.is_none() || before.is_some_and(|s| s["ready"] == true) {
                    health.ready.insert(instance.id.clone());
                }
            }
        }
        if container.startup_probe.is_none()
            && container.readiness_probe.is_none()
            && container.liveness_probe.is_none()
        {
            return Task(None);
        }
        let subject = Subject {
            shared: Arc::clone(&self.shared),
            pod: Arc::clone(pod),
            container: container.clone(),
            target: Target { id: instance.id.clone(), ip: ip.to_owned() },
            started_at: instance.started_at,
            health: Arc::clone(&self.health),
            wake: Arc::clone(&self.wake),
            ending: self.ending.subscribe(),
        };
        Task(Some(tokio::spawn(subject.run()).abort_handle()))
    }
}

fn published<'a>(pod: &'a Pod, id: &str) -> Option<&'a serde_json::Value> {
    ["containerStatuses", "initContainerStatuses"]
        .iter()
        .filter_map(|list| pod.status[*list].as_array())
        .flatten()
        .find(|s| s["containerID"].as_str().is_some_and(|full| full.ends_with(id)))
}

impl Subject {
    async fn run(self) {
        let ended = || async { self.ending.clone().wait_for(|ending| *ending).await.map(drop) };
        let started = self.health.lock().started.contains(&self.target.id);
        if let Some(probe) = self.container.startup_probe.as_ref().filter(|_| !started) {
            let started = tokio::select! {
                started = self.startup(probe) => started,
                _ = ended() => false,
            };
            if !started {
                return;
            }
        }
        let readiness = async {
            if let Some(probe) = &self.container.readiness_probe {
                self.readiness(probe).await;
            }
        };
        let liveness = async {
            if let Some(probe) = &self.container.liveness_probe {
                tokio::select! {
                    () = self.liveness(probe) => {}
                    _ = ended() => {}
                }
            }
        };
        tokio::join!(readiness, liveness);
    }

    async fn startup(&self, probe: &Probe) -> bool {
        let mut rounds = self.rounds(probe).await;
        let mut threshold = Threshold::new(1, probe.failure_threshold);
        loop {
            rounds.tick().await;
            match self.once(probe, "Startup").await.and_then(|ok| threshold.observe(ok)) {
                Some(true) => {
                    let mut health = self.health.lock();
                    health.started.insert(self.target.id.clone());
                    if self.container.readiness_probe.is_none() {
                        health.ready.insert(self.target.id.clone());
                    }
                    drop(health);
                    (self.wake)();
                    return true;
                }
                Some(false) => {
                    self.condemn(FailedProbe::Startup);
                    return false;
                }
                None => {}
            }
        }
    }

    async fn readiness(&self, probe: &Probe) {
        let mut rounds = self.rounds(probe).await;
        let mut threshold = Threshold::new(probe.success_threshold, probe.failure_threshold);
        loop {
            rounds.tick().await;
            let verdict = self.once(probe, "Readiness").await.and_then(|ok| threshold.observe(ok));
            let changed = match verdict {
                Some(true) => self.health.lock().ready.insert(self.target.id.clone()),
                Some(false) => self.health.lock().ready.remove(&self.target.id),
                None => false,
            };
            if changed {
                (self.wake)();
            }
        }
    }

    async fn liveness(&self, probe: &Probe) {
        let mut rounds = self.rounds(probe).await;
        let mut threshold = Threshold::new(1, probe.failure_threshold);
        loop {
            rounds.tick().await;
            if self.once(probe, "Liveness").await.and_then(|ok| threshold.observe(ok)) == Some(false) {
                self.condemn(FailedProbe::Liveness);
                return;
            }
        }
    }

    fn unhealthy(&self, text: String) {
        self.shared.container_event(&self.pod, &self.container.name, true, "Unhealthy", text);
    }

    fn condemn(&self, probe: FailedProbe) {
        self.health.lock().failed.insert(self.target.id.clone(), probe);
        (self.wake)();
    }

    /// Ticks with the probe's period, the first time when its initial delay after the container's start is over.
    async fn rounds(&self, probe: &Probe) -> tokio::time::Interval {
        let running_for = Duration::from_nanos(u64::try_from(crate::backoff::now() - self.started_at).unwrap_or(0));
        let delay = seconds(probe.initial_delay_seconds, 0).saturating_sub(running_for);
        let mut rounds = interval_at(Instant::now() + delay, seconds(probe.period_seconds, 10));
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        rounds
    }

    /// Probes once; nothing if the probe could not be made.
    async fn once(&self, probe: &Probe, title: &'static str) -> Option<bool> {
        let limit = seconds(probe.timeout_seconds, 1);
        let cri = &self.shared.cri;
        let outcome = actions::run(cri, &self.container, &probe.handler, &self.target, limit).await;
        self.shared.probe_tally.count(Probed {
            namespace: self.pod.metadata.namespace.clone(),
            pod: self.pod.metadata.name.clone(),
            uid: self.pod.metadata.uid.clone(),
            container: self.container.name.clone(),
            kind: title,
            result: match &outcome {
                Ok(()) => "successful",
                Err(Failure::Failed(_)) => "failed",
                Err(Failure::Unclear(_)) => "unknown",
            },
        });
        match outcome {
            Ok(()) => Some(true),
            Err(Failure::Failed(text)) => {
                self.unhealthy(format!("{title} probe failed: {text}"));
                Some(false)
            }
            Err(Failure::Unclear(text)) => {
                self.unhealthy(format!("{title} probe errored and resulted in unknown state: {text}"));
                None
            }
        }
    }
}

fn seconds(value: i64, default: u64) -> Duration {
    Duration::from_secs(u64::try_from(value).ok().filter(|v| *v > 0).unwrap_or(default))
}

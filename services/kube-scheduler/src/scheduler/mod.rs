//! The loop: news go into cache and queue, pods come out and are placed, requests run beside it.
//!
//! One task owns cache and queue, so a decision sees one consistent picture and needs no lock. Whatever takes time, that
//! is every request, runs in tasks of its own and reports back over a channel.

mod act;
mod apply;
mod devices;
mod feed;
mod storage;
mod workloads;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Client, EventRecorder};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{debug, info};

use crate::cache::Cache;
use crate::config::Settings;
use crate::cycle::{self, Task, Turn, Unschedulable};
use crate::extender::Extender;
use crate::framework::Event;
use crate::metrics::{Metrics, Outcome};
use crate::plugins::DYNAMIC_RESOURCES;
use crate::pod::Pod;
use crate::preemption::{self, NoPlan, Plan};
use crate::profile::Profile;
use crate::queue::{Backoff, Queue};
use crate::spec::Specs;
use crate::volumes::Bindings;
use act::{Actor, Done, Report};
use workloads::Workloads;

struct Scheduler {
    actor: Actor,
    profiles: HashMap<String, Profile>,
    extenders: Vec<Extender>,
    cache: Cache,
    specs: Specs,
    queue: Queue,
    turn: Turn,
    workloads: Workloads,
    storage: storage::Pending,
    devices: devices::Pending,
    metrics: Arc<Metrics>,
    /// What is said of pods that a node was cleared for, unless they are placed before it is said; by uid.
    announced: HashMap<Arc<str>, AbortHandle>,
    /// The last refusal of a kind of pod and when it was true: replicas get the same answer while nothing changes.
    last_refusal: Option<(u64, u64, Unschedulable)>,
}

/// Schedules until the task is dropped.
pub async fn run(client: Client, settings: Settings, metrics: Arc<Metrics>) {
    let (done, mut ends) = mpsc::unbounded_channel();
    let (mut news, _followers, mut unsynced) = feed::start(&client);
    let backoff = Backoff { first: settings.backoff_first, limit: settings.backoff_limit };
    let recorders = settings
        .profiles
        .iter()
        .map(|profile| (profile.name.clone(), EventRecorder::new(client.clone(), &profile.name, None)));
    let mut scheduler = Scheduler {
        actor: Actor::new(client.clone(), recorders.collect(), done),
        profiles: settings.profiles.into_iter().map(|profile| (profile.name.clone(), profile)).collect(),
        extenders: settings.extenders,
        cache: Cache::default(),
        specs: Specs::default(),
        queue: Queue::new(backoff),
        turn: Turn::default(),
        workloads: Workloads::default(),
        storage: storage::Pending::default(),
        devices: devices::Pending::default(),
        metrics,
        announced: HashMap::new(),
        last_refusal: None,
    };
    // A pod must not be called unschedulable because nobody has read the list of nodes yet.
    while unsynced > 0
        && let Some(told) = news.recv().await
    {
        unsynced -= usize::from(told.is_synced());
        scheduler.told(told);
    }
    info!("scheduling");
    scheduler.metrics.synced();
    loop {
        while let Ok(told) = news.try_recv() {
            scheduler.told(told);
        }
        while let Ok(end) = ends.try_recv() {
            scheduler.done(end);
        }
        if let Some(pod) = scheduler.queue.pop(Instant::now()) {
            scheduler.schedule(&pod).await;
            tokio::task::yield_now().await;
            continue;
        }
        scheduler.metrics.sizes(scheduler.queue.sizes(), scheduler.cache.nodes().count(), scheduler.cache.pods());
        let deadline = [scheduler.queue.next_deadline(), scheduler.storage.next_deadline()].into_iter().flatten().min();
        tokio::select! {
            Some(told) = news.recv() => scheduler.told(told),
            Some(end) = ends.recv() => scheduler.done(end),
            () = sleep_until(deadline) => scheduler.storage_late(Instant::now()),
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

impl Scheduler {
    /// Wakes pods that an event helps.
    fn event(&mut self, event: Event) {
        let (profiles, cache) = (&self.profiles, &self.cache);
        self.queue.event(event, Instant::now(), &|pod, rejected_by, event| {
            let profile = profiles.get(&pod.spec.scheduler);
            profile.is_some_and(|profile| profile.helped(pod, rejected_by, event, cache))
        });
    }

    /// A pod goes back to the queue; with nobody having rejected it, for another try after its back-off.
    fn failed(&mut self, uid: &str, rejected_by: BTreeSet<&'static str>) {
        let (profiles, cache) = (&self.profiles, &self.cache);
        self.queue.failed(uid, rejected_by, Instant::now(), &|pod, rejected_by, event| {
            let profile = profiles.get(&pod.spec.scheduler);
            profile.is_some_and(|profile| profile.helped(pod, rejected_by, event, cache))
        });
    }

    async fn schedule(&mut self, pod: &Arc<Pod>) {
        let start = Instant::now();
        let outcome = match self.decide(pod).await {
            Ok(Some(slot)) => {
                self.place(pod, slot);
                Outcome::Scheduled
            }
            Ok(None) => Outcome::Error,
            Err(unschedulable) => {
                self.reject(pod, &unschedulable);
                Outcome::Unschedulable
            }
        };
        self.metrics.attempt(&pod.spec.scheduler, outcome, start.elapsed());
    }

    /// The pod's node; none if an extender failed, which is reported already.
    async fn decide(&mut self, pod: &Arc<Pod>) -> Result<Option<usize>, Unschedulable> {
        let Some(profile) = self.profiles.get(&pod.spec.scheduler) else { return Ok(None) };
        if let Some((kind, version, refusal)) = &self.last_refusal
            && *kind == pod.spec.id
            && *version == self.cache.version()
            && pod.spec.claims.is_empty()
            && pod.spec.resource_claims == 0
            && pod.nominated().is_empty()
            && !self.cache.has_nominated()
        {
            return Err(refusal.clone());
        }
        let workload = self.workloads.of(pod);
        let defaults = profile.defaults(pod, &workload);
        let task = Task { pod, profile, defaults: &defaults };
        let found = cycle::feasible(&task, &mut self.cache, &mut self.turn);
        let mut feasible = match found {
            Ok(feasible) => feasible,
            Err(refusal) => {
                self.last_refusal = Some((pod.spec.id, self.cache.version(), refusal.clone()));
                return Err(refusal);
            }
        };
        let mut extra = Vec::new();
        if !self.extenders.is_empty() {
            match crate::extender::ask(&self.extenders, pod, &self.cache, feasible).await {
                Ok(answer) if answer.slots.is_empty() => return Err(answer.refused),
                Ok(answer) => (feasible, extra) = (answer.slots, answer.scores),
                Err(error) => {
                    let message = error.to_string();
                    self.report(pod, Report { reason: "SchedulerError", message, nominate: None });
                    self.failed(&pod.uid, BTreeSet::new());
                    return Ok(None);
                }
            }
        }
        Ok(cycle::best(&task, &self.cache, &feasible, &extra, &mut self.turn))
    }

    fn reject(&mut self, pod: &Arc<Pod>, unschedulable: &Unschedulable) {
        let mut message = unschedulable.message();
        let mut rejected_by = unschedulable.rejected_by.clone();
        if rejected_by.is_empty() {
            // There are no nodes at all; whoever welcomes a new node speaks for that.
            rejected_by.insert("NodeResourcesFit");
        }
        self.metrics.rejected(&pod.spec.scheduler, &rejected_by);
        if rejected_by.contains(DYNAMIC_RESOURCES) {
            self.give_claims_back(pod);
        }
        let plan = self.preempt(pod, unschedulable);
        debug!("{}: {message}", pod.key());
        match plan {
            None => self.report(pod, Report { reason: "Unschedulable", message, nominate: None }),
            Some(Err(NoPlan { why, stale })) => {
                message = format!("{message} preemption: {why}");
                // A node that was cleared for the pod no longer helps it.
                if stale {
                    self.cache.denominate(&pod.uid);
                }
                let nominate = stale.then(String::new);
                self.report(pod, Report { reason: "Unschedulable", message, nominate });
            }
            Some(Ok(plan)) => {
                self.cache.nominate(pod, &plan.node);
                for displaced in &plan.displaced {
                    self.cache.denominate(&displaced.uid);
                }
                self.metrics.preempted(plan.victims.len());
                let report = Report { reason: "Unschedulable", message, nominate: Some(plan.node.to_string()) };
                // It stays in flight until its victims are told to go: a second look before that would find more.
                return self.actor.preempt(pod, plan, rejected_by, report);
            }
        }
        self.failed(&pod.uid, rejected_by);
    }

    /// Tells the user why a pod waits; what was still to be said about it is out of date, but for the node cleared for it.
    fn report(&mut self, pod: &Arc<Pod>, mut report: Report) {
        if self.hush(&pod.uid) && report.nominate.is_none() {
            report.nominate = self.cache.nomination(&pod.uid).map(|node| node.to_string());
        }
        self.actor.report(pod, report);
    }

    /// What was to be said about a pod is not said; whether there was something.
    fn hush(&mut self, uid: &str) -> bool {
        self.announced.remove(uid).inspect(AbortHandle::abort).is_some()
    }

    /// The victims were told to go.
    fn preempted(&mut self, uid: &str, rejected_by: BTreeSet<&'static str>, report: Report) {
        if let Some(pod) = self.queue.get(uid) {
            self.announced.insert(Arc::clone(&pod.uid), self.actor.announce(pod, report));
        }
        self.failed(uid, rejected_by);
    }

    fn preempt(&mut self, pod: &Arc<Pod>, why: &Unschedulable) -> Option<Result<Plan, NoPlan>> {
        let profile = self.profiles.get(&pod.spec.scheduler).filter(|profile| profile.preempts)?;
        if self.cache.order().is_empty() {
            return None;
        }
        let workload = self.workloads.of(pod);
        let defaults = profile.defaults(pod, &workload);
        let task = Task { pod, profile, defaults: &defaults };
        self.metrics.preemption_attempt();
        Some(preemption::plan(&task, &mut self.cache, why, &mut self.turn))
    }

    /// Counts the pod as placed and binds it beside the loop.
    fn place(&mut self, pod: &Arc<Pod>, slot: usize) {
        let offer = Arc::clone(&self.cache.node(slot).offer);
        let placed = Arc::new(pod.placed_on(&offer.name));
        self.queue.binding(&pod.uid);
        self.hush(&pod.uid);
        self.cache.denominate(&pod.uid);
        let bindings = storage::needed(&self.cache.volumes, pod, &offer);
        let reservations = self.cache.devices.reservations(pod, &offer).unwrap_or_default();
        self.cache.assume(Arc::clone(&placed));
        self.event(Event::Placed { pod: Arc::clone(&placed), changed: false });
        if reservations.is_empty() {
            self.bind(placed, bindings);
        } else {
            self.write_claims(placed, reservations, bindings);
        }
    }

    fn bind(&mut self, placed: Arc<Pod>, bindings: Option<Bindings>) {
        match bindings {
            None => self.actor.bind(placed),
            Some(bindings) => self.bind_volumes(placed, bindings),
        }
    }

    fn done(&mut self, end: Done) {
        match end {
            Done::Bound { pod } => {
                debug!("{} is bound to {}", pod.key(), pod.node);
                if let Some(history) = self.queue.history(&pod.uid) {
                    self.metrics.bound(history);
                }
                self.queue.remove(&pod.uid);
            }
            Done::NotBound { pod, reason, gone } => self.not_bound(&pod, reason, gone),
            Done::Preempted { uid, rejected_by, report } => self.preempted(&uid, rejected_by, report),
            Done::VolumesWritten { uid } => self.volumes_written(&uid),
            Done::ClaimsWritten { uid } => self.claims_written(&uid),
        }
    }

    fn not_bound(&mut self, pod: &Arc<Pod>, reason: String, gone: bool) {
        self.forget_claims(&pod.uid);
        // The informer may have shown meanwhile that it is placed after all.
        if !self.cache.is_assumed(&pod.uid) {
            return self.queue.remove(&pod.uid);
        }
        self.cache.remove_pod(&pod.uid);
        self.event(Event::Gone(Arc::clone(pod)));
        if gone {
            return self.queue.remove(&pod.uid);
        }
        tracing::warn!("binding {} to {}: {reason}; trying again", pod.key(), pod.node);
        let waiting = self.queue.get(&pod.uid).cloned();
        self.failed(&pod.uid, BTreeSet::new());
        if let Some(waiting) = waiting {
            let message = format!("binding rejected: {reason}");
            self.report(&waiting, Report { reason: "SchedulerError", message, nominate: None });
        }
    }

    fn bind_timeout(&self, pod: &Pod) -> Duration {
        let seconds = self.profiles.get(&pod.spec.scheduler).map_or(600, |profile| profile.bind_timeout_seconds);
        Duration::from_secs(seconds)
    }
}

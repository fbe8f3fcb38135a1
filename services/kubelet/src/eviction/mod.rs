//! Keeps the node alive when something runs short: unused images go first, then pods, one at a time.
//!
//! [`thresholds`] reads the configuration, [`plan`] decides, [`observe`] looks, this file acts. Looking is done by the clock:
//! the kernel tells nobody that a disk fills up.

pub mod observe;
pub mod plan;
pub mod thresholds;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cri_api::v1;
use daemon::Shutdown;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::images::gc::{self, History, Image, Rules};
use crate::node_status::machine::Pressure;
use crate::observed::labels;
use crate::pod::Pod;
use crate::pod_workers::PodWorkers;
use crate::shared::Shared;
use crate::status::compute::Failure;
use plan::{Observations, Usage};
use thresholds::{Signal, Threshold};

const PERIOD: Duration = Duration::from_secs(10);
/// Images are looked over this often although nothing runs short.
const IMAGES: Duration = Duration::from_secs(300);
/// What a pod gets to stop when nothing is left to wait with.
const AT_ONCE: i64 = 1;

/// Watches and acts until the end.
pub async fn run(shared: Arc<Shared>, workers: PodWorkers, pressure: watch::Sender<Pressure>, shutdown: Shutdown) {
    // The configuration was checked when it was read.
    let thresholds = thresholds::parse(&shared.config).unwrap_or_default();
    let mut manager = Manager {
        shared,
        workers,
        thresholds,
        pressure,
        memory: plan::Memory::default(),
        history: History::default(),
        images_due: Instant::now() + IMAGES,
        image_folder: None,
        victim: None,
    };
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            _ = ticks.tick() => manager.round().await,
        }
    }
}

struct Manager {
    shared: Arc<Shared>,
    workers: PodWorkers,
    thresholds: Vec<Threshold>,
    pressure: watch::Sender<Pressure>,
    memory: plan::Memory,
    history: History,
    images_due: Instant,
    image_folder: Option<PathBuf>,
    /// The pod that was evicted last.
    victim: Option<String>,
}

impl Manager {
    async fn round(&mut self) {
        if self.image_folder.is_none() {
            self.image_folder = self.shared.cri.image_folder().await.ok().flatten().map(PathBuf::from);
        }
        self.keep_limits().await;
        let (seen, act) = self.look();
        if Instant::now() >= self.images_due {
            self.images_due = Instant::now() + IMAGES;
            self.collect_images(&seen, false).await;
        }
        let Some(first) = act.first() else { return };
        tracing::warn!(signal = first.signal.name(), "something runs short");
        if matches!(first.signal, Signal::NodeSpace | Signal::NodeInodes | Signal::ImageSpace | Signal::ImageInodes) {
            self.collect_images(&seen, true).await;
        }
        // Removing images may have been enough.
        let (seen, act) = self.look();
        if let Some(threshold) = act.first() {
            self.evict_one(threshold, &seen).await;
        }
    }

    fn look(&mut self) -> (Observations, Vec<Threshold>) {
        let seen = observe::observe(&self.shared.root, self.image_folder.as_deref());
        let transition = self.shared.config.eviction_pressure_transition_period.0;
        let verdict = plan::look(&mut self.memory, &self.thresholds, &seen, Instant::now(), transition);
        self.pressure.send_if_modified(|old| std::mem::replace(old, verdict.pressure) != verdict.pressure);
        (seen, verdict.act)
    }

    /// Removes images: down to the low mark, or with `all` everything that nobody uses.
    async fn collect_images(&mut self, seen: &Observations, all: bool) {
        let config = &self.shared.config;
        let (high, low) = (config.image_gc_high_threshold_percent, config.image_gc_low_threshold_percent);
        let over = seen.get(&Signal::ImageSpace).and_then(|(free, all)| gc::excess(*free, *all, high, low));
        let wanted = if all { u64::MAX } else { over.unwrap_or(0) };
        let rules = Rules { minimum_age: config.image_minimum_gc_age.0, maximum_age: config.image_maximum_gc_age.0 };
        let (images, in_use) = match self.images().await {
            Ok(found) => found,
            Err(error) => return tracing::warn!(%error, "images not listed"),
        };
        let now = Instant::now();
        self.history.note(&images, &in_use, now);
        for id in self.history.victims(&images, &in_use, wanted, &rules, now) {
            match self.shared.cri.remove_image(&id).await {
                Ok(()) => tracing::info!(image = id, "unused image removed"),
                Err(error) => tracing::warn!(image = id, %error, "unused image not removed"),
            }
        }
    }

    async fn images(&self) -> Result<(Vec<Image>, BTreeSet<String>), String> {
        let in_use = self.shared.cri.images_in_use().await?;
        let images = self.shared.cri.images().await?;
        let images = images.into_iter().map(|i| Image { id: i.id, size: i.size, pinned: i.pinned }).collect();
        Ok((images, in_use))
    }

    /// Evicts the pod that has to go first, unless the one before is still going.
    async fn evict_one(&mut self, threshold: &Threshold, seen: &Observations) {
        let pods = self.shared.admitted.pods();
        if self.victim.as_ref().is_some_and(|uid| pods.iter().any(|p| p.metadata.uid == *uid)) {
            return;
        }
        let stats = self.shared.cri.stats().await.unwrap_or_default();
        let mut usages = Vec::new();
        for pod in &pods {
            let disk = self.disk(pod, &stats).await;
            let memory = of_pod(pod, &stats).filter_map(working_set).sum();
            usages.push(Usage { pod, memory, disk: disk.total(), inodes: disk.inodes, pids: 0 });
        }
        let (available, all) = seen.get(&threshold.signal).copied().unwrap_or_default();
        let ranked = plan::rank(&usages, threshold.signal);
        let Some(usage) = ranked.into_iter().find(|u| plan::would_help(u, threshold, available, all)) else {
            return tracing::warn!(signal = threshold.signal.name(), "there is no pod whose eviction would help");
        };
        let message = plan::message(threshold, available, all, usage);
        let grace = match threshold.grace {
            None => AT_ONCE,
            Some(_) => usage.pod.grace_period().min(self.shared.config.eviction_max_pod_grace_period).max(AT_ONCE),
        };
        self.victim = Some(usage.pod.metadata.uid.clone());
        self.evict(&Arc::new(usage.pod.clone()), message, grace);
    }

    fn evict(&self, pod: &Arc<Pod>, message: String, grace: i64) {
        tracing::warn!(pod = %pod.full_name(), message, "evicted");
        self.shared.event(pod, true, "Evicted", message.clone());
        let failure = Failure { reason: "Evicted".into(), message, disruption: true };
        self.workers.end(&pod.metadata.uid, failure, grace);
    }

    /// Evicts pods that use more of the disk than they may.
    async fn keep_limits(&self) {
        let pods: Vec<Arc<Pod>> = self.shared.admitted.pods().into_iter().filter(|p| is_limited(p)).collect();
        if pods.is_empty() {
            return;
        }
        let stats = self.shared.cri.stats().await.unwrap_or_default();
        for pod in pods.iter().filter(|p| !p.is_critical()) {
            let disk = self.disk(pod, &stats).await;
            if let Some(message) = plan::over_limit(pod, &disk.volumes, &disk.containers) {
                self.evict(pod, message, AT_ONCE);
            }
        }
    }

    async fn disk(&self, pod: &Arc<Pod>, stats: &[v1::ContainerStats]) -> observe::Disk {
        let mut layers = BTreeMap::new();
        for one in of_pod(pod, stats) {
            let name = one.attributes.as_ref().and_then(|a| a.labels.get(labels::CONTAINER_NAME)).cloned();
            let bytes = one.writable_layer.as_ref().and_then(|l| l.used_bytes).map_or(0, |v| i128::from(v.value));
            *layers.entry(name.unwrap_or_default()).or_default() += bytes;
        }
        let (root, pod) = (self.shared.root.clone(), Arc::clone(pod));
        tokio::task::spawn_blocking(move || observe::disk(&root, &pod, &layers)).await.unwrap_or_default()
    }
}

fn of_pod<'a>(pod: &'a Pod, stats: &'a [v1::ContainerStats]) -> impl Iterator<Item = &'a v1::ContainerStats> {
    let mine = |s: &&v1::ContainerStats| {
        s.attributes.as_ref().and_then(|a| a.labels.get(labels::POD_UID)) == Some(&pod.metadata.uid)
    };
    stats.iter().filter(mine)
}

fn working_set(stats: &v1::ContainerStats) -> Option<i128> {
    stats.memory.as_ref()?.working_set_bytes.map(|v| i128::from(v.value))
}

/// Whether anything limits what the pod may use of the disk.
fn is_limited(pod: &Pod) -> bool {
    let sized =
        |v: &crate::pod::Volume| v.empty_dir.as_ref().is_some_and(|e| e.medium.is_empty() && e.size_limit.is_some());
    pod.spec.volumes.iter().any(sized)
        || pod.all_containers().any(|c| c.resources.limits.contains_key("ephemeral-storage"))
}

//! The loop: informers' changes go into cache and queue, pods come out and are placed, bindings run beside it.
//!
//! One task owns cache and queue, so a decision sees one consistent picture and needs no lock. Whatever takes time, that
//! is every request, runs in tasks of its own and reports back over a channel.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use apimachinery::selector::LabelSelector;
use apimachinery::{meta, time};
use client::resource::{NAMESPACES, NODES, PODS, REPLICASETS, SERVICES};
use client::{Change, Client, EventRecorder, Informer, InformerParams, Patch};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::cache::Cache;
use crate::cycle::{self, Turn, Unschedulable};
use crate::framework::{Cycle, Event};
use crate::node::Offer;
use crate::plugins;
use crate::pod::Pod;
use crate::queue::Queue;
use crate::terms::{Labels, text};

/// The name that pods ask for by `spec.schedulerName`.
const SCHEDULER: &str = "default-scheduler";

/// The end of a binding.
struct Bound {
    pod: Arc<Pod>,
    result: Result<(), client::Error>,
}

struct Scheduler {
    client: Client,
    events: EventRecorder,
    cache: Cache,
    queue: Queue,
    turn: Turn,
    services: Informer,
    sets: Informer,
    namespaces: Informer,
    bound: mpsc::UnboundedSender<Bound>,
}

/// Schedules until the task is dropped.
pub async fn run(client: Client) {
    let start = |resource, params| Informer::start(client.clone(), resource, params);
    let unfinished = "status.phase!=Succeeded,status.phase!=Failed".to_owned();
    let pods = start(PODS, InformerParams { field_selector: unfinished, ..InformerParams::default() });
    let nodes = start(NODES, InformerParams::default());
    let [services, sets, namespaces] = [SERVICES, REPLICASETS, NAMESPACES].map(|r| start(r, InformerParams::default()));
    for informer in [&nodes, &pods, &services, &sets, &namespaces] {
        informer.synced().await;
    }
    info!("scheduling");
    let (bound, mut bindings) = mpsc::unbounded_channel();
    let mut scheduler = Scheduler {
        events: EventRecorder::new(client.clone(), SCHEDULER, None),
        client,
        cache: Cache::default(),
        queue: Queue::new(helps),
        turn: Turn::default(),
        services,
        sets,
        namespaces,
        bound,
    };
    // Nodes first: a pod must not be called unschedulable because nobody has read the list of nodes yet.
    let mut node_changes = nodes.subscribe();
    while let Ok(change) = node_changes.try_recv() {
        scheduler.node_changed(change);
    }
    let mut pod_changes = pods.subscribe();
    loop {
        while let Ok(change) = node_changes.try_recv() {
            scheduler.node_changed(change);
        }
        while let Ok(change) = pod_changes.try_recv() {
            scheduler.pod_changed(change);
        }
        while let Ok(end) = bindings.try_recv() {
            scheduler.bound(end);
        }
        if let Some(pod) = scheduler.queue.pop(Instant::now()) {
            scheduler.schedule(&pod);
            tokio::task::yield_now().await;
            continue;
        }
        let deadline = scheduler.queue.next_deadline();
        tokio::select! {
            Some(change) = node_changes.recv() => scheduler.node_changed(change),
            Some(change) = pod_changes.recv() => scheduler.pod_changed(change),
            Some(end) = bindings.recv() => scheduler.bound(end),
            () = sleep_until(deadline) => {}
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn helps(pod: &Pod, rejected_by: &BTreeSet<&'static str>, event: &Event) -> bool {
    rejected_by.iter().filter_map(|name| plugins::named(name)).any(|plugin| plugin.helps(pod, event))
}

impl Scheduler {
    fn node_changed(&mut self, change: Change) {
        let event = match change {
            Change::Applied { new, .. } => {
                let new = Arc::new(Offer::read(&new));
                let old = self.cache.set_node(Arc::clone(&new));
                // A heartbeat changes nothing that a pod could have waited for.
                if old.as_ref() == Some(&new) {
                    return;
                }
                Event::Node { old, new }
            }
            Change::Deleted(node) => {
                self.cache.remove_node(meta::name(&node));
                Event::NodeGone
            }
        };
        self.queue.event(event, Instant::now());
    }

    fn pod_changed(&mut self, change: Change) {
        let now = Instant::now();
        match change {
            Change::Applied { old, new } => {
                if let Some(old) = old.filter(|old| meta::uid(old) != meta::uid(&new)) {
                    self.pod_gone(meta::uid(&old), now);
                }
                if matches!(text(&new, "/status/phase"), "Succeeded" | "Failed") {
                    return self.pod_gone(meta::uid(&new), now);
                }
                self.pod_applied(Arc::new(Pod::read(new)), now);
            }
            Change::Deleted(pod) => self.pod_gone(meta::uid(&pod), now),
        }
    }

    fn pod_applied(&mut self, pod: Arc<Pod>, now: Instant) {
        if !pod.node.is_empty() {
            self.queue.remove(&pod.uid);
            let old = self.cache.set_pod(Arc::clone(&pod));
            // The kubelet's status reports concern nobody who waits.
            if old
                .is_none_or(|old| old.labels != pod.labels || old.requests != pod.requests || old.ending != pod.ending)
            {
                self.queue.event(Event::Placed(pod), now);
            }
            return;
        }
        // News from before its binding: the decision stands.
        if self.cache.is_assumed(&pod.uid) {
            return;
        }
        let scheduler = text(&pod.object, "/spec/schedulerName");
        if pod.ending || !(scheduler.is_empty() || scheduler == SCHEDULER) {
            self.queue.remove(&pod.uid);
        } else {
            self.queue.set(pod, now);
        }
    }

    fn pod_gone(&mut self, uid: &str, now: Instant) {
        self.queue.remove(uid);
        if let Some(pod) = self.cache.remove_pod(uid) {
            self.queue.event(Event::Gone(pod), now);
        }
    }

    fn schedule(&mut self, pod: &Arc<Pod>) {
        let workload = self.workload(pod);
        let of_namespace = |name: &str| -> Option<Labels> { meta::labels(&*self.namespaces.get("", name)?).cloned() };
        let cycle = Cycle { pod, cache: &self.cache, workload: &workload, of_namespace: &of_namespace };
        match cycle::decide(&cycle, &mut self.turn) {
            Ok(node) => self.place(pod, node),
            Err(unschedulable) => self.reject(pod, unschedulable),
        }
    }

    /// The selectors of everything that the pod is a replica of: its Services and its ReplicaSet.
    fn workload(&self, pod: &Pod) -> Vec<LabelSelector> {
        let services = self.services.list_namespace(&pod.namespace);
        let of_services = services.iter().filter_map(|service| service.pointer("/spec/selector")?.as_object());
        let mut selectors: Vec<LabelSelector> =
            of_services.filter(|map| !map.is_empty()).map(LabelSelector::from_map).collect();
        selectors.retain(|selector| selector.matches(Some(&pod.labels)));
        if let Some(owner) = meta::controller_of(&pod.object).filter(|owner| owner["kind"] == "ReplicaSet")
            && let Some(set) = self.sets.get(&pod.namespace, text(owner, "/name"))
            && let Ok(selector) = LabelSelector::from_object(&set["spec"]["selector"])
        {
            selectors.push(selector);
        }
        selectors
    }

    /// Counts the pod as placed and binds it beside the loop.
    fn place(&mut self, pod: &Arc<Pod>, node: String) {
        let mut placed = Pod::clone(pod);
        placed.node = node;
        let placed = Arc::new(placed);
        self.cache.assume(Arc::clone(&placed));
        self.queue.event(Event::Placed(Arc::clone(&placed)), Instant::now());
        let (client, events, bound) = (self.client.clone(), self.events.clone(), self.bound.clone());
        tokio::spawn(async move {
            let result = bind(&client, &placed).await;
            let succeeded = result.is_ok();
            // The loop is gone only when the process ends.
            let _ = bound.send(Bound { pod: Arc::clone(&placed), result });
            if succeeded {
                let message = format!("Successfully assigned {} to {}", placed.key(), placed.node);
                events.event(&placed.object, "Normal", "Scheduled", &message).await;
            }
        });
    }

    fn bound(&mut self, end: Bound) {
        let Bound { pod, result } = end;
        match result {
            Ok(()) => {
                debug!("{} is bound to {}", pod.key(), pod.node);
                self.queue.remove(&pod.uid);
            }
            Err(error) => {
                // The informer may have shown meanwhile that it is placed after all.
                if !self.cache.is_assumed(&pod.uid) {
                    return self.queue.remove(&pod.uid);
                }
                let now = Instant::now();
                self.cache.remove_pod(&pod.uid);
                self.queue.event(Event::Gone(Arc::clone(&pod)), now);
                if error.is_not_found() {
                    return self.queue.remove(&pod.uid);
                }
                warn!("binding {} to {}: {error}; trying again", pod.key(), pod.node);
                self.queue.failed(&pod.uid, BTreeSet::new(), now);
                self.report(&pod, "SchedulerError", format!("binding to {}: {error}", pod.node));
            }
        }
    }

    fn reject(&mut self, pod: &Arc<Pod>, unschedulable: Unschedulable) {
        let message = unschedulable.message();
        debug!("{}: {message}", pod.key());
        let mut rejected_by = unschedulable.rejected_by;
        if rejected_by.is_empty() {
            // There are no nodes at all; whoever welcomes a new node speaks for that.
            rejected_by.insert("NodeResourcesFit");
        }
        self.queue.failed(&pod.uid, rejected_by, Instant::now());
        self.report(pod, "Unschedulable", message);
    }

    /// Tells the user why the pod waits.
    fn report(&self, pod: &Arc<Pod>, reason: &'static str, message: String) {
        let (client, events, pod) = (self.client.clone(), self.events.clone(), Arc::clone(pod));
        tokio::spawn(async move {
            events.event(&pod.object, "Warning", "FailedScheduling", &message).await;
            let Some(patch) = condition_patch(&pod.object, reason, &message) else { return };
            let namespace = Some(pod.namespace.as_str());
            match client.patch(PODS, namespace, &pod.name, Some("status"), &patch).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => warn!("condition of {}: {error}", pod.key()),
            }
        });
    }
}

/// A patch that says why the pod waits, unless it says so already.
fn condition_patch(pod: &Value, reason: &str, message: &str) -> Option<Patch> {
    let old = meta::condition(pod, "PodScheduled");
    if old.is_some_and(|c| c["status"] == "False" && c["reason"] == reason && c["message"] == message) {
        return None;
    }
    let mut condition = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message});
    if old.is_none_or(|c| c["status"] != "False") {
        condition["lastTransitionTime"] = time::now_rfc3339().into();
    }
    Some(Patch::Strategic(json!({"metadata": {"uid": meta::uid(pod)}, "status": {"conditions": [condition]}})))
}

async fn bind(client: &Client, pod: &Pod) -> Result<(), client::Error> {
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": pod.node},
    });
    client.create_sub(PODS, Some(&pod.namespace), &pod.name, "binding", &binding).await?;
    Ok(())
}

//! daemonset-controller: one pod on every node that fits.

mod plan;
mod pod;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::meta;
use apimachinery::selector::LabelSelector;
use client::resource::{NODES, PODS};
use client::{Change, Client, Informer, WorkQueue};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use crate::context::Context;
use crate::error::Error;
use crate::events::Events;
use crate::owners;
use crate::pod_control::PodControl;
use crate::resource::{CONTROLLERREVISIONS, DAEMONSETS};
use crate::revisions::{self, HASH_LABEL, History};
use crate::worker::{self, Next};

use plan::{Observed, fit};

const WORKERS: usize = 4;
/// How soon a failed pod is replaced; doubles with each failure on the node.
const REPLACE_FIRST: Duration = Duration::from_secs(1);
const REPLACE_LIMIT: Duration = Duration::from_secs(15 * 60);

struct Controller {
    client: Client,
    events: Events,
    sets: Informer,
    nodes: Informer,
    history: History,
    pods: Arc<PodControl>,
    /// When a failed pod was last replaced on a node, and how long the next one has to wait.
    replaced: Mutex<HashMap<(String, String), (Instant, Duration)>>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let revisions = context.informers.get(CONTROLLERREVISIONS);
    let controller = Arc::new(Controller {
        sets: context.informers.get(DAEMONSETS),
        nodes: context.informers.get(NODES),
        history: History { client: context.client.clone(), revisions, owner: DAEMONSETS },
        pods: PodControl::new(&context),
        client: context.client,
        events: context.events,
        replaced: Mutex::default(),
    });
    let queue = WorkQueue::new();
    for informer in [&controller.sets, &controller.nodes, &controller.history.revisions, controller.pods.pods()] {
        informer.synced().await;
    }
    let (this, to) = (Arc::clone(&controller), queue.clone());
    worker::on_change(&controller.sets, move |change| {
        if let Change::Deleted(set) = &change {
            this.pods.forget(set);
            this.replaced.lock().retain(|(uid, _), _| uid != meta::uid(set));
        }
        to.add(meta::key(change.object()));
    });
    let (sets, to) = (controller.sets.clone(), queue.clone());
    worker::on_change(&controller.nodes, move |change| {
        for set in sets.list() {
            let concerned = match &change {
                Change::Applied { old: Some(old), new } => fit(&set, old) != fit(&set, new),
                _ => true,
            };
            if concerned {
                to.add(meta::key(&set));
            }
        }
    });
    controller.pods.watch(&controller.sets, DAEMONSETS.kind, &queue, |set, pod| {
        selector(set).is_ok_and(|s| s.matches(meta::labels(pod)))
    });
    worker::run("daemonset", queue, WORKERS, |key| sync(&controller, key)).await;
}

fn selector(set: &Value) -> Result<LabelSelector, Error> {
    LabelSelector::from_object(&set["spec"]["selector"])
        .map_err(|e| Error::Object(format!("DaemonSet {}: spec.selector: {e}", meta::key(set))))
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(set) = controller.sets.get(namespace, name) else { return Ok(Next::Done) };
    let selector = selector(&set)?;
    if selector.is_empty() {
        let message = "This daemon set is selecting all pods. A non-empty selector is required.".to_owned();
        controller.events.note(&set, "Warning", "SelectingAll", message);
        return Ok(Next::Done);
    }
    let claim = owners::claim(&set, controller.pods.candidates(&set), |pod| selector.matches(meta::labels(pod)));
    let pods = owners::carry_out(&controller.client, &set, DAEMONSETS, PODS, claim).await?;
    if let Some(left) = controller.pods.pending(&set) {
        return Ok(Next::After(left));
    }
    let history = controller.history.of(&set, &selector).await?;
    let (current, collisions) = controller.history.settle(&set, &history).await?;
    let hash = revisions::hash_of(&current);
    let nodes = controller.nodes.list();
    let plan = plan::plan(&Observed { set: &set, pods: &pods, nodes: &nodes, hash, collisions, now: Timestamp::now() });

    let mut victims = plan.delete;
    let wait = controller.take_replaceable(&set, plan.replace, &mut victims);
    let new: Vec<Value> = plan.create.iter().map(|node| pod::build(&set, node, hash)).collect();
    let created = controller.pods.create(&set, &new).await;
    let deleted = controller.pods.delete(&set, &victims).await;
    if let Some(status) = plan.status {
        let mut new = Value::clone(&set);
        new["status"] = status;
        controller.client.update_sub(DAEMONSETS, Some(namespace), name, "status", &new).await?;
    }
    created.and(deleted)?;
    let mut live = BTreeSet::from([hash.to_owned()]);
    live.extend(pods.iter().filter_map(|pod| meta::label(pod, HASH_LABEL)).map(str::to_owned));
    controller.history.truncate(&set, &history, &live).await?;
    let next = [plan.next, wait].into_iter().flatten().min();
    Ok(next.map_or(Next::Done, Next::After))
}

impl Controller {
    /// Moves ended pods whose turn has come to `victims`; returns when the next one's turn comes.
    fn take_replaceable(&self, set: &Value, ended: Vec<Arc<Value>>, victims: &mut Vec<Arc<Value>>) -> Option<Duration> {
        let now = Instant::now();
        let mut wait = None;
        for pod in ended {
            let node = pod::node_of(&pod);
            let mut replaced = self.replaced.lock();
            let entry = replaced.entry((meta::uid(set).to_owned(), node.to_owned()));
            let (last, delay) = *entry.or_insert((now, Duration::ZERO));
            let due = last + delay;
            if now < due {
                wait = Some(wait.map_or(due - now, |w: Duration| w.min(due - now)));
                continue;
            }
            // A node that was well for long enough starts afresh.
            let calm = now.duration_since(last) > 2 * REPLACE_LIMIT;
            let next = if calm { REPLACE_FIRST } else { (delay * 2).clamp(REPLACE_FIRST, REPLACE_LIMIT) };
            replaced.insert((meta::uid(set).to_owned(), node.to_owned()), (now, next));
            let (phase, reason) = match pod["status"]["phase"].as_str() {
                Some("Succeeded") => ("succeeded", "SucceededDaemonPod"),
                _ => ("failed", "FailedDaemonPod"),
            };
            let message = format!("Found {phase} daemon pod {} on node {node}, will try to kill it", meta::key(&pod));
            self.events.note(set, "Warning", reason, message);
            victims.push(pod);
        }
        wait
    }
}

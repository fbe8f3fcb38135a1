//! replicaset-controller: keeps the asked number of pods of a template running.

mod plan;
mod ranking;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use apimachinery::meta;
use apimachinery::selector::LabelSelector;
use client::resource::{PODS, REPLICASETS};
use client::{Change, Client, DeleteParams, Informer, WorkQueue};
use futures_util::future::join_all;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::expectations::Expectations;
use crate::object;
use crate::owners;
use crate::worker::{self, Next};

use plan::Action;

const WORKERS: usize = 5;

struct Controller {
    client: Client,
    events: Events,
    sets: Informer,
    pods: Informer,
    expectations: Expectations,
    /// Pods without a controller, by namespace: the only ones that can be adopted.
    orphans: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        sets: context.informers.get(REPLICASETS),
        pods: context.informers.get(PODS),
        client: context.client,
        events: context.events,
        expectations: Expectations::default(),
        orphans: Mutex::default(),
    });
    let queue = WorkQueue::new();
    controller.sets.synced().await;
    controller.pods.synced().await;
    watch(&controller, &queue);
    worker::run("replicaset", queue, WORKERS, |key| sync(&controller, key)).await;
}

fn watch(controller: &Arc<Controller>, queue: &WorkQueue<String>) {
    let (this, to) = (Arc::clone(controller), queue.clone());
    worker::on_change(&controller.sets, move |change| {
        if let Change::Deleted(set) = &change {
            this.expectations.forget(meta::uid(set));
        }
        to.add(meta::key(change.object()));
    });
    let (this, to) = (Arc::clone(controller), queue.clone());
    worker::on_change(&controller.pods, move |change| {
        this.remember_orphan(&change);
        if let Change::Applied { old: Some(old), new } = &change
            && meta::controller_of(old).map(|c| &c["uid"]) != meta::controller_of(new).map(|c| &c["uid"])
        {
            this.pod_changed(old, &to);
        }
        match &change {
            Change::Deleted(pod) => this.expectations.gone(meta::uid(pod)),
            Change::Applied { new, .. } => this.expectations.seen(new),
        }
        this.pod_changed(change.object(), &to);
    });
}

impl Controller {
    fn remember_orphan(&self, change: &Change) {
        let pod = change.object();
        let orphan = matches!(change, Change::Applied { .. }) && meta::controller_of(pod).is_none();
        let mut orphans = self.orphans.lock();
        let names = orphans.entry(meta::namespace(pod).to_owned()).or_default();
        if orphan {
            names.insert(meta::name(pod).to_owned());
        } else {
            names.remove(meta::name(pod));
        }
        if names.is_empty() {
            orphans.remove(meta::namespace(pod));
        }
    }

    /// Wakes the pod's ReplicaSet, or for an orphan every one that could adopt it.
    fn pod_changed(&self, pod: &Value, queue: &WorkQueue<String>) {
        let namespace = meta::namespace(pod);
        match meta::controller_of(pod) {
            Some(controller) if controller["kind"] == "ReplicaSet" => {
                let name = object::text(controller, "/name");
                queue.add(format!("{namespace}/{name}"));
            }
            Some(_) => {}
            None => {
                for set in self.sets.list_namespace(namespace) {
                    if selector(&set).is_ok_and(|s| s.matches(meta::labels(pod))) {
                        queue.add(meta::key(&set));
                    }
                }
            }
        }
    }

    fn candidates(&self, set: &Value) -> Vec<Arc<Value>> {
        let namespace = meta::namespace(set);
        let mut pods = self.pods.by_owner_uid(meta::uid(set));
        let orphans: Vec<String> = self.orphans.lock().get(namespace).into_iter().flatten().cloned().collect();
        pods.extend(orphans.iter().filter_map(|name| self.pods.get(namespace, name)));
        pods.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
        pods.dedup_by(|a, b| meta::name(a) == meta::name(b));
        pods
    }

    /// Pods of all ReplicaSets with the same controller, for the victims' ranking.
    fn related_pods(&self, set: &Value) -> Vec<Arc<Value>> {
        let Some(controller) = meta::controller_of(set) else { return self.pods.by_owner_uid(meta::uid(set)) };
        let siblings = self.sets.by_owner_uid(object::text(controller, "/uid"));
        siblings.iter().flat_map(|sibling| self.pods.by_owner_uid(meta::uid(sibling))).collect()
    }
}

fn selector(set: &Value) -> Result<LabelSelector, Error> {
    LabelSelector::from_object(&set["spec"]["selector"])
        .map_err(|e| Error::Object(format!("ReplicaSet {}: spec.selector: {e}", meta::key(set))))
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(set) = controller.sets.get(namespace, name) else { return Ok(Next::Done) };
    let selector = selector(&set)?;
    let claim = owners::claim(&set, controller.candidates(&set), |pod| selector.matches(meta::labels(pod)));
    let pods = owners::carry_out(&controller.client, &set, REPLICASETS, PODS, claim).await?;

    let now = Timestamp::now();
    let mut failure = None;
    let uid = meta::uid(&set);
    let waiting = controller.expectations.pending(uid, Instant::now());
    if waiting.is_none() && meta::deletion_timestamp(&set).is_none() {
        failure = match plan::manage(&set, &pods) {
            Action::Nothing => None,
            Action::Create(count) => controller.create(&set, count).await.err().map(|e| ("FailedCreate", e)),
            Action::Delete(count) => {
                let victims = ranking::victims(&pods, &controller.related_pods(&set), count, now);
                controller.delete(&set, victims).await.err().map(|e| ("FailedDelete", e))
            }
        };
    }
    let condition = failure.as_ref().map(|(reason, error)| (*reason, error.to_string()));
    let outcome = plan::status(&set, &pods, condition, now);
    if let Some(status) = outcome.status {
        let mut update = Value::clone(&set);
        update["status"] = status;
        controller.client.update_sub(REPLICASETS, Some(namespace), name, "status", &update).await?;
    }
    if let Some((_, error)) = failure {
        return Err(error);
    }
    let deadline = [outcome.next, waiting].into_iter().flatten().min();
    Ok(deadline.map_or(Next::Done, Next::After))
}

impl Controller {
    /// Creates in batches of 1, 2, 4 …: a quota or a broken template then costs one failed request, not hundreds.
    async fn create(&self, set: &Value, count: usize) -> Result<(), Error> {
        let pod = plan::pod_from(set);
        let mut left = count;
        let mut batch = 1;
        while left > 0 {
            let now = batch.min(left);
            for result in join_all((0..now).map(|_| self.create_one(set, &pod))).await {
                result?;
            }
            left -= now;
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, set: &Value, pod: &Value) -> Result<(), Error> {
        let namespace = meta::namespace(set);
        match self.client.create(PODS, Some(namespace), pod).await {
            Ok(created) => {
                let (uid, name) = (meta::uid(&created), meta::name(&created));
                self.expectations.created(meta::uid(set), uid, Instant::now());
                if self.pods.get(namespace, name).is_some_and(|seen| meta::uid(&seen) == uid) {
                    self.expectations.gone(uid);
                }
                self.events.note(set, "Normal", "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            Err(error) => {
                let error = Error::from(error);
                // What a namespace that is going away refuses is nobody's failure.
                if !error.is_namespace_terminating() {
                    self.events.note(set, "Warning", "FailedCreate", format!("Error creating: {error}"));
                }
                Err(error)
            }
        }
    }

    async fn delete(&self, set: &Value, victims: Vec<Arc<Value>>) -> Result<(), Error> {
        for result in join_all(victims.iter().map(|pod| self.delete_one(set, pod))).await {
            result?;
        }
        Ok(())
    }

    async fn delete_one(&self, set: &Value, pod: &Value) -> Result<(), Error> {
        let (namespace, name, uid) = (meta::namespace(pod), meta::name(pod), meta::uid(pod));
        self.expectations.deleted(meta::uid(set), uid, Instant::now());
        let only_this = DeleteParams { uid: Some(uid.to_owned()), ..DeleteParams::default() };
        match ignore_not_found(self.client.delete(PODS, Some(namespace), name, &only_this).await) {
            Ok(None) => self.expectations.gone(uid),
            Ok(Some(_)) => {
                self.events.note(set, "Normal", "SuccessfulDelete", format!("Deleted pod: {name}"));
            }
            Err(error) => {
                self.expectations.gone(uid);
                self.events.note(set, "Warning", "FailedDelete", format!("Error deleting: {error}"));
                return Err(error.into());
            }
        }
        Ok(())
    }
}

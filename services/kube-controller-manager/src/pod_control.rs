//! Creating, deleting and claiming pods on behalf of a workload object: what all workload controllers do alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::meta;
use client::resource::PODS;
use client::{Change, Client, DeleteParams, Informer, WorkQueue};
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::expectations::Expectations;
use crate::{object, worker};

/// Pods of one kind of owner.
pub struct PodControl {
    client: Client,
    events: Events,
    pods: Informer,
    expectations: Expectations,
    /// Pods without a controller, by namespace: the only ones that can be adopted.
    orphans: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl PodControl {
    /// Knows nothing yet.
    pub fn new(context: &Context) -> Arc<Self> {
        Arc::new(PodControl {
            client: context.client.clone(),
            events: context.events.clone(),
            pods: context.informers.get(PODS),
            expectations: Expectations::default(),
            orphans: Mutex::default(),
        })
    }

    /// All pods.
    pub fn pods(&self) -> &Informer {
        &self.pods
    }

    /// Wakes owners of `kind` for changes of their pods, and for an orphan every owner that could adopt it.
    pub fn watch(
        self: &Arc<Self>,
        owners: &Informer,
        kind: &'static str,
        queue: &WorkQueue<String>,
        selects: fn(&Value, &Value) -> bool,
    ) {
        let (this, owners, to) = (Arc::clone(self), owners.clone(), queue.clone());
        let wake = move |pod: &Value| {
            let namespace = meta::namespace(pod);
            match meta::controller_of(pod) {
                Some(controller) if controller["kind"] == kind => {
                    to.add(format!("{namespace}/{}", object::text(controller, "/name")));
                }
                Some(_) => {}
                None => {
                    let adopters = owners.list_namespace(namespace).into_iter().filter(|owner| selects(owner, pod));
                    adopters.for_each(|owner| to.add(meta::key(&owner)));
                }
            }
        };
        worker::on_change(&self.pods, move |change| {
            this.observe(&change);
            if let Change::Applied { old: Some(old), new } = &change
                && meta::controller_of(old).map(|c| &c["uid"]) != meta::controller_of(new).map(|c| &c["uid"])
            {
                wake(old);
            }
            wake(change.object());
        });
    }

    fn observe(&self, change: &Change) {
        match change {
            Change::Deleted(pod) => self.expectations.gone(meta::uid(pod)),
            Change::Applied { new, .. } => self.expectations.seen(new),
        }
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

    /// The owner's pods and those it could adopt, by name.
    pub fn candidates(&self, owner: &Value) -> Vec<Arc<Value>> {
        let namespace = meta::namespace(owner);
        let mut pods = self.pods.by_owner_uid(meta::uid(owner));
        let orphans: Vec<String> = self.orphans.lock().get(namespace).into_iter().flatten().cloned().collect();
        pods.extend(orphans.iter().filter_map(|name| self.pods.get(namespace, name)));
        pods.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
        pods.dedup_by(|a, b| meta::name(a) == meta::name(b));
        pods
    }

    /// How long at most the owner's earlier writes may stay unseen; `None` if all have been seen and it may act.
    pub fn pending(&self, owner: &Value) -> Option<Duration> {
        self.expectations.pending(meta::uid(owner), Instant::now())
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &Value) {
        self.expectations.forget(meta::uid(owner));
    }

    /// Creates in batches of 1, 2, 4 …: a quota or a broken template then costs one failed request, not hundreds.
    pub async fn create(&self, owner: &Value, pods: &[Value]) -> Result<(), Error> {
        let mut rest = pods;
        let mut batch = 1;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(batch.min(rest.len()));
            for result in join_all(now.iter().map(|pod| self.create_one(owner, pod))).await {
                result?;
            }
            rest = later;
            batch *= 2;
        }
        Ok(())
    }

    /// Creates one pod.
    pub async fn create_one(&self, owner: &Value, pod: &Value) -> Result<Value, Error> {
        let namespace = meta::namespace(owner);
        match self.client.create(PODS, Some(namespace), pod).await {
            Ok(created) => {
                let (uid, name) = (meta::uid(&created), meta::name(&created));
                self.expectations.created(meta::uid(owner), uid, Instant::now());
                if self.pods.get(namespace, name).is_some_and(|seen| meta::uid(&seen) == uid) {
                    self.expectations.gone(uid);
                }
                self.events.note(owner, "Normal", "SuccessfulCreate", CREATE.succeeded(owner, name));
                Ok(created)
            }
            Err(error) => {
                let error = Error::from(error);
                // What a namespace that is going away refuses is nobody's failure, nor a name that is still taken.
                if !error.is_namespace_terminating() && !error.is_conflict() {
                    let message = CREATE.failed(owner, meta::name(pod), &error.to_string());
                    self.events.note(owner, "Warning", "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    /// Deletes pods, all at once.
    pub async fn delete(&self, owner: &Value, victims: &[Arc<Value>]) -> Result<(), Error> {
        for result in join_all(victims.iter().map(|pod| self.delete_one(owner, pod))).await {
            result?;
        }
        Ok(())
    }

    async fn delete_one(&self, owner: &Value, pod: &Value) -> Result<(), Error> {
        let (namespace, name, uid) = (meta::namespace(pod), meta::name(pod), meta::uid(pod));
        self.expectations.deleted(meta::uid(owner), uid, Instant::now());
        let only_this = DeleteParams { uid: Some(uid.to_owned()), ..DeleteParams::default() };
        match ignore_not_found(self.client.delete(PODS, Some(namespace), name, &only_this).await) {
            Ok(None) => self.expectations.gone(uid),
            Ok(Some(_)) => {
                self.events.note(owner, "Normal", "SuccessfulDelete", DELETE.succeeded(owner, name));
            }
            Err(error) => {
                self.expectations.gone(uid);
                self.events.note(owner, "Warning", "FailedDelete", DELETE.failed(owner, name, &error.to_string()));
                return Err(error.into());
            }
        }
        Ok(())
    }
}

/// What is said of something done to a pod: StatefulSets have words of their own.
struct Words {
    verb: &'static str,
    done: &'static str,
    doing: &'static str,
}

const CREATE: Words = Words { verb: "create", done: "Created", doing: "creating" };
const DELETE: Words = Words { verb: "delete", done: "Deleted", doing: "deleting" };

impl Words {
    fn of_set(&self, owner: &Value, pod: &str) -> Option<String> {
        let is_set = meta::kind(owner) == "StatefulSet";
        is_set.then(|| format!("{} Pod {pod} in StatefulSet {}", self.verb, meta::name(owner)))
    }

    fn succeeded(&self, owner: &Value, pod: &str) -> String {
        match self.of_set(owner, pod) {
            Some(what) => format!("{what} successful"),
            None => format!("{} pod: {pod}", self.done),
        }
    }

    fn failed(&self, owner: &Value, pod: &str, error: &str) -> String {
        match self.of_set(owner, pod) {
            Some(what) => format!("{what} failed error: {error}"),
            None => format!("Error {}: {error}", self.doing),
        }
    }
}

/// A pod of the owner's template, named by the server.
pub fn from_template(owner: &Value, template: &Value) -> Value {
    let mut metadata = json!({
        "generateName": format!("{}-", meta::name(owner)),
        "namespace": meta::namespace(owner),
        "ownerReferences": [meta::controller_reference(owner)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_in_upstreams_words() {
        let owner = |kind: &str| json!({"kind": kind, "metadata": {"name": "web"}});
        let (set, other) = (owner("StatefulSet"), owner("ReplicaSet"));
        let cases = [
            (CREATE.succeeded(&set, "web-0"), "create Pod web-0 in StatefulSet web successful"),
            (CREATE.failed(&set, "web-0", "no"), "create Pod web-0 in StatefulSet web failed error: no"),
            (DELETE.succeeded(&set, "web-0"), "delete Pod web-0 in StatefulSet web successful"),
            (CREATE.succeeded(&other, "web-x"), "Created pod: web-x"),
            (CREATE.failed(&other, "", "no"), "Error creating: no"),
            (DELETE.succeeded(&other, "web-x"), "Deleted pod: web-x"),
            (DELETE.failed(&other, "web-x", "no"), "Error deleting: no"),
        ];
        for (said, expected) in cases {
            assert_eq!(said, expected);
        }
    }
}

//! Everything that is written: bindings, conditions, events, victims, volumes. Each in a task of its own; requests that
//! matter are bounded in number, and what only informs comes after them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use apimachinery::time;
use client::resource::{PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS};
use client::{Client, DeleteParams, Error, EventRecorder, Patch};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tracing::warn;

use super::feed::RESOURCECLAIMS;
use crate::devices::{RESERVED_MAX, Reservation};
use crate::objects::Condition;
use crate::pod::Pod;
use crate::preemption::Plan;
use crate::volumes::{Bindings, ClaimKey, SELECTED_NODE};

/// Requests that are under way at once; they share few connections.
const REQUESTS_MAX: usize = 128;
/// Pods whose victims are told to go at once; the others wait, which costs less than waiting for a request.
const PREEMPTIONS_MAX: usize = 48;
/// The same for events.
const EVENTS_MAX: usize = 4;
/// Keeps an allocated claim until its devices are given back.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// The end of something that was started.
pub enum Done {
    /// A binding was accepted.
    Bound { pod: Arc<Pod> },
    /// A binding was refused; `gone` if the pod does not exist any more.
    NotBound { pod: Arc<Pod>, reason: String, gone: bool },
    /// All victims were told to go.
    Preempted { uid: Arc<str>, rejected_by: BTreeSet<&'static str> },
    /// The API server knows which volumes the pod's claims shall have.
    VolumesWritten { uid: Arc<str> },
    /// The API server knows which devices the pod's resource claims have, and that it uses them.
    ClaimsWritten { uid: Arc<str> },
}

/// Why a pod waits, for its user.
pub struct Report {
    /// Of the condition.
    pub reason: &'static str,
    /// Of condition and event.
    pub message: String,
    /// The node that was cleared for it; empty to take that back.
    pub nominate: Option<String>,
}

/// Starts requests.
#[derive(Clone)]
pub struct Actor {
    client: Client,
    recorders: Arc<HashMap<String, EventRecorder>>,
    done: mpsc::UnboundedSender<Done>,
    requests: Arc<Semaphore>,
    preemptions: Arc<Semaphore>,
    events: Arc<Semaphore>,
}

impl Actor {
    /// An actor that reports to `done`; a recorder for each scheduler name.
    pub fn new(client: Client, recorders: HashMap<String, EventRecorder>, done: mpsc::UnboundedSender<Done>) -> Actor {
        Actor {
            client,
            recorders: Arc::new(recorders),
            done,
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            preemptions: Arc::new(Semaphore::new(PREEMPTIONS_MAX)),
            events: Arc::new(Semaphore::new(EVENTS_MAX)),
        }
    }

    fn tell(&self, done: Done) {
        // The loop is gone only when the process ends.
        let _ = self.done.send(done);
    }

    /// Binds a pod to its node.
    pub fn bind(&self, pod: Arc<Pod>) {
        let this = self.clone();
        tokio::spawn(async move {
            let result = {
                let _permit = this.requests.acquire().await;
                this.post_binding(&pod).await
            };
            match result {
                Ok(()) => {
                    this.tell(Done::Bound { pod: Arc::clone(&pod) });
                    let message = format!("Successfully assigned {} to {}", pod.key(), pod.node);
                    this.event(&pod, "Normal", "Scheduled", &message).await;
                }
                Err(error) => {
                    let gone = error.is_not_found();
                    this.tell(Done::NotBound { pod, reason: error.to_string(), gone });
                }
            }
        });
    }

    async fn post_binding(&self, pod: &Pod) -> Result<(), Error> {
        let namespace = &pod.spec.namespace;
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": &*pod.name, "namespace": namespace, "uid": &*pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": &*pod.node},
        });
        self.client.create_sub(PODS, Some(namespace), &pod.name, "binding", &binding).await?;
        Ok(())
    }

    async fn event(&self, pod: &Pod, kind: &str, reason: &str, message: &str) {
        self.event_by(&pod.spec.scheduler, pod, kind, reason, message).await;
    }

    async fn event_by(&self, scheduler: &str, pod: &Pod, kind: &str, reason: &str, message: &str) {
        let _permit = self.events.acquire().await;
        if let Some(recorder) = self.recorders.get(scheduler) {
            recorder.event(&pod.reference(), kind, reason, message).await;
        }
    }

    /// Tells the user why a pod waits.
    pub fn report(&self, pod: &Arc<Pod>, report: Report) {
        let (this, pod) = (self.clone(), Arc::clone(pod));
        tokio::spawn(async move {
            if let Some(patch) = status_patch(&pod, &report) {
                let _permit = this.requests.acquire().await;
                this.patch_status(&pod, &patch).await;
            }
            this.event(&pod, "Warning", "FailedScheduling", &report.message).await;
        });
    }

    async fn patch_status(&self, pod: &Pod, patch: &Patch) {
        match self.client.patch(PODS, Some(&pod.spec.namespace), &pod.name, Some("status"), patch).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => warn!("status of {}: {error}", pod.key()),
        }
    }

    /// Removes the victims of a plan, then reports that the pod may be tried again.
    pub fn preempt(&self, pod: &Arc<Pod>, plan: Plan, rejected_by: BTreeSet<&'static str>) {
        let (this, pod) = (self.clone(), Arc::clone(pod));
        tokio::spawn(async move {
            let removed = {
                let _permit = this.preemptions.acquire().await;
                for displaced in &plan.displaced {
                    let patch = json!({"metadata": {"uid": &*displaced.uid}, "status": {"nominatedNodeName": null}});
                    this.patch_status(displaced, &Patch::Merge(patch)).await;
                }
                let removals = plan.victims.iter().map(|victim| this.remove(&pod, victim));
                futures_util::future::join_all(removals).await
            };
            this.tell(Done::Preempted { uid: Arc::clone(&pod.uid), rejected_by });
            for (victim, _) in plan.victims.iter().zip(removed).filter(|(_, removed)| *removed) {
                let message = format!("Preempted by pod {} on node {}", pod.uid, victim.node);
                this.event_by(&pod.spec.scheduler, victim, "Normal", "Preempted", &message).await;
            }
        });
    }

    /// Whether it was removed: someone else may have been faster.
    async fn remove(&self, pod: &Pod, victim: &Pod) -> bool {
        let _permit = self.requests.acquire().await;
        let namespace = Some(victim.spec.namespace.as_str());
        if !victim.ending {
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                "message": format!("{}: preempting to accommodate a higher priority pod", pod.spec.scheduler),
                "lastTransitionTime": time::now_rfc3339(),
            });
            let patch = json!({"metadata": {"uid": &*victim.uid}, "status": {"conditions": [condition]}});
            self.patch_status(victim, &Patch::Strategic(patch)).await;
        }
        let params = DeleteParams { uid: Some(victim.uid.to_string()), ..DeleteParams::default() };
        match self.client.delete(PODS, namespace, &victim.name, &params).await {
            Ok(_) => return true,
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => warn!("preempting {}: {error}", victim.key()),
        }
        false
    }

    /// Writes which volumes a pod's claims shall have.
    pub fn write_volumes(&self, pod: &Arc<Pod>, bindings: &Bindings) {
        let (this, pod, bindings) = (self.clone(), Arc::clone(pod), bindings.clone());
        tokio::spawn(async move {
            match this.patch_volumes(&pod, &bindings).await {
                Ok(()) => this.tell(Done::VolumesWritten { uid: Arc::clone(&pod.uid) }),
                Err(error) => {
                    let reason = format!("binding volumes: {error}");
                    this.tell(Done::NotBound { pod, reason, gone: false });
                }
            }
        });
    }

    /// Writes which devices a pod's claims have, and that the pod uses them.
    pub fn write_claims(&self, pod: &Arc<Pod>, reservations: &[Reservation]) {
        let (this, pod, reservations) = (self.clone(), Arc::clone(pod), reservations.to_vec());
        tokio::spawn(async move {
            for reservation in &reservations {
                if let Err(why) = this.reserve(&pod, reservation).await {
                    let reason = format!("reserving devices: {why}");
                    return this.tell(Done::NotBound { pod, reason, gone: false });
                }
            }
            this.tell(Done::ClaimsWritten { uid: Arc::clone(&pod.uid) });
        });
    }

    async fn reserve(&self, pod: &Pod, reservation: &Reservation) -> Result<(), String> {
        let _permit = self.requests.acquire().await;
        let (namespace, name) = (Some(&*reservation.key.0), &*reservation.key.1);
        // Without it a claim could be deleted while its devices are in use.
        let held = json!({"metadata": {"uid": &*reservation.uid, "finalizers": [FINALIZER]}});
        let claim = match &reservation.allocation {
            Some(_) => self.client.patch(RESOURCECLAIMS, namespace, name, None, &Patch::Strategic(held)).await,
            None => self.client.get(RESOURCECLAIMS, namespace, name).await,
        };
        let mut claim = claim.map_err(|e| e.to_string())?;
        if claim["metadata"]["uid"] != *reservation.uid {
            return Err(changed(&reservation.key));
        }
        claim["status"] = reserved(&claim, reservation, pod)?;
        let written = self.client.update_sub(RESOURCECLAIMS, namespace, name, "status", &claim).await;
        written.map(drop).map_err(|e| e.to_string())
    }

    /// Takes devices off claims that only this pod could use, and that it cannot.
    pub fn give_claims_back(&self, pod: &Arc<Pod>, claims: Vec<ClaimKey>) {
        let (this, pod) = (self.clone(), Arc::clone(pod));
        tokio::spawn(async move {
            for (namespace, name) in &claims {
                let _permit = this.requests.acquire().await;
                match this.give_back(&pod, namespace, name).await {
                    Ok(()) => {}
                    Err(error) if error.is_not_found() || error.is_conflict() => {}
                    Err(error) => warn!("devices of claim {namespace}/{name}: {error}"),
                }
            }
        });
    }

    async fn give_back(&self, pod: &Pod, namespace: &str, name: &str) -> Result<(), Error> {
        let mut claim = self.client.get(RESOURCECLAIMS, Some(namespace), name).await?;
        let users = claim["status"]["reservedFor"].as_array().cloned().unwrap_or_default();
        if users.iter().any(|user| user["uid"] != *pod.uid) {
            return Ok(());
        }
        if let Some(status) = claim["status"].as_object_mut() {
            ["allocation", "reservedFor", "devices"].into_iter().for_each(|field| drop(status.remove(field)));
        }
        self.client.update_sub(RESOURCECLAIMS, Some(namespace), name, "status", &claim).await?;
        Ok(())
    }

    async fn patch_volumes(&self, pod: &Pod, bindings: &Bindings) -> Result<(), Error> {
        let _permit = self.requests.acquire().await;
        for (volume, (namespace, claim)) in &bindings.reserve {
            let current = self.client.get(PERSISTENTVOLUMECLAIMS, Some(namespace), claim).await?;
            let reference = json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": claim,
                "uid": current["metadata"]["uid"], "resourceVersion": current["metadata"]["resourceVersion"],
            });
            let patch = json!({"metadata": {"annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}},
                               "spec": {"claimRef": reference}});
            self.client.patch(PERSISTENTVOLUMES, None, volume, None, &Patch::Merge(patch)).await?;
        }
        for (namespace, claim) in &bindings.provision {
            let patch = json!({"metadata": {"annotations": {SELECTED_NODE: &*pod.node}}});
            let namespace = Some(&**namespace);
            self.client.patch(PERSISTENTVOLUMECLAIMS, namespace, claim, None, &Patch::Merge(patch)).await?;
        }
        Ok(())
    }
}

/// What is wrong with a claim that somebody else has changed.
fn changed(key: &ClaimKey) -> String {
    format!("resourceclaim \"{}/{}\" has changed", key.0, key.1)
}

/// The status of a claim that a pod uses from now on.
fn reserved(claim: &Value, reservation: &Reservation, pod: &Pod) -> Result<Value, String> {
    let mut status = if claim["status"].is_object() { claim["status"].clone() } else { json!({}) };
    match (&reservation.allocation, status["allocation"].is_object()) {
        (Some(allocation), false) => status["allocation"] = allocation.status.clone(),
        (None, true) => {}
        _ => return Err(changed(&reservation.key)),
    }
    let mut users = status["reservedFor"].as_array().cloned().unwrap_or_default();
    if !users.iter().any(|user| user["uid"] == *pod.uid) {
        users.push(json!({"resource": "pods", "name": &*pod.name, "uid": &*pod.uid}));
    }
    if users.len() > RESERVED_MAX {
        return Err("resourceclaim in use".to_owned());
    }
    status["reservedFor"] = users.into();
    Ok(status)
}

/// A patch that says why the pod waits and where it may soon run, unless its status says so already.
fn status_patch(pod: &Pod, report: &Report) -> Option<Patch> {
    let Report { reason, message, nominate } = report;
    let old = pod.waiting.as_ref().and_then(|waiting| waiting.condition.as_ref());
    let says = |c: &&Condition| &*c.status == "False" && &*c.reason == *reason && *c.message == **message;
    let mut status = json!({});
    if old.filter(says).is_none() {
        let mut condition = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message});
        if old.is_none_or(|c| &*c.status != "False") {
            condition["lastTransitionTime"] = time::now_rfc3339().into();
        }
        status["conditions"] = json!([condition]);
    }
    if let Some(node) = nominate.as_ref().filter(|node| **node != pod.nominated()) {
        status["nominatedNodeName"] = if node.is_empty() { Value::Null } else { node.as_str().into() };
    }
    let is_empty = status.as_object().is_none_or(serde_json::Map::is_empty);
    (!is_empty).then(|| Patch::Strategic(json!({"metadata": {"uid": &*pod.uid}, "status": status})))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::from_json;

    #[test]
    fn a_status_is_written_only_when_it_says_something_new() {
        let pod = |status: Value| from_json(json!({"metadata": {"name": "p", "uid": "u"}, "status": status}));
        let report = |nominate: Option<&str>| Report {
            reason: "Unschedulable",
            message: "full".to_owned(),
            nominate: nominate.map(str::to_owned),
        };
        let told = json!({"nominatedNodeName": "n", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "full"}]});
        assert!(status_patch(&pod(told.clone()), &report(None)).is_none());
        assert!(status_patch(&pod(told.clone()), &report(Some("n"))).is_none());
        let status = |old: Value, report: &Report| match status_patch(&pod(old), report) {
            Some(Patch::Strategic(patch)) => patch["status"].clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(status(told.clone(), &report(Some(""))), json!({"nominatedNodeName": null}));
        assert_eq!(status(told, &report(Some("m"))), json!({"nominatedNodeName": "m"}));
        let new = status(json!({}), &report(Some("m")));
        assert_eq!(new["conditions"][0]["message"], "full");
        assert!(new["conditions"][0]["lastTransitionTime"].is_string());
    }
}

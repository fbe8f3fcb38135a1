//! Everything that is written: bindings, conditions, victims, volumes. Each in a task of its own; requests are bounded in
//! number, and what only informs comes after them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::time;
use client::resource::{PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS};
use client::{Client, DeleteParams, Error, EventQueue, EventRecorder, Patch};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
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
/// Victims that end at once make room within this time. What could be said of their successor until then would be out of date
/// when it is read; upstream drops it too when the binding overtakes it.
const MOMENT: Duration = Duration::from_millis(100);
/// Keeps an allocated claim until its devices are given back.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// The end of something that was started.
pub enum Done {
    /// A binding was accepted.
    Bound { pod: Arc<Pod> },
    /// A binding was refused; `gone` if the pod does not exist any more.
    NotBound { pod: Arc<Pod>, reason: String, gone: bool },
    /// All victims were told to go.
    Preempted { uid: Arc<str>, rejected_by: BTreeSet<&'static str>, report: Report },
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
    events: EventQueue,
    done: mpsc::UnboundedSender<Done>,
    requests: Arc<Semaphore>,
    preemptions: Arc<Semaphore>,
}

/// What begins when a slot is free. Thousands may wait for one, so what is waited for is made only then.
async fn in_turn<F: Future>(slots: &Semaphore, begin: impl FnOnce() -> F) -> F::Output {
    let _slot = slots.acquire().await;
    Box::pin(begin()).await
}

impl Actor {
    /// An actor that reports to `done`; a recorder for each scheduler name.
    pub fn new(client: Client, recorders: HashMap<String, EventRecorder>, done: mpsc::UnboundedSender<Done>) -> Actor {
        Actor {
            client,
            recorders: Arc::new(recorders),
            events: EventQueue::start(),
            done,
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            preemptions: Arc::new(Semaphore::new(PREEMPTIONS_MAX)),
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
            match in_turn(&this.requests, || this.post_binding(&pod)).await {
                Ok(()) => {
                    this.tell(Done::Bound { pod: Arc::clone(&pod) });
                    let message = format!("Successfully assigned {} to {}", pod.key(), pod.node);
                    this.note(&pod.spec.scheduler, &pod, "Normal", "Scheduled", message);
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

    fn note(&self, by: &str, pod: &Pod, kind: &'static str, reason: &str, message: String) {
        if let Some(recorder) = self.recorders.get(by) {
            self.events.note(recorder, &pod.reference(), kind, reason, message);
        }
    }

    /// Tells the user why a pod waits.
    pub fn report(&self, pod: &Arc<Pod>, report: Report) {
        self.report_after(Duration::ZERO, pod, report);
    }

    /// The same; what stands in the pod's status only in a moment, if it is not aborted by then.
    pub fn announce(&self, pod: &Arc<Pod>, report: Report) -> AbortHandle {
        self.report_after(MOMENT, pod, report)
    }

    fn report_after(&self, delay: Duration, pod: &Arc<Pod>, report: Report) -> AbortHandle {
        let patch = status_patch(pod, &report);
        self.note(&pod.spec.scheduler, pod, "Warning", "FailedScheduling", report.message);
        let (this, pod) = (self.clone(), Arc::clone(pod));
        let saying = async move {
            let Some(patch) = patch else { return };
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            in_turn(&this.requests, || this.patch_status(&pod, &patch)).await;
        };
        tokio::spawn(saying).abort_handle()
    }

    async fn patch_status(&self, pod: &Pod, patch: &Patch) {
        match self.client.patch(PODS, Some(&pod.spec.namespace), &pod.name, Some("status"), patch).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => warn!("status of {}: {error}", pod.key()),
        }
    }

    /// Removes the victims of a plan, then tells that the pod may be tried again, and what is to be said about it.
    pub fn preempt(&self, pod: &Arc<Pod>, plan: Plan, rejected_by: BTreeSet<&'static str>, report: Report) {
        let (this, pod) = (self.clone(), Arc::clone(pod));
        tokio::spawn(async move {
            let removed = in_turn(&this.preemptions, || this.clear(&pod, &plan)).await;
            this.tell(Done::Preempted { uid: Arc::clone(&pod.uid), rejected_by, report });
            for (victim, _) in plan.victims.iter().zip(removed).filter(|(_, removed)| *removed) {
                let message = format!("Preempted by pod {} on node {}", pod.uid, victim.node);
                this.note(&pod.spec.scheduler, victim, "Normal", "Preempted", message);
            }
        });
    }

    /// Tells the victims to go; which of them were removed.
    async fn clear(&self, pod: &Pod, plan: &Plan) -> Vec<bool> {
        for displaced in &plan.displaced {
            let patch = json!({"metadata": {"uid": &*displaced.uid}, "status": {"nominatedNodeName": null}});
            self.patch_status(displaced, &Patch::Merge(patch)).await;
        }
        let removals = plan.victims.iter().map(|victim| in_turn(&self.requests, move || self.remove(pod, victim)));
        futures_util::future::join_all(removals).await
    }

    /// Whether it was removed: someone else may have been faster.
    async fn remove(&self, pod: &Pod, victim: &Pod) -> bool {
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
            match in_turn(&this.requests, || this.patch_volumes(&pod, &bindings)).await {
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
                if let Err(why) = in_turn(&this.requests, || this.reserve(&pod, reservation)).await {
                    let reason = format!("reserving devices: {why}");
                    return this.tell(Done::NotBound { pod, reason, gone: false });
                }
            }
            this.tell(Done::ClaimsWritten { uid: Arc::clone(&pod.uid) });
        });
    }

    async fn reserve(&self, pod: &Pod, reservation: &Reservation) -> Result<(), String> {
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
                match in_turn(&this.requests, || this.give_back(&pod, namespace, name)).await {
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

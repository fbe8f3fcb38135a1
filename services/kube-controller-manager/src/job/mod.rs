//! job-controller: pods that run to completion, each counted exactly once.

mod indexes;
mod manage;
mod plan;
mod pod;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::meta;
use apimachinery::selector::LabelSelector;
use client::resource::PODS;
use client::{Change, Client, Informer, Patch, WorkQueue};
use futures_util::future::join_all;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::pod_control::PodControl;
use crate::resource::JOBS;
use crate::worker::{self, Next};
use crate::{object, owners};

const WORKERS: usize = 5;

struct Controller {
    client: Client,
    events: Events,
    jobs: Informer,
    pods: Arc<PodControl>,
    /// The version of each Job's last status write. A cache that lags behind it would count pods as missing.
    written: Mutex<HashMap<String, u128>>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        jobs: context.informers.get(JOBS),
        pods: PodControl::new(&context),
        client: context.client,
        events: context.events,
        written: Mutex::default(),
    });
    let (queue, orphans) = (WorkQueue::new(), WorkQueue::new());
    controller.jobs.synced().await;
    controller.pods.pods().synced().await;
    let (this, to, lost) = (Arc::clone(&controller), queue.clone(), orphans.clone());
    worker::on_change(&controller.jobs, move |change| {
        if let Change::Deleted(job) = &change {
            this.pods.forget(job);
            this.written.lock().remove(meta::uid(job));
            for pod in this.pods.pods().by_owner_uid(meta::uid(job)) {
                lost.add(meta::key(&pod));
            }
        }
        to.add(meta::key(change.object()));
    });
    let (this, lost) = (Arc::clone(&controller), orphans.clone());
    worker::on_change(controller.pods.pods(), move |change| {
        if let Change::Applied { new, .. } = &change
            && pod::is_tracked(new)
            && this.job_of(new).is_none()
        {
            lost.add(meta::key(new));
        }
    });
    controller.pods.watch(&controller.jobs, JOBS.kind, &queue, |job, pod| {
        selector(job).is_ok_and(|s| s.matches(meta::labels(pod)))
    });
    tokio::join!(
        worker::run("job", queue, WORKERS, |key| sync(&controller, key)),
        worker::run("job-orphans", orphans, 1, |key| let_go(&controller, key)),
    );
}

fn selector(job: &Value) -> Result<LabelSelector, Error> {
    LabelSelector::from_object(&job["spec"]["selector"])
        .map_err(|e| Error::Object(format!("Job {}: spec.selector: {e}", meta::key(job))))
}

fn version(object: &Value) -> u128 {
    meta::resource_version(object).parse().unwrap_or(0)
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(job) = controller.jobs.get(namespace, name) else { return Ok(Next::Done) };
    if plan::is_foreign(&job) {
        return Ok(Next::Done);
    }
    let behind = controller.written.lock().get(meta::uid(&job)).is_some_and(|written| version(&job) < *written);
    if behind {
        // The informer will show what was written, and wake this key.
        return Ok(Next::Done);
    }
    let selector = selector(&job)?;
    let claim = owners::claim(&job, controller.pods.candidates(&job), |pod| selector.matches(meta::labels(pod)));
    let pods = owners::carry_out(&controller.client, &job, JOBS, PODS, claim).await?;
    if let Some(left) = controller.pods.pending(&job) {
        return Ok(Next::After(left));
    }
    let plan = plan::plan(&job, &pods, Timestamp::now());
    let deleted = controller.pods.delete(&job, &plan.delete).await;
    let created = controller.pods.create(&job, &plan.create).await;
    if let Some(status) = plan.status {
        let mut new = Value::clone(&job);
        new["status"] = status;
        let written = controller.client.update_sub(JOBS, Some(namespace), name, "status", &new).await?;
        controller.written.lock().insert(meta::uid(&job).to_owned(), version(&written));
    }
    for (kind, reason, message) in plan.notes {
        controller.events.note(&job, kind, &reason, message);
    }
    for released in join_all(plan.release.iter().map(|pod| controller.release(pod))).await {
        released?;
    }
    deleted.and(created)?;
    Ok(plan.next.map_or(Next::Done, Next::After))
}

/// A pod whose Job is gone must not be held by it.
async fn let_go(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(pod) = controller.pods.pods().get(namespace, name) else { return Ok(Next::Done) };
    if !pod::is_tracked(&pod) || controller.job_of(&pod).is_some() {
        return Ok(Next::Done);
    }
    if let Some(owner) = meta::controller_of(&pod) {
        // The Job may be newer than the cache.
        let job = controller.client.get(JOBS, Some(namespace), object::text(owner, "/name")).await;
        if ignore_not_found(job)?.is_some_and(|job| job["metadata"]["uid"] == owner["uid"]) {
            return Ok(Next::Done);
        }
    }
    controller.release(&pod).await?;
    Ok(Next::Done)
}

impl Controller {
    /// The Job that controls a pod. Another kind's pod is nobody's orphan here.
    fn job_of(&self, pod: &Value) -> Option<Arc<Value>> {
        let owner = meta::controller_of(pod)?;
        let job = self.jobs.get(meta::namespace(pod), object::text(owner, "/name"))?;
        (owner["uid"] == meta::uid(&job)).then_some(job)
    }

    async fn release(&self, pod: &Value) -> Result<(), Error> {
        let metadata = json!({"uid": meta::uid(pod), "$deleteFromPrimitiveList/finalizers": [pod::FINALIZER]});
        let patch = Patch::Strategic(json!({"metadata": metadata}));
        let (namespace, name) = (Some(meta::namespace(pod)), meta::name(pod));
        ignore_not_found(self.client.patch(PODS, namespace, name, None, &patch).await)?;
        Ok(())
    }
}

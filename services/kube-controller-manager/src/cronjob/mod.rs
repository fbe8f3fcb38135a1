//! cronjob-controller: Jobs by the calendar.

mod plan;
mod schedule;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use apimachinery::meta;
use client::{Client, DeleteParams, Informer, WorkQueue};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::object;
use crate::resource::{CRONJOBS, JOBS};
use crate::worker::{self, Next};

const WORKERS: usize = 5;

struct Controller {
    client: Client,
    events: Events,
    crons: Informer,
    jobs: Informer,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        crons: context.informers.get(CRONJOBS),
        jobs: context.informers.get(JOBS),
        client: context.client,
        events: context.events,
    });
    controller.crons.synced().await;
    controller.jobs.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&controller.crons, move |change| to.add(meta::key(change.object())));
    let to = queue.clone();
    worker::on_change(&controller.jobs, move |change| {
        let job = change.object();
        if let Some(owner) = meta::controller_of(job).filter(|owner| owner["kind"] == "CronJob") {
            to.add(format!("{}/{}", meta::namespace(job), object::text(owner, "/name")));
        }
    });
    worker::run("cronjob", queue, WORKERS, |key| sync(&controller, key)).await;
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(cron) = controller.crons.get(namespace, name) else { return Ok(Next::Done) };
    let mut jobs = controller.jobs.by_owner_uid(meta::uid(&cron));
    jobs.retain(|job| meta::is_controlled_by(job, &cron));
    let plan = plan::plan(&cron, &jobs, Timestamp::now());
    for (kind, reason, message) in plan.notes {
        controller.events.note(&cron, kind, reason, message);
    }
    for job in &plan.delete {
        controller.delete(&cron, job).await?;
    }
    let mut status = plan.status;
    if let Some((job, due)) = plan.create
        && let Some(made) = controller.create(&cron, &job).await?
    {
        status = plan::with_new(status, &made, due);
    }
    let before = if cron["status"].is_object() { cron["status"].clone() } else { json!({}) };
    if status != before {
        let mut new = Value::clone(&cron);
        new["status"] = status;
        controller.client.update_sub(CRONJOBS, Some(namespace), name, "status", &new).await?;
    }
    Ok(plan.next.map_or(Next::Done, Next::After))
}

impl Controller {
    async fn delete(&self, cron: &Value, job: &Value) -> Result<(), Error> {
        let params = DeleteParams {
            uid: Some(meta::uid(job).to_owned()),
            propagation_policy: Some("Background".to_owned()),
            ..DeleteParams::default()
        };
        let deleted = self.client.delete(JOBS, Some(meta::namespace(job)), meta::name(job), &params).await;
        if ignore_not_found(deleted)?.is_some() {
            self.events.note(cron, "Normal", "SuccessfulDelete", format!("Deleted job {}", meta::name(job)));
        }
        Ok(())
    }

    /// The Job of that name: made now, or by an earlier pass that did not live to say so. Another's is left alone.
    async fn create(&self, cron: &Value, job: &Value) -> Result<Option<Value>, Error> {
        let (namespace, name) = (meta::namespace(cron), meta::name(job));
        match self.client.create(JOBS, Some(namespace), job).await {
            Ok(made) => {
                self.events.note(cron, "Normal", "SuccessfulCreate", format!("Created job {name}"));
                Ok(Some(made))
            }
            Err(error) if error.is_already_exists() => {
                let found = ignore_not_found(self.client.get(JOBS, Some(namespace), name).await)?;
                Ok(found.filter(|found| meta::is_controlled_by(found, cron)))
            }
            Err(error) => {
                let error = Error::from(error);
                if !error.is_namespace_terminating() {
                    self.events.note(cron, "Warning", "FailedCreate", format!("Error creating job: {error}"));
                }
                Err(error)
            }
        }
    }
}

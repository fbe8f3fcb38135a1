//! resourcequota-controller: says how much of each quota is used. Admission enforces; this puts right what admission
//! cannot see: what went away, what finished, what a user wrote into the status.

mod plan;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta;
use client::{Change, Client, Informer, WorkQueue};
use parking_lot::Mutex;
use serde_json::Value;

use crate::context::{Context, Informers};
use crate::error::Error;
use crate::resource::RESOURCEQUOTAS;
use crate::resources::Resources;
use crate::worker::{self, Next};

/// Changes gather for this long: a namespace that fills with pods is counted a few times, not once per pod.
const GATHER: Duration = Duration::from_millis(200);

struct Controller {
    client: Client,
    quotas: Informer,
    informers: Informers,
    resources: Arc<Resources>,
    queue: WorkQueue<String>,
    gathering: Mutex<HashSet<String>>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    context.resources.start().await;
    let controller = Arc::new(Controller {
        quotas: context.informers.get(RESOURCEQUOTAS),
        client: context.client,
        informers: context.informers,
        resources: context.resources,
        queue: WorkQueue::new(),
        gathering: Mutex::default(),
    });
    controller.quotas.synced().await;
    let to = controller.queue.clone();
    worker::on_change(&controller.quotas, move |change| to.add(meta::key(change.object())));
    let (mut changes, this) = (controller.resources.subscribe(), Arc::clone(&controller));
    tokio::spawn(async move {
        while let Some((resource, change)) = changes.recv().await {
            let namespace = meta::namespace(change.object()).to_owned();
            if !namespace.is_empty() && concerns_quotas(resource.group, resource.plural, &change) {
                for quota in this.quotas.list_namespace(&namespace) {
                    this.soon(meta::key(&quota));
                }
            }
        }
    });
    worker::run("resourcequota", controller.queue.clone(), 5, |key| sync(&controller, key)).await;
}

/// Coming and going always counts; a change only if it is one of what is used.
fn concerns_quotas(group: &str, plural: &str, change: &Change) -> bool {
    let Change::Applied { old: Some(old), new } = change else { return true };
    let scopes = |object: &Value| object["spec"]["activeDeadlineSeconds"].clone();
    usage::of(group, plural, old) != usage::of(group, plural, new) || scopes(old) != scopes(new)
}

impl Controller {
    fn soon(self: &Arc<Self>, key: String) {
        if !self.gathering.lock().insert(key.clone()) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(GATHER).await;
            this.gathering.lock().remove(&key);
            this.queue.add(key);
        });
    }
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(quota) = controller.quotas.get(namespace, name) else { return Ok(Next::Done) };
    if meta::deletion_timestamp(&quota).is_some() {
        return Ok(Next::Done);
    }
    let mut objects = Vec::new();
    for (group, plural) in plan::kinds(&quota) {
        // A kind that the server does not have has no objects.
        let Some(resource) = controller.resources.of_plural(&group, &plural) else { continue };
        let informer = controller.informers.get(resource);
        informer.synced().await;
        objects.push(((group, plural), informer.each_in(namespace)));
    }
    if let Some(status) = plan::status(&quota, objects) {
        let mut new = Value::clone(&quota);
        new["status"] = status;
        controller.client.update_sub(RESOURCEQUOTAS, Some(namespace), name, "status", &new).await?;
    }
    Ok(Next::Done)
}

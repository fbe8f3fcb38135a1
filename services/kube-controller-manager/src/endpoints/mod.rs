//! endpoints-controller: one Endpoints object per Service with a selector, for clients that still read those.

mod plan;

use apimachinery::meta;
use client::WorkQueue;
use client::resource::{ENDPOINTS, PODS, SERVICES};

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::services;
use crate::worker::{self, Next};

/// Runs the controller.
pub async fn run(context: Context) {
    let (all, pods, endpoints) =
        (context.informers.get(SERVICES), context.informers.get(PODS), context.informers.get(ENDPOINTS));
    for informer in [&all, &pods, &endpoints] {
        informer.synced().await;
    }
    let queue = WorkQueue::new();
    services::watch(&all, &pods, &queue);
    let to = queue.clone();
    worker::on_change(&endpoints, move |change| to.add(meta::key(change.object())));
    let sync = async |key: String| -> Result<Next, Error> {
        let (namespace, name) = meta::split_key(&key);
        let found = endpoints.get(namespace, name);
        let Some(service) = all.get(namespace, name) else {
            // Endpoints have no owner reference; only those that this controller made go with their Service.
            if found.is_some_and(|found| plan::is_managed(&found)) {
                ignore_not_found(context.client.delete(ENDPOINTS, Some(namespace), name, &Default::default()).await)?;
            }
            return Ok(Next::Done);
        };
        if !services::is_managed(&service) || meta::deletion_timestamp(&service).is_some() {
            return Ok(Next::Done);
        }
        let wanted = plan::endpoints(&service, &services::pods_of(&service, &pods), found.as_deref());
        match (wanted, found) {
            (None, _) => {}
            (Some(wanted), None) => {
                context.client.create(ENDPOINTS, Some(namespace), &wanted).await?;
            }
            (Some(wanted), Some(_)) => {
                context.client.update(ENDPOINTS, Some(namespace), name, &wanted).await?;
            }
        }
        Ok(Next::Done)
    };
    worker::run("endpoints", queue, 5, sync).await;
}

//! endpointslice-controller: a Service's pods as slices of at most a hundred endpoints, for proxies and DNS.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use apimachinery::{meta, time};
use client::resource::{ENDPOINTSLICES, NODES, PODS, SERVICES};
use client::{Change, Client, DeleteParams, Informer, WorkQueue};
use jiff::Timestamp;
use serde_json::Value;

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::expectations::Expectations;
use crate::services;
use crate::worker::{self, Next};

const WORKERS: usize = 5;

struct Controller {
    client: Client,
    services: Informer,
    pods: Informer,
    slices: Informer,
    nodes: Informer,
    /// Slices created that the informer has not shown: creating again would double every endpoint.
    expectations: Expectations,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        services: context.informers.get(SERVICES),
        pods: context.informers.get(PODS),
        slices: context.informers.get(ENDPOINTSLICES),
        nodes: context.informers.get(NODES),
        client: context.client,
        expectations: Expectations::default(),
    });
    for informer in [&controller.services, &controller.pods, &controller.slices, &controller.nodes] {
        informer.synced().await;
    }
    let queue = WorkQueue::new();
    services::watch(&controller.services, &controller.pods, &queue);
    let (this, to) = (Arc::clone(&controller), queue.clone());
    worker::on_change(&controller.slices, move |change| {
        match &change {
            Change::Applied { new, .. } => this.expectations.seen(new),
            Change::Deleted(slice) => this.expectations.gone(meta::uid(slice)),
        }
        if let Some(service) = plan::service_of(change.object()) {
            to.add(service);
        }
    });
    worker::run("endpointslice", queue, WORKERS, |key| sync(&controller, key)).await;
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(service) = controller.services.get(namespace, name) else {
        controller.expectations.forget(&key);
        return Ok(Next::Done);
    };
    if !services::is_managed(&service) || meta::deletion_timestamp(&service).is_some() {
        return Ok(Next::Done);
    }
    if let Some(left) = controller.expectations.pending(&key, Instant::now()) {
        return Ok(Next::After(left));
    }
    let pods = services::pods_of(&service, &controller.pods);
    let existing = controller.existing(&service);
    let zones = controller.zones(&pods);
    for change in plan::plan(&service, &pods, &existing, &zones, &time::rfc3339(Timestamp::now())) {
        controller.carry_out(&key, namespace, change).await?;
    }
    Ok(Next::Done)
}

impl Controller {
    /// The slices of this Service that are ours, by name.
    fn existing(&self, service: &Value) -> Vec<Arc<Value>> {
        let key = meta::key(service);
        let mut slices = self.slices.by_owner_uid(meta::uid(service));
        slices.retain(|slice| plan::service_of(slice).as_deref() == Some(key.as_str()));
        slices.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
        slices
    }

    fn zones(&self, pods: &[Arc<Value>]) -> BTreeMap<String, String> {
        let names = pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str());
        let zone = |name: &str| {
            let node = self.nodes.get("", name)?;
            Some((name.to_owned(), meta::label(&node, "topology.kubernetes.io/zone")?.to_owned()))
        };
        names.filter_map(zone).collect()
    }

    async fn carry_out(&self, service: &str, namespace: &str, change: plan::Change) -> Result<(), Error> {
        match change {
            plan::Change::Create(slice) => {
                let created = self.client.create(ENDPOINTSLICES, Some(namespace), &slice).await?;
                let uid = meta::uid(&created);
                self.expectations.created(service, uid, Instant::now());
                if self.slices.get(namespace, meta::name(&created)).is_some_and(|seen| meta::uid(&seen) == uid) {
                    self.expectations.gone(uid);
                }
            }
            plan::Change::Update(slice) => {
                self.client.update(ENDPOINTSLICES, Some(namespace), meta::name(&slice), &slice).await?;
            }
            plan::Change::Delete(slice) => {
                let only_this = DeleteParams { uid: Some(meta::uid(&slice).to_owned()), ..DeleteParams::default() };
                let deleted = self.client.delete(ENDPOINTSLICES, Some(namespace), meta::name(&slice), &only_this).await;
                ignore_not_found(deleted)?;
            }
        }
        Ok(())
    }
}

//! endpointslice-mirroring-controller: Endpoints that people write for Services without a selector, as slices.

mod plan;

use std::sync::Arc;

use apimachinery::meta;
use client::resource::{ENDPOINTS, ENDPOINTSLICES, SERVICES};
use client::{Client, DeleteParams, Informer, WorkQueue};

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::worker::{self, Next};

use plan::Change;

struct Controller {
    client: Client,
    endpoints: Informer,
    services: Informer,
    slices: Informer,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        endpoints: context.informers.get(ENDPOINTS),
        services: context.informers.get(SERVICES),
        slices: context.informers.get(ENDPOINTSLICES),
        client: context.client,
    });
    let queue = WorkQueue::new();
    for informer in [&controller.endpoints, &controller.services, &controller.slices] {
        informer.synced().await;
    }
    for informer in [&controller.endpoints, &controller.services] {
        let to = queue.clone();
        worker::on_change(informer, move |change| to.add(meta::key(change.object())));
    }
    let to = queue.clone();
    worker::on_change(&controller.slices, move |change| {
        if let Some(service) = plan::service_of(change.object()) {
            to.add(service);
        }
    });
    worker::run("endpointslice-mirroring", queue, 5, |key| sync(&controller, key)).await;
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let mut existing = controller.slices.list_namespace(namespace);
    existing.retain(|slice| plan::service_of(slice).as_deref() == Some(key.as_str()));
    let endpoints = controller.endpoints.get(namespace, name);
    let service = controller.services.get(namespace, name);
    for change in plan::plan(endpoints.as_deref(), service.as_deref(), &existing) {
        match change {
            Change::Create(slice) => {
                controller.client.create(ENDPOINTSLICES, Some(namespace), &slice).await?;
            }
            Change::Update(slice) => {
                controller.client.update(ENDPOINTSLICES, Some(namespace), meta::name(&slice), &slice).await?;
            }
            Change::Delete(slice) => {
                let only_this = DeleteParams { uid: Some(meta::uid(&slice).to_owned()), ..DeleteParams::default() };
                let name = meta::name(&slice);
                ignore_not_found(controller.client.delete(ENDPOINTSLICES, Some(namespace), name, &only_this).await)?;
            }
        }
    }
    Ok(Next::Done)
}

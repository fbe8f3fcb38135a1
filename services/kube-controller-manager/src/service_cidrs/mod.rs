//! service-cidrs-controller: says of address ranges for Services that they are ready, and keeps one that is going for as long
//! as an address in it is used and no other range has that address.

mod plan;

use std::sync::Arc;

use apimachinery::meta;
use client::{Client, Informer, Patch, WorkQueue};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::resource::{IPADDRESSES, SERVICECIDRS};
use crate::worker::{self, Next};

struct Controller {
    client: Client,
    ranges: Informer,
    addresses: Informer,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        ranges: context.informers.get(SERVICECIDRS),
        addresses: context.informers.get(IPADDRESSES),
        client: context.client,
    });
    controller.ranges.synced().await;
    controller.addresses.synced().await;
    let queue = WorkQueue::new();
    // Every range may cover for another; there are few of them. Addresses matter only to those that are going.
    for (informer, all) in [(&controller.ranges, true), (&controller.addresses, false)] {
        let (ranges, to) = (controller.ranges.clone(), queue.clone());
        worker::on_change(informer, move |_| {
            let concerned = ranges.list().into_iter().filter(|r| all || meta::deletion_timestamp(r).is_some());
            concerned.for_each(|range| to.add(meta::name(&range).to_owned()));
        });
    }
    worker::run("service-cidrs", queue, 1, |name| sync(&controller, name)).await;
}

async fn sync(controller: &Controller, name: String) -> Result<Next, Error> {
    let Some(range) = controller.ranges.get("", &name) else { return Ok(Next::Done) };
    let addresses = controller.addresses.list();
    let used: Vec<&str> = addresses.iter().map(|address| meta::name(address)).collect();
    let plan = plan::plan(&range, &controller.ranges.list(), &used, Timestamp::now());
    if let Some(finalizers) = plan.finalizers {
        let metadata = json!({"uid": meta::uid(&range), "resourceVersion": meta::resource_version(&range),
                              "finalizers": finalizers});
        let patch = Patch::Merge(json!({"metadata": metadata}));
        ignore_not_found(controller.client.patch(SERVICECIDRS, None, &name, None, &patch).await)?;
        return Ok(Next::Done);
    }
    if let Some(status) = plan.status {
        let mut new = Value::clone(&range);
        new["status"] = status;
        ignore_not_found(controller.client.update_sub(SERVICECIDRS, None, &name, "status", &new).await)?;
    }
    Ok(Next::Done)
}

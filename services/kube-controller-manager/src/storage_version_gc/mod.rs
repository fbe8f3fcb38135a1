//! storageversion-garbage-collector-controller: what API servers that are gone have said about their storage goes with them
//! (KEP-2339). An API server that does not serve StorageVersions, as ours, leaves it nothing to do.

mod plan;

use apimachinery::{meta, time};
use client::resource::LEASES;
use client::{Change, DeleteParams, Resource, WorkQueue};
use serde_json::Value;

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::worker::{self, Next};

use plan::Step;

const GROUP: &str = "internal.apiserver.k8s.io";
const PLURAL: &str = "storageversions";
/// Where API servers keep the Leases that say that they live.
const NAMESPACE: &str = "kube-system";

/// Runs the controller.
pub async fn run(context: Context) {
    context.resources.start().await;
    let Some(resource) = context.resources.of_plural(GROUP, PLURAL) else { return context.shutdown.wait().await };
    let (versions, leases) = (context.informers.get(resource), context.informers.get(LEASES));
    versions.synced().await;
    leases.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&versions, move |change| to.add(meta::name(change.object()).to_owned()));
    let (all, to) = (versions.clone(), queue.clone());
    worker::on_change(&leases, move |change| {
        if let Change::Deleted(lease) = &change
            && plan::is_identity(lease)
        {
            all.each().for_each(|version| to.add(meta::name(&version).to_owned()));
        }
    });
    let sync = async |name: String| -> Result<Next, Error> {
        let Some(version) = versions.get("", &name) else { return Ok(Next::Done) };
        let lives = |server: &str| leases.get(NAMESPACE, server).is_some_and(|lease| plan::is_identity(&lease));
        if let Some(step) = plan::plan(&version, lives, &time::now_rfc3339()) {
            carry_out(&context, resource, &version, step).await?;
        }
        Ok(Next::Done)
    };
    worker::run("storage-version-garbage-collector", queue, 1, sync).await;
}

async fn carry_out(context: &Context, resource: Resource<'static>, version: &Value, step: Step) -> Result<(), Error> {
    let name = meta::name(version);
    match step {
        Step::Delete => {
            let only_this = DeleteParams {
                uid: Some(meta::uid(version).to_owned()),
                resource_version: Some(meta::resource_version(version).to_owned()),
                ..DeleteParams::default()
            };
            ignore_not_found(context.client.delete(resource, None, name, &only_this).await)?;
        }
        Step::Status(status) => {
            let mut new = version.clone();
            new["status"] = status;
            ignore_not_found(context.client.update_sub(resource, None, name, "status", &new).await)?;
        }
    }
    Ok(())
}

//! persistentvolume-protection-controller: a volume that is bound to a claim stays until it is not.

use apimachinery::meta;
use client::WorkQueue;

use crate::context::Context;
use crate::error::Error;
use crate::resource::PERSISTENTVOLUMES;
use crate::worker::{self, Next};
use crate::{object, protection};

const FINALIZER: &str = "kubernetes.io/pv-protection";

/// Runs the controller.
pub async fn run(context: Context) {
    let volumes = context.informers.get(PERSISTENTVOLUMES);
    volumes.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&volumes, move |change| to.add(meta::key(change.object())));
    let sync = async |name: String| -> Result<Next, Error> {
        let Some(volume) = volumes.get("", &name) else { return Ok(Next::Done) };
        let plan = protection::plan(&volume, FINALIZER, object::text(&volume, "/status/phase") == "Bound");
        protection::apply(&context.client, PERSISTENTVOLUMES, &volume, plan).await?;
        Ok(Next::Done)
    };
    worker::run("pv-protection", queue, 2, sync).await;
}

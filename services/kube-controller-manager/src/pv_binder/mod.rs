//! persistentvolume-binder-controller: gives claims volumes, and says of both what became of them.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use apimachinery::meta;
use client::resource::NODES;
use client::{Client, Informer, WorkQueue};
use serde_json::Value;

use crate::context::Context;
use crate::error::Error;
use crate::events::Events;
use crate::object;
use crate::resource::{PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES};
use crate::worker::{self, Next};

use plan::{Around, Step};

struct Controller {
    client: Client,
    events: Events,
    claims: Informer,
    volumes: Informer,
    classes: Informer,
    nodes: Informer,
    /// Keys of claims have a slash, names of volumes have none. One worker: two claims must not choose one volume at once.
    queue: WorkQueue<String>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        claims: context.informers.get(PERSISTENTVOLUMECLAIMS),
        volumes: context.informers.get(PERSISTENTVOLUMES),
        classes: context.informers.get(STORAGECLASSES),
        nodes: context.informers.get(NODES),
        client: context.client,
        events: context.events,
        queue: WorkQueue::new(),
    });
    for informer in [&controller.claims, &controller.volumes, &controller.classes, &controller.nodes] {
        informer.synced().await;
    }
    let this = Arc::clone(&controller);
    worker::on_change(&controller.claims, move |change| {
        let claim = change.object();
        this.queue.add(meta::key(claim));
        let volume = object::text(claim, "/spec/volumeName");
        if !volume.is_empty() {
            this.queue.add(volume.to_owned());
        }
    });
    let this = Arc::clone(&controller);
    worker::on_change(&controller.volumes, move |change| {
        this.queue.add(meta::name(change.object()).to_owned());
        this.wake_waiting_claims(meta::name(change.object()));
    });
    let this = Arc::clone(&controller);
    worker::on_change(&controller.classes, move |_| this.wake_waiting_claims(""));
    worker::run("persistentvolume-binder", controller.queue.clone(), 1, |key| sync(&controller, key)).await;
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let Some((namespace, name)) = key.split_once('/') else {
        let Some(volume) = controller.volumes.get("", &key) else { return Ok(Next::Done) };
        let held = &volume["spec"]["claimRef"];
        let holder = controller.claims.get(object::text(held, "/namespace"), object::text(held, "/name"));
        let steps = plan::volume(&volume, holder.as_deref());
        return controller.carry_out(&volume, steps).await;
    };
    let Some(claim) = controller.claims.get(namespace, name) else { return Ok(Next::Done) };
    let class = controller.classes.get("", plan::class_of(&claim));
    let node = plan::selected_node(&claim).and_then(|node| controller.nodes.get("", node));
    let volumes = controller.volumes.list();
    let steps = plan::claim(&claim, &Around { volumes: &volumes, class: class.as_deref(), node: node.as_deref() });
    controller.carry_out(&claim, steps).await
}

impl Controller {
    /// Claims without a volume, and the claim that has lost or is about to get this one.
    fn wake_waiting_claims(&self, volume: &str) {
        for claim in self.claims.list() {
            let named = object::text(&claim, "/spec/volumeName");
            if named.is_empty() || named == volume {
                self.queue.add(meta::key(&claim));
            }
        }
    }

    async fn carry_out(&self, about: &Value, steps: Vec<Step>) -> Result<Next, Error> {
        for step in steps {
            match step {
                Step::Claim(claim) => {
                    let (namespace, name) = (Some(meta::namespace(&claim)), meta::name(&claim));
                    self.client.update(PERSISTENTVOLUMECLAIMS, namespace, name, &claim).await?;
                }
                Step::ClaimStatus(claim) => {
                    let (namespace, name) = (Some(meta::namespace(&claim)), meta::name(&claim));
                    self.client.update_sub(PERSISTENTVOLUMECLAIMS, namespace, name, "status", &claim).await?;
                }
                Step::Volume(volume) => {
                    self.client.update(PERSISTENTVOLUMES, None, meta::name(&volume), &volume).await?;
                }
                Step::VolumeStatus(volume) => {
                    let name = meta::name(&volume);
                    self.client.update_sub(PERSISTENTVOLUMES, None, name, "status", &volume).await?;
                }
                // The volume's informer wakes the claim when the write shows; a claim that waits is woken now.
                Step::LookAtClaim(key) => self.queue.add(key),
                Step::NoteClaim(kind, reason, message) | Step::NoteVolume(kind, reason, message) => {
                    self.events.note(about, kind, reason, message);
                }
            }
        }
        Ok(Next::Done)
    }
}

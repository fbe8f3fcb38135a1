//! resourceclaim-controller: makes the claims for devices that pods describe by templates, and takes pods that are done off
//! the claims that they held; a claim that nobody holds gives its devices back.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use apimachinery::meta;
use client::resource::PODS;
use client::{Client, DeleteParams, Informer, Patch, WorkQueue};
use serde_json::{Value, json};

use self::plan::{Claim, Step};
use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::object;
use crate::resource::{RESOURCECLAIMS, RESOURCECLAIMTEMPLATES};
use crate::worker::{self, Next};

/// Prefixes of the queue's keys.
const POD: &str = "pod/";
const CLAIM: &str = "claim/";

struct Controller {
    client: Client,
    events: Events,
    pods: Informer,
    claims: Informer,
    templates: Informer,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        pods: context.informers.get(PODS),
        claims: context.informers.get(RESOURCECLAIMS),
        templates: context.informers.get(RESOURCECLAIMTEMPLATES),
        client: context.client,
        events: context.events,
    });
    for informer in [&controller.pods, &controller.claims, &controller.templates] {
        informer.synced().await;
    }
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&controller.pods, move |change| {
        let pod = change.object();
        if object::list(pod, "/spec/resourceClaims").is_empty() {
            return;
        }
        to.add(format!("{POD}{}", meta::key(pod)));
        for claim in plan::claims_of(pod) {
            to.add(format!("{CLAIM}{}/{claim}", meta::namespace(pod)));
        }
    });
    let to = queue.clone();
    worker::on_change(&controller.claims, move |change| {
        let claim = change.object();
        to.add(format!("{CLAIM}{}", meta::key(claim)));
        if let Some(owner) = meta::controller_of(claim).filter(|owner| owner["kind"] == "Pod") {
            to.add(format!("{POD}{}/{}", meta::namespace(claim), object::text(owner, "/name")));
        }
    });
    let (this, to) = (Arc::clone(&controller), queue.clone());
    worker::on_change(&controller.templates, move |change| {
        let template = change.object();
        for pod in this.pods.each_in(meta::namespace(template)) {
            if plan::templates_of(&pod).any(|name| name == meta::name(template)) {
                to.add(format!("{POD}{}", meta::key(&pod)));
            }
        }
    });
    // One claim is made once: passes over one pod and over its claims never run together.
    worker::run("resource-claim", queue, 1, |key| sync(&controller, key)).await;
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    if let Some(key) = key.strip_prefix(POD) {
        controller.pod(key).await?;
    } else if let Some(key) = key.strip_prefix(CLAIM) {
        controller.claim(key).await?;
    }
    Ok(Next::Done)
}

impl Controller {
    async fn pod(&self, key: &str) -> Result<(), Error> {
        let (namespace, name) = meta::split_key(key);
        let Some(pod) = self.pods.get(namespace, name) else { return Ok(()) };
        if plan::is_done(&pod) || meta::deletion_timestamp(&pod).is_some() {
            return Ok(());
        }
        let owned = self.claims.by_owner_uid(meta::uid(&pod));
        let wanted = plan::claims(&pod, &owned, |template| self.templates.get(namespace, template));
        let mut made = Vec::new();
        for (entry, claim) in wanted {
            let name = match claim {
                Ok(Claim::Exists(name)) => name,
                Ok(Claim::Create(claim)) => match self.client.create(RESOURCECLAIMS, Some(namespace), &claim).await {
                    Ok(created) => meta::name(&created).to_owned(),
                    Err(error) => return Err(self.failed(&pod, &entry, &error.to_string())),
                },
                Err(missing) => {
                    // Its template wakes us.
                    self.failed(&pod, &entry, &missing);
                    continue;
                }
            };
            made.push(json!({"name": entry, "resourceClaimName": name}));
        }
        let known = object::list(&pod, "/status/resourceClaimStatuses");
        if made.iter().any(|status| !known.contains(status)) {
            let patch = json!({"metadata": {"uid": meta::uid(&pod)}, "status": {"resourceClaimStatuses": made}});
            let answer = self.client.patch(PODS, Some(namespace), name, Some("status"), &Patch::Strategic(patch)).await;
            ignore_not_found(answer)?;
        }
        Ok(())
    }

    fn failed(&self, pod: &Value, entry: &str, why: &str) -> Error {
        let message = format!("PodResourceClaim {entry}: {why}");
        self.events.note(pod, "Warning", "FailedResourceClaimCreation", message.clone());
        Error::Object(message)
    }

    async fn claim(&self, key: &str) -> Result<(), Error> {
        let (namespace, name) = meta::split_key(key);
        let Some(claim) = self.claims.get(namespace, name) else { return Ok(()) };
        let users = self.pods.each_in(namespace).filter(|pod| plan::claims_of(pod).next().is_some());
        match plan::step(&claim, |name| self.pods.get(namespace, name), &users.collect::<Vec<_>>()) {
            None => {}
            Some(Step::Status(status)) => {
                let mut new = Value::clone(&claim);
                new["status"] = status;
                let answer = self.client.update_sub(RESOURCECLAIMS, Some(namespace), name, "status", &new).await;
                ignore_not_found(answer)?;
            }
            Some(Step::Finalizers(finalizers)) => {
                let metadata = json!({"uid": meta::uid(&claim), "resourceVersion": meta::resource_version(&claim),
                                      "finalizers": finalizers});
                let patch = Patch::Merge(json!({"metadata": metadata}));
                ignore_not_found(self.client.patch(RESOURCECLAIMS, Some(namespace), name, None, &patch).await)?;
            }
            Some(Step::Delete) => {
                let only_this = DeleteParams { uid: Some(meta::uid(&claim).to_owned()), ..DeleteParams::default() };
                ignore_not_found(self.client.delete(RESOURCECLAIMS, Some(namespace), name, &only_this).await)?;
            }
        }
        Ok(())
    }
}

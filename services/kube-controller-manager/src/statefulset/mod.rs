//! statefulset-controller: pods with names, order and storage of their own.

mod plan;
mod pod;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use apimachinery::meta;
use apimachinery::selector::LabelSelector;
use client::resource::PODS;
use client::{Change, Client, Informer, WorkQueue};
use jiff::Timestamp;
use serde_json::Value;

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::pod_control::PodControl;
use crate::resource::{CONTROLLERREVISIONS, PERSISTENTVOLUMECLAIMS, STATEFULSETS};
use crate::revisions::{HASH_LABEL, History};
use crate::worker::{self, Next};
use crate::{object, owners, pods};

use plan::{Action, Observed, Shape};

const WORKERS: usize = 5;

struct Controller {
    client: Client,
    events: Events,
    sets: Informer,
    claims: Informer,
    history: History,
    pods: Arc<PodControl>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let revisions = context.informers.get(CONTROLLERREVISIONS);
    let controller = Controller {
        sets: context.informers.get(STATEFULSETS),
        claims: context.informers.get(PERSISTENTVOLUMECLAIMS),
        history: History { client: context.client.clone(), revisions, owner: STATEFULSETS },
        pods: PodControl::new(&context),
        client: context.client,
        events: context.events,
    };
    let queue = WorkQueue::new();
    for informer in [&controller.sets, &controller.claims, &controller.history.revisions, controller.pods.pods()] {
        informer.synced().await;
    }
    let (pods, to) = (Arc::clone(&controller.pods), queue.clone());
    worker::on_change(&controller.sets, move |change| {
        if let Change::Deleted(set) = &change {
            pods.forget(set);
        }
        to.add(meta::key(change.object()));
    });
    controller.pods.watch(&controller.sets, STATEFULSETS.kind, &queue, |set, pod| {
        pod::ordinal(meta::name(set), meta::name(pod)).is_some()
            && selector(set).is_ok_and(|s| s.matches(meta::labels(pod)))
    });
    worker::run("statefulset", queue, WORKERS, |key| sync(&controller, key)).await;
}

fn selector(set: &Value) -> Result<LabelSelector, Error> {
    LabelSelector::from_object(&set["spec"]["selector"])
        .map_err(|e| Error::Object(format!("StatefulSet {}: spec.selector: {e}", meta::key(set))))
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(set) = controller.sets.get(namespace, name) else { return Ok(Next::Done) };
    let selector = selector(&set)?;
    let claim = owners::claim(&set, controller.pods.candidates(&set), |pod| {
        selector.matches(meta::labels(pod)) && pod::ordinal(name, meta::name(pod)).is_some()
    });
    let pods = owners::carry_out(&controller.client, &set, STATEFULSETS, PODS, claim).await?;
    if let Some(left) = controller.pods.pending(&set) {
        return Ok(Next::After(left));
    }
    let revisions = controller.history.of(&set, &selector).await?;
    let (update, collisions) = controller.history.settle(&set, &revisions).await?;
    let current = revisions.iter().find(|r| meta::name(r) == object::text(&set, "/status/currentRevision"));
    let current = current.unwrap_or(&update);
    controller.keep_claims(&set, &pods).await?;
    let plan =
        plan::plan(&Observed { set: &set, pods: &pods, current, update: &update, collisions, now: Timestamp::now() });
    let done = controller.carry_out(&set, plan.actions).await;
    if let Some(status) = plan.status {
        let mut new = Value::clone(&set);
        new["status"] = status;
        controller.client.update_sub(STATEFULSETS, Some(namespace), name, "status", &new).await?;
    }
    done?;
    let mut live = BTreeSet::from([meta::name(current).to_owned(), meta::name(&update).to_owned()]);
    live.extend(pods.iter().filter_map(|pod| meta::label(pod, HASH_LABEL)).map(str::to_owned));
    controller.history.truncate(&set, &revisions, &live).await?;
    Ok(plan.next.map_or(Next::Done, Next::After))
}

impl Controller {
    async fn carry_out(&self, set: &Value, actions: Vec<Action>) -> Result<(), Error> {
        for action in actions {
            match action {
                Action::Create(pod) => {
                    self.create_claims(set, &pod).await?;
                    self.pods.create_one(set, &pod).await?;
                }
                Action::Claims(pod) => self.create_claims(set, &pod).await?,
                Action::Replace(pod) | Action::Delete(pod) => self.pods.delete(set, &[pod]).await?,
            }
        }
        Ok(())
    }

    async fn create_claims(&self, set: &Value, pod: &Value) -> Result<(), Error> {
        let namespace = meta::namespace(set);
        for claim in pod::claims(set, meta::name(pod)) {
            let name = meta::name(&claim);
            match self.claims.get(namespace, name) {
                Some(found) if pods::is_terminating(&found) => {
                    return Err(Error::Object(format!("pvc {namespace}/{name} is being deleted")));
                }
                Some(_) => {}
                None => match self.client.create(PERSISTENTVOLUMECLAIMS, Some(namespace), &claim).await {
                    Ok(_) => {
                        let (pod, set_name) = (meta::name(pod), meta::name(set));
                        let message = format!("create Claim {name} Pod {pod} in StatefulSet {set_name} success");
                        self.events.note(set, "Normal", "SuccessfulCreate", message);
                    }
                    Err(error) if error.is_already_exists() => {}
                    Err(error) => {
                        let (pod, set_name) = (meta::name(pod), meta::name(set));
                        let message = format!(
                            "create Claim {name} for Pod {pod} in StatefulSet {set_name} failed error: {error}"
                        );
                        self.events.note(set, "Warning", "FailedCreate", message);
                        return Err(error.into());
                    }
                },
            }
        }
        Ok(())
    }

    /// Claims are owned as the retention policy says; before a pod is scaled away, so that its claims go with it.
    async fn keep_claims(&self, set: &Value, pods: &[Arc<Value>]) -> Result<(), Error> {
        let shape = Shape::of(set);
        let ending = meta::deletion_timestamp(set).is_some();
        for pod in pods {
            let Some(ordinal) = pod::ordinal(meta::name(set), meta::name(pod)) else { continue };
            for wanted in pod::claims(set, meta::name(pod)) {
                let Some(claim) = self.claims.get(meta::namespace(set), meta::name(&wanted)) else { continue };
                let scaled_down = !ending && !shape.wants(ordinal);
                let Some(owners) = pod::claim_owners(set, &claim, pod, scaled_down) else { continue };
                let mut new = Value::clone(&claim);
                new["metadata"]["ownerReferences"] = owners.into();
                let (namespace, name) = (Some(meta::namespace(set)), meta::name(&claim));
                ignore_not_found(self.client.update(PERSISTENTVOLUMECLAIMS, namespace, name, &new).await)?;
            }
        }
        Ok(())
    }
}

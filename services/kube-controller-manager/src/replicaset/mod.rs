//! replicaset-controller and replicationcontroller-controller: keep the asked number of pods of a template running.
//! The two kinds differ in their selector and in what their status has room for.

mod plan;
mod ranking;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use apimachinery::meta;
use apimachinery::selector::LabelSelector;
use client::resource::{PODS, REPLICASETS};
use client::{Change, Client, Informer, Resource, WorkQueue};
use jiff::Timestamp;
use serde_json::Value;

use crate::context::Context;
use crate::error::Error;
use crate::pod_control::{self, PodControl};
use crate::worker::{self, Next};
use crate::{object, owners};

use plan::Action;

const WORKERS: usize = 5;

struct Controller {
    client: Client,
    resource: Resource<'static>,
    sets: Informer,
    pods: Arc<PodControl>,
}

/// Runs the controller of ReplicaSets.
pub async fn run(context: Context) {
    run_for(context, REPLICASETS).await;
}

/// Runs the controller of one of the two kinds.
pub async fn run_for(context: Context, resource: Resource<'static>) {
    let controller = Controller {
        sets: context.informers.get(resource),
        pods: PodControl::new(&context),
        client: context.client,
        resource,
    };
    let queue = WorkQueue::new();
    controller.sets.synced().await;
    controller.pods.pods().synced().await;
    let (pods, to) = (Arc::clone(&controller.pods), queue.clone());
    worker::on_change(&controller.sets, move |change| {
        if let Change::Deleted(set) = &change {
            pods.forget(set);
        }
        to.add(meta::key(change.object()));
    });
    controller.pods.watch(&controller.sets, resource.kind, &queue, |set, pod| {
        selector(set).is_ok_and(|s| s.matches(meta::labels(pod)))
    });
    worker::run(resource.plural, queue, WORKERS, |key| sync(&controller, key)).await;
}

/// A ReplicationController's selector is a plain map; one without any selects nothing.
fn selector(set: &Value) -> Result<LabelSelector, Error> {
    if meta::kind(set) == "ReplicationController" {
        let map = object::map(set, "/spec/selector").filter(|map| !map.is_empty());
        return Ok(map.map_or_else(LabelSelector::nothing, LabelSelector::from_map));
    }
    LabelSelector::from_object(&set["spec"]["selector"])
        .map_err(|e| Error::Object(format!("ReplicaSet {}: spec.selector: {e}", meta::key(set))))
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(set) = controller.sets.get(namespace, name) else { return Ok(Next::Done) };
    let selector = selector(&set)?;
    let claim = owners::claim(&set, controller.pods.candidates(&set), |pod| selector.matches(meta::labels(pod)));
    let pods = owners::carry_out(&controller.client, &set, controller.resource, PODS, claim).await?;

    let now = Timestamp::now();
    let mut failure = None;
    let waiting = controller.pods.pending(&set);
    if waiting.is_none() && meta::deletion_timestamp(&set).is_none() {
        failure = match plan::manage(&set, &pods) {
            Action::Nothing => None,
            Action::Create(count) => {
                let pod = pod_control::from_template(&set, &set["spec"]["template"]);
                let created = controller.pods.create(&set, &vec![pod; count]).await;
                created.err().map(|e| ("FailedCreate", e))
            }
            Action::Delete(count) => {
                let victims = ranking::victims(&pods, &controller.related_pods(&set), count, now);
                controller.pods.delete(&set, &victims).await.err().map(|e| ("FailedDelete", e))
            }
        };
    }
    let condition = failure.as_ref().map(|(reason, error)| (*reason, error.to_string()));
    let outcome = plan::status(&set, &pods, condition, now);
    if let Some(status) = outcome.status {
        let mut update = Value::clone(&set);
        update["status"] = status;
        controller.client.update_sub(controller.resource, Some(namespace), name, "status", &update).await?;
    }
    if let Some((_, error)) = failure {
        return Err(error);
    }
    let deadline = [outcome.next, waiting].into_iter().flatten().min();
    Ok(deadline.map_or(Next::Done, Next::After))
}

impl Controller {
    /// Pods of all sets with the same controller, for the victims' ranking.
    fn related_pods(&self, set: &Value) -> Vec<Arc<Value>> {
        let pods = self.pods.pods();
        let Some(controller) = meta::controller_of(set) else { return pods.by_owner_uid(meta::uid(set)) };
        let siblings = self.sets.by_owner_uid(object::text(controller, "/uid"));
        siblings.iter().flat_map(|sibling| pods.by_owner_uid(meta::uid(sibling))).collect()
    }
}

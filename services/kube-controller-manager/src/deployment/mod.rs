//! deployment-controller: moves a workload from one pod template to the next through ReplicaSets.

mod plan;
mod rolling;
mod sets;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use apimachinery::meta;
use apimachinery::selector::LabelSelector;
use client::resource::{DEPLOYMENTS, PODS, REPLICASETS};
use client::{Client, DeleteParams, Informer, Patch, WorkQueue};
use jiff::Timestamp;
use serde_json::Value;

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::worker::{self, Next};
use crate::{object, owners};

use plan::{Observed, Plan, Step};

const WORKERS: usize = 5;

struct Controller {
    client: Client,
    events: Events,
    deployments: Informer,
    sets: Informer,
    pods: Informer,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        deployments: context.informers.get(DEPLOYMENTS),
        sets: context.informers.get(REPLICASETS),
        pods: context.informers.get(PODS),
        client: context.client,
        events: context.events,
    });
    let queue = WorkQueue::new();
    for informer in [&controller.deployments, &controller.sets, &controller.pods] {
        informer.synced().await;
    }
    watch(&controller, &queue);
    worker::run("deployment", queue, WORKERS, |key| sync(&controller, key)).await;
}

fn watch(controller: &Arc<Controller>, queue: &WorkQueue<String>) {
    let to = queue.clone();
    worker::on_change(&controller.deployments, move |change| to.add(meta::key(change.object())));
    let (this, to) = (Arc::clone(controller), queue.clone());
    worker::on_change(&controller.sets, move |change| {
        if let client::Change::Applied { old: Some(old), .. } = &change {
            this.set_changed(old, &to);
        }
        this.set_changed(change.object(), &to);
    });
    // Only a Recreate rollout waits for pods themselves: for the last old one to be gone or finished.
    let (this, to) = (Arc::clone(controller), queue.clone());
    worker::on_change(&controller.pods, move |change| {
        let pod = change.object();
        let ended = matches!(change, client::Change::Deleted(_)) || crate::pods::is_finished(pod);
        if !ended {
            return;
        }
        let Some(owner) = meta::controller_of(pod).filter(|c| c["kind"] == "ReplicaSet") else { return };
        if let Some(set) = this.sets.get(meta::namespace(pod), object::text(owner, "/name")) {
            this.set_changed(&set, &to);
        }
    });
}

impl Controller {
    fn set_changed(&self, set: &Value, queue: &WorkQueue<String>) {
        let namespace = meta::namespace(set);
        match meta::controller_of(set) {
            Some(owner) if owner["kind"] == "Deployment" => {
                queue.add(format!("{namespace}/{}", object::text(owner, "/name")));
            }
            Some(_) => {}
            None => {
                for deployment in self.deployments.list_namespace(namespace) {
                    if selector(&deployment).is_ok_and(|s| s.matches(meta::labels(set))) {
                        queue.add(meta::key(&deployment));
                    }
                }
            }
        }
    }

    fn candidates(&self, deployment: &Value) -> Vec<Arc<Value>> {
        let uid = meta::uid(deployment);
        let mut sets = self.sets.list_namespace(meta::namespace(deployment));
        sets.retain(|set| meta::controller_of(set).is_none_or(|owner| owner["uid"] == uid));
        sets
    }
}

fn selector(deployment: &Value) -> Result<LabelSelector, Error> {
    LabelSelector::from_object(&deployment["spec"]["selector"])
        .map_err(|e| Error::Object(format!("Deployment {}: spec.selector: {e}", meta::key(deployment))))
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(deployment) = controller.deployments.get(namespace, name) else { return Ok(Next::Done) };
    let selector = selector(&deployment)?;
    let claim =
        owners::claim(&deployment, controller.candidates(&deployment), |set| selector.matches(meta::labels(set)));
    let sets = owners::carry_out(&controller.client, &deployment, DEPLOYMENTS, REPLICASETS, claim).await?;
    // Nobody else asks for them, and there may be thousands.
    let recreates = object::text(&deployment, "/spec/strategy/type") == "Recreate";
    let of_set = |set: &Arc<Value>| controller.pods.by_owner_uid(meta::uid(set));
    let pods: Vec<_> = sets.iter().filter(|_| recreates).flat_map(of_set).collect();
    let plan = plan::plan(Observed {
        deployment: &deployment,
        sets: sets.iter().map(|set| Value::clone(set)).collect(),
        pods: &pods,
        now: Timestamp::now(),
    });
    controller.carry_out(&deployment, plan).await
}

impl Controller {
    async fn carry_out(&self, deployment: &Value, plan: Plan) -> Result<Next, Error> {
        let (namespace, name) = (meta::namespace(deployment), meta::name(deployment));
        let mut version = None;
        for step in plan.steps {
            match step {
                Step::Annotate { key, value } => {
                    let mut new = deployment.clone();
                    meta::set_annotation(&mut new, key, &value);
                    let written = self.client.update(DEPLOYMENTS, Some(namespace), name, &new).await?;
                    version = Some(written["metadata"]["resourceVersion"].clone());
                }
                Step::Create(set) => self.create(deployment, &set).await?,
                Step::Patch { name, patch, from, to } => {
                    self.client.patch(REPLICASETS, Some(namespace), &name, None, &Patch::Merge(patch)).await?;
                    self.note_scaling(deployment, &name, from, to);
                }
                Step::Delete { name, uid } => {
                    let only_this = DeleteParams { uid: Some(uid), ..DeleteParams::default() };
                    ignore_not_found(self.client.delete(REPLICASETS, Some(namespace), &name, &only_this).await)?;
                }
            }
        }
        if let Some(status) = plan.status {
            let mut update = deployment.clone();
            update["status"] = status;
            if let Some(version) = version {
                update["metadata"]["resourceVersion"] = version;
            }
            self.client.update_sub(DEPLOYMENTS, Some(namespace), name, "status", &update).await?;
        }
        Ok(plan.next.map_or(Next::Done, Next::After))
    }

    async fn create(&self, deployment: &Value, set: &Value) -> Result<(), Error> {
        let namespace = meta::namespace(deployment);
        match self.client.create(REPLICASETS, Some(namespace), set).await {
            Ok(created) => {
                let replicas = object::int(&created, "/spec/replicas").unwrap_or(0);
                self.note_scaling(deployment, meta::name(&created), 0, replicas);
                Ok(())
            }
            Err(error) if error.is_already_exists() => self.settle_name(deployment, meta::name(set)).await,
            Err(error) => {
                let message = format!("Failed to create new replica set {:?}: {error}", meta::name(set));
                self.events.note(deployment, "Warning", "ReplicaSetCreateError", message);
                Err(error.into())
            }
        }
    }

    /// The name is taken: by our own set that the cache has not shown yet, or by a hash collision, which is counted so
    /// that the next hash differs.
    async fn settle_name(&self, deployment: &Value, name: &str) -> Result<(), Error> {
        let namespace = meta::namespace(deployment);
        let found = self.client.get(REPLICASETS, Some(namespace), name).await?;
        let ours = meta::controller_of(&found).is_some_and(|c| c["uid"] == deployment["metadata"]["uid"]);
        if ours && sets::same_template(deployment, &found) {
            return Ok(());
        }
        let mut update = deployment.clone();
        let collisions = object::int(deployment, "/status/collisionCount").unwrap_or(0);
        update["status"]["collisionCount"] = (collisions + 1).into();
        self.client.update_sub(DEPLOYMENTS, Some(namespace), meta::name(deployment), "status", &update).await?;
        Err(Error::Object(format!("the name {name} is taken by another ReplicaSet; trying another hash")))
    }

    fn note_scaling(&self, deployment: &Value, set: &str, from: i64, to: i64) {
        if from != to {
            let direction = if to > from { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
            self.events.note(deployment, "Normal", "ScalingReplicaSet", message);
        }
    }
}

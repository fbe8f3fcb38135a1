//! disruption-controller: how many pods of each PodDisruptionBudget may be evicted. The eviction API takes from that
//! number and notes the pod; this controller counts again once the pod is going.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::meta;
use apimachinery::selector::LabelSelector;
use client::resource::{DEPLOYMENTS, PODS, REPLICASETS};
use client::{Change, Client, Informer, WorkQueue};
use jiff::Timestamp;
use serde_json::Value;

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::resource::{PODDISRUPTIONBUDGETS, REPLICATIONCONTROLLERS, STATEFULSETS};
use crate::resources::Resources;
use crate::worker::{self, Next};
use crate::{object, pods};

use plan::Scale;

struct Controller {
    client: Client,
    events: Events,
    resources: Arc<Resources>,
    budgets: Informer,
    pods: Informer,
    deployments: Informer,
    replica_sets: Informer,
    stateful_sets: Informer,
    replication_controllers: Informer,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        budgets: context.informers.get(PODDISRUPTIONBUDGETS),
        pods: context.informers.get(PODS),
        deployments: context.informers.get(DEPLOYMENTS),
        replica_sets: context.informers.get(REPLICASETS),
        stateful_sets: context.informers.get(STATEFULSETS),
        replication_controllers: context.informers.get(REPLICATIONCONTROLLERS),
        client: context.client,
        events: context.events,
        resources: context.resources,
    });
    let workloads = [
        &controller.deployments,
        &controller.replica_sets,
        &controller.stateful_sets,
        &controller.replication_controllers,
    ];
    for informer in [&controller.budgets, &controller.pods].into_iter().chain(workloads) {
        informer.synced().await;
    }
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&controller.budgets, move |change| to.add(meta::key(change.object())));
    let (this, to) = (Arc::clone(&controller), queue.clone());
    worker::on_change(&controller.pods, move |change| {
        let old = match &change {
            Change::Applied { old, .. } => old.as_ref(),
            Change::Deleted(_) => None,
        };
        let new = change.object();
        if old.is_some_and(|old| counts_the_same(old, new)) && matches!(change, Change::Applied { .. }) {
            return;
        }
        this.wake_budgets_of(new, &to);
        if let Some(old) = old {
            this.wake_budgets_of(old, &to);
        }
    });
    // The size of a workload is the whole that a percentage is a part of.
    for informer in workloads {
        let (budgets, to) = (controller.budgets.clone(), queue.clone());
        worker::on_change(informer, move |change| {
            let Change::Applied { old: Some(old), new } = &change else { return };
            if old["spec"]["replicas"] != new["spec"]["replicas"] {
                let concerned = budgets.list_namespace(meta::namespace(new)).into_iter();
                concerned.filter(|budget| plan::needs_scale(budget)).for_each(|budget| to.add(meta::key(&budget)));
            }
        });
    }
    worker::run("disruption", queue, 4, |key| sync(&controller, key)).await;
}

/// Nothing that decides about a budget has changed.
fn counts_the_same(old: &Value, new: &Value) -> bool {
    let of = |pod: &Value| (pods::is_ready(pod), pods::is_terminating(pod), pods::is_finished(pod));
    of(old) == of(new)
        && meta::labels(old) == meta::labels(new)
        && meta::owner_references(old) == meta::owner_references(new)
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(budget) = controller.budgets.get(namespace, name) else { return Ok(Next::Done) };
    if meta::deletion_timestamp(&budget).is_some() {
        return Ok(Next::Done);
    }
    let selector = selector(&budget)?;
    let selected = |pod: &Arc<Value>| selector.matches(meta::labels(pod)) && !pods::is_finished(pod);
    let pods: Vec<Arc<Value>> = controller.pods.each_in(namespace).filter(selected).collect();
    if pods.is_empty() {
        controller.events.note(&budget, "Normal", "NoPods", "No matching pods found".to_owned());
    }
    let scale = if plan::needs_scale(&budget) { controller.scale(&pods).await? } else { Scale::Known(0) };
    let plan = plan::plan(&budget, &pods, &scale, Timestamp::now());
    if let Some(why) = plan.failure.as_ref().filter(|_| plan.status.is_some()) {
        let message = format!("Failed to calculate the number of expected pods: {why}");
        controller.events.note(&budget, "Warning", "CalculateExpectedPodCountFailed", message);
    }
    for pod in plan.not_deleted.iter().filter_map(|name| controller.pods.get(namespace, name)) {
        let message = format!("Pod was expected by PDB {namespace}/{name} to be deleted but it wasn't");
        controller.events.note(&pod, "Warning", "NotDeleted", message);
    }
    if let Some(status) = plan.status {
        let mut new = Value::clone(&budget);
        new["status"] = status;
        controller.client.update_sub(PODDISRUPTIONBUDGETS, Some(namespace), name, "status", &new).await?;
    }
    Ok(plan.next.map_or(Next::Done, Next::After))
}

fn selector(budget: &Value) -> Result<LabelSelector, Error> {
    LabelSelector::from_object(&budget["spec"]["selector"])
        .map_err(|e| Error::Object(format!("PodDisruptionBudget {}: spec.selector: {e}", meta::key(budget))))
}

impl Controller {
    fn wake_budgets_of(&self, pod: &Value, queue: &WorkQueue<String>) {
        for budget in self.budgets.list_namespace(meta::namespace(pod)) {
            if selector(&budget).is_ok_and(|s| s.matches(meta::labels(pod))) {
                queue.add(meta::key(&budget));
            }
        }
    }

    /// The sizes of all workloads that control the pods, each once.
    async fn scale(&self, pods: &[Arc<Value>]) -> Result<Scale, Error> {
        let mut sizes: BTreeMap<String, i64> = BTreeMap::new();
        for pod in pods {
            let Some(owner) = meta::controller_of(pod) else {
                return Ok(Scale::Unknown(format!("found no controller ref for pod {:?}", meta::name(pod))));
            };
            let uid = object::text(owner, "/uid");
            if sizes.contains_key(uid) {
                continue;
            }
            match self.size_of(meta::namespace(pod), owner).await? {
                Some((uid, size)) => drop(sizes.insert(uid, size)),
                None => {
                    let (kind, name) = (object::text(owner, "/kind"), object::text(owner, "/name"));
                    let namespace = meta::namespace(pod);
                    let why = format!("{kind} {namespace}/{name} does not implement the scale subresource");
                    return Ok(Scale::Unknown(why));
                }
            }
        }
        Ok(Scale::Known(sizes.values().sum()))
    }

    /// The uid and size of a pod's workload; of the Deployment for a ReplicaSet of one.
    async fn size_of(&self, namespace: &str, owner: &Value) -> Result<Option<(String, i64)>, Error> {
        let (kind, name) = (object::text(owner, "/kind"), object::text(owner, "/name"));
        let size =
            |object: &Value| Some((meta::uid(object).to_owned(), object::int(object, "/spec/replicas").unwrap_or(1)));
        let found = match (meta::group_version(object::text(owner, "/apiVersion")).0, kind) {
            ("apps", "ReplicaSet") => {
                let set = self.replica_sets.get(namespace, name);
                let deployment = set.as_ref().and_then(|set| {
                    let owner = meta::controller_of(set).filter(|owner| owner["kind"] == "Deployment")?;
                    self.deployments.get(namespace, object::text(owner, "/name"))
                });
                deployment.or(set)
            }
            ("apps", "StatefulSet") => self.stateful_sets.get(namespace, name),
            ("", "ReplicationController") => self.replication_controllers.get(namespace, name),
            _ => return self.size_by_subresource(namespace, owner).await,
        };
        // One that is gone counts nothing; its pods are about to go as well.
        Ok(found.map_or_else(|| Some((object::text(owner, "/uid").to_owned(), 0)), |object| size(&object)))
    }

    async fn size_by_subresource(&self, namespace: &str, owner: &Value) -> Result<Option<(String, i64)>, Error> {
        let resource = self.resources.of_kind(object::text(owner, "/apiVersion"), object::text(owner, "/kind")).await?;
        let Some(resource) = resource else { return Ok(None) };
        let path = resource.path(Some(namespace), Some(object::text(owner, "/name")), Some("scale"));
        let scale = ignore_not_found(self.client.get_raw(&path).await)?;
        Ok(scale
            .map(|scale| (object::text(owner, "/uid").to_owned(), object::int(&scale, "/spec/replicas").unwrap_or(0))))
    }
}

//! disruption-controller: how many pods of each PodDisruptionBudget may be evicted. The eviction API takes from that
//! number and notes the pod; this controller counts again once the pod is going.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::selector::LabelSelector;
use apimachinery::{meta, time};
use client::resource::{DEPLOYMENTS, PODS, REPLICASETS};
use client::{Change, Client, Informer, Patch, WorkQueue};
use jiff::Timestamp;
use serde_json::{Value, json};

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
    let (queue, spared) = (WorkQueue::new(), WorkQueue::new());
    let to = queue.clone();
    worker::on_change(&controller.budgets, move |change| to.add(meta::key(change.object())));
    let (this, to, to_spared) = (Arc::clone(&controller), queue.clone(), spared.clone());
    worker::on_change(&controller.pods, move |change| {
        if plan::stale_in(change.object(), Timestamp::now()).is_some() {
            to_spared.add(meta::key(change.object()));
        }
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
    tokio::join!(
        worker::run("disruption", queue, 4, |key| sync(&controller, key)),
        worker::run("disruption-spared", spared, 1, |key| spare(&controller, key)),
    );
}

/// A pod that was to be disrupted and was not.
async fn spare(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(pod) = controller.pods.get(namespace, name) else { return Ok(Next::Done) };
    let now = Timestamp::now();
    match plan::stale_in(&pod, now) {
        None => return Ok(Next::Done),
        Some(left) if !left.is_zero() => return Ok(Next::After(left)),
        Some(_) => {}
    }
    let condition = json!({"type": "DisruptionTarget", "status": "False", "reason": null, "message": null,
                           "lastTransitionTime": time::rfc3339(now)});
    let metadata = json!({"uid": meta::uid(&pod), "resourceVersion": meta::resource_version(&pod)});
    let patch = Patch::Strategic(json!({"metadata": metadata, "status": {"conditions": [condition]}}));
    ignore_not_found(controller.client.patch(PODS, Some(namespace), name, Some("status"), &patch).await)?;
    Ok(Next::Done)
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
    let alone = |pod: &Arc<Value>| meta::controller_of(pod).is_none();
    if plan::needs_scale(&budget) && matches!(scale, Scale::Known(_)) && pods.iter().any(alone) {
        controller.events.note(&budget, "Warning", "UnmanagedPods", plan::unmanaged(&budget));
    }
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
            let Some(owner) = meta::controller_of(pod) else { continue };
            let uid = object::text(owner, "/uid");
            if sizes.contains_key(uid) {
                continue;
            }
            match self.size_of(meta::namespace(pod), owner).await? {
                Size::Known(uid, size) => drop(sizes.insert(uid, size)),
                Size::Gone => {
                    return Ok(Scale::Unknown(format!("found no controllers for pod {:?}", meta::name(pod))));
                }
                Size::None(resource) => {
                    return Ok(Scale::Unknown(format!("{resource} does not implement the scale subresource")));
                }
            }
        }
        Ok(Scale::Known(sizes.values().sum()))
    }

    /// The size of a pod's workload; of the Deployment for a ReplicaSet of one.
    async fn size_of(&self, namespace: &str, owner: &Value) -> Result<Size, Error> {
        let (kind, name) = (object::text(owner, "/kind"), object::text(owner, "/name"));
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
        Ok(found.map_or(Size::Gone, |object| {
            Size::Known(meta::uid(&object).to_owned(), object::int(&object, "/spec/replicas").unwrap_or(1))
        }))
    }

    async fn size_by_subresource(&self, namespace: &str, owner: &Value) -> Result<Size, Error> {
        let (version, name) = (object::text(owner, "/apiVersion"), object::text(owner, "/name"));
        let resource = self.resources.of_kind(version, object::text(owner, "/kind")).await?;
        let Some(resource) = resource else { return Ok(Size::Gone) };
        match self.client.get_raw(&resource.path(Some(namespace), Some(name), Some("scale"))).await {
            Ok(scale) => Ok(Size::Known(
                object::text(owner, "/uid").to_owned(),
                object::int(&scale, "/spec/replicas").unwrap_or(0),
            )),
            // A 404 that names no object is about the path.
            Err(error) if error.is_not_found() => {
                let about = error.status().is_some_and(|status| status.details["name"] == name);
                let dot = if resource.group.is_empty() { "" } else { "." };
                let kind = || format!("{}{dot}{}", resource.plural, resource.group);
                Ok(if about { Size::Gone } else { Size::None(kind()) })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// How large a pod's workload is.
enum Size {
    /// Its uid, and how many pods it is to have.
    Known(String, i64),
    /// The workload is not there.
    Gone,
    /// This kind has no size.
    None(String),
}

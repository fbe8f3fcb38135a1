//! namespace-controller: empties namespaces that are going away, pods first, then lets them go.

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta;
use client::resource::{NAMESPACES, PODS};
use client::{Change, Client, DeleteParams, Informer, ListParams, Resource, WorkQueue};
use jiff::Timestamp;
use serde_json::Value;

use crate::context::Context;
use crate::discovery::Discovered;
use crate::error::{Error, ignore_not_found};
use crate::object;
use crate::resources::Resources;
use crate::worker::{self, Next};

pub use plan::is_active;
use plan::{Found, Remaining};

const WORKERS: usize = 4;
/// What is left is woken by its own removal; this catches kinds that nobody can watch.
const UNWATCHED_AGAIN: Duration = Duration::from_secs(15);

struct Controller {
    client: Client,
    namespaces: Informer,
    resources: Arc<Resources>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    context.resources.start().await;
    let controller = Arc::new(Controller {
        namespaces: context.informers.get(NAMESPACES),
        client: context.client,
        resources: context.resources,
    });
    controller.namespaces.synced().await;
    let queue: WorkQueue<String> = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&controller.namespaces, move |change| {
        if plan::is_to_be_emptied(change.object()) && matches!(change, Change::Applied { .. }) {
            to.add(meta::name(change.object()).to_owned());
        }
    });
    // Each object that goes may have been the last one that a namespace waited for.
    let (mut removals, namespaces, to) =
        (controller.resources.subscribe(), controller.namespaces.clone(), queue.clone());
    tokio::spawn(async move {
        while let Some((_, change)) = removals.recv().await {
            let Change::Deleted(object) = change else { continue };
            let name = meta::namespace(&object);
            if !name.is_empty() && namespaces.get("", name).is_some_and(|ns| plan::is_to_be_emptied(&ns)) {
                to.add(name.to_owned());
            }
        }
    });
    worker::run("namespace", queue, WORKERS, |name| sync(&controller, name)).await;
}

async fn sync(controller: &Controller, name: String) -> Result<Next, Error> {
    let Some(namespace) = ignore_not_found(controller.client.get(NAMESPACES, None, &name).await)? else {
        return Ok(Next::Done);
    };
    if !plan::is_to_be_emptied(&namespace) {
        return Ok(Next::Done);
    }
    let found = controller.empty(&name).await?;
    let mut current = namespace;
    if let Some(status) = plan::status(&current, &found, Timestamp::now()) {
        current["status"] = status;
        current = controller.client.update_sub(NAMESPACES, None, &name, "status", &current).await?;
    }
    if !found.failures.is_empty() {
        return Err(Error::Object(found.failures.join("; ")));
    }
    if !found.remaining.is_empty() {
        return Ok(Next::After(UNWATCHED_AGAIN));
    }
    let released = plan::finalized(&current);
    ignore_not_found(controller.client.update_sub(NAMESPACES, None, &name, "finalize", &released).await)?;
    Ok(Next::Done)
}

impl Controller {
    /// Deletes the content and says what is left. Everything else waits for the last pod: pods may need it to stop.
    async fn empty(&self, namespace: &str) -> Result<Found, Error> {
        let discovery = self.resources.refresh().await?;
        let mut found = Found { undiscovered: discovery.failures, ..Found::default() };
        self.empty_of(PODS, true, namespace, &mut found).await;
        if !found.is_clean() {
            return Ok(found);
        }
        let deletable =
            |d: &&Discovered| d.resource.namespaced && d.can(&["list", "delete"]) && d.resource.plural != "pods";
        for kind in discovery.resources.iter().filter(deletable) {
            self.empty_of(kind.resource, kind.can(&["deletecollection"]), namespace, &mut found).await;
        }
        Ok(found)
    }

    async fn empty_of(&self, resource: Resource<'static>, whole: bool, namespace: &str, found: &mut Found) {
        match self.delete_all(resource, whole, namespace).await {
            Ok(remaining) if remaining.count == 0 => {}
            Ok(remaining) => {
                found.remaining.insert((resource.plural.to_owned(), resource.group.to_owned()), remaining);
            }
            Err(error) => found.failures.push(format!("{}: {error}", resource.plural)),
        }
    }

    async fn delete_all(
        &self,
        resource: Resource<'_>,
        whole: bool,
        namespace: &str,
    ) -> Result<Remaining, client::Error> {
        let present = self.list(resource, namespace).await?;
        if present.is_empty() {
            return Ok(Remaining::default());
        }
        let background = DeleteParams { propagation_policy: Some("Background".to_owned()), ..DeleteParams::default() };
        if whole {
            self.client.delete_collection(resource, Some(namespace), "", &background).await?;
        } else {
            for object in present.iter().filter(|o| meta::deletion_timestamp(o).is_none()) {
                let deleted = self.client.delete(resource, Some(namespace), meta::name(object), &background).await;
                ignore_not_found(deleted)?;
            }
        }
        let left = self.list(resource, namespace).await?;
        let mut finalizers = BTreeMap::new();
        for finalizer in left.iter().flat_map(|o| object::list(o, "/metadata/finalizers")).filter_map(Value::as_str) {
            *finalizers.entry(finalizer.to_owned()).or_default() += 1;
        }
        Ok(Remaining { count: left.len(), finalizers })
    }

    async fn list(&self, resource: Resource<'_>, namespace: &str) -> Result<Vec<Value>, client::Error> {
        Ok(self.client.list(resource, Some(namespace), &ListParams::default()).await?.items)
    }
}

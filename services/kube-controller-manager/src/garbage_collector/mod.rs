//! garbage-collector-controller: what nobody owns any more goes; what is orphaned is let go; what waits for its
//! dependents goes after them.

mod graph;
mod plan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta;
use client::{Change, Client, DeleteParams, Patch, Resource, WorkQueue};
use parking_lot::Mutex;
use serde_json::Value;
use tracing::{debug, info};

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::object;
use crate::resources::Resources;
use crate::worker::{self, Next};

use graph::{FOREGROUND, Graph, Identity, Node, ORPHAN, Owner, Work};
use plan::{Decision, OwnerState};

const WORKERS: usize = 8;
/// An owner that exists but is of a kind nobody can watch is looked at again after this time.
const UNWATCHED_OWNER_AGAIN: Duration = Duration::from_secs(60);

struct Collector {
    client: Client,
    events: Events,
    resources: Arc<Resources>,
    graph: Mutex<Graph>,
    queue: WorkQueue<Work>,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Delete(uid) => write!(f, "object {uid}"),
            Work::Orphan(uid) => write!(f, "orphans of {uid}"),
        }
    }
}

/// Runs the controller.
pub async fn run(context: Context) {
    context.resources.start().await;
    let collector = Arc::new(Collector {
        client: context.client,
        events: context.events,
        resources: context.resources,
        graph: Mutex::default(),
        queue: WorkQueue::new(),
    });
    let mut changes = collector.resources.subscribe();
    // The graph grows while informers list; nothing is deleted before all of them have, as an owner not yet listed
    // would only cost a request, but thousands of them would cost thousands.
    let feeder = Arc::clone(&collector);
    tokio::spawn(async move {
        while let Some((_, change)) = changes.recv().await {
            let work = {
                let mut graph = feeder.graph.lock();
                match &change {
                    Change::Applied { new, .. } => graph.observe(new),
                    Change::Deleted(last) => graph.removed(meta::uid(last)),
                }
            };
            feeder.enqueue(work);
        }
    });
    for informer in collector.resources.watched() {
        informer.synced().await;
        informer.each().for_each(|object| collector.observe(&object));
    }
    info!("all resources are synced");
    worker::run("garbage-collector", collector.queue.clone(), WORKERS, |work| collector.process(work)).await;
}

impl Collector {
    fn enqueue(&self, work: Vec<Work>) {
        for item in work {
            self.queue.add(item);
        }
    }

    /// What an informer holds may still be on its way to the graph. An owner that is to leave its dependents behind would be
    /// let go before they are known, and they would go with it.
    fn observe(&self, object: &Value) {
        let work = {
            let mut graph = self.graph.lock();
            if graph.is_absent(meta::uid(object)) { Vec::new() } else { graph.observe(object) }
        };
        self.enqueue(work);
    }

    fn gone(&self, uid: &str) {
        let work = self.graph.lock().removed(uid);
        self.enqueue(work);
    }

    async fn process(&self, work: Work) -> Result<Next, Error> {
        match work {
            Work::Delete(uid) => self.consider(&uid).await,
            Work::Orphan(uid) => self.orphan_dependents(&uid).await,
        }
    }

    /// The resource of an identity. A kind that discovery does not know cannot be judged, so its object stays.
    async fn resource(&self, api_version: &str, kind: &str) -> Result<Resource<'static>, Error> {
        let found = self.resources.of_kind(api_version, kind).await?;
        found.ok_or_else(|| Error::Object(format!("no resource serves {kind} in {api_version}")))
    }

    /// The object as the server has it now; `None` if it is gone or the name belongs to another.
    async fn live(&self, identity: &Identity) -> Result<Option<Value>, Error> {
        let resource = self.resource(&identity.api_version, &identity.kind).await?;
        let namespace = Some(&*identity.namespace);
        let found = ignore_not_found(self.client.get(resource, namespace, &identity.name).await)?;
        Ok(found.filter(|object| meta::uid(object) == &*identity.uid))
    }

    async fn consider(&self, uid: &str) -> Result<Next, Error> {
        let Some(node) = self.graph.lock().node(uid).cloned() else { return Ok(Next::Done) };
        if node.seen && node.ending && !node.ending_after_dependents {
            return Ok(Next::Done);
        }
        // Ownerless and not waiting for anything: nothing to decide, no need to ask the server.
        if node.seen && node.owners.is_empty() && !node.ending_after_dependents {
            return Ok(Next::Done);
        }
        let Some(live) = self.live(&node.identity).await? else {
            self.gone(uid);
            return Ok(Next::Done);
        };
        if !node.seen {
            return Ok(Next::After(UNWATCHED_OWNER_AGAIN));
        }
        if meta::deletion_timestamp(&live).is_some() {
            // What the graph has not yet shown as waiting comes again when it does, with all its dependents known.
            return if node.ending_after_dependents && graph::waits_for_dependents(&live) {
                self.finish_foreground(&node, &live).await
            } else {
                Ok(Next::Done)
            };
        }
        let mut states = Vec::new();
        for owner in graph::owners_of(&live) {
            let state = self.owner_state(&node.identity, &owner).await?;
            states.push((owner, state));
        }
        let decision = {
            let graph = self.graph.lock();
            plan::decide(&live, &states, &graph.dependents(uid))
        };
        self.carry_out(&node, &live, decision).await?;
        Ok(Next::Done)
    }

    async fn carry_out(&self, node: &Node, live: &Value, decision: Decision) -> Result<(), Error> {
        match decision {
            Decision::Keep => Ok(()),
            Decision::DropReferences(dead) => {
                debug!("{} {}: dead references go", node.identity.kind, node.identity.name);
                self.patch(&node.identity, plan::without_owners(live, &dead)).await
            }
            Decision::Delete { policy, unblock } => {
                let mut version = live["metadata"]["resourceVersion"].as_str().map(str::to_owned);
                if unblock {
                    self.patch(&node.identity, plan::without_blocking(live)).await?;
                    version = None;
                }
                let resource = self.resource(&node.identity.api_version, &node.identity.kind).await?;
                let params = DeleteParams {
                    uid: Some(node.identity.uid.to_string()),
                    resource_version: version,
                    propagation_policy: Some(policy.to_owned()),
                    ..DeleteParams::default()
                };
                let Identity { kind, namespace, name, .. } = &node.identity;
                debug!("deleting {kind} {namespace}/{name} ({policy})");
                ignore_not_found(self.client.delete(resource, Some(namespace), name, &params).await)?;
                Ok(())
            }
        }
    }

    /// The graph knows of a living owner; that one is absent is believed only from the server.
    async fn owner_state(&self, dependent: &Identity, owner: &Owner) -> Result<OwnerState, Error> {
        let known = {
            let graph = self.graph.lock();
            if graph.is_absent(&owner.uid) {
                return Ok(OwnerState::Absent);
            }
            graph.node(&owner.uid).filter(|node| node.seen).cloned()
        };
        if let Some(node) = known {
            let reachable = node.identity.namespace.is_empty() || node.identity.namespace == dependent.namespace;
            if reachable {
                return Ok(if node.ending_after_dependents { OwnerState::Waiting } else { OwnerState::Solid });
            }
        }
        let resource = self.resource(&owner.api_version, &owner.kind).await?;
        if resource.namespaced && dependent.namespace.is_empty() {
            let message = format!(
                "a cluster-wide object cannot be owned by {} {}, which lives in a namespace",
                owner.kind, owner.name
            );
            self.report(dependent, message);
            return Ok(OwnerState::Solid);
        }
        Ok(match self.live(&owner.identity(&dependent.namespace)).await? {
            None => OwnerState::Absent,
            Some(live) if graph::waits_for_dependents(&live) => OwnerState::Waiting,
            Some(_) => OwnerState::Solid,
        })
    }

    fn report(&self, about: &Identity, message: String) {
        let object = serde_json::json!({
            "apiVersion": &*about.api_version, "kind": &*about.kind,
            "metadata": {"name": &*about.name, "namespace": &*about.namespace, "uid": &*about.uid},
        });
        self.events.note(&object, "Warning", "OwnerRefInvalidNamespace", message);
    }

    /// The owner waits: it may go once no dependent blocks it; until then its dependents are looked at.
    async fn finish_foreground(&self, node: &Node, live: &Value) -> Result<Next, Error> {
        let blocking: Vec<Work> = {
            let graph = self.graph.lock();
            let dependents = graph.dependents(&node.identity.uid);
            let blocking = plan::blocking(&node.identity.uid, &dependents);
            if blocking.is_empty() {
                Vec::new()
            } else {
                blocking.iter().map(|n| Work::Delete(Arc::clone(&n.identity.uid))).collect()
            }
        };
        if blocking.is_empty() {
            self.patch(&node.identity, plan::without_finalizer(live, FOREGROUND)).await?;
            return Ok(Next::Done);
        }
        let waiting = |work: &Work| {
            let Work::Delete(uid) = work else { return false };
            self.graph.lock().node(uid).is_some_and(|n| n.ending_after_dependents)
        };
        let work: Vec<Work> = blocking.into_iter().filter(|work| !waiting(work)).collect();
        self.enqueue(work);
        Ok(Next::Done)
    }

    async fn orphan_dependents(&self, uid: &str) -> Result<Next, Error> {
        for informer in self.resources.watched() {
            informer.by_owner_uid(uid).iter().for_each(|object| self.observe(object));
        }
        let (node, dependents) = {
            let graph = self.graph.lock();
            let Some(node) = graph.node(uid).cloned() else { return Ok(Next::Done) };
            (node, graph.dependents(uid).into_iter().map(|n| n.identity.clone()).collect::<Vec<_>>())
        };
        for dependent in dependents {
            if let Some(live) = self.live(&dependent).await?
                && graph::owners_of(&live).iter().any(|owner| owner.uid == uid)
            {
                self.patch(&dependent, plan::without_owners(&live, &[uid.to_owned()])).await?;
            }
        }
        if let Some(live) = self.live(&node.identity).await?
            && graph::has_finalizer(&live, ORPHAN)
        {
            self.patch(&node.identity, plan::without_finalizer(&live, ORPHAN)).await?;
        }
        Ok(Next::Done)
    }

    async fn patch(&self, identity: &Identity, patch: Value) -> Result<(), Error> {
        let resource = self.resource(&identity.api_version, &identity.kind).await?;
        let namespace = Some(&*identity.namespace);
        let patched = self.client.patch(resource, namespace, &identity.name, None, &Patch::Merge(patch)).await;
        match ignore_not_found(patched)? {
            Some(object) => debug!("{} {} patched", identity.kind, object::text(&object, "/metadata/name")),
            None => self.gone(&identity.uid),
        }
        Ok(())
    }
}

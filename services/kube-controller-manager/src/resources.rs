//! Every deletable resource of the cluster under watch, as one stream: what the garbage collector's graph, the quotas and
//! the namespace controller's clean-up live on. Discovery is asked again whenever a definition of resources changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Change, Client, Informer, Resource};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tracing::{info, warn};

use crate::context::Informers;
use crate::discovery::{self, Discovered, Discovery};
use crate::worker;

/// One change of one resource.
pub type ResourceChange = (Resource<'static>, Change);

/// What brings resources and takes them away.
const DEFINITIONS: [Resource<'static>; 2] = [
    Resource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", false),
    Resource::new("apiregistration.k8s.io", "v1", "apiservices", "APIService", false),
];
/// Definitions come in bundles; the server needs a moment to serve them.
const GATHER: Duration = Duration::from_millis(500);
/// Changes that may wait for a subscriber: the others wait as informers keep them, which takes less.
const AHEAD: usize = 256;

/// Discovery's answer, kept, with an informer per deletable resource.
pub struct Resources {
    client: Client,
    informers: Informers,
    state: Mutex<State>,
    /// One refresh at a time; the loser finds the winner's result.
    refreshing: tokio::sync::Mutex<()>,
    /// Watching the definitions is begun once.
    following: Mutex<bool>,
}

#[derive(Default)]
struct State {
    known: Arc<[Discovered]>,
    /// The tasks that forward each resource's changes.
    watched: HashMap<Resource<'static>, Vec<AbortHandle>>,
    subscribers: Vec<mpsc::Sender<ResourceChange>>,
}

impl Resources {
    /// Knows nothing yet.
    pub fn new(client: Client, informers: Informers) -> Self {
        Resources {
            client,
            informers,
            state: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            following: Mutex::default(),
        }
    }

    /// Asks discovery, starts watching what is new and stops watching what is gone. A group that did not answer keeps
    /// what it had: its objects have not vanished.
    pub async fn refresh(&self) -> Result<Discovery, client::Error> {
        let _one = self.refreshing.lock().await;
        let discovery = discovery::discover(&self.client).await?;
        let mut state = self.state.lock();
        let mut known = discovery.resources.clone();
        if !discovery.failures.is_empty() {
            let silent =
                state.known.iter().filter(|old| !known.iter().any(|new| new.resource.group == old.resource.group));
            let silent: Vec<Discovered> = silent.cloned().collect();
            known.extend(silent);
        }
        state.known = known.into();
        let wanted: Vec<_> = state.known.iter().filter(|d| is_collectable(d)).map(|d| d.resource).collect();
        for resource in &wanted {
            if !state.watched.contains_key(resource) {
                let subscribers = state.subscribers.clone();
                let tasks = subscribers.into_iter().map(|to| forward(&self.informers, *resource, to)).collect();
                state.watched.insert(*resource, tasks);
            }
        }
        let gone: Vec<_> = state.watched.keys().filter(|resource| !wanted.contains(resource)).copied().collect();
        for resource in gone {
            info!("{} of {:?} are gone", resource.plural, resource.group);
            state.watched.remove(&resource).into_iter().flatten().for_each(|task| task.abort());
            self.informers.stop(resource);
        }
        Ok(discovery)
    }

    /// Refreshes until the server has answered once, and from then on when a definition changes.
    pub async fn start(self: &Arc<Self>) {
        if !std::mem::replace(&mut *self.following.lock(), true) {
            tokio::spawn(Arc::clone(self).follow());
        }
        let mut backoff = daemon::backoff::Backoff::default();
        loop {
            if !self.state.lock().known.is_empty() {
                return;
            }
            match self.refresh().await {
                Ok(discovery) => info!("{} resources discovered", discovery.resources.len()),
                Err(error) => {
                    warn!("discovery: {error}; trying again");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    async fn follow(self: Arc<Self>) {
        let changed = Arc::new(Notify::new());
        for resource in DEFINITIONS {
            let changed = Arc::clone(&changed);
            worker::on_change(&self.informers.get(resource), move |change| {
                if defines_otherwise(&change) {
                    changed.notify_one();
                }
            });
        }
        loop {
            changed.notified().await;
            tokio::time::sleep(GATHER).await;
            let mut backoff = daemon::backoff::Backoff::default();
            while let Err(error) = self.refresh().await {
                warn!("discovery: {error}; trying again");
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }

    /// All changes of all deletable resources from now on, present objects first.
    pub fn subscribe(&self) -> mpsc::Receiver<ResourceChange> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let mut state = self.state.lock();
        for (resource, tasks) in &mut state.watched {
            tasks.push(forward(&self.informers, *resource, sender.clone()));
        }
        state.subscribers.push(sender);
        receiver
    }

    /// The informers behind the stream.
    pub fn watched(&self) -> Vec<Informer> {
        self.state.lock().watched.keys().map(|resource| self.informers.get(*resource)).collect()
    }

    /// The resource of a kind, asking discovery again if it is not known: a custom resource may have just appeared.
    pub async fn of_kind(&self, api_version: &str, kind: &str) -> Result<Option<Resource<'static>>, client::Error> {
        if let Some(resource) = self.known_kind(api_version, kind) {
            return Ok(Some(resource));
        }
        self.refresh().await?;
        Ok(self.known_kind(api_version, kind))
    }

    /// The resource of that name, if discovery has seen it.
    pub fn of_plural(&self, group: &str, plural: &str) -> Option<Resource<'static>> {
        let known = self.state.lock().known.clone();
        known.iter().find(|d| d.resource.group == group && d.resource.plural == plural).map(|d| d.resource)
    }

    fn known_kind(&self, api_version: &str, kind: &str) -> Option<Resource<'static>> {
        // Owner references keep the version of their time; the group is what identifies the kind.
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let known = self.state.lock().known.clone();
        known.iter().find(|d| d.resource.group == group && d.resource.kind == kind).map(|d| d.resource)
    }
}

/// Coming, going, another spec, or a condition such as Established or Available.
fn defines_otherwise(change: &Change) -> bool {
    let Change::Applied { old: Some(old), new } = change else { return true };
    let conditions = |object: &serde_json::Value| {
        let all = crate::object::list(object, "/status/conditions").iter();
        all.map(|c| (c["type"].clone(), c["status"].clone())).collect::<Vec<_>>()
    };
    old["spec"] != new["spec"] || conditions(old) != conditions(new)
}

fn forward(informers: &Informers, resource: Resource<'static>, to: mpsc::Sender<ResourceChange>) -> AbortHandle {
    let mut changes = informers.get(resource).subscribe();
    let task = tokio::spawn(async move {
        while let Some(change) = changes.recv().await {
            if to.send((resource, change)).await.is_err() {
                return;
            }
        }
    });
    task.abort_handle()
}

/// Events are many, own nothing and expire by themselves.
fn is_collectable(discovered: &Discovered) -> bool {
    discovered.can(&["list", "watch", "delete"]) && discovered.resource.plural != "events"
}

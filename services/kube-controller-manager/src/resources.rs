//! Every deletable resource of the cluster under watch, as one stream: what the garbage collector's graph and the
//! namespace controller's clean-up live on.

use std::collections::HashSet;
use std::sync::Arc;

use client::{Change, Client, Informer, Resource};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::context::Informers;
use crate::discovery::{self, Discovered, Discovery};
use crate::worker;

/// One change of one resource.
pub type ResourceChange = (Resource<'static>, Change);

/// Discovery's answer, kept, with an informer per deletable resource.
pub struct Resources {
    client: Client,
    informers: Informers,
    state: Mutex<State>,
    /// One refresh at a time; the loser finds the winner's result.
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    known: Arc<[Discovered]>,
    watched: HashSet<Resource<'static>>,
    subscribers: Vec<mpsc::UnboundedSender<ResourceChange>>,
}

impl Resources {
    /// Knows nothing yet.
    pub fn new(client: Client, informers: Informers) -> Self {
        Resources { client, informers, state: Mutex::default(), refreshing: tokio::sync::Mutex::default() }
    }

    /// Asks discovery and starts watching what is new. Concurrent callers share the work, not the answer.
    pub async fn refresh(&self) -> Result<Discovery, client::Error> {
        let _one = self.refreshing.lock().await;
        let discovery = discovery::discover(&self.client).await?;
        let mut state = self.state.lock();
        state.known = discovery.resources.clone().into();
        let new: Vec<_> = state.known.iter().filter(|d| is_collectable(d)).map(|d| d.resource).collect();
        for resource in new {
            if state.watched.insert(resource) {
                for subscriber in state.subscribers.clone() {
                    forward(&self.informers, resource, subscriber);
                }
            }
        }
        Ok(discovery)
    }

    /// Refreshes until the server has answered once.
    pub async fn start(&self) {
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

    /// All changes of all deletable resources from now on, present objects first.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<ResourceChange> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        for resource in &state.watched {
            forward(&self.informers, *resource, sender.clone());
        }
        state.subscribers.push(sender);
        receiver
    }

    /// The informers behind the stream.
    pub fn watched(&self) -> Vec<Informer> {
        self.state.lock().watched.iter().map(|resource| self.informers.get(*resource)).collect()
    }

    /// The resource of a kind, asking discovery again if it is not known: a custom resource may have just appeared.
    pub async fn of_kind(&self, api_version: &str, kind: &str) -> Result<Option<Resource<'static>>, client::Error> {
        if let Some(resource) = self.known_kind(api_version, kind) {
            return Ok(Some(resource));
        }
        self.refresh().await?;
        Ok(self.known_kind(api_version, kind))
    }

    fn known_kind(&self, api_version: &str, kind: &str) -> Option<Resource<'static>> {
        // Owner references keep the version of their time; the group is what identifies the kind.
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let known = self.state.lock().known.clone();
        known.iter().find(|d| d.resource.group == group && d.resource.kind == kind).map(|d| d.resource)
    }
}

fn forward(informers: &Informers, resource: Resource<'static>, to: mpsc::UnboundedSender<ResourceChange>) {
    let mut changes = informers.get(resource).subscribe();
    tokio::spawn(async move {
        while let Some(change) = changes.recv().await {
            for change in worker::split(change) {
                if to.send((resource, change)).is_err() {
                    return;
                }
            }
        }
    });
}

/// Events are many, own nothing and expire by themselves.
fn is_collectable(discovered: &Discovered) -> bool {
    discovered.can(&["list", "watch", "delete"]) && discovered.resource.plural != "events"
}

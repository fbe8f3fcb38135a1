//! persistentvolume-attach-detach-controller: has a storage driver attach volumes to the nodes whose pods use them, by
//! VolumeAttachments, and detach them when no pod does. Volumes of drivers that need no attaching are left alone.
//!
//! A node learns of its volumes by status.volumesAttached, and one leaves that list before its VolumeAttachment goes: a
//! kubelet never mounts what is being detached. One worker, so that nothing is reported while it is being taken away.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use apimachinery::meta;
use client::resource::{NODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS};
use client::{Change, Client, DeleteParams, Informer, Patch, WorkQueue};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::info;

use self::plan::{Action, User};
use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::resource::{CSIDRIVERS, VOLUMEATTACHMENTS};
use crate::worker::{self, Next};
use crate::{object, pods};

/// Prefixes of the queue's keys.
const VOLUME: &str = "volume/";
const NODE: &str = "node/";

struct Controller {
    client: Client,
    events: Events,
    pods: Informer,
    nodes: Informer,
    claims: Informer,
    volumes: Informer,
    attachments: Informer,
    drivers: Informer,
    /// What this process remembers of its own writes; nothing of it is needed after a restart.
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// Since when an attachment has had no user, by uid.
    unused: HashMap<String, Instant>,
    /// Attachments that are being taken away, by uid: nodes no longer hear of them, whatever the informer says yet.
    detaching: HashSet<String>,
    /// Pods that were told that they cannot have a volume: pod uid and volume.
    refused: HashSet<(String, String)>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        pods: context.informers.get(PODS),
        nodes: context.informers.get(NODES),
        claims: context.informers.get(PERSISTENTVOLUMECLAIMS),
        volumes: context.informers.get(PERSISTENTVOLUMES),
        attachments: context.informers.get(VOLUMEATTACHMENTS),
        drivers: context.informers.get(CSIDRIVERS),
        client: context.client,
        events: context.events,
        memory: Mutex::default(),
    });
    let all = [
        &controller.pods,
        &controller.nodes,
        &controller.claims,
        &controller.volumes,
        &controller.attachments,
        &controller.drivers,
    ];
    for informer in all {
        informer.synced().await;
    }
    let queue = WorkQueue::new();
    watch_users(&controller, &queue);
    watch_attachments(&controller, &queue);
    worker::run("attach-detach", queue, 1, |key| sync(&controller, key)).await;
}

/// Pods, claims, volumes and drivers say what should be attached.
fn watch_users(controller: &Arc<Controller>, queue: &WorkQueue<String>) {
    let (this, to) = (Arc::clone(controller), queue.clone());
    worker::on_change(&controller.pods, move |change| {
        let pod = change.object();
        for claim in pods::claims(pod) {
            if let Some(claim) = this.claims.get(meta::namespace(pod), &claim) {
                to.add(format!("{VOLUME}{}", object::text(&claim, "/spec/volumeName")));
            }
        }
        if let Change::Deleted(pod) = &change {
            this.memory.lock().refused.retain(|(uid, _)| uid != meta::uid(pod));
        }
    });
    let to = queue.clone();
    worker::on_change(&controller.claims, move |change| {
        to.add(format!("{VOLUME}{}", object::text(change.object(), "/spec/volumeName")));
    });
    let to = queue.clone();
    worker::on_change(&controller.volumes, move |change| {
        to.add(format!("{VOLUME}{}", meta::name(change.object())));
    });
    let (this, to) = (Arc::clone(controller), queue.clone());
    worker::on_change(&controller.drivers, move |_| {
        this.volumes.list().iter().for_each(|volume| to.add(format!("{VOLUME}{}", meta::name(volume))));
    });
}

/// Attachments and nodes say what is.
fn watch_attachments(controller: &Arc<Controller>, queue: &WorkQueue<String>) {
    let (this, to) = (Arc::clone(controller), queue.clone());
    worker::on_change(&controller.attachments, move |change| {
        let attachment = change.object();
        match &change {
            Change::Applied { old, new } => this.tell(old.as_deref(), new),
            Change::Deleted(gone) => {
                let mut memory = this.memory.lock();
                memory.detaching.remove(meta::uid(gone));
                memory.unused.remove(meta::uid(gone));
            }
        }
        to.add(format!("{VOLUME}{}", plan::volume_of(attachment)));
        to.add(format!("{NODE}{}", object::text(attachment, "/spec/nodeName")));
    });
    let (this, to) = (Arc::clone(controller), queue.clone());
    worker::on_change(&controller.nodes, move |change| {
        if let Change::Applied { old: Some(old), new } = &change
            && !plan::matters(old, new)
        {
            return;
        }
        let name = meta::name(change.object());
        to.add(format!("{NODE}{name}"));
        for attachment in this.attachments.list().iter().filter(|a| object::text(a, "/spec/nodeName") == name) {
            to.add(format!("{VOLUME}{}", plan::volume_of(attachment)));
        }
    });
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    match (key.strip_prefix(VOLUME), key.strip_prefix(NODE)) {
        (Some(name), _) => controller.volume(name).await,
        (None, Some(name)) => controller.report(name).await.map(|()| Next::Done),
        (None, None) => Ok(Next::Done),
    }
}

impl Controller {
    async fn volume(&self, name: &str) -> Result<Next, Error> {
        let Some(volume) = self.volumes.get("", name).filter(|volume| volume["spec"]["csi"].is_object()) else {
            return Ok(Next::Done);
        };
        let attachments: Vec<Arc<Value>> =
            self.attachments.list().into_iter().filter(|a| plan::volume_of(a) == name).collect();
        let driver = self.drivers.get("", object::text(&volume, "/spec/csi/driver"));
        let wanted = !driver.is_some_and(|driver| driver["spec"]["attachRequired"] == false);
        if !wanted && attachments.is_empty() {
            return Ok(Next::Done);
        }
        let pods = if wanted { self.users(&volume) } else { Vec::new() };
        let users: Vec<User<'_>> = pods.iter().map(|pod| User::of(pod)).collect();
        let actions = {
            let mut memory = self.memory.lock();
            let node = |name: &str| self.nodes.get("", name);
            let now = Instant::now();
            let mut unused_for = |uid: &str, unused: bool| {
                if !unused {
                    memory.unused.remove(uid);
                    return std::time::Duration::ZERO;
                }
                now - *memory.unused.entry(uid.to_owned()).or_insert(now)
            };
            plan::plan(&volume, &users, &attachments, node, &mut unused_for)
        };
        let mut next = Next::Done;
        for action in actions {
            match action {
                Action::Attach { node } => self.attach(&volume, &node).await?,
                Action::Detach { attachment } => self.detach(&attachment).await?,
                Action::Refuse { node, message } => self.refuse(&volume, &pods, &node, &message),
                Action::Wait(delay) => next = Next::After(delay),
            }
        }
        Ok(next)
    }

    /// The pods that use a volume.
    fn users(&self, volume: &Value) -> Vec<Arc<Value>> {
        let claim = &volume["spec"]["claimRef"];
        let (namespace, name) = (object::text(claim, "/namespace"), object::text(claim, "/name"));
        let bound = self.claims.get(namespace, name).filter(|found| {
            found["metadata"]["uid"] == claim["uid"] && object::text(found, "/spec/volumeName") == meta::name(volume)
        });
        if bound.is_none() {
            return Vec::new();
        }
        let uses = |pod: &Arc<Value>| plan::holds(pod) && pods::claims(pod).any(|claim| claim == name);
        let mut users: Vec<Arc<Value>> = self.pods.each_in(namespace).filter(uses).collect();
        users.sort_by_cached_key(|pod| (meta::creation_timestamp(pod).to_owned(), meta::name(pod).to_owned()));
        users
    }

    async fn attach(&self, volume: &Value, node: &str) -> Result<(), Error> {
        info!("attaching volume {} to node {node}", meta::name(volume));
        match self.client.create(VOLUMEATTACHMENTS, None, &plan::attachment(volume, node)).await {
            Err(error) if !error.is_already_exists() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn detach(&self, attachment: &Value) -> Result<(), Error> {
        let node = object::text(attachment, "/spec/nodeName");
        let uid = meta::uid(attachment).to_owned();
        info!("detaching volume {} from node {node}", plan::volume_of(attachment));
        self.memory.lock().detaching.insert(uid.clone());
        let deleted = async {
            self.report(node).await?;
            let only_this = DeleteParams { uid: Some(uid.clone()), ..DeleteParams::default() };
            let answer = self.client.delete(VOLUMEATTACHMENTS, None, meta::name(attachment), &only_this).await;
            ignore_not_found(answer)?;
            Ok(())
        };
        let result = deleted.await;
        if result.is_err() {
            self.memory.lock().detaching.remove(&uid);
        }
        result
    }

    fn refuse(&self, volume: &Value, pods: &[Arc<Value>], node: &str, message: &str) {
        for pod in pods.iter().filter(|pod| object::text(pod, "/spec/nodeName") == node) {
            let key = (meta::uid(pod).to_owned(), meta::name(volume).to_owned());
            if self.memory.lock().refused.insert(key) {
                self.events.note(pod, "Warning", "FailedAttachVolume", message.to_owned());
            }
        }
    }

    /// Tells the pods that wait for an attachment how it went.
    fn tell(&self, old: Option<&Value>, new: &Value) {
        let Some((kind, reason, message)) = plan::outcome(old, new) else { return };
        let Some(volume) = self.volumes.get("", plan::volume_of(new)) else { return };
        let node = object::text(new, "/spec/nodeName");
        for pod in self.users(&volume).iter().filter(|pod| object::text(pod, "/spec/nodeName") == node) {
            self.events.note(pod, kind, reason, message.clone());
            self.memory.lock().refused.remove(&(meta::uid(pod).to_owned(), meta::name(&volume).to_owned()));
        }
    }

    /// Writes a node's list of attached volumes.
    async fn report(&self, name: &str) -> Result<(), Error> {
        let Some(node) = self.nodes.get("", name) else { return Ok(()) };
        let attachments = self.attachments.list();
        let wanted = {
            let memory = self.memory.lock();
            let here = attachments
                .iter()
                .filter(|a| object::text(a, "/spec/nodeName") == name && !memory.detaching.contains(meta::uid(a)));
            plan::attached(here, |volume| self.volumes.get("", volume))
        };
        if object::list(&node, "/status/volumesAttached") == wanted {
            return Ok(());
        }
        let list = if wanted.is_empty() { Value::Null } else { Value::Array(wanted) };
        let patch = Patch::Merge(json!({"status": {"volumesAttached": list}}));
        ignore_not_found(self.client.patch(NODES, None, name, Some("status"), &patch).await)?;
        Ok(())
    }
}

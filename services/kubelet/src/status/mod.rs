//! Pod statuses: [`compute`] makes them, [`patch`] turns a change into a request, [`Publisher`] sends them.

pub mod compute;
pub mod messages;
pub mod patch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteParams, Patch, WorkQueue, resource};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::pod::Pod;

/// How many statuses are on their way at a time.
const SENDERS: usize = 4;

/// A status that could not be sent is tried again after this time: a server that returns must not find old news.
const RETRY: Duration = Duration::from_secs(1);

/// The newest known status: what was published last, with the conditions that others set since.
pub fn overlay(server: &Value, published: Option<&Value>) -> Value {
    let Some(published) = published else { return server.clone() };
    let mut merged = published.clone();
    let ours: Vec<Value> =
        published["conditions"].as_array().into_iter().flatten().filter(|c| patch::is_ours(c)).cloned().collect();
    let foreign = server["conditions"].as_array().into_iter().flatten().filter(|c| !patch::is_ours(c)).cloned();
    let all: Vec<Value> = ours.into_iter().chain(foreign).collect();
    merged["conditions"] = all.into();
    // Others end pods too, by eviction for instance.
    if matches!(server["phase"].as_str(), Some("Succeeded" | "Failed")) {
        merged["phase"] = server["phase"].clone();
        for field in ["reason", "message"] {
            if let Some(text) = server[field].as_str() {
                merged[field] = text.into();
            }
        }
    }
    merged
}

#[derive(Clone, Debug)]
struct Entry {
    namespace: String,
    name: String,
    /// What the server has, as far as known.
    base: Value,
    wanted: Value,
    /// Remove the object once it has this status.
    last: bool,
    /// The uid of the object: a static pod's is its mirror's, once there is one.
    object: Option<String>,
}

/// Sends statuses in the background; only the newest of each pod matters.
#[derive(Clone, Debug)]
pub struct Publisher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    entries: Mutex<HashMap<String, Entry>>,
    queue: WorkQueue<String>,
    sent: Notify,
}

impl Publisher {
    /// Starts the senders.
    pub fn start(client: Client) -> Self {
        let inner = Arc::new(Inner { client, entries: Mutex::default(), queue: WorkQueue::new(), sent: Notify::new() });
        for _ in 0..SENDERS {
            let inner = Arc::clone(&inner);
            tokio::spawn(async move {
                while let Some(uid) = inner.queue.next().await {
                    inner.send(&uid).await;
                    inner.queue.done(&uid);
                }
            });
        }
        Publisher(inner)
    }

    /// Publishes a status.
    pub fn publish(&self, pod: &Pod, status: Value) {
        self.put(pod, status, false);
    }

    /// Publishes the last status of a deleted pod and then removes the object.
    pub fn finish(&self, pod: &Pod, status: Value) {
        self.put(pod, status, true);
    }

    /// A static pod's mirror is there, with this status.
    pub fn mirrored(&self, uid: &str, mirror: &str, status: Value) {
        if let Some(entry) = self.0.entries.lock().get_mut(uid)
            && entry.object.as_deref() != Some(mirror)
        {
            entry.object = Some(mirror.to_owned());
            entry.base = status;
            self.0.queue.add(uid.to_owned());
        }
    }

    /// Waits until every status has been sent, or for the deadline.
    pub async fn drained(&self, deadline: Instant) {
        let waits = |entry: &Entry| {
            entry.object.as_ref().is_some_and(|object| patch::build(&entry.base, &entry.wanted, object).is_some())
        };
        loop {
            let sent = self.0.sent.notified();
            if !self.0.entries.lock().values().any(waits) || timeout_at(deadline, sent).await.is_err() {
                return;
            }
        }
    }

    /// Forgets a pod whose object is gone.
    pub fn forget(&self, uid: &str) {
        self.0.entries.lock().remove(uid);
    }

    fn put(&self, pod: &Pod, status: Value, last: bool) {
        let uid = pod.metadata.uid.clone();
        {
            let mut entries = self.0.entries.lock();
            let uid = uid.clone();
            let entry = entries.entry(uid.clone()).or_insert_with(|| Entry {
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                base: pod.status.clone(),
                wanted: Value::Null,
                last: false,
                object: (!pod.is_static()).then_some(uid),
            });
            if entry.wanted == status && entry.last == last {
                return;
            }
            entry.wanted = status;
            entry.last |= last;
        }
        self.0.queue.add(uid);
    }
}

impl Inner {
    async fn send(&self, uid: &str) {
        let Some(entry) = self.entries.lock().get(uid).cloned() else { return };
        match self.exchange(uid, &entry).await {
            Ok(()) => self.sent.notify_waiters(),
            Err(error) => {
                tracing::warn!(pod = %entry.name, namespace = %entry.namespace, %error, "status not sent");
                self.queue.add_after(uid.to_owned(), RETRY);
            }
        }
    }

    async fn exchange(&self, uid: &str, entry: &Entry) -> Result<(), client::Error> {
        // A static pod without a mirror waits for one.
        let Some(object) = &entry.object else { return Ok(()) };
        let namespace = Some(entry.namespace.as_str());
        if let Some(body) = patch::build(&entry.base, &entry.wanted, object) {
            let answer = self
                .client
                .patch(resource::PODS, namespace, &entry.name, Some("status"), &Patch::Strategic(body))
                .await;
            match answer {
                Ok(mut answer) => {
                    let base = answer["status"].take();
                    if let Some(current) = self.entries.lock().get_mut(uid) {
                        current.base = base;
                    }
                }
                // Another pod has the name by now, or none.
                Err(error) if error.is_not_found() || error.is_conflict() => {
                    return self.gone(uid, object, &entry.name, error).await;
                }
                Err(error) => return Err(error),
            }
        }
        if !entry.last {
            return Ok(());
        }
        let params =
            DeleteParams { grace_period_seconds: Some(0), uid: Some(object.clone()), ..DeleteParams::default() };
        match self.client.delete(resource::PODS, namespace, &entry.name, &params).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => {
                self.entries.lock().remove(uid);
                Ok(())
            }
        }
    }

    /// The object is gone: so is the pod, unless it was a mirror, which comes back.
    fn lost(&self, uid: &str, object: &str) {
        let mut entries = self.entries.lock();
        match entries.get_mut(uid) {
            Some(entry) if uid != object => entry.object = None,
            _ => drop(entries.remove(uid)),
        }
    }

    /// A conflict that is not about the uid is a failure like any other.
    async fn gone(&self, uid: &str, object: &str, name: &str, error: client::Error) -> Result<(), client::Error> {
        let namespace = self.entries.lock().get(uid).map(|e| e.namespace.clone());
        let found = self.client.get(resource::PODS, namespace.as_deref(), name).await;
        match found {
            Ok(found) if found["metadata"]["uid"] == object => return Err(error),
            Ok(_) => {}
            Err(other) if other.is_not_found() => {}
            Err(other) => return Err(other),
        }
        self.lost(uid, object);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_published_status_wins_but_for_others_conditions_and_ends() {
        let published = json!({"phase": "Running", "podIP": "1", "conditions": [{"type": "Ready", "status": "True"}]});
        let server = json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}, {"type": "x/y", "status": "True"}]});
        let merged = overlay(&server, Some(&published));
        assert_eq!(merged["phase"], "Running");
        assert_eq!(
            merged["conditions"],
            json!([{"type": "Ready", "status": "True"}, {"type": "x/y", "status": "True"}])
        );
        let evicted = json!({"phase": "Failed", "reason": "Evicted"});
        assert_eq!(overlay(&evicted, Some(&published))["reason"], "Evicted");
    }
}

//! core/v1 Events about objects, for `kubectl describe` and `kubectl get events`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::debug;

use crate::params::Patch;
use crate::requests::Client;
use crate::resource;

/// Repeated events are counted up to this many distinct ones; beyond it the memory starts afresh.
const REMEMBERED_EVENTS_MAX: usize = 1024;

/// How many events about one object are recorded at once; then one more each time this has passed. client-go's numbers.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);

/// What may still be said about each object, by uid.
#[derive(Debug, Default)]
struct Allowance(HashMap<String, (u32, Instant)>);

impl Allowance {
    /// Whether one more event is recorded: something that fails for ever must not be written about without end.
    fn takes(&mut self, uid: &str, now: Instant) -> bool {
        if self.0.len() >= REMEMBERED_EVENTS_MAX {
            self.0.clear();
        }
        let (left, since) = self.0.entry(uid.to_owned()).or_insert((BURST, now));
        let refills = now.saturating_duration_since(*since).as_secs() / REFILL.as_secs();
        let refills = u32::try_from(refills).unwrap_or(BURST);
        *left = left.saturating_add(refills).min(BURST);
        *since += REFILL * refills;
        let allowed = *left > 0;
        *left = left.saturating_sub(1);
        allowed
    }
}

/// Events that wait to be recorded; client-go's number.
const WAITING_MAX: usize = 1000;
/// Events that are being recorded at once: they come after the requests that matter.
const RECORDED_AT_ONCE: usize = 4;

/// Events beside the work: nobody waits for one to be written. They stand in one short queue, and when that is full, what
/// comes is lost, as in client-go: a storm of them must neither fill memory nor keep the API server busy.
#[derive(Clone, Debug)]
pub struct EventQueue(mpsc::Sender<Note>);

#[derive(Debug)]
struct Note {
    by: EventRecorder,
    about: Value,
    kind: &'static str,
    reason: String,
    message: String,
}

impl EventQueue {
    /// Records what is handed in, until the last handle is gone.
    pub fn start() -> Self {
        let (sender, waiting) = mpsc::channel::<Note>(WAITING_MAX);
        let waiting = stream::unfold(waiting, |mut waiting| async move { Some((waiting.recv().await?, waiting)) });
        tokio::spawn(waiting.for_each_concurrent(RECORDED_AT_ONCE, |note| async move {
            note.by.event(&note.about, note.kind, &note.reason, &note.message).await;
        }));
        EventQueue(sender)
    }

    /// Notes that `reason` happened to `object`, of which only what identifies it is read.
    pub fn note(&self, by: &EventRecorder, object: &Value, kind: &'static str, reason: &str, message: String) {
        let note = Note { by: by.clone(), about: identity(object), kind, reason: reason.to_owned(), message };
        if let Err(refused) = self.0.try_send(note) {
            debug!(reason, "an event is lost: {refused}");
        }
    }
}

/// What tells an object from all others, and its state.
fn identity(object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"], "fieldPath": object["fieldPath"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
                     "resourceVersion": metadata["resourceVersion"]},
    })
}

/// Records events; failures are logged and otherwise ignored, as events are best effort.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    client: Client,
    component: String,
    host: String,
    seen: Arc<Mutex<HashMap<String, (String, u64)>>>,
    allowance: Arc<Mutex<Allowance>>,
}

impl EventRecorder {
    /// A recorder for a component, with its node's name where it has one.
    pub fn new(client: Client, component: &str, node_name: Option<&str>) -> Self {
        EventRecorder {
            client,
            component: component.to_owned(),
            host: node_name.unwrap_or_default().to_owned(),
            seen: Arc::default(),
            allowance: Arc::default(),
        }
    }

    /// Records that `reason` happened to `object`, or to the part of it that a `fieldPath` beside its metadata names; the same
    /// event again raises the count of the first.
    pub async fn event(&self, object: &Value, kind: &str, reason: &str, message: &str) {
        let metadata = &object["metadata"];
        if !self.allowance.lock().takes(metadata["uid"].as_str().unwrap_or_default(), Instant::now()) {
            debug!(reason, "too many events about one object");
            return;
        }
        let part = object["fieldPath"].as_str().unwrap_or_default();
        let identity = format!("{}|{part}|{kind}|{reason}|{message}", metadata["uid"].as_str().unwrap_or_default());
        let namespace = metadata["namespace"].as_str().filter(|ns| !ns.is_empty()).unwrap_or("default").to_owned();
        let earlier = self.seen.lock().get(&identity).cloned();
        if let Some((name, count)) = earlier
            && self.count_up(&namespace, &name, count + 1).await
        {
            self.seen.lock().insert(identity, (name, count + 1));
            return;
        }
        let event = self.build(object, &namespace, kind, reason, message);
        let name = event["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match self.client.create(resource::EVENTS, Some(&namespace), &event).await {
            Ok(_) => {
                let mut seen = self.seen.lock();
                if seen.len() >= REMEMBERED_EVENTS_MAX {
                    seen.clear();
                }
                seen.insert(identity, (name, 1));
            }
            Err(error) => debug!(%error, reason, "event not recorded"),
        }
    }

    async fn count_up(&self, namespace: &str, name: &str, count: u64) -> bool {
        let patch = Patch::Merge(json!({"count": count, "lastTimestamp": now()}));
        self.client.patch(resource::EVENTS, Some(namespace), name, None, &patch).await.is_ok()
    }

    fn build(&self, object: &Value, namespace: &str, kind: &str, reason: &str, message: &str) -> Value {
        let metadata = &object["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        let now = now();
        let mut event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": format!("{name}.{:016x}", rand::random::<u64>()), "namespace": namespace},
            "involvedObject": {
                "apiVersion": object["apiVersion"],
                "kind": object["kind"],
                "name": name,
                "namespace": metadata["namespace"].as_str().unwrap_or_default(),
                "uid": metadata["uid"].as_str().unwrap_or_default(),
                "resourceVersion": metadata["resourceVersion"].as_str().unwrap_or_default(),
            },
            "reason": reason,
            "message": message,
            "type": kind,
            "source": {"component": self.component, "host": self.host},
            "reportingComponent": self.component,
            "reportingInstance": self.host,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        if object["fieldPath"].is_string() {
            event["involvedObject"]["fieldPath"] = object["fieldPath"].clone();
        }
        event
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_object_only_what_identifies_it_waits() {
        let object = json!({"kind": "Pod", "metadata": {"name": "p", "uid": "u", "labels": {"a": "b"}}, "spec": {}});
        let about = identity(&object);
        assert_eq!((&about["kind"], &about["metadata"]["uid"]), (&json!("Pod"), &json!("u")));
        assert!(about["spec"].is_null() && about["metadata"]["labels"].is_null());
    }

    #[test]
    fn an_object_is_not_written_about_without_end() {
        let (mut allowance, start) = (Allowance::default(), Instant::now());
        let said = |allowance: &mut Allowance, at: Instant| (0..100).filter(|_| allowance.takes("a", at)).count();
        assert_eq!(said(&mut allowance, start), 25);
        assert_eq!(said(&mut allowance, start + Duration::from_secs(299)), 0);
        assert_eq!(said(&mut allowance, start + Duration::from_secs(301)), 1);
        assert_eq!(said(&mut allowance, start + Duration::from_secs(86_400)), 25);
        assert!(allowance.takes("b", start), "another object");
    }
}

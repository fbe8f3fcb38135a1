//! One task for each pod: feeds the [`machine`] and performs its actions one at a time. Only an order to stop interrupts
//! work that is under way.

pub mod machine;
#[cfg(test)]
mod model_tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::Change;
use daemon::Shutdown;
use daemon::backoff::Backoff;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::pod::{MIRROR, Pod};
use crate::probes::Wake;
use crate::runtime::Listed;
use crate::shared::Shared;
use crate::status::compute::Failure;
use crate::sync::PodSync;
use machine::{Action, Event, Machine, Stage};

/// A pod's running content is looked over this often although nothing happened.
const RESYNC: Duration = Duration::from_secs(300);

/// What a worker is told.
#[derive(Clone, Debug)]
enum Message {
    /// The object is new or changed.
    Pod(Arc<Pod>),
    /// It no longer exists.
    Vanished(i64),
    /// Look again.
    Wake,
    /// The node itself ends it within this many seconds.
    End(Failure, i64),
}

type Workers = Arc<Mutex<HashMap<String, Handle>>>;

/// A worker from outside.
struct Handle {
    sender: mpsc::UnboundedSender<Message>,
    /// `namespace/name` of a static pod, and its grace period in seconds.
    static_pod: Option<(String, i64)>,
}

/// The workers of all pods of this node.
#[derive(Clone)]
pub struct PodWorkers {
    shared: Arc<Shared>,
    workers: Workers,
    exits: Arc<Notify>,
}

impl PodWorkers {
    /// None yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        PodWorkers { shared, workers: Arc::default(), exits: Arc::default() }
    }

    /// Follows the pods that are bound to this node until the end.
    pub async fn follow(&self, shutdown: Shutdown) {
        let mut changes = self.shared.pods.subscribe();
        loop {
            let change = tokio::select! {
                () = shutdown.wait() => return,
                change = changes.recv() => change,
            };
            match change {
                Some(Change::Applied { new, .. }) => self.applied(&new),
                Some(Change::Deleted(last)) => self.deleted(&last),
                None => return,
            }
        }
    }

    fn applied(&self, object: &Value) {
        // What a mirror shows runs already.
        if is_mirror(object) {
            return;
        }
        match Pod::from_value(object) {
            Ok(pod) => {
                let pod = Arc::new(pod);
                self.tell(Arc::clone(&pod), Message::Pod(pod));
            }
            Err(error) => tracing::error!(%error, pod = %object["metadata"]["name"], "pod cannot be read"),
        }
    }

    fn deleted(&self, object: &Value) {
        if is_mirror(object) {
            return;
        }
        let Ok(pod) = Pod::from_value(object) else { return };
        // Removed without a grace period: nobody waits for it, but its processes get a moment.
        self.vanish(&pod.metadata.uid, pod.grace_period().max(1));
    }

    fn send(&self, uid: &str, message: Message) {
        if let Some(handle) = self.workers.lock().get(uid) {
            let _ = handle.sender.send(message);
        }
    }

    /// The pod's object is gone; its containers get this many seconds.
    pub fn vanish(&self, uid: &str, grace: i64) {
        self.send(uid, Message::Vanished(grace));
    }

    /// Runs a pod that the node itself has.
    pub fn run_static(&self, pod: Pod) {
        let pod = Arc::new(pod);
        self.tell(Arc::clone(&pod), Message::Pod(pod));
    }

    /// The static pods that have a worker: uid, `namespace/name` and grace period in seconds.
    pub fn static_pods(&self) -> Vec<(String, String, i64)> {
        let workers = self.workers.lock();
        let known = |(uid, handle): (&String, &Handle)| {
            let (name, grace) = handle.static_pod.clone()?;
            Some((uid.clone(), name, grace))
        };
        workers.iter().filter_map(known).collect()
    }

    /// Tells whenever a worker has ended.
    pub fn exits(&self) -> Arc<Notify> {
        Arc::clone(&self.exits)
    }

    /// Something about the pod's containers or objects changed.
    pub fn wake(&self, uid: &str) {
        self.send(uid, Message::Wake);
    }

    /// Something that concerns every pod changed.
    pub fn wake_all(&self) {
        for handle in self.workers.lock().values() {
            let _ = handle.sender.send(Message::Wake);
        }
    }

    /// Ends a pod for the node's own sake.
    pub fn end(&self, uid: &str, failure: Failure, grace: i64) {
        self.send(uid, Message::End(failure, grace));
    }

    /// Whether the pod has a worker.
    pub fn knows(&self, uid: &str) -> bool {
        self.workers.lock().contains_key(uid)
    }

    /// Removes what a pod left behind that no longer exists.
    pub fn adopt_orphan(&self, listed: &Listed) {
        let mut pod = Pod::default();
        pod.metadata.uid.clone_from(&listed.uid);
        pod.metadata.name.clone_from(&listed.name);
        pod.metadata.namespace.clone_from(&listed.namespace);
        tracing::info!(pod = %pod.full_name(), "removing the remains of a pod that no longer exists");
        self.tell(Arc::new(pod), Message::Vanished(1));
    }

    /// Passes a message to the pod's worker, which is made if there is none.
    fn tell(&self, pod: Arc<Pod>, message: Message) {
        let mut workers = self.workers.lock();
        let uid = &pod.metadata.uid;
        let message = match workers.get(uid) {
            Some(handle) => match handle.sender.send(message) {
                Ok(()) => return,
                Err(mpsc::error::SendError(message)) => message,
            },
            None => message,
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let waker = sender.clone();
        let wake: Wake = Arc::new(move || drop(waker.send(Message::Wake)));
        let _ = sender.send(message);
        let m = &pod.metadata;
        let static_pod = pod.is_static().then(|| (format!("{}/{}", m.namespace, m.name), pod.grace_period()));
        workers.insert(uid.clone(), Handle { sender, static_pod });
        let worker = Worker {
            sync: PodSync::new(Arc::clone(&self.shared), wake),
            shared: Arc::clone(&self.shared),
            life: Life { machine: Machine::default(), pod, known: false, failure: None },
            backoff: retry(),
        };
        let (workers, exits) = (Arc::clone(&self.workers), Arc::clone(&self.exits));
        tokio::spawn(async move {
            worker.run(receiver, workers).await;
            exits.notify_one();
        });
    }
}

fn is_mirror(object: &Value) -> bool {
    object["metadata"]["annotations"][MIRROR].is_string()
}

fn retry() -> Backoff {
    Backoff::new(Duration::from_millis(500), Duration::from_secs(60))
}

struct Worker {
    sync: PodSync,
    shared: Arc<Shared>,
    life: Life,
    backoff: Backoff,
}

/// The machine and the object that drives it.
struct Life {
    machine: Machine,
    pod: Arc<Pod>,
    /// Whether `pod` has been acted on.
    known: bool,
    /// Why the node ends the pod, until the worker has been told.
    failure: Option<Failure>,
}

/// What to do next and when.
struct Next {
    action: Option<Action>,
    at: Option<Instant>,
}

impl Life {
    fn absorb(&mut self, message: Message) -> Option<Action> {
        let event = match message {
            Message::Wake => Event::Woken,
            Message::Vanished(grace) => Event::Vanished(grace),
            Message::End(failure, grace) => {
                self.failure.get_or_insert(failure);
                Event::Over(grace)
            }
            Message::Pod(pod) => {
                let old = std::mem::replace(&mut self.pod, pod);
                if self.known && !matters(&old, &self.pod) {
                    return None;
                }
                self.known = true;
                event_of(&self.pod)
            }
        };
        self.machine.step(event)
    }
}

impl Worker {
    async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>, workers: Workers) {
        let mut next = Next { action: None, at: None };
        loop {
            if let (Some(action), None) = (next.action, next.at) {
                if action == Action::Exit {
                    break;
                }
                next = self.perform(action, &mut messages).await;
                continue;
            }
            let due = next.at.unwrap_or_else(|| Instant::now() + RESYNC);
            tokio::select! {
                message = messages.recv() => {
                    let Some(message) = message else { break };
                    if let Some(action) = self.life.absorb(message) {
                        next = Next { action: Some(action), at: None };
                    }
                }
                () = tokio::time::sleep_until(due) => {
                    let action = next.action.or_else(|| self.life.machine.step(Event::Woken));
                    next = Next { action, at: None };
                }
            }
        }
        let uid = self.life.pod.metadata.uid.clone();
        self.shared.publisher.forget(&uid);
        workers.lock().remove(&uid);
    }

    /// Performs one action while messages keep coming in.
    async fn perform(&mut self, action: Action, messages: &mut mpsc::UnboundedReceiver<Message>) -> Next {
        let pod = Arc::clone(&self.life.pod);
        if let Some(failure) = self.life.failure.take() {
            self.sync.fail(failure);
        }
        let mut queued: Option<Action> = None;
        let outcome = {
            let work = act(&mut self.sync, action, &pod);
            tokio::pin!(work);
            loop {
                tokio::select! {
                    outcome = &mut work => break Some(outcome),
                    message = messages.recv() => {
                        let Some(message) = message else { return Next { action: Some(Action::Exit), at: None } };
                        match self.life.absorb(message) {
                            Some(stop @ Action::Stop(_)) => {
                                queued = Some(stop);
                                break None;
                            }
                            Some(other) => queued = Some(other),
                            None => {}
                        }
                    }
                }
            }
        };
        match outcome {
            None => Next { action: queued, at: None },
            Some(outcome) => self.settle(action, outcome, queued),
        }
    }

    fn settle(&mut self, action: Action, outcome: Result<Done, String>, queued: Option<Action>) -> Next {
        let done = match outcome {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(pod = %self.life.pod.full_name(), %error, ?action, "to be tried again");
                let at = Instant::now() + self.backoff.next_delay();
                // News may be what the failed action waited for.
                return match queued {
                    Some(queued) => Next { action: Some(queued), at: None },
                    None => Next { action: Some(action), at: Some(at) },
                };
            }
        };
        self.backoff = retry();
        if let Some(event) = done.event {
            let next = self.life.machine.step(event);
            if next.is_none() && event == Event::Done {
                self.life.machine.settle();
            }
            if next.is_some() {
                return Next { action: next, at: None };
            }
        }
        if let Some(queued) = queued {
            return Next { action: Some(queued), at: None };
        }
        let running = self.life.machine.stage == Stage::Running;
        Next { action: None, at: done.again_in.filter(|_| running).map(|delay| Instant::now() + delay) }
    }
}

/// Whether a change of the object concerns the kubelet: its own status coming back does not.
fn matters(old: &Pod, new: &Pod) -> bool {
    let foreign = |pod: &Pod| -> Vec<Value> {
        let all = pod.status["conditions"].as_array().into_iter().flatten();
        all.filter(|c| !crate::status::patch::is_ours(c)).cloned().collect()
    };
    let ended = |pod: &Pod| matches!(pod.phase(), "Succeeded" | "Failed");
    let mut same_version = old.metadata.clone();
    same_version.resource_version.clone_from(&new.metadata.resource_version);
    old.spec != new.spec || same_version != new.metadata || foreign(old) != foreign(new) || ended(old) != ended(new)
}

fn event_of(pod: &Pod) -> Event {
    if pod.is_deleted() {
        return Event::Desired(Some(pod.grace_period()));
    }
    match pod.phase() {
        "Succeeded" | "Failed" => Event::Over(pod.grace_period()),
        _ => Event::Desired(None),
    }
}

#[derive(Default)]
struct Done {
    event: Option<Event>,
    again_in: Option<Duration>,
}

async fn act(sync: &mut PodSync, action: Action, pod: &Arc<Pod>) -> Result<Done, String> {
    let done = Done { event: Some(Event::Done), again_in: None };
    match action {
        Action::Sync => {
            let round = sync.sync(pod).await?;
            Ok(Done { event: round.over.then(|| Event::Over(pod.grace_period())), again_in: round.again_in })
        }
        Action::Stop(grace) => sync.stop(pod, grace).await.map(|()| done),
        Action::Release => sync.release(pod).await.map(|()| done),
        Action::Remove => sync.remove(pod).await.map(|()| done),
        Action::Report => {
            sync.report(pod);
            Ok(Done::default())
        }
        Action::Exit => Ok(Done::default()),
    }
}

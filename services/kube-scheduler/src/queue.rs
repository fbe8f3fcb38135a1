//! Pods that wait for a node. Pure: time is an argument.
//!
//! ```text
//!  new ──▶ active ──pop──▶ in flight ──chosen──▶ binding ──▶ forgotten
//!            ▲                │ rejected   failed │          ▲ deleted, or has a node
//!            │                ▼                   ▼
//!            ├─ back-off ◀─ unschedulable     an event that helps, or five minutes, moves it on;
//!            └────────────────────┘           back-off first, if it failed just now
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::framework::Event;
use crate::pod::Pod;

/// An event that helps may have been missed; nobody waits longer than this without another try.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

type ActiveKey = (Reverse<i64>, u64, String);

#[derive(Debug)]
enum Place {
    Active(ActiveKey),
    Backoff(Instant),
    Unschedulable(Instant),
    /// Being decided; events from this number on have happened meanwhile.
    InFlight(u64),
    Binding,
    Gated,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    place: Place,
    failures: u32,
    rejected_by: BTreeSet<&'static str>,
    failed: Option<Instant>,
    since: Instant,
}

type Rejection = BTreeSet<&'static str>;

/// Whether an event helps a pod that these plugins rejected.
pub type Helps<'a> = &'a dyn Fn(&Pod, &Rejection, &Event) -> bool;

/// How long a pod that failed waits before the next try: doubled with each failure.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// At most.
    pub limit: Duration,
}

/// What is known of a pod's way through the queue.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// Tries so far, this one included.
    pub attempts: u32,
    /// When it came.
    pub since: Instant,
}

/// How many pods are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// To be tried now.
    pub active: usize,
    /// To be tried soon.
    pub backoff: usize,
    /// To be tried when something helps.
    pub unschedulable: usize,
    /// To be tried when their gates are gone.
    pub gated: usize,
}

/// The queue.
pub struct Queue {
    entries: HashMap<String, Entry>,
    active: BTreeSet<ActiveKey>,
    backoff: BTreeSet<(Instant, String)>,
    unschedulable: BTreeSet<(Instant, String)>,
    /// The same pods by what decides whether an event helps them, so that it is asked once for all replicas.
    groups: HashMap<(u64, Rejection), BTreeSet<String>>,
    /// What happened while pods were in flight, oldest first, numbered from `first_event`.
    events: VecDeque<Event>,
    first_event: u64,
    /// How many pods are in flight since an event.
    in_flight: BTreeMap<u64, usize>,
    arrivals: u64,
    gated: usize,
    backoff_times: Backoff,
}

impl Queue {
    /// An empty queue.
    pub fn new(backoff_times: Backoff) -> Self {
        Queue {
            entries: HashMap::new(),
            active: BTreeSet::new(),
            backoff: BTreeSet::new(),
            unschedulable: BTreeSet::new(),
            events: VecDeque::new(),
            first_event: 0,
            groups: HashMap::new(),
            in_flight: BTreeMap::new(),
            arrivals: 0,
            gated: 0,
            backoff_times,
        }
    }

    /// A pod without a node appeared or changed.
    pub fn set(&mut self, pod: Arc<Pod>, now: Instant) {
        let uid = pod.uid.to_string();
        let Some(entry) = self.entries.get_mut(&uid) else {
            let entry =
                Entry { pod, place: Place::Gated, failures: 0, rejected_by: BTreeSet::new(), failed: None, since: now };
            self.entries.insert(uid.clone(), entry);
            self.gated += 1;
            return self.ungate(&uid);
        };
        let changed = !Arc::ptr_eq(&entry.pod.spec, &pod.spec) || entry.pod.resource_claims() != pod.resource_claims();
        match entry.place {
            Place::Gated => {
                entry.pod = pod;
                self.ungate(&uid);
            }
            // What was wrong with it may be right now.
            Place::Unschedulable(_) if changed => {
                self.detach(&uid);
                self.replace(&uid, pod);
                self.retry(&uid, now);
            }
            _ => entry.pod = pod,
        }
    }

    /// A pod is gone or has a node.
    pub fn remove(&mut self, uid: &str) {
        self.detach(uid);
        self.entries.remove(uid);
    }

    /// The most important pod that may be tried now; it is in flight until [`Queue::binding`] or [`Queue::failed`].
    pub fn pop(&mut self, now: Instant) -> Option<Arc<Pod>> {
        self.flush(now);
        let (_, _, uid) = self.active.pop_first()?;
        let last = self.first_event + self.events.len() as u64;
        let entry = self.entries.get_mut(&uid)?;
        entry.place = Place::InFlight(last);
        *self.in_flight.entry(last).or_default() += 1;
        Some(Arc::clone(&entry.pod))
    }

    /// A pod as it is now.
    pub fn get(&self, uid: &str) -> Option<&Arc<Pod>> {
        self.entries.get(uid).map(|entry| &entry.pod)
    }

    /// A pod's way so far.
    pub fn history(&self, uid: &str) -> Option<History> {
        let entry = self.entries.get(uid)?;
        Some(History { attempts: entry.failures + 1, since: entry.since })
    }

    /// How many pods are where.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            active: self.active.len(),
            backoff: self.backoff.len(),
            unschedulable: self.unschedulable.len(),
            gated: self.gated,
        }
    }

    /// A node was chosen for a pod; what happens now concerns it only if that fails.
    pub fn binding(&mut self, uid: &str) {
        self.detach(uid);
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.place = Place::Binding;
        }
    }

    /// A pod found no node, rejected by these plugins, or failed otherwise if there are none.
    pub fn failed(&mut self, uid: &str, rejected_by: Rejection, now: Instant, helps: Helps<'_>) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let seen = match entry.place {
            Place::InFlight(since) => usize::try_from(since - self.first_event).unwrap_or(0),
            Place::Binding => self.events.len(),
            _ => return,
        };
        entry.failures += 1;
        entry.failed = Some(now);
        let helped =
            rejected_by.is_empty() || self.events.iter().skip(seen).any(|event| helps(&entry.pod, &rejected_by, event));
        entry.rejected_by = rejected_by;
        if helped {
            return self.retry(uid, now);
        }
        self.detach(uid);
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.place = Place::Unschedulable(now);
            self.unschedulable.insert((now, uid.to_owned()));
            self.groups.entry((entry.pod.spec.id, entry.rejected_by.clone())).or_default().insert(uid.to_owned());
        }
    }

    /// Something happened: pods that it helps move on.
    pub fn event(&mut self, event: Event, now: Instant, helps: Helps<'_>) {
        let helped = |((_, rejected_by), uids): &(&(u64, Rejection), &BTreeSet<String>)| {
            let one = uids.first().and_then(|uid| self.entries.get(uid));
            one.is_some_and(|entry| helps(&entry.pod, rejected_by, &event))
        };
        let uids: Vec<String> = self.groups.iter().filter(helped).flat_map(|(_, uids)| uids.iter().cloned()).collect();
        for uid in uids {
            self.retry(&uid, now);
        }
        if !self.in_flight.is_empty() {
            self.events.push_back(event);
        }
    }

    /// When the next pod becomes active by time alone.
    pub fn next_deadline(&self) -> Option<Instant> {
        let backoff = self.backoff.first().map(|(due, _)| *due);
        let forgotten = self.unschedulable.first().map(|(since, _)| *since + UNSCHEDULABLE_MAX);
        [backoff, forgotten].into_iter().flatten().min()
    }

    fn flush(&mut self, now: Instant) {
        while let Some((due, uid)) = self.backoff.first().cloned()
            && due <= now
        {
            self.activate(&uid);
        }
        while let Some((since, uid)) = self.unschedulable.first().cloned()
            && since + UNSCHEDULABLE_MAX <= now
        {
            self.activate(&uid);
        }
    }

    fn ungate(&mut self, uid: &str) {
        if self.entries.get(uid).is_some_and(|entry| !entry.pod.is_gated()) {
            self.activate(uid);
        }
    }

    /// Back to active, but not before its back-off has passed.
    fn retry(&mut self, uid: &str, now: Instant) {
        let Some(entry) = self.entries.get(uid) else { return };
        let Backoff { first, limit } = self.backoff_times;
        let delay = first.saturating_mul(1 << entry.failures.saturating_sub(1).min(8)).min(limit);
        let due = entry.failed.map_or(now, |failed| failed + delay);
        if due <= now {
            return self.activate(uid);
        }
        self.detach(uid);
        self.backoff.insert((due, uid.to_owned()));
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.place = Place::Backoff(due);
        }
    }

    fn activate(&mut self, uid: &str) {
        self.detach(uid);
        let Some(entry) = self.entries.get_mut(uid) else { return };
        self.arrivals += 1;
        let key = (Reverse(entry.pod.spec.priority), self.arrivals, uid.to_owned());
        entry.place = Place::Active(key.clone());
        self.active.insert(key);
    }

    fn replace(&mut self, uid: &str, pod: Arc<Pod>) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.pod = pod;
        }
    }

    /// Takes a pod out of the list that it stands in. It is in none until the caller gives it a place.
    fn detach(&mut self, uid: &str) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        match std::mem::replace(&mut entry.place, Place::Binding) {
            Place::Active(key) => drop(self.active.remove(&key)),
            Place::Backoff(due) => drop(self.backoff.remove(&(due, uid.to_owned()))),
            Place::Unschedulable(since) => {
                self.unschedulable.remove(&(since, uid.to_owned()));
                let group = (entry.pod.spec.id, entry.rejected_by.clone());
                if let Some(uids) = self.groups.get_mut(&group) {
                    uids.remove(uid);
                    if uids.is_empty() {
                        self.groups.remove(&group);
                    }
                }
            }
            Place::InFlight(since) => self.landed(since),
            Place::Gated => self.gated -= 1,
            Place::Binding => {}
        }
    }

    /// One pod less in flight; events that nobody in flight has missed are forgotten.
    fn landed(&mut self, since: u64) {
        if let Some(count) = self.in_flight.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(&since);
            }
        }
        let end = self.first_event + self.events.len() as u64;
        let keep = self.in_flight.first_key_value().map_or(end, |(since, _)| *since);
        while self.first_event < keep {
            self.events.pop_front();
            self.first_event += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i64, gated: bool) -> Arc<Pod> {
        let gates = if gated { json!([{"name": "g"}]) } else { json!([]) };
        Arc::new(crate::pod::from_json(json!({
            "metadata": {"name": name, "uid": name}, "spec": {"priority": priority, "schedulingGates": gates},
        })))
    }

    /// In these tests a gone node helps everybody.
    fn helps(_: &Pod, _: &Rejection, event: &Event) -> bool {
        matches!(event, Event::NodeGone)
    }

    fn queue() -> Queue {
        Queue::new(Backoff { first: Duration::from_secs(1), limit: Duration::from_secs(10) })
    }

    fn rejected() -> BTreeSet<&'static str> {
        BTreeSet::from(["Fit"])
    }

    fn name(pod: Option<Arc<Pod>>) -> Option<String> {
        pod.map(|pod| pod.name.to_string())
    }

    #[test]
    fn priority_then_arrival() {
        let (mut queue, now) = (queue(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 10), ("c", 0), ("d", 10)] {
            queue.set(pod(name, priority, false), now);
        }
        queue.remove("c");
        let order: Vec<String> = std::iter::from_fn(|| name(queue.pop(now))).collect();
        assert_eq!(order, ["b", "d", "a"]);
    }

    #[test]
    fn a_gated_pod_waits_for_its_gates() {
        let (mut queue, now) = (queue(), Instant::now());
        queue.set(pod("a", 0, true), now);
        assert!(queue.pop(now).is_none());
        queue.set(pod("a", 0, false), now);
        assert_eq!(name(queue.pop(now)).as_deref(), Some("a"));
    }

    #[test]
    fn a_rejected_pod_waits_for_help_and_backs_off() {
        let (mut queue, start) = (queue(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        queue.set(pod("a", 0, false), start);
        queue.pop(start);
        queue.failed("a", rejected(), start, &helps);
        assert!(queue.pop(at(20)).is_none(), "nothing has helped");
        queue.event(Event::NodeGone, start, &helps);
        assert_eq!(queue.next_deadline(), Some(at(1)));
        assert!(queue.pop(start).is_none(), "backing off");
        assert!(queue.pop(at(1)).is_some());

        queue.failed("a", rejected(), at(1), &helps);
        queue.event(Event::NodeGone, at(2), &helps);
        assert!(queue.pop(at(2)).is_none(), "the second back-off is two seconds");
        assert!(queue.pop(at(3)).is_some());
        queue.failed("a", rejected(), at(3), &helps);
        assert!(queue.pop(at(303)).is_some(), "five minutes without help");
    }

    #[test]
    fn help_during_the_attempt_is_not_lost() {
        let (mut queue, now) = (queue(), Instant::now());
        queue.set(pod("a", 0, false), now);
        queue.pop(now);
        queue.event(Event::NodeGone, now, &helps);
        queue.failed("a", rejected(), now, &helps);
        assert!(queue.pop(now + Duration::from_secs(1)).is_some());
        assert_eq!(queue.in_flight.len(), 1);
        queue.remove("a");
        assert_eq!((queue.in_flight.len(), queue.events.len(), queue.entries.len()), (0, 0, 0));
    }

    #[test]
    fn a_changed_pod_is_tried_again() {
        let (mut queue, now) = (queue(), Instant::now());
        let unchanged = pod("a", 0, false);
        queue.set(Arc::clone(&unchanged), now);
        queue.pop(now);
        queue.failed("a", rejected(), now, &helps);
        queue.set(unchanged, now);
        assert!(queue.pop(now + Duration::from_secs(5)).is_none(), "nothing changed");
        queue.set(pod("a", 5, false), now + Duration::from_secs(5));
        assert!(queue.pop(now + Duration::from_secs(5)).is_some());
    }
}

//! Pods that wait for a node. Pure: time is an argument.
//!
//! ```text
//!  new ──▶ active ──pop──▶ in flight ──bound──▶ forgotten
//!            ▲                │ rejected           ▲ deleted, or has a node
//!            │                ▼
//!            ├─ back-off ◀─ unschedulable     an event that helps, or five minutes, moves it on;
//!            └────────────────────┘           back-off first, if it failed just now
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::framework::Event;
use crate::pod::Pod;

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LIMIT: Duration = Duration::from_secs(10);
/// An event that helps may have been missed; nobody waits longer than this without another try.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

type ActiveKey = (Reverse<i64>, u64, String);

#[derive(Debug)]
enum Place {
    Active(ActiveKey),
    Backoff(Instant),
    Unschedulable(Instant),
    /// Being decided or bound; events from this number on have happened meanwhile.
    InFlight(u64),
    Gated,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    place: Place,
    failures: u32,
    rejected_by: BTreeSet<&'static str>,
    failed: Option<Instant>,
}

/// Whether an event helps a pod that these plugins rejected.
pub type Helps = fn(&Pod, &BTreeSet<&'static str>, &Event) -> bool;

/// The queue.
pub struct Queue {
    entries: HashMap<String, Entry>,
    active: BTreeSet<ActiveKey>,
    backoff: BTreeSet<(Instant, String)>,
    unschedulable: BTreeSet<(Instant, String)>,
    /// What happened while pods were in flight, oldest first, numbered from `first_event`.
    events: VecDeque<Event>,
    first_event: u64,
    in_flight: usize,
    arrivals: u64,
    helps: Helps,
}

impl Queue {
    /// An empty queue that asks `helps` about events.
    pub fn new(helps: Helps) -> Self {
        Queue {
            entries: HashMap::new(),
            active: BTreeSet::new(),
            backoff: BTreeSet::new(),
            unschedulable: BTreeSet::new(),
            events: VecDeque::new(),
            first_event: 0,
            in_flight: 0,
            arrivals: 0,
            helps,
        }
    }

    /// A pod without a node appeared or changed.
    pub fn set(&mut self, pod: Arc<Pod>, now: Instant) {
        let uid = pod.uid.clone();
        let Some(entry) = self.entries.get_mut(&uid) else {
            let entry = Entry { pod, place: Place::Gated, failures: 0, rejected_by: BTreeSet::new(), failed: None };
            self.entries.insert(uid.clone(), entry);
            return self.ungate(&uid);
        };
        let changed = entry.pod.object["spec"] != pod.object["spec"] || entry.pod.labels != pod.labels;
        entry.pod = pod;
        match entry.place {
            Place::Gated => self.ungate(&uid),
            // What was wrong with it may be right now.
            Place::Unschedulable(_) if changed => self.retry(&uid, now),
            _ => {}
        }
    }

    /// A pod is gone or has a node.
    pub fn remove(&mut self, uid: &str) {
        self.detach(uid);
        if let Some(entry) = self.entries.remove(uid)
            && matches!(entry.place, Place::InFlight(_))
        {
            self.landed();
        }
    }

    /// The most important pod that may be tried now; it is in flight until [`Queue::remove`] or [`Queue::failed`].
    pub fn pop(&mut self, now: Instant) -> Option<Arc<Pod>> {
        self.flush(now);
        let (_, _, uid) = self.active.pop_first()?;
        let last = self.first_event + self.events.len() as u64;
        let entry = self.entries.get_mut(&uid)?;
        entry.place = Place::InFlight(last);
        self.in_flight += 1;
        Some(Arc::clone(&entry.pod))
    }

    /// A pod found no node, rejected by these plugins, or failed otherwise if there are none.
    pub fn failed(&mut self, uid: &str, rejected_by: BTreeSet<&'static str>, now: Instant) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let Place::InFlight(since) = entry.place else { return };
        entry.failures += 1;
        entry.failed = Some(now);
        entry.rejected_by = rejected_by;
        let seen = usize::try_from(since - self.first_event).unwrap_or(0);
        let helped = entry.rejected_by.is_empty()
            || self.events.iter().skip(seen).any(|event| (self.helps)(&entry.pod, &entry.rejected_by, event));
        entry.place = Place::Unschedulable(now);
        self.unschedulable.insert((now, uid.to_owned()));
        self.landed();
        if helped {
            self.retry(uid, now);
        }
    }

    /// Something happened: pods that it helps move on.
    pub fn event(&mut self, event: Event, now: Instant) {
        let helps = self.helps;
        let helped = |(_, uid): &&(Instant, String)| {
            self.entries.get(uid).is_some_and(|entry| helps(&entry.pod, &entry.rejected_by, &event))
        };
        let uids: Vec<String> = self.unschedulable.iter().filter(helped).map(|(_, uid)| uid.clone()).collect();
        for uid in uids {
            self.retry(&uid, now);
        }
        if self.in_flight > 0 {
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
        if self.entries.get(uid).is_some_and(|entry| !entry.pod.gated) {
            self.activate(uid);
        }
    }

    /// Back to active, but not before its back-off has passed.
    fn retry(&mut self, uid: &str, now: Instant) {
        let Some(entry) = self.entries.get(uid) else { return };
        let delay = BACKOFF_FIRST.saturating_mul(1 << entry.failures.saturating_sub(1).min(8)).min(BACKOFF_LIMIT);
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
        let key = (Reverse(entry.pod.priority), self.arrivals, uid.to_owned());
        entry.place = Place::Active(key.clone());
        self.active.insert(key);
    }

    /// Takes a pod out of the list that it stands in.
    fn detach(&mut self, uid: &str) {
        match self.entries.get(uid).map(|entry| &entry.place) {
            Some(Place::Active(key)) => drop(self.active.remove(key)),
            Some(Place::Backoff(due)) => drop(self.backoff.remove(&(*due, uid.to_owned()))),
            Some(Place::Unschedulable(since)) => drop(self.unschedulable.remove(&(*since, uid.to_owned()))),
            Some(Place::InFlight(_) | Place::Gated) | None => {}
        }
    }

    /// One pod less in flight; events that nobody in flight has missed are forgotten.
    fn landed(&mut self) {
        self.in_flight -= 1;
        if self.in_flight == 0 {
            self.first_event += self.events.len() as u64;
            self.events.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i64, gated: bool) -> Arc<Pod> {
        let gates = if gated { json!([{"name": "g"}]) } else { json!([]) };
        Arc::new(Pod::read(Arc::new(json!({
            "metadata": {"name": name, "uid": name}, "spec": {"priority": priority, "schedulingGates": gates},
        }))))
    }

    /// In these tests a gone node helps everybody.
    fn queue() -> Queue {
        Queue::new(|_, _, event| matches!(event, Event::NodeGone))
    }

    fn rejected() -> BTreeSet<&'static str> {
        BTreeSet::from(["Fit"])
    }

    fn name(pod: Option<Arc<Pod>>) -> Option<String> {
        pod.map(|pod| pod.name.clone())
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
        queue.failed("a", rejected(), start);
        assert!(queue.pop(at(20)).is_none(), "nothing has helped");
        queue.event(Event::NodeGone, start);
        assert_eq!(queue.next_deadline(), Some(at(1)));
        assert!(queue.pop(start).is_none(), "backing off");
        assert!(queue.pop(at(1)).is_some());

        queue.failed("a", rejected(), at(1));
        queue.event(Event::NodeGone, at(2));
        assert!(queue.pop(at(2)).is_none(), "the second back-off is two seconds");
        assert!(queue.pop(at(3)).is_some());
        queue.failed("a", rejected(), at(3));
        assert!(queue.pop(at(303)).is_some(), "five minutes without help");
    }

    #[test]
    fn help_during_the_attempt_is_not_lost() {
        let (mut queue, now) = (queue(), Instant::now());
        queue.set(pod("a", 0, false), now);
        queue.pop(now);
        queue.event(Event::NodeGone, now);
        queue.failed("a", rejected(), now);
        assert!(queue.pop(now + Duration::from_secs(1)).is_some());
        assert_eq!(queue.in_flight, 1);
        queue.remove("a");
        assert_eq!((queue.in_flight, queue.events.len(), queue.entries.len()), (0, 0, 0));
    }

    #[test]
    fn a_changed_pod_is_tried_again() {
        let (mut queue, now) = (queue(), Instant::now());
        queue.set(pod("a", 0, false), now);
        queue.pop(now);
        queue.failed("a", rejected(), now);
        queue.set(pod("a", 0, false), now);
        assert!(queue.pop(now + Duration::from_secs(5)).is_none(), "nothing changed");
        queue.set(pod("a", 5, false), now + Duration::from_secs(5));
        assert!(queue.pop(now + Duration::from_secs(5)).is_some());
    }
}

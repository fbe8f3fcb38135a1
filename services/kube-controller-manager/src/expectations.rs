//! What a controller has asked for but the informer has not shown yet. Acting on a cache that lags behind one's own
//! writes would create or delete twice; so an owner with open expectations only waits. They are exact: by object uid.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use apimachinery::meta;
use parking_lot::Mutex;
use serde_json::Value;

/// A write that the informer still has not shown after this time was missed (created and deleted between two looks).
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Open expectations by owner, an owner being whatever the controller works by: a uid or a key.
#[derive(Default)]
pub struct Expectations(Mutex<State>);

#[derive(Default)]
struct State {
    by_owner: HashMap<String, HashMap<String, Pending>>,
    owner_of: HashMap<String, String>,
}

struct Pending {
    deletion: bool,
    since: Instant,
}

impl Expectations {
    /// The object was created and must appear.
    pub fn created(&self, owner: &str, uid: &str, now: Instant) {
        self.0.lock().add(owner, uid, Pending { deletion: false, since: now });
    }

    /// The object's deletion was asked for and must show.
    pub fn deleted(&self, owner: &str, uid: &str, now: Instant) {
        self.0.lock().add(owner, uid, Pending { deletion: true, since: now });
    }

    /// The informer shows the object.
    pub fn seen(&self, object: &Value) {
        let uid = meta::uid(object);
        let mut state = self.0.lock();
        let Some(of) = state.owner_of.get(uid) else { return };
        let pending = state.by_owner.get(of).and_then(|objects| objects.get(uid));
        if pending.is_some_and(|p| !p.deletion || meta::deletion_timestamp(object).is_some()) {
            state.remove(uid);
        }
    }

    /// The object is gone, or its expectation is void.
    pub fn gone(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &str) {
        let mut state = self.0.lock();
        for uid in state.by_owner.remove(owner).unwrap_or_default().into_keys() {
            state.owner_of.remove(&uid);
        }
    }

    /// How long at most the owner must still wait; `None` if it may act.
    pub fn pending(&self, owner: &str, now: Instant) -> Option<Duration> {
        let mut state = self.0.lock();
        let objects = state.by_owner.get(owner)?;
        let age = |p: &Pending| now.saturating_duration_since(p.since);
        let missed: HashSet<String> =
            objects.iter().filter(|(_, p)| age(p) >= FORGET_AFTER).map(|(uid, _)| uid.clone()).collect();
        for uid in missed {
            state.remove(&uid);
        }
        let objects = state.by_owner.get(owner)?;
        objects.values().map(|p| FORGET_AFTER.saturating_sub(age(p))).max()
    }
}

impl State {
    fn add(&mut self, owner: &str, uid: &str, pending: Pending) {
        self.by_owner.entry(owner.to_owned()).or_default().insert(uid.to_owned(), pending);
        self.owner_of.insert(uid.to_owned(), owner.to_owned());
    }

    fn remove(&mut self, uid: &str) {
        let Some(of) = self.owner_of.remove(uid) else { return };
        if let Some(objects) = self.by_owner.get_mut(&of) {
            objects.remove(uid);
            if objects.is_empty() {
                self.by_owner.remove(&of);
            }
        }
    }
}

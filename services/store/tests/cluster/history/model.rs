//! The store as a pure function: a state, a request, the next state and the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::watch::{Event, History};
use super::wgl;

/// What a key holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Value {
    pub value: String,
    pub create: i64,
    pub modified: i64,
    pub version: i64,
    pub lease: i64,
}

/// Everything the store holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub revision: i64,
    pub compacted: i64,
    pub keys: BTreeMap<String, Value>,
    pub leases: BTreeSet<i64>,
}

impl Default for State {
    fn default() -> Self {
        State { revision: 1, compacted: 0, keys: BTreeMap::new(), leases: BTreeSet::new() }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    List {
        prefix: String,
    },
    Put {
        key: String,
        value: String,
        lease: i64,
    },
    Delete {
        key: String,
    },
    /// A transaction: put if the key was last changed at `expected` (0: if it does not exist), else read it.
    Update {
        key: String,
        expected: i64,
        value: String,
    },
    Compact {
        to: i64,
    },
    Grant {
        id: i64,
    },
    Revoke {
        id: i64,
    },
}

impl Call {
    /// Whether the request can change anything.
    pub fn writes(&self) -> bool {
        !matches!(self, Call::List { .. })
    }
}

/// An answer. All but [`Answer::Unknown`] come with the revision in the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Values {
        revision: i64,
        values: Vec<(String, Value)>,
    },
    Done {
        revision: i64,
    },
    Deleted {
        revision: i64,
        count: i64,
    },
    Updated {
        revision: i64,
    },
    NotUpdated {
        revision: i64,
        found: Option<Value>,
    },
    Refused(Reason),
    /// The connection broke or time ran out: it may have happened, may still happen, or never will.
    Unknown,
}

/// Why a request certainly did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Compacted,
    Future,
    LeaseNotFound,
    LeaseExists,
}

impl State {
    fn put(&mut self, key: &str, value: &str, lease: i64) {
        self.revision += 1;
        let revision = self.revision;
        let held = self.keys.entry(key.to_owned()).or_insert(Value { create: revision, ..Value::default() });
        *held =
            Value { value: value.into(), create: held.create, modified: revision, version: held.version + 1, lease };
    }

    fn list(&self, prefix: &str) -> Vec<(String, Value)> {
        self.keys.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Does what a request asks for.
    pub fn apply(&mut self, call: &Call) -> Answer {
        match call {
            Call::List { prefix } => Answer::Values { revision: self.revision, values: self.list(prefix) },
            Call::Put { lease, .. } if *lease != 0 && !self.leases.contains(lease) => {
                Answer::Refused(Reason::LeaseNotFound)
            }
            Call::Put { key, value, lease } => {
                self.put(key, value, *lease);
                Answer::Done { revision: self.revision }
            }
            Call::Delete { key } => {
                let count = i64::from(self.keys.remove(key).is_some());
                self.revision += count;
                Answer::Deleted { revision: self.revision, count }
            }
            Call::Update { key, expected, value } => {
                if self.keys.get(key).map_or(0, |held| held.modified) != *expected {
                    return Answer::NotUpdated { revision: self.revision, found: self.keys.get(key).cloned() };
                }
                self.put(key, value, 0);
                Answer::Updated { revision: self.revision }
            }
            Call::Compact { to } if *to <= self.compacted => Answer::Refused(Reason::Compacted),
            Call::Compact { to } if *to > self.revision => Answer::Refused(Reason::Future),
            Call::Compact { to } => {
                self.compacted = *to;
                Answer::Done { revision: self.revision }
            }
            Call::Grant { id } if !self.leases.insert(*id) => Answer::Refused(Reason::LeaseExists),
            Call::Grant { .. } => Answer::Done { revision: self.revision },
            Call::Revoke { id } if !self.leases.remove(id) => Answer::Refused(Reason::LeaseNotFound),
            Call::Revoke { id } => {
                let before = self.keys.len();
                self.keys.retain(|_, held| held.lease != *id);
                self.revision += i64::from(self.keys.len() < before);
                Answer::Done { revision: self.revision }
            }
        }
    }
}

/// The model for [`wgl`]. With what watchers saw, a request whose answer got lost is tried only where its effect was seen:
/// without that, every lost answer doubles the orders to try.
#[derive(Clone, Default)]
pub struct Store {
    pub seen: Option<Arc<History>>,
}

impl Store {
    /// Whether what happened between two states is what watchers saw.
    fn was_seen(&self, before: &State, after: &State) -> bool {
        let Some(seen) = &self.seen else { return true };
        if before.revision == after.revision {
            return true;
        }
        let Some(events) = seen.get(&after.revision) else { return false };
        let changed = |event: &Event| match after.keys.get(&event.key) {
            Some(held) => !event.deleted && held.modified == after.revision && held.value == event.value,
            None => event.deleted && before.keys.contains_key(&event.key),
        };
        let puts = after.keys.values().filter(|held| held.modified == after.revision).count();
        let gone = before.keys.keys().filter(|key| !after.keys.contains_key(*key)).count();
        events.len() == puts + gone && events.iter().all(changed)
    }
}

impl wgl::Model for Store {
    type State = State;
    type Call = Call;
    type Answer = Answer;

    fn step(&self, state: &State, call: &Call, answer: &Answer) -> Option<State> {
        let mut next = state.clone();
        let expected = next.apply(call);
        // A request without an answer and without an effect need not be put anywhere.
        let fits = if *answer == Answer::Unknown { next != *state } else { *answer == expected };
        (fits && self.was_seen(state, &next)).then_some(next)
    }

    fn lost(&self, answer: &Answer) -> bool {
        *answer == Answer::Unknown
    }
}

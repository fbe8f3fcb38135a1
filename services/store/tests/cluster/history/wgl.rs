//! Linearizability by the algorithm of Wing and Gong with Lowe's memory of what was tried.
//!
//! Walk the calls and returns in time order. Any call before the first return may come next: if the model accepts it, take
//! it out of the list and start over; at a return whose call was not taken, go back to the last choice. Remember every set
//! of calls taken together with the state reached: coming there again cannot help.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What one call does.
pub trait Model {
    type State: Clone + Hash + Default;
    type Call: Debug;
    type Answer: Debug;

    /// The state after a call in `state` that got `answer`; `None` if it cannot have got it.
    fn step(&self, state: &Self::State, call: &Self::Call, answer: &Self::Answer) -> Option<Self::State>;

    /// Whether the answer got lost: the call may happen at any time after its start, or never.
    fn lost(&self, answer: &Self::Answer) -> bool;
}

/// One recorded call: nanoseconds of its start and end.
#[derive(Clone, Debug)]
pub struct Operation<C, A> {
    pub client: usize,
    pub call: C,
    pub answer: A,
    pub start: u64,
    pub end: u64,
}

/// A history that no order explains: how far one gets, and the calls of which one had to be next.
#[derive(Debug)]
pub struct Violation {
    pub explained: usize,
    pub stuck: Vec<String>,
}

/// The calls and returns as a doubly linked list, in time order. Place 0 is before the first.
struct List {
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Operation, and whether this is its return.
    entry: Vec<(usize, bool)>,
    /// The place of an operation's return, if it has one.
    returned: Vec<Option<usize>>,
}

impl List {
    fn new<M: Model>(model: &M, operations: &[Operation<M::Call, M::Answer>]) -> Self {
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (number, operation) in operations.iter().enumerate() {
            events.push((operation.start, false, number));
            if !model.lost(&operation.answer) {
                events.push((operation.end, true, number));
            }
        }
        // At the same moment a call comes before a return: they may have overlapped.
        events.sort_unstable();
        let count = events.len() + 1;
        let mut list = List {
            next: (1..=count).collect(),
            previous: (0..count).map(|place| place.saturating_sub(1)).collect(),
            entry: vec![(usize::MAX, false)],
            returned: vec![None; operations.len()],
        };
        for (place, (_, returns, number)) in events.into_iter().enumerate() {
            list.entry.push((number, returns));
            if returns {
                list.returned[number] = Some(place + 1);
            }
        }
        list
    }

    fn unlink(&mut self, place: usize) {
        let (before, after) = (self.previous[place], self.next[place]);
        self.next[before] = after;
        if let Some(previous) = self.previous.get_mut(after) {
            *previous = before;
        }
    }

    fn link(&mut self, place: usize) {
        let (before, after) = (self.previous[place], self.next[place]);
        self.next[before] = place;
        if let Some(previous) = self.previous.get_mut(after) {
            *previous = place;
        }
    }

    fn take(&mut self, call: usize) {
        self.unlink(call);
        if let Some(returned) = self.returned[self.entry[call].0] {
            self.unlink(returned);
        }
    }

    fn put_back(&mut self, call: usize) {
        if let Some(returned) = self.returned[self.entry[call].0] {
            self.link(returned);
        }
        self.link(call);
    }
}

fn key<S: Hash>(taken: &[u64], state: &S) -> (Box<[u64]>, u64) {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    (taken.into(), hasher.finish())
}

/// Looks for an order of the operations that the model accepts and that agrees with real time.
///
/// # Errors
/// There is none.
pub fn check<M: Model>(model: &M, operations: &[Operation<M::Call, M::Answer>]) -> Result<(), Violation> {
    let mut list = List::new(model, operations);
    let mut taken = vec![0u64; operations.len().div_ceil(64)];
    let mut tried = HashSet::new();
    let mut choices: Vec<(usize, M::State)> = Vec::new();
    let mut state = M::State::default();
    let mut violation = Violation { explained: 0, stuck: Vec::new() };
    let mut place = list.next[0];
    while place < list.entry.len() {
        let (number, returns) = list.entry[place];
        let operation = &operations[number];
        if returns {
            if choices.len() >= violation.explained {
                violation = Violation { explained: choices.len(), stuck: waiting(&list, operations, place) };
            }
            let Some((call, before)) = choices.pop() else { return Err(violation) };
            state = before;
            let number = list.entry[call].0;
            taken[number / 64] &= !(1 << (number % 64));
            list.put_back(call);
            place = list.next[call];
            continue;
        }
        let next = model.step(&state, &operation.call, &operation.answer);
        taken[number / 64] |= 1 << (number % 64);
        if let Some(next) = next.filter(|next| tried.insert(key(&taken, next))) {
            choices.push((place, std::mem::replace(&mut state, next)));
            list.take(place);
            place = list.next[0];
        } else {
            taken[number / 64] &= !(1 << (number % 64));
            place = list.next[place];
        }
    }
    Ok(())
}

/// The calls before the return at `place`, of which none could be next.
fn waiting<C: Debug, A: Debug>(list: &List, operations: &[Operation<C, A>], place: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = list.next[0];
    while at < list.entry.len() {
        let (number, returns) = list.entry[at];
        if !returns {
            let operation = &operations[number];
            found.push(format!("client {}: {:?} -> {:?}", operation.client, operation.call, operation.answer));
        }
        if at == place {
            break;
        }
        at = list.next[at];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::model::{Answer, Call, Store, Value};
    use super::*;

    type Recorded = Operation<Call, Answer>;

    fn at(start: u64, end: u64, call: Call, answer: Answer) -> Recorded {
        Operation { client: 0, call, answer, start, end }
    }

    fn put(start: u64, end: u64, value: &str, revision: i64) -> Recorded {
        let call = Call::Put { key: "k".into(), value: value.into(), lease: 0 };
        at(start, end, call, if revision == 0 { Answer::Unknown } else { Answer::Done { revision } })
    }

    /// Reads key `k`: the value and version, and the revision in the header.
    fn get(start: u64, end: u64, value: &str, modified: i64, version: i64, revision: i64) -> Recorded {
        let held = Value { value: value.into(), create: 2, modified, version, lease: 0 };
        let values = if value.is_empty() { vec![] } else { vec![("k".to_owned(), held)] };
        at(start, end, Call::List { prefix: "k".into() }, Answer::Values { revision, values })
    }

    fn fits(operations: &[Recorded]) -> bool {
        check(&Store::default(), operations).is_ok()
    }

    #[test]
    fn good_histories_pass() {
        // One after the other.
        assert!(fits(&[put(0, 1, "a", 2), get(2, 3, "a", 2, 1, 2), put(4, 5, "b", 3), get(6, 7, "b", 3, 2, 3)]));
        // At the same time, in either order.
        assert!(fits(&[put(0, 9, "a", 3), put(0, 9, "b", 2), get(10, 11, "a", 3, 2, 3)]));
        assert!(fits(&[put(0, 9, "a", 2), get(0, 9, "", 0, 0, 1), get(0, 9, "a", 2, 1, 2)]));
        // A lost answer: it happened late, or never.
        assert!(fits(&[put(0, 1, "a", 0), get(2, 3, "", 0, 0, 1), get(4, 5, "a", 2, 1, 2)]));
        assert!(fits(&[put(0, 1, "a", 0), get(2, 3, "", 0, 0, 1)]));
        // Conditions, leases, compaction.
        let update = |expected| Call::Update { key: "k".into(), expected, value: "u".into() };
        assert!(fits(&[
            at(0, 1, update(0), Answer::Updated { revision: 2 }),
            at(2, 3, Call::Delete { key: "k".into() }, Answer::Deleted { revision: 3, count: 1 }),
            at(4, 5, update(2), Answer::NotUpdated { revision: 3, found: None }),
            at(6, 7, Call::Grant { id: 5 }, Answer::Done { revision: 3 }),
            at(8, 9, Call::Put { key: "l".into(), value: "v".into(), lease: 5 }, Answer::Done { revision: 4 }),
            at(10, 11, Call::Revoke { id: 5 }, Answer::Done { revision: 5 }),
            at(12, 13, Call::List { prefix: String::new() }, Answer::Values { revision: 5, values: vec![] }),
            at(14, 15, Call::Compact { to: 4 }, Answer::Done { revision: 5 }),
        ]));
    }

    #[test]
    fn bad_histories_do_not() {
        let cases: [(&str, Vec<Recorded>); 7] = [
            ("a stale read", vec![put(0, 1, "a", 2), put(2, 3, "b", 3), get(4, 5, "a", 2, 1, 2)]),
            ("a lost write", vec![put(0, 1, "a", 2), get(2, 3, "", 0, 0, 1)]),
            ("a revision given twice", vec![put(0, 1, "a", 2), put(2, 3, "b", 2)]),
            ("a revision left out", vec![put(0, 1, "a", 2), put(2, 3, "b", 4)]),
            ("a write that happened twice", vec![put(0, 1, "a", 2), get(2, 3, "a", 3, 2, 3)]),
            (
                "reads that go back",
                vec![put(0, 1, "a", 2), put(2, 20, "b", 3), get(4, 5, "b", 3, 2, 3), get(6, 7, "a", 2, 1, 2)],
            ),
            ("a lost answer whose write came before its call", vec![get(0, 1, "a", 2, 1, 2), put(2, 3, "a", 0)]),
        ];
        for (what, operations) in cases {
            assert!(!fits(&operations), "{what} was accepted");
        }
        let update = |start, end| {
            let call = Call::Update { key: "k".into(), expected: 0, value: "u".into() };
            at(start, end, call, Answer::Updated { revision: 2 })
        };
        assert!(!fits(&[update(0, 9), update(0, 9)]), "a lock taken twice was accepted");
    }

    #[test]
    fn many_lost_answers_stay_cheap_with_what_watchers_saw() {
        use std::sync::Arc;

        use super::super::watch::Event;

        let mut operations: Vec<Recorded> = (0..40).map(|n| put(0, 1, &format!("lost{n}"), 0)).collect();
        operations.push(put(5, 6, "kept", 3));
        operations.push(get(7, 8, "kept", 3, 2, 3));
        let event = |revision: i64, value: &str| {
            let version = revision - 1;
            (
                revision,
                vec![Event {
                    key: "k".into(),
                    value: value.into(),
                    modified: revision,
                    create: 2,
                    version,
                    ..Event::default()
                }],
            )
        };
        let seen = Some(Arc::new([event(2, "lost7"), event(3, "kept")].into()));
        assert!(check(&Store { seen: seen.clone() }, &operations).is_ok());
        operations.push(get(9, 10, "lost8", 4, 3, 4));
        let violation = check(&Store { seen }, &operations).unwrap_err();
        assert!(violation.stuck.iter().any(|line| line.contains("lost8")), "{violation:?}");
    }
}

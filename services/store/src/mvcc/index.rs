//! The key index: for every key, the revisions at which it changed. Pure and in memory; values stay on disk.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::KeyRange;
use crate::schema::Revision;

/// One change of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    main: i64,
    sub: u32,
    tombstone: bool,
}

impl Mark {
    fn revision(self) -> Revision {
        Revision { main: self.main, sub: self.sub }
    }
}

/// A key's changes, oldest first, and the counters its next change continues.
#[derive(Debug, Default)]
struct History {
    /// Of the living key; 0 when the newest mark is a tombstone.
    created: i64,
    version: i64,
    marks: Vec<Mark>,
}

impl History {
    fn live_at(&self, at: i64) -> Option<Revision> {
        let next = self.marks.partition_point(|mark| mark.main <= at);
        let mark = self.marks.get(next.checked_sub(1)?)?;
        (!mark.tombstone).then(|| mark.revision())
    }

    /// Drops what no reader at `to` or later can see. A tombstone written exactly at `to` stays: a watch may still start there.
    fn compact(&mut self, to: i64, removed: &mut Vec<Revision>) {
        let Some(newest) = self.marks.partition_point(|mark| mark.main <= to).checked_sub(1) else { return };
        let mark = self.marks[newest];
        let drop = if mark.tombstone && mark.main < to { newest + 1 } else { newest };
        removed.extend(self.marks.drain(..drop).map(Mark::revision));
    }
}

/// What a put made of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// When the key came to be.
    pub create_revision: i64,
    /// How many times it was written since.
    pub version: i64,
    /// The value it replaces.
    pub previous: Option<Revision>,
}

/// All keys.
#[derive(Debug, Default)]
pub struct Index {
    keys: BTreeMap<Box<[u8]>, History>,
}

impl Index {
    /// How many keys are known.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// The revision of a key's value as of `at`.
    pub fn find(&self, key: &[u8], at: i64) -> Option<Revision> {
        self.keys.get(key)?.live_at(at)
    }

    /// Calls `visit` for every key of `range` that has a value as of `at`, in key order.
    pub fn visit(&self, range: &KeyRange, at: i64, mut visit: impl FnMut(&[u8], Revision)) {
        if range.is_empty() {
            return;
        }
        for (key, history) in self.keys.range::<[u8], _>(range.bounds()) {
            if let Some(revision) = history.live_at(at) {
                visit(key, revision);
            }
        }
    }

    /// Records a put.
    pub fn put(&mut self, key: &[u8], revision: Revision) -> Written {
        let history = match self.keys.get_mut(key) {
            Some(history) => history,
            None => self.keys.entry(key.into()).or_default(),
        };
        let previous = history.live_at(i64::MAX);
        if previous.is_none() {
            history.created = revision.main;
            history.version = 0;
        }
        history.version += 1;
        history.marks.push(Mark { main: revision.main, sub: revision.sub, tombstone: false });
        Written { create_revision: history.created, version: history.version, previous }
    }

    /// Records a delete; returns the value's revision, or `None` if there was no value and nothing changed.
    pub fn delete(&mut self, key: &[u8], revision: Revision) -> Option<Revision> {
        let history = self.keys.get_mut(key)?;
        let previous = history.live_at(i64::MAX)?;
        history.created = 0;
        history.version = 0;
        history.marks.push(Mark { main: revision.main, sub: revision.sub, tombstone: true });
        Some(previous)
    }

    /// Takes a stored record in while the index is rebuilt in revision order.
    pub fn restore(&mut self, key: &[u8], revision: Revision, tombstone: bool, created: i64, version: i64) {
        let history = match self.keys.get_mut(key) {
            Some(history) => history,
            None => self.keys.entry(key.into()).or_default(),
        };
        (history.created, history.version) = if tombstone { (0, 0) } else { (created, version) };
        history.marks.push(Mark { main: revision.main, sub: revision.sub, tombstone });
    }

    /// Compacts up to `limit` keys after `after`; returns what to remove from disk and where to go on, `None` at the end.
    pub fn compact(&mut self, to: i64, after: Option<&[u8]>, limit: usize) -> (Vec<Revision>, Option<Box<[u8]>>) {
        let mut removed = Vec::new();
        let mut emptied = Vec::new();
        let mut last = None;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (seen, (key, history)) in self.keys.range_mut::<[u8], _>((start, Bound::Unbounded)).enumerate() {
            if seen == limit {
                break;
            }
            history.compact(to, &mut removed);
            if history.marks.is_empty() {
                emptied.push(key.clone());
            }
            last = (seen + 1 == limit).then(|| key.clone());
        }
        for key in emptied {
            self.keys.remove(&key);
        }
        (removed, last)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    /// Every change ever made, in order: slow and obviously right.
    #[derive(Default)]
    struct Model {
        changes: Vec<(u8, Revision, bool)>,
    }

    impl Model {
        fn find(&self, key: u8, at: i64) -> Option<Revision> {
            let (_, revision, tombstone) = self.changes.iter().rfind(|(k, r, _)| *k == key && r.main <= at)?;
            (!tombstone).then_some(*revision)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8),
        Delete(u8),
        Compact(i64, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..6u8).prop_map(Step::Put),
            2 => (0..6u8).prop_map(Step::Delete),
            1 => (0..40i64, 1..4usize).prop_map(|(to, limit)| Step::Compact(to, limit)),
        ];
        prop::collection::vec(step, 1..60)
    }

    fn compact_all(index: &mut Index, to: i64, limit: usize) -> BTreeSet<Revision> {
        let (mut removed, mut next) = index.compact(to, None, limit);
        while let Some(after) = next {
            let (more, then) = index.compact(to, Some(&after), limit);
            removed.extend(more);
            next = then;
        }
        removed.into_iter().collect()
    }

    proptest! {
        #[test]
        fn agrees_with_the_model(steps in steps()) {
            let (mut index, mut model) = (Index::default(), Model::default());
            let (mut now, mut compacted) = (1, 0);
            let mut gone = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Put(key) => {
                        now += 1;
                        let written = index.put(&[key], Revision::first(now));
                        prop_assert_eq!(written.previous, model.find(key, i64::MAX));
                        model.changes.push((key, Revision::first(now), false));
                    }
                    Step::Delete(key) => {
                        let expected = model.find(key, i64::MAX);
                        prop_assert_eq!(index.delete(&[key], Revision::first(now + 1)), expected);
                        if expected.is_some() {
                            now += 1;
                            model.changes.push((key, Revision::first(now), true));
                        }
                    }
                    Step::Compact(to, limit) if to > compacted && to <= now => {
                        compacted = to;
                        gone.extend(compact_all(&mut index, to, limit));
                    }
                    Step::Compact(..) => {}
                }
                for at in compacted.max(1)..=now {
                    let mut seen = Vec::new();
                    index.visit(&KeyRange::From(Bytes::from_static(&[0])), at, |key, revision| seen.push((key[0], revision)));
                    let expected: Vec<_> = (0..6u8).filter_map(|k| Some((k, model.find(k, at)?))).collect();
                    prop_assert_eq!(&seen, &expected, "at {}", at);
                    // What a reader can reach was never removed from disk.
                    prop_assert!(seen.iter().all(|(_, revision)| !gone.contains(revision)));
                }
            }
            // Events after the compacted revision stay for watchers.
            prop_assert!(model.changes.iter().all(|(_, r, _)| r.main <= compacted || !gone.contains(r)));
        }
    }

    #[test]
    fn versions_count_from_each_creation() {
        let mut index = Index::default();
        let at = Revision::first;
        assert_eq!(index.put(b"k", at(2)), Written { create_revision: 2, version: 1, previous: None });
        assert_eq!(index.put(b"k", at(3)), Written { create_revision: 2, version: 2, previous: Some(at(2)) });
        assert_eq!(index.delete(b"k", at(4)), Some(at(3)));
        assert_eq!(index.delete(b"k", at(5)), None);
        assert_eq!(index.put(b"k", at(5)), Written { create_revision: 5, version: 1, previous: None });
    }

    #[test]
    fn a_tombstone_goes_one_compaction_later() {
        let mut index = Index::default();
        index.put(b"k", Revision::first(2));
        index.delete(b"k", Revision::first(3));
        assert_eq!(index.compact(3, None, 9).0, [Revision::first(2)]);
        assert_eq!(index.compact(4, None, 9).0, [Revision::first(3)]);
        assert!(index.keys.is_empty());
    }
}

//! The watch cache of one resource as pure data: the newest state in key order and a ring of recent events.

use super::codec::{Stored, at_version};
use crate::protobuf;
use crate::registry::Resource;
use apimachinery::schema::builtin;
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

/// How many events the ring keeps. What falls out can no longer be resumed from: 410.
pub const RING: usize = 4096;

/// What a watcher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The object appeared, or entered the selection.
    Added,
    /// It changed.
    Modified,
    /// It is gone, or left the selection.
    Deleted,
}

impl Kind {
    /// As it stands in the stream.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Added => "ADDED",
            Kind::Modified => "MODIFIED",
            Kind::Deleted => "DELETED",
        }
    }
}

/// One change, with every encoding of it made at most once for all watchers.
#[derive(Debug)]
pub struct Event {
    /// When.
    pub revision: i64,
    /// The state after; `None`: removed.
    pub object: Option<Arc<Stored>>,
    /// The state before; `None`: created.
    pub previous: Option<Arc<Stored>>,
    departed: OnceLock<Bytes>,
    frames: [OnceLock<Bytes>; 3],
    messages: [OnceLock<Option<Bytes>>; 3],
}

impl Event {
    fn new(revision: i64, object: Option<Arc<Stored>>, previous: Option<Arc<Stored>>) -> Arc<Self> {
        let (departed, frames, messages) = Default::default();
        Arc::new(Self { revision, object, previous, departed, frames, messages })
    }

    /// The object's namespace.
    pub fn namespace(&self) -> &str {
        self.object.as_ref().or(self.previous.as_ref()).map_or("", |o| &o.namespace)
    }

    /// What a watcher whose selection is `matches` is to be told, if anything.
    pub fn kind_for(&self, matches: impl Fn(&Stored) -> bool) -> Option<Kind> {
        let before = self.previous.as_ref().is_some_and(|o| matches(o));
        let after = self.object.as_ref().is_some_and(|o| matches(o));
        match (before, after) {
            (false, false) => None,
            (false, true) => Some(Kind::Added),
            (true, true) => Some(Kind::Modified),
            (true, false) => Some(Kind::Deleted),
        }
    }

    /// The object's text for that kind: a deletion shows the last matching state at the version of the change.
    pub fn json(&self, kind: Kind) -> Bytes {
        match (kind, &self.object, &self.previous) {
            (Kind::Deleted, _, Some(previous)) => {
                self.departed.get_or_init(|| at_version(previous, self.revision)).clone()
            }
            (_, Some(object), _) => object.json.clone(),
            (_, None, _) => Bytes::new(),
        }
    }

    /// The line of the watch stream for that kind.
    pub fn frame(&self, kind: Kind) -> Bytes {
        self.frames[kind as usize].get_or_init(|| frame(kind, &self.json(kind))).clone()
    }

    /// The frame of a protobuf watch stream for that kind; `None` if the resource's kind has no such form.
    pub fn protobuf_frame(&self, res: &Resource, kind: Kind) -> Option<Bytes> {
        let make = || {
            let message = match (kind, &self.object) {
                (Kind::Deleted, _) => {
                    let gone: Value = serde_json::from_slice(&self.json(kind)).ok()?;
                    protobuf::message(&gone, builtin().kind(res.group, res.version, res.kind)?).ok()?.into()
                }
                (_, object) => object.as_ref()?.message(res)?,
            };
            let object = protobuf::envelope(&res.api_version(), res.kind, &[&message]);
            Some(protobuf::watch_frame(kind.name(), &object).into())
        };
        self.messages[kind as usize].get_or_init(make).clone()
    }
}

/// One line of a watch stream.
pub fn frame(kind: Kind, json: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(json.len() + 40);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.name().as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(json);
    line.extend_from_slice(b"}\n");
    line.into()
}

/// The version asked for is older than the ring.
#[derive(Debug, PartialEq, Eq)]
pub struct TooOld;

/// One resource's recent history.
#[derive(Debug, Default)]
pub struct Cache {
    items: BTreeMap<String, Arc<Stored>>,
    /// The length of all their texts.
    bytes: u64,
    ring: VecDeque<Arc<Event>>,
    /// Events dropped from the ring since the beginning: the number of the ring's first event.
    first: u64,
    /// Every event after this revision is in the ring.
    floor: i64,
    /// Everything up to this revision has been applied.
    revision: i64,
}

impl Cache {
    /// Starts over from a complete read; watchers from before will find their place gone.
    pub fn reset(&mut self, items: impl IntoIterator<Item = (String, Arc<Stored>)>, revision: i64) {
        self.items = items.into_iter().collect();
        self.bytes = self.items.values().map(|object| object.json.len() as u64).sum();
        self.revision = revision;
        self.forget();
    }

    /// The events are gone for everybody who watches; the state stays.
    pub fn forget(&mut self) {
        // One number is skipped so that a cursor at the end of the old ring is seen to be stale.
        self.first += self.ring.len() as u64 + 1;
        self.ring.clear();
        self.floor = self.revision;
    }

    /// The key has a new state.
    pub fn put(&mut self, key: String, object: Arc<Stored>) {
        let revision = object.revision;
        self.bytes += object.json.len() as u64;
        let previous = self.items.insert(key, object.clone());
        self.bytes -= previous.as_ref().map_or(0, |old| old.json.len() as u64);
        self.push(Event::new(revision, Some(object), previous));
    }

    /// The key is gone.
    pub fn remove(&mut self, key: &str, revision: i64) {
        if let Some(previous) = self.items.remove(key) {
            self.bytes -= previous.json.len() as u64;
            self.push(Event::new(revision, None, Some(previous)));
        }
        self.advance(revision);
    }

    fn push(&mut self, event: Arc<Event>) {
        self.revision = self.revision.max(event.revision);
        if self.ring.len() == RING
            && let Some(dropped) = self.ring.pop_front()
        {
            self.first += 1;
            self.floor = dropped.revision;
        }
        self.ring.push_back(event);
    }

    /// Nothing happened up to this revision.
    pub fn advance(&mut self, revision: i64) {
        self.revision = self.revision.max(revision);
    }

    /// Everything up to this revision has been applied.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// One object.
    pub fn get(&self, key: &str) -> Option<Arc<Stored>> {
        self.items.get(key).cloned()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// How large they are in sum.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The objects whose key starts with `prefix`, in key order.
    pub fn range<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Stored>> {
        self.items
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(_, object)| object)
    }

    /// The place after the newest event.
    pub fn end(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    /// Every event after this revision is still there.
    pub fn begin(&self) -> i64 {
        self.floor
    }

    /// The place from which every event after `revision` follows.
    pub fn place_after(&self, revision: i64) -> Result<u64, TooOld> {
        if revision < self.floor {
            return Err(TooOld);
        }
        Ok(self.first + self.ring.partition_point(|e| e.revision <= revision) as u64)
    }

    /// Up to `limit` events from a place on, and the place after them.
    pub fn events(&self, place: u64, limit: usize) -> Result<(Vec<Arc<Event>>, u64), TooOld> {
        let skip = usize::try_from(place.checked_sub(self.first).ok_or(TooOld)?).map_err(|_| TooOld)?;
        let events: Vec<_> = self.ring.iter().skip(skip).take(limit).cloned().collect();
        let next = place + events.len() as u64;
        Ok((events, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, revision: i64, color: &str) -> Arc<Stored> {
        let json = format!("{{\"metadata\":{{\"name\":\"{name}\",\"resourceVersion\":\"{revision}\"}}}}");
        let fields = vec![("color", color.to_string())];
        Arc::new(Stored {
            revision,
            namespace: String::new(),
            name: name.into(),
            labels: None,
            fields,
            json: json.into(),
            stale: false,
            message: OnceLock::new(),
        })
    }

    fn is_red(o: &Stored) -> bool {
        o.fields.iter().any(|(_, v)| v == "red")
    }

    #[test]
    fn entering_and_leaving_a_selection() {
        let mut cache = Cache::default();
        cache.reset([("a".to_string(), object("a", 5, "blue"))], 7);
        cache.put("a".into(), object("a", 8, "red"));
        cache.put("a".into(), object("a", 9, "red"));
        cache.put("a".into(), object("a", 10, "blue"));
        cache.put("a".into(), object("a", 11, "blue"));
        cache.remove("a", 12);
        let place = cache.place_after(7).expect("in the ring");
        let (events, next) = cache.events(place, 100).expect("in the ring");
        let kinds: Vec<_> = events.iter().map(|e| e.kind_for(is_red)).collect();
        assert_eq!(kinds, [Some(Kind::Added), Some(Kind::Modified), Some(Kind::Deleted), None, None]);
        assert_eq!(next, cache.end());
        let left = String::from_utf8(events[2].frame(Kind::Deleted).to_vec()).expect("text");
        assert_eq!(
            left,
            "{\"type\":\"DELETED\",\"object\":{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"10\"}}}\n"
        );
        let everything: Vec<_> = events.iter().filter_map(|e| e.kind_for(|_| true)).collect();
        assert_eq!(everything, [Kind::Modified, Kind::Modified, Kind::Modified, Kind::Modified, Kind::Deleted]);
    }

    #[test]
    fn places_expire() {
        let mut cache = Cache::default();
        cache.reset([], 7);
        assert_eq!(cache.place_after(6), Err(TooOld));
        let start = cache.place_after(7).expect("now");
        for i in 0..RING as i64 {
            cache.put("a".into(), object("a", 8 + i, "red"));
        }
        assert_eq!(cache.events(start, 1).map(|(e, _)| e[0].revision), Ok(8));
        cache.put("a".into(), object("a", 10_000, "red"));
        assert!(cache.events(start, 1).is_err());
        assert_eq!(cache.place_after(7), Err(TooOld));
        assert!(cache.place_after(8).is_ok());
        let end = cache.end();
        cache.reset([], 10_001);
        assert!(cache.events(end, 1).is_err(), "a reset loses what happened in between");
        assert_eq!(cache.events(cache.end(), 1).map(|(e, _)| e.len()), Ok(0));
        let end = cache.end();
        cache.forget();
        assert!(cache.events(end, 1).is_err(), "nobody goes on as if nothing had happened");
    }

    #[test]
    fn ranges_and_revisions() {
        let mut cache = Cache::default();
        cache.reset(
            [
                ("a/x".into(), object("x", 1, "")),
                ("a/y".into(), object("y", 2, "")),
                ("ab/z".into(), object("z", 3, "")),
            ],
            3,
        );
        assert_eq!(cache.range("a/").map(|o| o.name.as_str()).collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(cache.range("").count(), 3);
        cache.advance(9);
        cache.advance(4);
        assert_eq!(cache.revision(), 9);
    }
}

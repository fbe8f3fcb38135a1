//! Watches. The [`Hub`] keeps the newest changes in a bounded ring and wakes the watch streams; a stream that is further
//! behind reads the history on disk. No queue grows with a slow client: it is only a revision that lags.

mod stream;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use prost::Message;
use store_api::mvccpb::KeyValue;
use tokio::sync::watch;

use crate::mvcc::Change;

pub use stream::Session;

/// Enough for every client that keeps up; the rest is on disk.
const RING_REVISIONS: usize = 1024;
const RING_BYTES: usize = 1 << 20;

/// All changes of one revision.
#[derive(Debug)]
pub struct Batch {
    /// The revision.
    pub revision: i64,
    /// Its changes, in order.
    pub changes: Vec<Change>,
    /// The replaced values, one per change, if some watcher wanted them when the batch was made.
    pub previous: Option<Vec<Option<KeyValue>>>,
}

impl Batch {
    fn size(&self) -> usize {
        let replaced = self.previous.iter().flatten().flatten().map(Message::encoded_len).sum::<usize>();
        replaced + self.changes.iter().map(|c| 64 + c.kv.encoded_len()).sum::<usize>()
    }
}

/// Changes from the ring.
#[derive(Clone, Debug)]
pub struct Recent {
    /// In revision order.
    pub batches: Vec<Arc<Batch>>,
    /// Every change up to here is included.
    pub through: i64,
}

struct Ring {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    /// Every revision from here to `last` is in the ring.
    first: i64,
    last: i64,
}

/// Where the writer leaves changes and the watch streams find them.
pub struct Hub {
    ring: Mutex<Ring>,
    revision: watch::Sender<i64>,
    wants_previous: AtomicUsize,
}

impl Hub {
    /// A hub for a store whose history ends at `revision`.
    pub fn new(revision: i64) -> Self {
        let ring = Ring { batches: VecDeque::new(), bytes: 0, first: revision + 1, last: revision };
        Hub { ring: Mutex::new(ring), revision: watch::Sender::new(revision), wants_previous: AtomicUsize::new(0) }
    }

    /// Whether the writer should put replaced values into its batches.
    pub fn wants_previous(&self) -> bool {
        self.wants_previous.load(Ordering::Relaxed) > 0
    }

    fn count_previous(&self, more: bool) {
        if more {
            self.wants_previous.fetch_add(1, Ordering::Relaxed);
        } else {
            self.wants_previous.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Adds changes, which must be readable on disk by now, and wakes all streams.
    pub fn publish(&self, batches: Vec<Batch>) {
        let Some(last) = batches.last().map(|batch| batch.revision) else { return };
        {
            let mut ring = self.ring.lock();
            for batch in batches {
                ring.bytes += batch.size();
                ring.batches.push_back(Arc::new(batch));
            }
            ring.last = last;
            while ring.batches.len() > RING_REVISIONS || ring.bytes > RING_BYTES {
                let Some(oldest) = ring.batches.pop_front() else { break };
                ring.bytes -= oldest.size();
                ring.first = oldest.revision + 1;
            }
        }
        self.revision.send_replace(last);
    }

    /// Starts anew at `revision`, which is readable on disk with everything before it.
    pub fn reset(&self, revision: i64) {
        *self.ring.lock() = Ring { batches: VecDeque::new(), bytes: 0, first: revision + 1, last: revision };
        self.revision.send_replace(revision);
    }

    /// Changes from `from` on, about `limit` bytes of them; `None` if the ring does not reach back that far.
    pub fn recent(&self, from: i64, limit: usize) -> Option<Recent> {
        let ring = self.ring.lock();
        if from < ring.first {
            return None;
        }
        let start = ring.batches.partition_point(|batch| batch.revision < from);
        let mut recent = Recent { batches: Vec::new(), through: ring.last };
        let mut bytes = 0;
        for batch in ring.batches.iter().skip(start) {
            if bytes > limit {
                break;
            }
            bytes += batch.size();
            recent.batches.push(batch.clone());
        }
        if start + recent.batches.len() < ring.batches.len()
            && let Some(batch) = recent.batches.last()
        {
            recent.through = batch.revision;
        }
        Some(recent)
    }

    /// Resolves when a newer revision was published.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.revision.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Revision;

    fn batch(revision: i64, bytes: usize) -> Batch {
        let kv =
            KeyValue { key: "k".into(), value: vec![0; bytes].into(), mod_revision: revision, ..Default::default() };
        let change = Change { revision: Revision::first(revision), tombstone: false, kv, previous: None };
        Batch { revision, changes: vec![change], previous: None }
    }

    fn revisions(recent: &Recent) -> Vec<i64> {
        recent.batches.iter().map(|b| b.revision).collect()
    }

    #[test]
    fn answers_only_what_it_holds_completely() {
        let hub = Hub::new(5);
        assert!(hub.recent(5, 100).is_none(), "5 happened before the hub began");
        let none = hub.recent(6, 100).unwrap();
        assert_eq!((revisions(&none), none.through), (vec![], 5));
        hub.publish((6..10).map(|r| batch(r, 10)).collect());
        let all = hub.recent(7, 10_000).unwrap();
        assert_eq!((revisions(&all), all.through), (vec![7, 8, 9], 9));
        let some = hub.recent(6, 0).unwrap();
        assert_eq!((revisions(&some), some.through), (vec![6], 6));
    }

    #[test]
    fn forgets_the_oldest_when_it_grows() {
        let hub = Hub::new(0);
        hub.publish((1..=4).map(|r| batch(r, RING_BYTES / 3)).collect());
        assert!(hub.recent(1, usize::MAX).is_none());
        let rest = hub.recent(3, usize::MAX).unwrap();
        assert_eq!((revisions(&rest), rest.through), (vec![3, 4], 4));
        // One batch larger than the ring: nothing is held, and the disk has to answer.
        hub.publish(vec![batch(5, 2 * RING_BYTES)]);
        assert!(hub.recent(5, usize::MAX).is_none());
        assert_eq!(*hub.subscribe().borrow(), 5);
    }
}

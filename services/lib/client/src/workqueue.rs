//! A work queue that holds each key once, hands it to one worker at a time and backs off per key.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_LIMIT: Duration = Duration::from_secs(1000);

/// A cloneable queue; clones share the content.
pub struct WorkQueue<K>(Arc<Inner<K>>);

struct Inner<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Keys in `ready`, plus keys that must run again once their worker is done.
    dirty: HashSet<K>,
    running: HashSet<K>,
    failures: HashMap<K, u32>,
    closed: bool,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        WorkQueue(Arc::clone(&self.0))
    }
}

impl<K> fmt::Debug for WorkQueue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkQueue")
    }
}

impl<K: Clone + Eq + Hash + Send + 'static> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash + Send + 'static> WorkQueue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            running: HashSet::new(),
            failures: HashMap::new(),
            closed: false,
        };
        WorkQueue(Arc::new(Inner { state: Mutex::new(state), wake: Notify::new() }))
    }

    /// Adds a key; one that waits already is not added twice, one that runs now will run once more.
    pub fn add(&self, key: K) {
        let mut state = self.0.state.lock();
        if state.closed || !state.dirty.insert(key.clone()) {
            return;
        }
        if !state.running.contains(&key) {
            state.ready.push_back(key);
            drop(state);
            self.0.wake.notify_one();
        }
    }

    /// Adds a key after a delay.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let queue = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            queue.add(key);
        });
    }

    /// Adds a key after a delay that doubles with each failure since the last [`WorkQueue::forget`]: 5 ms to 1000 s.
    pub fn add_rate_limited(&self, key: K) {
        let delay = {
            let mut state = self.0.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let delay = RETRY_FIRST.saturating_mul(1 << (*failures).min(20)).min(RETRY_LIMIT);
            *failures += 1;
            delay
        };
        self.add_after(key, delay);
    }

    /// Forgets the failures of a key.
    pub fn forget(&self, key: &K) {
        self.0.state.lock().failures.remove(key);
    }

    /// How often the key failed since it was last forgotten.
    pub fn failures(&self, key: &K) -> u32 {
        self.0.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key; `None` once the queue is closed. Call [`WorkQueue::done`] afterwards.
    pub async fn next(&self) -> Option<K> {
        loop {
            let woken = self.0.wake.notified();
            {
                let mut state = self.0.state.lock();
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.running.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.0.wake.notify_one();
                    }
                    return Some(key);
                }
                if state.closed {
                    self.0.wake.notify_one();
                    return None;
                }
            }
            woken.await;
        }
    }

    /// Says that the worker of a key has finished.
    pub fn done(&self, key: &K) {
        let mut state = self.0.state.lock();
        state.running.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.0.wake.notify_one();
        }
    }

    /// Lets waiting workers end.
    pub fn close(&self) {
        self.0.state.lock().closed = true;
        self.0.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_waits_once_and_never_runs_twice_at_a_time() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, Some("a"));
        queue.add("a");
        assert_eq!(queue.next().await, Some("b"));
        queue.done(&"a");
        assert_eq!(queue.next().await, Some("a"));
        queue.done(&"a");
        queue.close();
        assert_eq!(queue.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_double_the_delay() {
        let queue = WorkQueue::new();
        for expected in [5, 10, 20] {
            let start = tokio::time::Instant::now();
            queue.add_rate_limited("a");
            assert_eq!(queue.next().await, Some("a"));
            queue.done(&"a");
            assert!(start.elapsed() >= Duration::from_millis(expected));
        }
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
    }
}

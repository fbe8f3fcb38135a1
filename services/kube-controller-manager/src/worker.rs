//! How a controller is driven: changes fill a queue of keys, a few workers bring each key up to date.

use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use client::{Change, Informer, WorkQueue};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use crate::error::Error;
use crate::metrics;

/// What a successful pass leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something changes.
    Done,
    /// Look again when this much time has passed: a deadline, never a poll.
    After(Duration),
}

/// Workers by queue, where the flags say something about it. Set once, before any controller starts.
static CONCURRENCY: OnceLock<HashMap<&'static str, usize>> = OnceLock::new();

/// Takes what the flags say.
pub fn set_concurrency(by_queue: HashMap<&'static str, usize>) {
    // A second run in the same process, as in tests, keeps the first one's numbers.
    let _ = CONCURRENCY.set(by_queue);
}

/// Calls `react` for everything that is there and for every change after that.
pub fn on_change(informer: &Informer, mut react: impl FnMut(Change) + Send + 'static) {
    let mut changes = informer.subscribe();
    tokio::spawn(async move {
        while let Some(change) = changes.recv().await {
            react(change);
        }
    });
}

/// One deadline per key; a new one replaces the old, so a key that is looked at often does not gather timers.
struct Deadlines<K> {
    queue: WorkQueue<K>,
    timers: Mutex<HashMap<K, AbortHandle>>,
}

impl<K: Clone + Eq + Hash + Send + 'static> Deadlines<K> {
    fn set(&self, key: &K, next: Next) {
        let mut timers = self.timers.lock();
        if let Some(timer) = timers.remove(key) {
            timer.abort();
        }
        let Next::After(delay) = next else { return };
        let (queue, due) = (self.queue.clone(), key.clone());
        let timer = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            queue.add(due);
        });
        timers.insert(key.clone(), timer.abort_handle());
    }
}

/// Runs `workers` passes at a time, unless the flags say another number; never two for the same key. A failed pass comes back with exponential delay.
pub async fn run<K, F, Fut>(controller: &'static str, queue: WorkQueue<K>, workers: usize, sync: F)
where
    K: Clone + Eq + Hash + Display + Send + 'static,
    F: Fn(K) -> Fut,
    Fut: Future<Output = Result<Next, Error>>,
{
    let workers = CONCURRENCY.get().and_then(|by_queue| by_queue.get(controller)).copied().unwrap_or(workers);
    let deadlines = Deadlines { queue: queue.clone(), timers: Mutex::default() };
    let work = async || {
        while let Some(key) = queue.next().await {
            let begun = Instant::now();
            let result = sync(key.clone()).await;
            metrics::passed(controller, begun.elapsed(), result.is_err());
            match result {
                Ok(next) => {
                    queue.forget(&key);
                    deadlines.set(&key, next);
                }
                Err(error) if error.is_namespace_terminating() => {
                    debug!("{controller}: {key}: {error}");
                    queue.forget(&key);
                    deadlines.set(&key, Next::Done);
                }
                Err(error) => {
                    if error.is_conflict() {
                        debug!("{controller}: {key}: {error}; trying again");
                    } else {
                        warn!("{controller}: {key}: {error}; trying again");
                    }
                    queue.add_rate_limited(key.clone());
                }
            }
            queue.done(&key);
        }
    };
    join_all((0..workers).map(|_| work())).await;
}

//! Simulation: whole clusters on one thread, in virtual time, with one seed for everything that is random.
//!
//! What runs is the member itself: openraft, the log and its files, the state machine in RocksDB, snapshots, the protocol
//! between members with its client and server, changes of the membership. Only five things are replaced, and only in this
//! crate's own tests, so that there is nothing of it in a program:
//!
//! - threads: [`super::thread`] makes tasks of them,
//! - the network: a [`Link`] carries each call as two messages, which may be late, lost, doubled or overtaken ([`network`]),
//! - the power: a crash leaves of the disk what was synced, and a random part of the rest ([`disk`]),
//! - openraft's random numbers and its `watch` channel, whose waiters tokio wakes in a random order ([`runtime`]),
//! - ids of members, which come from the seed.
//!
//! [`check`] watches all members and knows from the committed log what clients must see. The same seed gives the same
//! trace, to the byte. `STORE_SIM_SEED=n` repeats one, and prints its trace if it fails; `STORE_SIM_SEEDS=1000` makes the
//! short run long.

mod check;
mod clients;
mod cluster;
mod disk;
mod faults;
mod model;
mod network;
mod runtime;
mod tests;

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use openraft::storage::ApplyResponder;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Entry, Types};
use crate::engine::Engine;
use check::Checks;
pub use network::Link;
use network::Network;
pub use runtime::Runtime;

thread_local! {
    static WORLD: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

/// Everything that simulated members share, on one thread.
struct World {
    random: Mutex<SmallRng>,
    born: Instant,
    trace: Mutex<Trace>,
    network: Mutex<Network>,
    checks: Mutex<Checks>,
    slow: Mutex<Vec<Delay>>,
    failed: Notify,
}

/// What happened, in order.
#[derive(Default)]
struct Trace {
    lines: Vec<String>,
    hasher: DefaultHasher,
}

/// Things that take time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// Reading, and whatever else waits for the disk.
    Disk,
    /// A sync of the log.
    Sync,
    /// The state machine.
    Apply,
}

impl World {
    /// Makes the world of this thread; it needs a runtime whose clock is paused.
    fn begin(seed: u64) -> Arc<Self> {
        let world = Arc::new(World {
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
            born: Instant::now(),
            trace: Mutex::default(),
            network: Mutex::default(),
            checks: Mutex::default(),
            slow: Mutex::default(),
            failed: Notify::new(),
        });
        WORLD.with(|slot| *slot.borrow_mut() = Some(world.clone()));
        world
    }

    fn end() {
        WORLD.with(|slot| slot.borrow_mut().take());
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.lock().random_range(0..bound)
    }

    fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { all.get(usize::try_from(self.below(all.len() as u64)).ok()?) }
    }

    fn note(&self, line: impl FnOnce() -> String) {
        let line = format!("{:>7} {}", self.born.elapsed().as_millis(), line());
        let mut trace = self.trace.lock();
        line.hash(&mut trace.hasher);
        trace.lines.push(line);
    }

    /// Judges what was seen; the first violation ends the simulation.
    fn check<T>(&self, look: impl FnOnce(&mut Checks) -> Result<T, String>) -> Option<T> {
        let result = look(&mut self.checks.lock());
        result.map_err(|violation| self.fail(violation)).ok()
    }

    fn fail(&self, violation: String) {
        self.note(|| format!("VIOLATION {violation}"));
        self.checks.lock().violation.get_or_insert(violation);
        self.failed.notify_one();
    }

    fn duration(&self, delay: Delay) -> Duration {
        let slow = self.slow.lock().contains(&delay);
        Duration::from_millis(match delay {
            Delay::Disk => self.below(3),
            Delay::Sync if slow => 5 + self.below(150),
            Delay::Apply if slow => 5 + self.below(80),
            Delay::Sync => self.below(3),
            Delay::Apply if self.chance(90) => 0,
            Delay::Apply => self.below(4),
        })
    }
}

fn world() -> Option<Arc<World>> {
    WORLD.with(|slot| slot.borrow().clone())
}

/// Whether this thread is a simulation.
pub fn active() -> bool {
    WORLD.with(|slot| slot.borrow().is_some())
}

/// A random number of the simulation, if this is one.
pub fn number() -> Option<u64> {
    world().map(|world| world.random.lock().random())
}

/// Takes its time.
pub async fn pause(delay: Delay) {
    let Some(world) = world() else { return };
    let time = world.duration(delay);
    match time.is_zero() {
        true => tokio::task::yield_now().await,
        false => tokio::time::sleep(time).await,
    }
}

/// What a worker's thread would do. `wake` is told of every item, and of the queue's end.
pub async fn worker<T>(wake: Arc<Notify>, waiting: Receiver<T>, mut round: impl FnMut(T, &Receiver<T>) -> bool) {
    loop {
        wake.notified().await;
        pause(Delay::Sync).await;
        let goes_on = match waiting.try_recv() {
            Ok(first) => round(first, &waiting),
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Disconnected) => false,
        };
        if !goes_on {
            return;
        }
    }
}

/// A member is about to apply these entries; `settled` if no compaction is half done.
pub fn applying(engine: &Engine, settled: bool, entries: &[(Entry, Option<ApplyResponder<Types>>)]) {
    let Some(world) = world() else { return };
    let Some(seen) = world.check(|_| check::Applied::look(engine, settled)) else { return };
    let count = entries.len();
    world.note(|| format!("{:x} applies {count} behind {:?}, digest {:x?}", seen.member, seen.index, seen.digest));
    world.check(|checks| checks.applying(&seen, entries.iter().map(|(entry, _)| entry)));
}

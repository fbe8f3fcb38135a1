//! Everything that is written: appends, applied entries, votes. And the one thread that syncs.
//!
//! A job is done at once, by the caller, under one lock; in a running member the only caller is the consensus thread. Nothing
//! here waits for the disk: a second thread syncs, and one sync acknowledges every append that was written before it
//! started. Appends that arrive during a sync share the next one: group commit without a timer.
//!
//! A failed write or sync ends the process: afterwards nobody knows what is on the disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use openraft::storage::{ApplyResponder, IOFlushed};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use super::apply::Applier;
use super::log::Tail;
use super::thread::{self, Queue, Thread};
use super::transfer::Received;
use super::{Entry, Types};
use crate::engine::Engine;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::wal::{Pending, Stored, Wal, WalError};

/// Answers a job when it is durable.
pub type Done = oneshot::Sender<Result<(), Error>>;

/// Work for the writer.
pub enum Job {
    /// Store entries; the callback fires when they are durable.
    Append {
        /// Index and sealed record.
        records: Vec<(u64, Vec<u8>)>,
        /// openraft's notification.
        callback: IOFlushed<Types>,
    },
    /// Store the vote.
    Vote {
        /// JSON.
        payload: Vec<u8>,
        /// Durable.
        done: Done,
    },
    /// Remove the log's end.
    Truncate {
        /// The first index to remove.
        from: u64,
        /// Durable.
        done: Done,
    },
    /// Remove the log's beginning.
    Purge {
        /// The last index to remove.
        upto: u64,
        /// The log id of it, JSON.
        mark: Vec<u8>,
        /// Durable.
        done: Done,
    },
    /// Apply committed entries.
    Apply {
        /// In log order.
        entries: Vec<(Entry, Option<ApplyResponder<Types>>)>,
        /// Applied and visible, not yet durable.
        done: Done,
    },
    /// Replace the state machine by one from another member.
    Install {
        /// The snapshot.
        received: Received,
        /// Durable.
        done: Done,
    },
    /// Make everything that was applied durable without the log.
    Sync {
        /// Durable.
        done: Done,
    },
    /// End after the jobs before this one.
    Stop,
}

/// Where a failure that the process cannot survive is reported.
#[derive(Clone)]
pub struct Fatal(Arc<watch::Sender<Option<String>>>);

impl Fatal {
    /// Nothing failed yet.
    pub fn new() -> Self {
        Fatal(Arc::new(watch::Sender::new(None)))
    }

    /// Reports a failure; the first one counts.
    pub fn raise(&self, reason: &str) {
        tracing::error!("{reason}; this member stops");
        self.0.send_if_modified(|first| {
            let new = first.is_none();
            first.get_or_insert_with(|| reason.to_owned());
            new
        });
    }

    /// Whether something failed.
    pub fn raised(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Resolves with the first failure.
    pub async fn wait(&self) -> String {
        let mut receiver = self.0.subscribe();
        let reason = receiver.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // The sender is in `self`, so this cannot be; an end without a reason is none.
            None => std::future::pending().await,
        }
    }
}

impl Default for Fatal {
    fn default() -> Self {
        Fatal::new()
    }
}

/// Does jobs.
#[derive(Clone)]
pub struct Writer(Arc<Shared>);

struct Shared {
    /// `None` after the end.
    work: Mutex<Option<Work>>,
    /// Superseded records wait for their removal.
    compact: Notify,
    /// The log has grown by [`GROWN_BYTES`].
    grown: Notify,
    /// See [`Writer::set_alone`].
    alone: AtomicBool,
}

/// The log may be purged about this often.
const GROWN_BYTES: usize = 16 << 20;

/// What is written to.
pub struct Disk {
    /// The state machine's database.
    pub engine: Engine,
    /// The log.
    pub wal: Wal,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// For tests.
    pub faults: Faults,
}

/// Lets a test make the disk fail.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Broken>);

#[derive(Debug, Default)]
struct Broken {
    syncs: AtomicBool,
    writes: AtomicBool,
}

impl Faults {
    /// Every sync of the log fails from now on.
    pub fn fail_syncs(&self) {
        self.0.syncs.store(true, Ordering::Release);
    }

    /// Every write to the log fails from now on, as on a full disk.
    pub fn fail_writes(&self) {
        self.0.writes.store(true, Ordering::Release);
    }

    fn append(&self, wal: &mut Wal, records: &[(u64, Vec<u8>)]) -> Result<Pending, WalError> {
        if self.0.writes.load(Ordering::Acquire) {
            return Err(WalError::Io { path: "wal".into(), source: io::Error::from(io::ErrorKind::StorageFull) });
        }
        wal.append(records)
    }

    fn sync(&self, pending: &Pending) -> Result<(), Error> {
        if self.0.syncs.load(Ordering::Acquire) {
            return Err(Error::Consensus("a sync failed because a test wants it".into()));
        }
        Ok(pending.sync()?)
    }
}

impl Writer {
    /// Does a job, all but the sync.
    ///
    /// # Errors
    /// The writer has stopped.
    pub fn send(&self, job: Job) -> io::Result<()> {
        let mut slot = self.0.work.lock();
        let work = slot.as_mut().ok_or_else(|| io::Error::other("the writer has stopped"))?;
        if matches!(job, Job::Stop) {
            *slot = None;
            return Ok(());
        }
        match job {
            Job::Append { records, callback } => work.append(&records, callback, self.0.alone.load(Ordering::Relaxed)),
            job => work.handle(job),
        }
        if work.grown > GROWN_BYTES {
            work.grown = 0;
            self.0.grown.notify_one();
        }
        if work.applier.compacting() {
            self.0.compact.notify_one();
        }
        Ok(())
    }

    /// Does a job and waits until it is durable.
    ///
    /// # Errors
    /// The writer has stopped, or the job failed.
    pub async fn done(&self, job: impl FnOnce(Done) -> Job) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.send(job(sender))?;
        match receiver.await {
            Ok(result) => Ok(result?),
            Err(_) => Err(io::Error::other("the writer has stopped")),
        }
    }

    /// Where entries of `[from, to)` are on disk.
    ///
    /// # Errors
    /// The writer has stopped.
    pub fn stored(&self, from: u64, to: u64) -> io::Result<Vec<Stored>> {
        let slot = self.0.work.lock();
        let work = slot.as_ref().ok_or_else(|| io::Error::other("the writer has stopped"))?;
        Ok(work.wal.stored(from, to))
    }

    /// Whether this member is the only one: then nobody is kept waiting when the consensus thread itself waits for the disk,
    /// as it does for an entry that comes when there is nothing else to do. That saves such an entry two changes of threads.
    pub fn set_alone(&self, alone: bool) {
        self.0.alone.store(alone, Ordering::Relaxed);
    }

    /// How much of which file a power cut would leave for certain.
    #[cfg(test)]
    pub(crate) fn durable(&self) -> Option<(u64, usize)> {
        self.0.work.lock().as_ref().map(|work| work.wal.durable())
    }

    /// Waits until the log has grown by a certain size.
    pub async fn grown(&self) {
        self.0.grown.notified().await;
    }

    /// Removes superseded records, one small step at a time between other work, until the writer stops.
    pub async fn compact(self) {
        loop {
            let Some(more) = self.0.work.lock().as_mut().map(Work::compact_step) else { return };
            if more {
                tokio::task::yield_now().await;
            } else {
                self.0.compact.notified().await;
            }
        }
    }
}

/// What a sync acknowledges.
enum Waiting {
    Append(IOFlushed<Types>),
    Done(Done),
}

impl Waiting {
    fn answer(self, result: Result<(), Error>) {
        match self {
            Waiting::Append(callback) => callback.io_completed(result.map_err(io::Error::from)),
            Waiting::Done(done) => {
                // The one who asked may be gone.
                let _ = done.send(result);
            }
        }
    }
}

/// Starts writing and syncing; the thread ends after [`Job::Stop`].
///
/// # Errors
/// The operating system refused.
pub fn start(disk: Disk, tail: Arc<Mutex<Tail>>, applier: Applier, fatal: Fatal) -> io::Result<(Writer, Thread)> {
    let Disk { engine, wal, metrics, faults } = disk;
    let (to_sync, syncer) = {
        let (fatal, metrics, faults) = (fatal.clone(), metrics.clone(), faults.clone());
        thread::worker("store-sync", move |first, waiting| sync(first, waiting, &faults, &metrics, &fatal))?
    };
    let work = Mutex::new(Some(Work { engine, wal, metrics, faults, tail, applier, to_sync, fatal, grown: 0 }));
    let shared = Shared { work, compact: Notify::new(), grown: Notify::new(), alone: AtomicBool::new(false) };
    Ok((Writer(Arc::new(shared)), syncer))
}

/// Something written, and who waits for its sync.
type Unsynced = (Pending, Waiting);

/// Syncs everything that waits and answers it; `false` if that must not go on.
fn sync(first: Unsynced, waiting: &Receiver<Unsynced>, faults: &Faults, metrics: &Metrics, fatal: &Fatal) -> bool {
    // Everything queued by now was written by now, so one sync per file covers it.
    let all: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
    let mut last_of_its_file = all.chunk_by(|(a, _), (b, _)| a.same_file(b)).filter_map(<[_]>::last);
    let start = Instant::now();
    let result = last_of_its_file.try_for_each(|(pending, _)| faults.sync(pending));
    metrics.syncs.since(start);
    if let Err(error) = &result {
        fatal.raise(&format!("cannot sync the log: {error}"));
    }
    for (_, one) in all {
        one.answer(result.clone());
    }
    // A second try may succeed although the data is lost: the kernel reports each failure once.
    result.is_ok()
}

struct Work {
    engine: Engine,
    wal: Wal,
    metrics: Arc<Metrics>,
    faults: Faults,
    tail: Arc<Mutex<Tail>>,
    applier: Applier,
    to_sync: Queue<Unsynced>,
    fatal: Fatal,
    /// Bytes of entries since the log was last said to have grown.
    grown: usize,
}

impl Work {
    fn handle(&mut self, job: Job) {
        match job {
            Job::Vote { payload, done } => {
                let written = self.wal.vote(payload);
                self.later(written, Waiting::Done(done));
            }
            Job::Truncate { from, done } => {
                let written = self.wal.truncate(from);
                self.later(written, Waiting::Done(done));
            }
            Job::Purge { upto, mark, done } => {
                let written = self.wal.purge(upto, mark);
                self.later(written, Waiting::Done(done));
            }
            Job::Apply { entries, done } => self.apply(entries, done),
            Job::Install { received, done } => {
                let result = self.applier.install(&received);
                if let Err(error) = &result {
                    self.fatal.raise(&format!("cannot install a snapshot: {error}"));
                }
                let _ = done.send(result);
            }
            Job::Sync { done } => self.flush(done),
            Job::Append { records, callback } => self.append(&records, callback, false),
            Job::Stop => {}
        }
    }

    fn append(&mut self, records: &[(u64, Vec<u8>)], callback: IOFlushed<Types>, alone: bool) {
        let written = self.faults.append(&mut self.wal, records);
        let bytes = records.iter().map(|(_, record)| record.len()).sum::<usize>();
        self.metrics.log_bytes.add(bytes as u64);
        self.grown += bytes;
        if let Some(spare) = self.wal.spare_wanted() {
            // Without one, the next file is made when it is needed.
            if let Err(error) = thread::apart("store-spare", move || spare.make()) {
                tracing::debug!(%error, "no thread to make a spare file for the log");
            }
        }
        let mut idle = false;
        if let (Ok(_), Some((first, _)), Some((last, _))) = (&written, records.first(), records.last()) {
            let mut tail = self.tail.lock();
            idle = alone && tail.has_applied_before(*first);
            tail.written(*last);
        }
        match written {
            Ok(pending) if idle => {
                let start = Instant::now();
                let result = self.faults.sync(&pending);
                self.metrics.syncs.since(start);
                if let Err(error) = &result {
                    self.fatal.raise(&format!("cannot sync the log: {error}"));
                    // A second try may succeed although the data is lost: nothing is acknowledged any more.
                    self.to_sync = Queue::closed();
                }
                Waiting::Append(callback).answer(result);
            }
            written => self.later(written, Waiting::Append(callback)),
        }
    }

    /// Leaves what was written to the sync thread, which answers.
    fn later(&self, written: Result<Pending, WalError>, waiting: Waiting) {
        match written {
            Ok(pending) => {
                if let Err(unsent) = self.to_sync.send((pending, waiting)) {
                    unsent.1.answer(Err(Error::Consensus("the sync thread has stopped".into())));
                }
            }
            Err(error) => {
                self.fatal.raise(&format!("cannot write the log: {error}"));
                waiting.answer(Err(error.into()));
            }
        }
    }

    /// On a thread of its own: it takes long, and nothing else has to wait for it.
    fn flush(&self, done: Done) {
        let (engine, fatal, metrics) = (self.engine.clone(), self.fatal.clone(), self.metrics.clone());
        let flush = move || {
            let start = Instant::now();
            let result = engine.sync();
            metrics.flushes.since(start);
            if let Err(error) = &result {
                fatal.raise(&format!("cannot flush the database: {error}"));
            }
            // The one who asked may be gone.
            let _ = done.send(result);
        };
        if let Err(error) = thread::apart("store-flush", flush) {
            self.fatal.raise(&format!("cannot start a thread to flush the database: {error}"));
        }
    }

    fn apply(&mut self, entries: Vec<(Entry, Option<ApplyResponder<Types>>)>, done: Done) {
        let last = entries.last().map(|(entry, _)| entry.log_id.index);
        let result = self.applier.apply(entries);
        match &result {
            Ok(()) => {
                if let Some(last) = last {
                    self.tail.lock().applied(last);
                }
            }
            Err(error) => self.fatal.raise(&format!("cannot apply: {error}")),
        }
        let _ = done.send(result);
    }

    /// Removes some superseded records; returns whether more wait.
    fn compact_step(&mut self) -> bool {
        match self.applier.compact_step() {
            Ok(()) => self.applier.compacting(),
            Err(error) => {
                self.fatal.raise(&format!("cannot compact: {error}"));
                false
            }
        }
    }
}

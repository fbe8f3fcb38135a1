//! The one thread that writes, and the one that syncs.
//!
//! The writer takes jobs in order, puts waiting log appends into one batch and applies committed entries. It never waits for
//! the disk: a second thread syncs, and one sync acknowledges every append that was written before it started. Appends that
//! arrive during a sync share the next one: group commit without a timer.
//!
//! A failed write or sync ends the process: afterwards nobody knows what is on the disk.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use openraft::storage::{ApplyResponder, IOFlushed};
use parking_lot::Mutex;
use rocksdb::WriteBatch;
use tokio::sync::{oneshot, watch};

use super::apply::Applier;
use super::log::Tail;
use super::transfer::Received;
use super::{Entry, Types};
use crate::engine::Engine;
use crate::error::Error;
use crate::schema;

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
    /// Make everything durable.
    Sync {
        /// Durable.
        done: Done,
    },
    /// End both threads after the jobs before this one.
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

/// Sends jobs.
#[derive(Clone)]
pub struct Writer(Sender<Job>);

impl Writer {
    /// Queues a job.
    ///
    /// # Errors
    /// The writer has stopped.
    pub fn send(&self, job: Job) -> io::Result<()> {
        self.0.send(job).map_err(|_| io::Error::other("the writer has stopped"))
    }

    /// Queues a job and waits for its answer.
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

/// Both threads; joined by [`Threads::join`].
pub struct Threads(Vec<std::thread::JoinHandle<()>>);

impl Threads {
    /// Waits for the end after [`Job::Stop`].
    pub fn join(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a storage thread panicked");
            }
        }
    }
}

/// Makes the queue; [`start`] serves it.
pub fn queue() -> (Writer, Receiver<Job>) {
    let (sender, jobs) = channel();
    (Writer(sender), jobs)
}

/// Starts the threads.
///
/// # Errors
/// The operating system refused.
pub fn start(
    engine: Engine,
    tail: Arc<Mutex<Tail>>,
    applier: Applier,
    jobs: Receiver<Job>,
    fatal: Fatal,
) -> io::Result<Threads> {
    let (to_sync, waiting) = channel();
    let syncer = {
        let (engine, fatal) = (engine.clone(), fatal.clone());
        std::thread::Builder::new().name("store-sync".into()).spawn(move || sync_loop(&engine, &waiting, &fatal))?
    };
    let mut work = Work { engine, tail, applier, to_sync, fatal, appends: Appends::default() };
    let writer = std::thread::Builder::new().name("store-writer".into()).spawn(move || work.run(&jobs))?;
    Ok(Threads(vec![writer, syncer]))
}

fn sync_loop(engine: &Engine, waiting: &Receiver<Waiting>, fatal: &Fatal) {
    while let Ok(first) = waiting.recv() {
        // Everything queued by now was written by now, so this sync covers it.
        let all: Vec<Waiting> = std::iter::once(first).chain(waiting.try_iter()).collect();
        let result = engine.sync();
        if let Err(error) = &result {
            fatal.raise(&format!("cannot sync the log: {error}"));
        }
        for one in all {
            one.answer(result.clone());
        }
    }
}

#[derive(Default)]
struct Appends {
    batch: WriteBatch,
    last: u64,
    callbacks: Vec<IOFlushed<Types>>,
}

struct Work {
    engine: Engine,
    tail: Arc<Mutex<Tail>>,
    applier: Applier,
    to_sync: Sender<Waiting>,
    fatal: Fatal,
    appends: Appends,
}

impl Work {
    fn run(&mut self, jobs: &Receiver<Job>) {
        loop {
            let job = match jobs.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    self.flush();
                    // Compaction fills idle time, one small step at a time.
                    if let Err(error) = self.applier.compact_step() {
                        self.fatal.raise(&format!("cannot compact: {error}"));
                        return;
                    }
                    if self.applier.compacting() {
                        continue;
                    }
                    match jobs.recv() {
                        Ok(job) => job,
                        Err(_) => return,
                    }
                }
            };
            match job {
                Job::Stop => return self.flush(),
                job => self.handle(job),
            }
        }
    }

    fn handle(&mut self, job: Job) {
        match job {
            Job::Append { records, callback } => {
                for (index, record) in records {
                    self.engine.put_sealed(&mut self.appends.batch, schema::RAFT_LOG, &index.to_be_bytes(), &record);
                    self.appends.last = index;
                }
                self.appends.callbacks.push(callback);
            }
            Job::Vote { payload, done } => {
                self.flush();
                let mut batch = WriteBatch::default();
                self.engine.put(&mut batch, schema::RAFT_META, schema::raft_meta::VOTE, &payload);
                self.write_then_sync(batch, Waiting::Done(done));
            }
            Job::Truncate { from, done } => {
                self.flush();
                let mut batch = WriteBatch::default();
                self.engine.delete_range(&mut batch, schema::RAFT_LOG, &from.to_be_bytes(), &u64::MAX.to_be_bytes());
                self.write_then_sync(batch, Waiting::Done(done));
            }
            Job::Purge { upto, mark, done } => {
                self.flush();
                let mut batch = WriteBatch::default();
                self.engine.delete_range(&mut batch, schema::RAFT_LOG, &0u64.to_be_bytes(), &(upto + 1).to_be_bytes());
                self.engine.put(&mut batch, schema::RAFT_META, schema::raft_meta::PURGED, &mark);
                self.write_then_sync(batch, Waiting::Done(done));
            }
            Job::Apply { entries, done } => {
                self.flush();
                self.apply(entries, done);
            }
            Job::Install { received, done } => {
                self.flush();
                let result = self.applier.install(&received);
                if let Err(error) = &result {
                    self.fatal.raise(&format!("cannot install a snapshot: {error}"));
                }
                let _ = done.send(result);
            }
            Job::Sync { done } => {
                self.flush();
                self.later(Waiting::Done(done));
            }
            Job::Stop => {}
        }
    }

    /// Writes the appends collected so far and hands them to the sync thread.
    fn flush(&mut self) {
        if self.appends.callbacks.is_empty() {
            return;
        }
        let Appends { batch, last, callbacks } = std::mem::take(&mut self.appends);
        match self.engine.write(batch) {
            Ok(()) => {
                self.tail.lock().written(last);
                for callback in callbacks {
                    self.later(Waiting::Append(callback));
                }
            }
            Err(error) => {
                self.fatal.raise(&format!("cannot write the log: {error}"));
                for callback in callbacks {
                    Waiting::Append(callback).answer(Err(error.clone()));
                }
            }
        }
    }

    fn write_then_sync(&mut self, batch: WriteBatch, waiting: Waiting) {
        match self.engine.write(batch) {
            Ok(()) => self.later(waiting),
            Err(error) => {
                self.fatal.raise(&format!("cannot write: {error}"));
                waiting.answer(Err(error));
            }
        }
    }

    fn later(&self, waiting: Waiting) {
        if let Err(unsent) = self.to_sync.send(waiting) {
            unsent.0.answer(Err(Error::Consensus("the sync thread has stopped".into())));
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
}

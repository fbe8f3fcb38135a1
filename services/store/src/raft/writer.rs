//! Everything that is written: appends, applied entries, votes. And the one thread that syncs.
//!
//! A job is done at once, by the caller, under one lock; in a running member the only caller is the consensus thread. Nothing
//! here waits for the disk: a second thread syncs, and one sync acknowledges every append that was written before it
//! started. Appends that arrive during a sync share the next one: group commit without a timer.
//!
//! A failed write or sync ends the process: afterwards nobody knows what is on the disk.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use openraft::storage::{ApplyResponder, IOFlushed};
use parking_lot::Mutex;
use rocksdb::WriteBatch;
use tokio::sync::{Notify, oneshot, watch};

use super::apply::Applier;
use super::log::Tail;
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
    /// Make everything durable.
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
        work.handle(job);
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

/// The sync thread; joined by [`Threads::join`].
pub struct Threads(std::thread::JoinHandle<()>);

impl Threads {
    /// Waits for the end after [`Job::Stop`].
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the sync thread panicked");
        }
    }
}

/// Starts writing and syncing.
///
/// # Errors
/// The operating system refused.
pub fn start(engine: Engine, tail: Arc<Mutex<Tail>>, applier: Applier, fatal: Fatal) -> io::Result<(Writer, Threads)> {
    let (to_sync, waiting) = channel();
    let syncer = {
        let (engine, fatal) = (engine.clone(), fatal.clone());
        std::thread::Builder::new().name("store-sync".into()).spawn(move || sync_loop(&engine, &waiting, &fatal))?
    };
    let work = Mutex::new(Some(Work { engine, tail, applier, to_sync, fatal }));
    Ok((Writer(Arc::new(Shared { work, compact: Notify::new() })), Threads(syncer)))
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

struct Work {
    engine: Engine,
    tail: Arc<Mutex<Tail>>,
    applier: Applier,
    to_sync: Sender<Waiting>,
    fatal: Fatal,
}

impl Work {
    fn handle(&mut self, job: Job) {
        match job {
            Job::Append { records, callback } => self.append(records, callback),
            Job::Vote { payload, done } => {
                let mut batch = WriteBatch::default();
                self.engine.put(&mut batch, schema::RAFT_META, schema::raft_meta::VOTE, &payload);
                self.write_then_sync(batch, Waiting::Done(done));
            }
            Job::Truncate { from, done } => {
                let mut batch = WriteBatch::default();
                self.engine.delete_range(&mut batch, schema::RAFT_LOG, &from.to_be_bytes(), &u64::MAX.to_be_bytes());
                self.write_then_sync(batch, Waiting::Done(done));
            }
            Job::Purge { upto, mark, done } => {
                let mut batch = WriteBatch::default();
                self.engine.delete_range(&mut batch, schema::RAFT_LOG, &0u64.to_be_bytes(), &(upto + 1).to_be_bytes());
                self.engine.put(&mut batch, schema::RAFT_META, schema::raft_meta::PURGED, &mark);
                self.write_then_sync(batch, Waiting::Done(done));
            }
            Job::Apply { entries, done } => self.apply(entries, done),
            Job::Sync { done } => self.later(Waiting::Done(done)),
            Job::Stop => {}
        }
    }

    fn append(&mut self, records: Vec<(u64, Vec<u8>)>, callback: IOFlushed<Types>) {
        let last = records.last().map(|(index, _)| *index);
        let mut batch = WriteBatch::default();
        for (index, record) in records {
            self.engine.put_sealed(&mut batch, schema::RAFT_LOG, &index.to_be_bytes(), &record);
        }
        match self.engine.write(batch) {
            Ok(()) => {
                if let Some(last) = last {
                    self.tail.lock().written(last);
                }
                self.later(Waiting::Append(callback));
            }
            Err(error) => {
                self.fatal.raise(&format!("cannot write the log: {error}"));
                Waiting::Append(callback).answer(Err(error));
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

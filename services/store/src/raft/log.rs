//! The Raft log and vote: openraft's storage trait on top of the writer.
//!
//! Appends return at once; the writer stores them and the callback tells openraft when they are durable. Until an entry is
//! applied it stays in a small cache, so that applying never reads the disk.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend, RaftLogReader};
use parking_lot::Mutex;

use super::writer::{Job, Writer};
use super::{Entry, LogId, Types, Vote, log_id, term, thread};
use crate::command::Command;
use crate::error::Error;
use crate::schema::{self, Corruption, LogKind, LogRecord};
use crate::wal::{Recovered, Stored, Wal};

/// Applied entries stay this long, for a member that is just behind.
const KEEP_APPLIED: usize = 16;
/// Entries that wait for being applied leave the cache beyond this many bytes and are read back from disk.
const CACHE_BYTES: usize = 8 << 20;
/// What one message to another member carries, unless a single entry is larger.
const MESSAGE_BYTES: usize = 1 << 20;

/// The newest entries, and the marks openraft asks for.
#[derive(Default)]
pub struct Tail {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    last: Option<LogId>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    written: u64,
    applied: u64,
}

impl Tail {
    fn push(&mut self, entry: Entry, size: usize) {
        self.last = Some(entry.log_id);
        self.bytes += size;
        self.entries.push_back((entry, size));
    }

    /// The last entry there is or was.
    pub fn last(&self) -> Option<LogId> {
        self.last
    }

    /// The writer has stored everything up to `index`.
    pub fn written(&mut self, index: u64) {
        self.written = self.written.max(index);
        self.evict();
    }

    /// The state machine has applied everything up to `index`.
    pub fn applied(&mut self, index: u64) {
        self.applied = self.applied.max(index);
        self.evict();
    }

    /// Whether everything before `index` is applied.
    pub fn has_applied_before(&self, index: u64) -> bool {
        self.applied + 1 >= index
    }

    fn evict(&mut self) {
        while let Some((entry, size)) = self.entries.front() {
            let index = entry.log_id.index;
            let done = index <= self.applied && self.entries.len() > KEEP_APPLIED;
            if index > self.written || !(done || self.bytes > CACHE_BYTES) {
                return;
            }
            self.bytes -= size;
            self.entries.pop_front();
        }
    }

    fn truncate(&mut self, last: Option<LogId>) {
        let keep = last.map_or(0, |id| id.index + 1);
        while let Some((entry, size)) = self.entries.back()
            && entry.log_id.index >= keep
        {
            self.bytes -= size;
            self.entries.pop_back();
        }
        self.last = last;
        self.written = self.written.min(keep.saturating_sub(1));
    }

    /// Entries up to `index` are gone. Behind an installed snapshot the next one may be far from the last before it.
    fn forget(&mut self, index: u64) {
        while let Some((entry, size)) = self.entries.front()
            && entry.log_id.index <= index
        {
            self.bytes -= size;
            self.entries.pop_front();
        }
        self.written = self.written.max(index);
        self.applied = self.applied.max(index);
    }

    /// Entries of `[from, to)` that the cache holds, and where they begin.
    fn get(&self, from: u64, to: u64) -> (u64, Vec<Entry>) {
        let first = self.entries.front().map_or(u64::MAX, |(entry, _)| entry.log_id.index);
        let from = from.max(first);
        let wanted = self.entries.iter().map(|(entry, _)| entry).filter(|e| (from..to).contains(&e.log_id.index));
        (first.min(to), wanted.cloned().collect())
    }
}

impl Tail {
    /// Entries of `[from, to)`, at least one and about `limit` bytes, if the cache holds the first.
    fn get_limited(&self, from: u64, to: u64, limit: usize) -> Option<Vec<Entry>> {
        let first = self.entries.front().map(|(entry, _)| entry.log_id.index).filter(|first| *first <= from)?;
        let skip = usize::try_from(from - first).ok()?;
        let mut bytes = 0;
        let wanted = self.entries.iter().skip(skip).take_while(|(entry, size)| {
            let fits = bytes < limit && entry.log_id.index < to;
            bytes += size;
            fits
        });
        let entries: Vec<Entry> = wanted.map(|(entry, _)| entry.clone()).collect();
        (!entries.is_empty()).then_some(entries)
    }
}

/// The log as openraft sees it.
#[derive(Clone)]
pub struct LogStore {
    tail: Arc<Mutex<Tail>>,
    writer: Writer,
}

/// Reads and verifies the log on disk. A log that does not reach what the state machine has applied begins anew behind it:
/// the state machine came from a snapshot, or was flushed before this member's part of a commit was.
///
/// # Errors
/// The first damaged or missing record, by name; or the disk failed.
pub fn open(folder: &Path, applied: Option<LogId>) -> Result<(Wal, Tail), Error> {
    let check = |index: u64, value: &[u8]| decode(index, value).map(|_| ()).map_err(|e| e.to_string());
    let Recovered { mut wal, vote, purged, last } = Wal::open(folder, check)?;
    let mut purged: Option<LogId> = json("purge mark", &purged)?;
    let mut last = match last {
        None => purged,
        Some((index, value)) => Some(decode(index, &value)?.log_id),
    };
    if let Some(applied) = applied.filter(|applied| Some(*applied) > last) {
        tracing::info!(index = applied.index, "the log begins behind what is applied");
        let mark = serde_json::to_vec(&applied).map_err(|e| Error::Consensus(e.to_string()))?;
        wal.purge(applied.index, mark)?.sync()?;
        (purged, last) = (Some(applied), Some(applied));
    }
    // Whoever has entries of a term was there, and must not elect anybody in an earlier one.
    let vote = json("vote", &vote)?.or(last.map(|last| Vote::new(term(&last), 0)));
    let written = last.map_or(0, |last| last.index);
    Ok((wal, Tail { purged, last, vote, written, ..Tail::default() }))
}

fn json<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<Option<T>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(bytes).map(Some).map_err(|e| Error::Layout(format!("log: the {what} is unreadable: {e}")))
}

pub(super) fn encode(entry: &Entry) -> io::Result<Vec<u8>> {
    let (kind, body) = match &entry.payload {
        EntryPayload::Blank => (LogKind::Blank, Vec::new()),
        EntryPayload::Normal(command) => (LogKind::Proposal, command.encode()),
        EntryPayload::Membership(membership) => (LogKind::Membership, serde_json::to_vec(membership)?),
    };
    Ok(LogRecord { term: term(&entry.log_id), kind, body: &body }.encode(entry.log_id.index))
}

pub(super) fn decode(index: u64, value: &[u8]) -> Result<Entry, Error> {
    let record = LogRecord::decode(index, value)?;
    let bad = |e: &dyn std::fmt::Display| Corruption::new(schema::RAFT_LOG, &index.to_be_bytes(), e);
    let payload = match record.kind {
        LogKind::Blank => EntryPayload::Blank,
        LogKind::Proposal => EntryPayload::Normal(Command::decode(record.body).map_err(|e| bad(&e))?),
        LogKind::Membership => EntryPayload::Membership(serde_json::from_slice(record.body).map_err(|e| bad(&e))?),
    };
    Ok(Entry { log_id: log_id(record.term, index), payload })
}

/// At least one entry and about `limit` bytes of them.
fn read_disk(stored: &[Stored], limit: usize) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    for stored in stored {
        if bytes >= limit {
            break;
        }
        let value = stored.read()?;
        bytes += value.len();
        entries.push(decode(stored.index, &value)?);
    }
    Ok(entries)
}

impl LogStore {
    /// The log whose newest part is `tail`.
    pub fn new(tail: Arc<Mutex<Tail>>, writer: Writer) -> Self {
        LogStore { tail, writer }
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let (cached_from, cached) = self.tail.lock().get(from, to);
        if from >= cached_from {
            return Ok(cached);
        }
        let stored = self.writer.stored(from, cached_from)?;
        let read = thread::blocking(move || read_disk(&stored, usize::MAX));
        let mut entries = read.await.map_err(io::Error::other)??;
        entries.extend(cached);
        Ok(entries)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        // What one message to another member carries.
        let cached = self.tail.lock().get_limited(start, end, MESSAGE_BYTES);
        if let Some(entries) = cached {
            return Ok(entries);
        }
        let stored = self.writer.stored(start, end)?;
        let read = thread::blocking(move || read_disk(&stored, MESSAGE_BYTES));
        Ok(read.await.map_err(io::Error::other)??)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.tail.lock().vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let tail = self.tail.lock();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let payload = serde_json::to_vec(vote)?;
        self.writer.done(|done| Job::Vote { payload, done }).await?;
        self.tail.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        {
            let mut tail = self.tail.lock();
            for entry in entries {
                let record = encode(&entry)?;
                let index = entry.log_id.index;
                tail.push(entry, record.len());
                records.push((index, record));
            }
        }
        self.writer.send(Job::Append { records, callback })
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index + 1);
        self.tail.lock().truncate(last);
        self.writer.done(|done| Job::Truncate { from, done }).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let mark = serde_json::to_vec(&upto)?;
        {
            let mut tail = self.tail.lock();
            tail.purged = tail.purged.max(Some(upto));
            tail.last = tail.last.max(Some(upto));
            tail.forget(upto.index);
        }
        self.writer.done(|done| Job::Purge { upto: upto.index, mark, done }).await
    }
}

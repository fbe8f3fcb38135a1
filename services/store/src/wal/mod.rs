//! The log on disk: what consensus must not forget, in the order it was decided. Votes, entries, truncations, purges.
//!
//! Not in RocksDB, because its log grows with every write, and a sync that has to record a new file size costs the disk a
//! second, journaled write. These files are zeros that are overwritten, so a sync writes the data and nothing else.
//!
//! One writer appends ([`Wal`]); syncing is somebody else's work ([`Pending`] says what has to be synced). A file is begun
//! when the last is full, starts with what is still valid of all files before it, and is removed when nothing in it is
//! needed. Byte layouts are in [`frame`] and [`Kind`].

pub mod frame;
mod open;
mod spare;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use open::Recovered;
pub use spare::Making;
use spare::Spare;

/// Bytes of one file, unless a single record is larger.
const FILE_BYTES: usize = 16 << 20;
/// Zeros are written this far ahead.
const ZEROS: usize = 1 << 20;

/// What goes wrong.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The operating system failed.
    #[error("{path}: {source}")]
    Io {
        /// Of which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something that was written is not what was written.
    #[error("corrupt log file {path} at offset {offset}: {reason}")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> WalError + '_ {
    |source| WalError::Io { path: path.to_owned(), source }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The beginning of a file: the length of the vote (4 bytes), the vote, and the content of a purge.
    Start = 1,
    /// An entry: its index (8 bytes, big endian) and the value.
    Entry = 2,
    /// A vote.
    Vote = 3,
    /// No entry from this index (8 bytes) on is valid.
    Truncate = 4,
    /// Entries before this index (8 bytes) are not needed; then the mark.
    Purge = 5,
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    file: u64,
    offset: u32,
    length: u32,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    path: Arc<Path>,
    file: Arc<File>,
}

/// How much of which file is synced; shared with whoever syncs.
#[derive(Clone, Debug, Default)]
pub struct Durable(Arc<AtomicU64>);

impl Durable {
    // File numbers stay far below 2^32: a file per microsecond would last an hour, and each holds megabytes.
    fn pack(file: u64, offset: usize) -> u64 {
        (file << 32) | offset as u64
    }

    fn of(&self, file: u64) -> u64 {
        let packed = self.0.load(Ordering::Acquire);
        if packed >> 32 == file { packed & u64::from(u32::MAX) } else { 0 }
    }
}

/// A file to sync, and up to where that makes it durable.
#[derive(Clone, Debug)]
pub struct Pending {
    path: Arc<Path>,
    file: Arc<File>,
    end: u64,
    durable: Durable,
}

impl Pending {
    /// Whether one sync does for both.
    pub fn same_file(&self, other: &Pending) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
    }

    /// Waits until everything written before is on the disk.
    ///
    /// # Errors
    /// The disk failed; nobody knows what is on it now.
    pub fn sync(&self) -> Result<(), WalError> {
        self.file.sync_data().map_err(io_error(&self.path))?;
        self.durable.0.fetch_max(self.end, Ordering::AcqRel);
        Ok(())
    }
}

/// An entry on disk, to be read later.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The entry's index.
    pub index: u64,
    path: Arc<Path>,
    file: Arc<File>,
    number: u64,
    position: Position,
}

impl Stored {
    /// Reads and verifies the entry's value.
    ///
    /// # Errors
    /// The disk failed or the record is damaged.
    pub fn read(&self) -> Result<Vec<u8>, WalError> {
        let offset = self.position.offset as usize;
        let mut bytes = vec![0; self.position.length as usize];
        self.file.read_exact_at(&mut bytes, offset as u64).map_err(io_error(&self.path))?;
        let corrupt = |reason: &str| WalError::Corrupt {
            path: self.path.to_path_buf(),
            offset: offset as u64,
            reason: format!("entry {}: {reason}", self.index),
        };
        let frame = frame::decode(&bytes, self.number, offset).ok_or_else(|| corrupt("wrong checksum"))?;
        match frame.payload.split_first_chunk::<8>() {
            Some((index, value)) if u64::from_be_bytes(*index) == self.index => Ok(value.to_vec()),
            _ => Err(corrupt("another entry is here")),
        }
    }
}

/// The writer's side.
#[derive(Debug)]
pub struct Wal {
    folder: PathBuf,
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    /// Where the next record goes.
    offset: usize,
    /// From here on the file holds nothing, not even zeros.
    zeroed: usize,
    durable: Durable,
    /// Of the entries from `first` on.
    positions: VecDeque<Position>,
    first: u64,
    vote: Vec<u8>,
    /// The first entry that may be needed, and the mark that says so.
    purged: (u64, Vec<u8>),
    buffer: Vec<u8>,
    /// [`FILE_BYTES`], or less in tests.
    file_bytes: usize,
    spare: Spare,
}

impl Wal {
    /// Adds entries; their indexes follow each other.
    ///
    /// # Errors
    /// The disk failed or is full.
    pub fn append(&mut self, entries: &[(u64, Vec<u8>)]) -> Result<Pending, WalError> {
        self.make_room(entries.iter().map(|(_, value)| frame::size(8 + value.len())).sum())?;
        for (index, value) in entries {
            if self.positions.is_empty() {
                self.first = *index;
            }
            let position = self.put(Kind::Entry, &[&index.to_be_bytes(), value]);
            self.positions.push_back(position);
        }
        self.write()
    }

    /// Stores a vote.
    ///
    /// # Errors
    /// As for [`Wal::append`].
    pub fn vote(&mut self, vote: Vec<u8>) -> Result<Pending, WalError> {
        self.make_room(frame::size(vote.len()))?;
        self.put(Kind::Vote, &[&vote]);
        self.vote = vote;
        self.write()
    }

    /// Drops the entries from `from` on.
    ///
    /// # Errors
    /// As for [`Wal::append`].
    pub fn truncate(&mut self, from: u64) -> Result<Pending, WalError> {
        self.make_room(frame::size(8))?;
        self.put(Kind::Truncate, &[&from.to_be_bytes()]);
        self.forget_from(from);
        self.write()
    }

    /// Drops the entries up to `upto`; `mark` is given back when the log is opened.
    ///
    /// # Errors
    /// As for [`Wal::append`].
    pub fn purge(&mut self, upto: u64, mark: Vec<u8>) -> Result<Pending, WalError> {
        self.make_room(frame::size(8 + mark.len()))?;
        self.put(Kind::Purge, &[&(upto + 1).to_be_bytes(), &mark]);
        let pending = self.write()?;
        // Files go one purge late: by then the mark that makes them useless is on the disk.
        let oldest = self.positions.front().map_or(self.current().number, |position| position.file);
        self.forget_before(upto + 1, mark);
        while self.segments[0].number < oldest
            && let Some(segment) = self.segments.pop_front()
        {
            fs::remove_file(&segment.path).map_err(io_error(&segment.path))?;
        }
        Ok(pending)
    }

    /// Entries of `[from, to)` that are on disk.
    pub fn stored(&self, from: u64, to: u64) -> Vec<Stored> {
        let skip = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let wanted = (self.first.max(from)..to).zip(self.positions.iter().skip(skip));
        wanted.filter_map(|(index, position)| self.locate(index, *position)).collect()
    }

    fn locate(&self, index: u64, position: Position) -> Option<Stored> {
        let oldest = self.segments.front()?.number;
        let segment = self.segments.get(usize::try_from(position.file - oldest).ok()?)?;
        let (path, file) = (segment.path.clone(), segment.file.clone());
        Some(Stored { index, path, file, number: segment.number, position })
    }

    fn forget_from(&mut self, from: u64) {
        let keep = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.positions.truncate(keep);
    }

    fn forget_before(&mut self, next: u64, mark: Vec<u8>) {
        let gone = usize::try_from(next.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.positions.drain(..gone.min(self.positions.len()));
        self.first = self.first.max(next);
        self.purged = (next, mark);
    }

    /// The file that is written to, and how much of it is synced; all of the files before it is.
    #[cfg(test)]
    pub(crate) fn durable(&self) -> (u64, usize) {
        let number = self.current().number;
        (number, usize::try_from(self.durable.of(number)).unwrap_or(usize::MAX))
    }

    fn current(&self) -> &Segment {
        &self.segments[self.segments.len() - 1]
    }

    /// Encodes a record behind those that wait for [`Wal::write`].
    fn put(&mut self, kind: Kind, payload: &[&[u8]]) -> Position {
        let file = self.current().number;
        let offset = self.offset + self.buffer.len();
        let before = self.buffer.len();
        let durable = self.durable.of(file);
        frame::encode(&mut self.buffer, file, offset, durable, kind as u8, payload);
        let length = u32::try_from(self.buffer.len() - before).unwrap_or(u32::MAX);
        Position { file, offset: u32::try_from(offset).unwrap_or(u32::MAX), length }
    }

    /// Writes what [`Wal::put`] collected.
    fn write(&mut self) -> Result<Pending, WalError> {
        let Segment { number, path, file } = self.current();
        let (number, path, file) = (*number, path.clone(), file.clone());
        let end = self.offset + self.buffer.len();
        if end > self.zeroed {
            let zeros = vec![0; (end - self.zeroed).next_multiple_of(ZEROS)];
            file.write_all_at(&zeros, self.zeroed as u64).map_err(io_error(&path))?;
            self.zeroed += zeros.len();
        }
        file.write_all_at(&self.buffer, self.offset as u64).map_err(io_error(&path))?;
        self.offset = end;
        self.buffer.clear();
        // The buffer of a batch of large values must not stay for ever.
        self.buffer.shrink_to(ZEROS);
        Ok(Pending { path, file, end: Durable::pack(number, end), durable: self.durable.clone() })
    }

    /// Begins the next file if the current one has no room for so many bytes.
    fn make_room(&mut self, bytes: usize) -> Result<(), WalError> {
        if self.offset + bytes <= self.file_bytes {
            return Ok(());
        }
        // Whatever a file says, the files before it are complete.
        self.current().file.sync_data().map_err(io_error(&self.current().path))?;
        self.begin(self.current().number + 1)
    }

    /// The next file, if it is time to make one ready.
    pub fn spare_wanted(&self) -> Option<Making> {
        if self.offset < self.file_bytes / 4 {
            return None;
        }
        self.spare.wanted(&self.folder, self.file_bytes)
    }

    fn begin(&mut self, number: u64) -> Result<(), WalError> {
        let path = self.folder.join(format!("{number:016x}.log"));
        let (file, zeroed) = match self.spare.take(&self.folder, &path).map_err(io_error(&path))? {
            Some(file) => (file, self.file_bytes),
            None => (spare::create(&path, self.file_bytes).map_err(io_error(&path))?, 0),
        };
        self.segments.push_back(Segment { number, path: path.into(), file: Arc::new(file) });
        (self.offset, self.zeroed) = (0, zeroed);
        let (vote, (next, mark)) = (self.vote.clone(), self.purged.clone());
        let length = u32::try_from(vote.len()).unwrap_or(u32::MAX);
        self.put(Kind::Start, &[&length.to_be_bytes(), &vote, &next.to_be_bytes(), &mark]);
        self.write()?.sync()?;
        let folder = File::open(&self.folder).map_err(io_error(&self.folder))?;
        folder.sync_all().map_err(io_error(&self.folder))
    }
}

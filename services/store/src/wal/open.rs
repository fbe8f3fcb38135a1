//! Opening the log: reading and verifying everything in it, and cutting off a write that was interrupted.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{self, End, Frame};
use super::spare::Spare;
use super::{Durable, FILE_BYTES, Kind, Position, Segment, Wal, WalError, io_error};

/// What a log holds besides entries.
#[derive(Debug)]
pub struct Recovered {
    /// The log, ready to be written to.
    pub wal: Wal,
    /// The last vote, as it was stored; empty if there is none.
    pub vote: Vec<u8>,
    /// The last purge mark, as it was stored; empty if there is none.
    pub purged: Vec<u8>,
    /// The last entry, if there is one that was not purged.
    pub last: Option<(u64, Vec<u8>)>,
}

impl Wal {
    /// Opens or creates the log in `folder`. `check` sees every entry that is still valid when it is met.
    ///
    /// # Errors
    /// The disk failed, a record is damaged (named by file and offset), or `check` says so.
    pub fn open(folder: &Path, mut check: impl FnMut(u64, &[u8]) -> Result<(), String>) -> Result<Recovered, WalError> {
        fs::create_dir_all(folder).map_err(io_error(folder))?;
        let mut wal = Wal {
            folder: folder.to_owned(),
            segments: VecDeque::new(),
            offset: 0,
            zeroed: 0,
            durable: Durable::default(),
            positions: VecDeque::new(),
            first: 0,
            vote: Vec::new(),
            purged: (0, Vec::new()),
            buffer: Vec::new(),
            file_bytes: FILE_BYTES,
            spare: Spare::default(),
        };
        #[cfg(test)]
        if crate::raft::in_simulation() {
            // So that there are several.
            wal.file_bytes = FILE_BYTES >> 9;
        }
        let mut files = list(folder)?;
        let newest = files.pop();
        for (number, path) in files {
            wal.read(number, path, false, &mut check)?;
        }
        match newest {
            None => wal.begin(1)?,
            Some((number, path)) => wal.read(number, path, true, &mut check)?,
        }
        if wal.offset == 0 {
            // The last start ended while it began a file.
            let number = wal.segments.pop_back().map_or(1, |segment| segment.number);
            wal.begin(number)?;
        }
        if !wal.positions.is_empty() && wal.first > wal.purged.0 {
            let path = wal.segments.front().map_or_else(|| folder.to_owned(), |segment| segment.path.to_path_buf());
            let reason = format!("entry {} is missing before entry {}", wal.purged.0, wal.first);
            return Err(WalError::Corrupt { path, offset: 0, reason });
        }
        let index = wal.first + wal.positions.len() as u64;
        let last = wal.stored(index.saturating_sub(1), index).pop();
        let last = last.map(|stored| Ok((stored.index, stored.read()?))).transpose()?;
        Ok(Recovered { vote: wal.vote.clone(), purged: wal.purged.1.clone(), last, wal })
    }

    fn read(
        &mut self,
        number: u64,
        path: PathBuf,
        newest: bool,
        check: &mut impl FnMut(u64, &[u8]) -> Result<(), String>,
    ) -> Result<(), WalError> {
        if let Some(before) = self.segments.back()
            && before.number + 1 != number
        {
            let reason = format!("the file before it, number {:016x}, is missing", number - 1);
            return Err(WalError::Corrupt { path, offset: 0, reason });
        }
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io_error(&path))?;
        let bytes = fs::read(&path).map_err(io_error(&path))?;
        self.segments.push_back(Segment { number, path: path.clone().into(), file: Arc::new(file) });
        let corrupt =
            |offset: usize, reason: String| WalError::Corrupt { path: path.clone(), offset: offset as u64, reason };
        let end = frame::scan(&bytes, number, |offset, frame| {
            self.replay(number, offset, frame, check).map_err(|reason| corrupt(offset, reason))
        })?;
        let offset = match end {
            End::Clean(offset) => offset,
            End::Torn(offset) if newest => {
                self.cut(offset, bytes.len())?;
                offset
            }
            End::Torn(offset) | End::Damaged(offset) => {
                return Err(corrupt(offset, "a record is not what was written".into()));
            }
        };
        if offset == 0 && !newest {
            return Err(corrupt(0, "the file is empty, but there are later ones".into()));
        }
        // Reserved blocks that were never written read as zeros too, so from here on they are written again.
        (self.offset, self.zeroed) = (offset, offset);
        self.durable.0.store(Durable::pack(number, offset), std::sync::atomic::Ordering::Release);
        Ok(())
    }

    /// Puts zeros over the rest of a write that was interrupted.
    fn cut(&self, offset: usize, end: usize) -> Result<(), WalError> {
        let Segment { path, file, .. } = self.current();
        tracing::warn!(
            file = %path.display(),
            offset,
            "the log ends in a write that was interrupted and never acknowledged; it is cut off"
        );
        file.write_all_at(&vec![0; end - offset], offset as u64).map_err(io_error(path))?;
        file.sync_data().map_err(io_error(path))
    }

    fn replay(
        &mut self,
        number: u64,
        offset: usize,
        frame: Frame<'_>,
        check: &mut impl FnMut(u64, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let short = || "the record is too short".to_owned();
        let index = |bytes: &[u8]| bytes.first_chunk::<8>().map(|index| u64::from_be_bytes(*index)).ok_or_else(short);
        match frame.kind {
            kind if kind == Kind::Start as u8 => {
                let (length, rest) = frame.payload.split_first_chunk::<4>().ok_or_else(short)?;
                let (vote, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(short)?;
                let next = index(rest)?;
                self.vote = vote.to_vec();
                if next > self.purged.0 {
                    self.forget_before(next, rest[8..].to_vec());
                }
            }
            kind if kind == Kind::Vote as u8 => self.vote = frame.payload.to_vec(),
            kind if kind == Kind::Truncate as u8 => self.forget_from(index(frame.payload)?),
            kind if kind == Kind::Purge as u8 => {
                self.forget_before(index(frame.payload)?, frame.payload[8..].to_vec());
            }
            kind if kind == Kind::Entry as u8 => {
                let index = index(frame.payload)?;
                check(index, &frame.payload[8..])?;
                self.take(index, number, offset, frame.end)?;
            }
            kind => return Err(format!("a record of the unknown kind {kind}")),
        }
        Ok(())
    }

    fn take(&mut self, index: u64, file: u64, offset: usize, end: usize) -> Result<(), String> {
        // Older files may be gone, so the first entry that is met may have any index; a purge that follows makes it right.
        if self.positions.is_empty() {
            self.first = index;
        }
        let next = self.first + self.positions.len() as u64;
        if index > next {
            return Err(format!("entry {next} is missing before entry {index}"));
        }
        self.forget_from(index);
        let (offset, length) = (u32::try_from(offset), u32::try_from(end - offset));
        let (Ok(offset), Ok(length)) = (offset, length) else { return Err("the file is too long".into()) };
        self.positions.push_back(Position { file, offset, length });
        Ok(())
    }
}

/// Log files by number; other files are left alone.
fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, WalError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let path = entry.map_err(io_error(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".log"));
        if let Some(number) = name.and_then(|name| u64::from_str_radix(name, 16).ok()) {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

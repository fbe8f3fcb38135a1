//! The next file, made ready beside the work: to fill it with zeros where records are written keeps everyone waiting for
//! milliseconds, once per megabyte.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use parking_lot::Mutex;

use super::ZEROS;

/// No log file by its name, so a start leaves it alone, and the next one is made over it.
const NAME: &str = "spare";

/// Where the spare file is handed over.
#[derive(Clone, Debug, Default)]
pub(super) struct Spare(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    #[default]
    None,
    Making,
    Ready(File),
}

/// A spare file to make, on a thread that may wait for the disk.
#[derive(Debug)]
pub struct Making {
    folder: PathBuf,
    bytes: usize,
    spare: Spare,
}

impl Spare {
    /// What has to be made, if there is no spare file and none is being made.
    pub(super) fn wanted(&self, folder: &Path, bytes: usize) -> Option<Making> {
        let mut state = self.0.lock();
        if !matches!(*state, State::None) {
            return None;
        }
        *state = State::Making;
        Some(Making { folder: folder.to_owned(), bytes, spare: self.clone() })
    }

    /// Moves the spare file, if it is ready, to `path`.
    pub(super) fn take(&self, folder: &Path, path: &Path) -> io::Result<Option<File>> {
        let mut state = self.0.lock();
        match std::mem::take(&mut *state) {
            State::Ready(file) => {
                fs::rename(folder.join(NAME), path)?;
                Ok(Some(file))
            }
            other => {
                *state = other;
                Ok(None)
            }
        }
    }
}

impl Making {
    /// Makes it. A failure is not one of the log: the next file is then made when it is needed, and says what is wrong.
    pub fn make(self) {
        match self.file() {
            Ok(file) => *self.spare.0.lock() = State::Ready(file),
            Err(error) => {
                tracing::debug!(%error, "no spare file for the log");
                // Half a file is of no use and takes the space that the log itself may lack; what is not there need not go.
                let _ = fs::remove_file(self.folder.join(NAME));
            }
        }
    }

    fn file(&self) -> io::Result<File> {
        let file = create(&self.folder.join(NAME), self.bytes)?;
        let zeros = vec![0; ZEROS.min(self.bytes)];
        for offset in (0..self.bytes).step_by(zeros.len()) {
            file.write_all_at(&zeros[..zeros.len().min(self.bytes - offset)], offset as u64)?;
        }
        file.sync_data()?;
        Ok(file)
    }
}

/// Not made, for whatever reason: it may be wanted again.
impl Drop for Making {
    fn drop(&mut self) {
        let mut state = self.spare.0.lock();
        if matches!(*state, State::Making) {
            *state = State::None;
        }
    }
}

/// Makes an empty file and makes sure that the whole of it has a place on the disk: what frees space (deletes, the end of
/// leases) is logged too, and must not fail because the disk is full.
pub(super) fn create(path: &Path, bytes: usize) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    let length = i64::try_from(bytes.next_multiple_of(ZEROS)).unwrap_or(i64::MAX);
    match fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
        // A file system that cannot promise anything.
        Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(file),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_file_that_was_not_made_is_wanted_again() {
        let folder = tempfile::tempdir().unwrap();
        let (spare, log) = (Spare::default(), folder.path().join("log"));
        drop(spare.wanted(folder.path(), 4096).unwrap());
        let lost = spare.wanted(&folder.path().join("missing"), 4096).unwrap();
        assert!(spare.wanted(folder.path(), 4096).is_none(), "one is being made");
        lost.make();
        assert!(spare.take(folder.path(), &log).unwrap().is_none());

        spare.wanted(folder.path(), 4096).unwrap().make();
        assert!(spare.wanted(folder.path(), 4096).is_none(), "one is ready");
        assert_eq!(spare.take(folder.path(), &log).unwrap().unwrap().metadata().unwrap().len(), 4096);
        assert!(log.exists() && !folder.path().join(NAME).exists());
        assert!(spare.take(folder.path(), &log).unwrap().is_none());
    }

    #[test]
    fn a_full_disk_is_not_filled_further_by_half_a_spare_file() {
        let folder = tempfile::tempdir().unwrap();
        // No disk has room for this one.
        Spare::default().wanted(folder.path(), usize::MAX / 4).unwrap().make();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

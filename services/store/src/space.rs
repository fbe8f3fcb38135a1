//! Whether there is room for another write.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What must stay free on the file system: deletes, compactions and the end of leases need room when puts have none.
const RESERVE: u64 = 64 << 20;
/// How old a look at the file system and the database may be.
const FRESH: Duration = Duration::from_millis(20);

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Write.
    Enough,
    /// The database is larger than its quota; an alarm is due, because only an administrator can help.
    QuotaUsedUp,
    /// The file system is nearly full. That may pass by itself.
    DiskFull,
}

fn judge(used: u64, quota: u64, available: u64) -> Room {
    match () {
        () if used > quota => Room::QuotaUsedUp,
        () if available < RESERVE => Room::DiskFull,
        () => Room::Enough,
    }
}

/// Looks at sizes, but not for every write.
#[derive(Debug)]
pub struct Space {
    folder: PathBuf,
    quota: u64,
    last: Mutex<Option<(Instant, Room)>>,
}

impl Space {
    /// Watches the file system of `folder`, which holds a database of at most `quota` bytes.
    pub fn new(folder: &Path, quota: u64) -> Self {
        Space { folder: folder.to_owned(), quota, last: Mutex::new(None) }
    }

    /// Whether there is room now; `used` tells the size of the database.
    pub fn room(&self, used: impl FnOnce() -> u64) -> Room {
        let mut last = self.last.lock();
        let now = Instant::now();
        if let Some((at, room)) = *last
            && now.duration_since(at) < FRESH
        {
            return room;
        }
        let room = judge(used(), self.quota, self.available());
        if room == Room::DiskFull && last.is_none_or(|(_, before)| before != Room::DiskFull) {
            tracing::warn!(folder = %self.folder.display(), "the file system is nearly full: puts are refused");
        }
        *last = Some((now, room));
        room
    }

    /// Bytes that may still be written.
    fn available(&self) -> u64 {
        match nix::sys::statvfs::statvfs(&self.folder) {
            Ok(found) => found.blocks_available() * found.fragment_size(),
            Err(error) => {
                tracing::warn!(%error, folder = %self.folder.display(), "cannot see how full the file system is");
                u64::MAX
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_comes_before_the_disk() {
        let cases = [
            (10, 100, RESERVE, Room::Enough),
            (100, 100, u64::MAX, Room::Enough),
            (101, 100, u64::MAX, Room::QuotaUsedUp),
            (101, 100, 0, Room::QuotaUsedUp),
            (10, 100, RESERVE - 1, Room::DiskFull),
            (10, 100, 0, Room::DiskFull),
        ];
        for (used, quota, available, expected) in cases {
            assert_eq!(judge(used, quota, available), expected, "{used} of {quota}, {available} free");
        }
    }

    #[test]
    fn a_look_is_used_for_a_while() {
        let space = Space::new(Path::new("/"), 10);
        assert_eq!(space.room(|| 11), Room::QuotaUsedUp);
        assert_eq!(space.room(|| panic!("looked again")), Room::QuotaUsedUp);
    }
}

//! The audit log: a file of lines that is renamed when it has grown, as upstream's is; the names of old files, and which of them go, are lumberjack's.

use apimachinery::time;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// When a file has grown, and which of the old ones go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes.
    pub size: u64,
    /// How many old files are kept; 0: all.
    pub backups: usize,
    /// How long they are kept; zero: for ever.
    pub age: Duration,
}

/// An open log.
pub struct Log {
    path: PathBuf,
    limits: Limits,
    open: Mutex<Open>,
}

struct Open {
    file: File,
    size: u64,
}

impl Log {
    /// Opens a log, to go on where it ends; its folder is made if it is not there. Old files that are too many or too old go.
    pub fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        std::fs::create_dir_all(folder_of(path))?;
        let log = Self { path: path.to_owned(), limits, open: Mutex::new(Open::at(path)?) };
        log.forget(Timestamp::now())?;
        Ok(log)
    }

    /// Writes one line. It is written even if the file cannot be set aside, which is an error all the same.
    pub fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut open = self.open.lock();
        let size = line.len() as u64 + 1;
        let rotated = if open.size > 0 && open.size + size > self.limits.size {
            self.rotate(&mut open, Timestamp::now())
        } else {
            Ok(())
        };
        open.file.write_all(&[line, b"\n"].concat())?;
        open.size += size;
        rotated
    }

    fn rotate(&self, open: &mut Open, mut now: Timestamp) -> io::Result<()> {
        // Two within one millisecond: the second must not replace the first.
        while self.backup(now).exists() {
            now += SignedDuration::from_millis(1);
        }
        std::fs::rename(&self.path, self.backup(now))?;
        *open = Open::at(&self.path)?;
        self.forget(now)
    }

    /// What names of old files begin and end with.
    fn ends(&self) -> (String, String) {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let extension = self.path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
        (format!("{stem}-"), extension)
    }

    /// `audit-2026-01-02T03-04-05.006.log`.
    fn backup(&self, now: Timestamp) -> PathBuf {
        let (start, end) = self.ends();
        self.path.with_file_name(format!("{start}{}{end}", now.strftime("%Y-%m-%dT%H-%M-%S.%3f")))
    }

    /// When a file of this name was set aside; `None` for other files.
    fn set_aside(&self, name: &str) -> Option<Timestamp> {
        let (start, end) = self.ends();
        let (date, clock) = name.strip_prefix(&start)?.strip_suffix(&end)?.split_once('T')?;
        if clock.len() != "03-04-05.006".len() {
            return None;
        }
        time::parse_rfc3339(&format!("{date}T{}Z", clock.replace('-', ":"))).ok()
    }

    /// Removes old files that are too many or too old.
    fn forget(&self, now: Timestamp) -> io::Result<()> {
        let folder = folder_of(&self.path);
        let mut old: Vec<(Timestamp, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            old.extend(self.set_aside(&entry.file_name().to_string_lossy()).map(|when| (when, entry.path())));
        }
        old.sort_by(|a, b| b.cmp(a));
        for (index, (when, path)) in old.iter().enumerate() {
            let many = self.limits.backups > 0 && index >= self.limits.backups;
            let age = Duration::try_from(now.duration_since(*when)).unwrap_or_default();
            let aged = !self.limits.age.is_zero() && age > self.limits.age;
            if many || aged {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("lists").flatten();
        let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_log_that_has_grown_is_set_aside_and_nothing_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let log = Log::open(&path, Limits { size: 20, backups: 0, age: Duration::ZERO }).expect("opens");
        for n in 0..8 {
            log.write(format!("line number {n}").as_bytes()).expect("writes");
        }
        log.write(b"a line that is longer than a file may be").expect("writes");
        let names = names(folder.path());
        assert_eq!(names.len(), 9, "many within one millisecond: {names:?}");
        let all: String =
            names.iter().map(|n| std::fs::read_to_string(folder.path().join(n)).expect("reads")).collect();
        assert!((0..8).all(|n| all.contains(&format!("line number {n}\n"))), "{all}");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "a line that is longer than a file may be\n");
        let few = Limits { size: 20, backups: 2, age: Duration::ZERO };
        let log = Log::open(&path, few).expect("opens");
        assert_eq!(super::tests::names(folder.path()).len(), 3, "the log and two old ones");
        log.write(b"next").expect("writes");
        let newest = super::tests::names(folder.path()).len();
        assert_eq!(newest, 3, "and no more");
    }

    #[test]
    fn old_files_go_by_the_time_in_their_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let now: Timestamp = "2026-01-02T03:04:05.006Z".parse().expect("a time");
        let log = Log::open(&path, Limits { size: 1, backups: 0, age: Duration::from_secs(3600) }).expect("opens");
        assert_eq!(log.backup(now), folder.path().join("audit-2026-01-02T03-04-05.006.log"));
        let kept = [
            "audit-2026-01-02T02-04-05.006.log",
            "audit-2026-01-02.log",
            "audit-notes.log",
            "other-2020-01-01T00-00-00.000.log",
        ];
        let gone = ["audit-2026-01-02T02-04-05.005.log", "audit-2020-01-01T00-00-00.000.log"];
        for name in kept.iter().chain(&gone) {
            std::fs::write(folder.path().join(name), "x").expect("writes");
        }
        log.forget(now).expect("forgets");
        let mut wanted: Vec<&str> = kept.iter().copied().chain(["audit.log"]).collect();
        wanted.sort_unstable();
        assert_eq!(names(folder.path()), wanted);
    }
}

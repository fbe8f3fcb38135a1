//! The audit log: a file of JSON lines that is renamed when it has grown, as upstream's is.

use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

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
    /// Opens a log, to go on where it ends.
    pub fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), limits, open: Mutex::new(Open::at(path)?) })
    }

    /// Writes one line.
    pub fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut open = self.open.lock();
        if open.size > 0 && open.size + line.len() as u64 >= self.limits.size {
            std::fs::rename(&self.path, self.backup(&apimachinery::time::now_rfc3339_micro()))?;
            *open = Open::at(&self.path)?;
            self.forget()?;
        }
        open.file.write_all(&[line, b"\n"].concat())?;
        open.size += line.len() as u64 + 1;
        Ok(())
    }

    fn stem(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// `audit-2026-01-02T03-04-05.000006Z.log`.
    fn backup(&self, now: &str) -> PathBuf {
        let extension = self.path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
        self.path.with_file_name(format!("{}-{}{extension}", self.stem(), now.replace(':', "-")))
    }

    /// Removes old files that are too many or too old.
    fn forget(&self) -> io::Result<()> {
        let start = format!("{}-", self.stem());
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut old: Vec<(String, PathBuf, SystemTime)> = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&start) {
                old.push((name, entry.path(), entry.metadata()?.modified()?));
            }
        }
        old.sort_by(|a, b| b.0.cmp(&a.0));
        for (index, (_, path, modified)) in old.iter().enumerate() {
            let many = self.limits.backups > 0 && index >= self.limits.backups;
            let aged = !self.limits.age.is_zero() && modified.elapsed().is_ok_and(|age| age > self.limits.age);
            if many || aged {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
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

    #[test]
    fn a_log_that_has_grown_is_set_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let limits = Limits { size: 20, backups: 2, age: Duration::ZERO };
        let log = Log::open(&path, limits).expect("opens");
        for n in 0..8 {
            log.write(format!("line number {n}").as_bytes()).expect("writes");
        }
        let names: Vec<_> = std::fs::read_dir(folder.path()).expect("lists").flatten().collect();
        assert_eq!(names.len(), 3, "the log and two old ones");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "line number 7\n");
    }
}

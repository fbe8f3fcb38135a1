//! Writing files so that a reader, or a power cut, meets the old content or the new, never a part.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Absolute path on the machine.
    pub(crate) path: String,
    pub(crate) content: String,
    /// Readable by root only?
    pub(crate) secret: bool,
}

impl Entry {
    pub(crate) fn public(path: impl Into<String>, content: impl Into<String>) -> Self {
        Self { path: path.into(), content: content.into(), secret: false }
    }

    pub(crate) fn secret(path: impl Into<String>, content: impl Into<String>) -> Self {
        Self { path: path.into(), content: content.into(), secret: true }
    }
}

/// An operation on a file that failed, with the file's name.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub(crate) struct FileError {
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    pub(crate) fn new(path: &Path, source: io::Error) -> Self {
        Self { path: path.to_owned(), source }
    }
}

/// Writes files that need not survive a power cut (they are on tmpfs).
pub(crate) fn write_all(paths: &crate::machine::Paths, entries: &[Entry]) -> Result<(), FileError> {
    entries.iter().try_for_each(|e| replace(&paths.at(&e.path), e.content.as_bytes(), e.secret, false))
}

/// Replaces a file's content. A `durable` one is on the disk when this returns.
pub(crate) fn replace(path: &Path, content: &[u8], secret: bool, durable: bool) -> Result<(), FileError> {
    let failed = |source| FileError::new(path, source);
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(failed)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = folder.join(name);
    // Removed first: an existing file would keep its mode.
    let _ = fs::remove_file(&temporary);
    let mode = if secret { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    if durable {
        file.sync_all().map_err(failed)?;
    }
    fs::rename(&temporary, path).map_err(failed)?;
    if durable {
        File::open(folder).and_then(|f| f.sync_all()).map_err(failed)?;
    }
    Ok(())
}

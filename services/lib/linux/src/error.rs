//! One error type: which system call (or file), on what, and the kernel's answer.

use std::path::Path;

/// A system call that failed, with enough words to act on it.
#[derive(Debug, thiserror::Error)]
#[error("{op} {subject}: {source}")]
pub struct Error {
    /// What was tried, in the words of the manual page: `mount`, `open`, `setns`.
    pub op: &'static str,
    /// On what it was tried, usually a path.
    pub subject: String,
    /// What the kernel said.
    #[source]
    pub source: std::io::Error,
}

/// The result of every function in this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// True when the kernel's answer was the given errno.
    pub fn is(&self, errno: nix::errno::Errno) -> bool {
        self.source.raw_os_error() == Some(errno as i32)
    }

    /// An error about something that is not a path.
    pub fn new(op: &'static str, subject: impl Into<String>, source: impl Into<std::io::Error>) -> Error {
        Error { op, subject: subject.into(), source: source.into() }
    }

    pub(crate) fn at(op: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Error {
        Error::new(op, path.display().to_string(), source)
    }

    pub(crate) fn last(op: &'static str, subject: impl Into<String>) -> Error {
        Error::new(op, subject, std::io::Error::last_os_error())
    }
}

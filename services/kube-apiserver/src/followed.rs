//! Configuration files that are followed while the server runs: a new version counts as soon as it is valid; until then the old
//! one does.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How often a file is looked at, as upstream does: the directory it is in may be replaced as a whole, which events of the file do not tell.
const RELOAD: Duration = Duration::from_secs(60);

/// A file and what it says, in words for the log.
#[derive(Clone, Debug)]
pub struct Followed {
    path: PathBuf,
    what: &'static str,
}

impl Followed {
    /// The file with `what` in it.
    pub fn new(path: PathBuf, what: &'static str) -> Self {
        Self { path, what }
    }

    /// The file's name.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// What it says now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> io::Result<String> {
        std::fs::read_to_string(&self.path)
    }

    /// Hands every new content to `load` until `shutdown`.
    pub async fn follow<E: Display>(self, shutdown: daemon::Shutdown, load: impl Fn(&str) -> Result<(), E>) {
        let what = self.what;
        let mut last = self.read().ok();
        loop {
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(RELOAD) => {}
            }
            match self.read() {
                Ok(text) if Some(&text) == last.as_ref() => {}
                Ok(text) => {
                    match load(&text) {
                        Ok(()) => tracing::info!("the {what} configuration has changed and is in force"),
                        Err(error) => tracing::error!(%error, "the {what} configuration has changed and is not used"),
                    }
                    last = Some(text);
                }
                Err(error) => tracing::warn!(%error, "the {what} configuration stays as it is"),
            }
        }
    }
}

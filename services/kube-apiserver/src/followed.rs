//! Configuration files that are followed while the server runs: a new version counts as soon as it is valid; until then the old
//! one does.

use std::fmt::Display;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// How often a file is looked at whatever its folder tells, as upstream does: the folder may be replaced as a whole.
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
        let folder = self.path.parent().and_then(|folder| Folder::watch(folder).ok());
        let mut last = self.read().ok();
        loop {
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(RELOAD) => {}
                () = written(folder.as_ref()) => {}
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

/// A folder in which files are written or moved to.
struct Folder(AsyncFd<OwnedFd>);

impl Folder {
    fn watch(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // Not while they are being written: half a configuration may be a valid one.
        inotify.add_watch(path, AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe to call; an OwnedFd keeps the promise that one asks for"
        )]
        AsyncFd::new(OwnedFd::from(inotify)).map(Self)
    }

    /// Returns after at least one event since the last call; which ones does not matter.
    async fn event(&self) -> io::Result<()> {
        let mut guard = self.0.readable().await?;
        let mut buffer = [0; 4096];
        while nix::unistd::read(self.0.get_ref(), &mut buffer).is_ok_and(|n| n > 0) {}
        guard.clear_ready();
        Ok(())
    }
}

/// Returns when there may be something new to read in the folder; never, if it cannot be watched.
async fn written(folder: Option<&Folder>) {
    if let Some(folder) = folder
        && folder.event().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_counts_at_once_if_it_is_valid() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "first").expect("written");
        let (trigger, shutdown) = daemon::Shutdown::pair();
        let (sender, mut loaded) = tokio::sync::mpsc::unbounded_channel();
        let follower = tokio::spawn(
            Followed::new(path.clone(), "test")
                .follow(shutdown, move |text| sender.send(text.to_owned()).map_err(|e| e.to_string())),
        );
        // The file itself, and another that takes its place.
        tokio::task::yield_now().await;
        std::fs::write(&path, "second").expect("written");
        assert_eq!(loaded.recv().await.as_deref(), Some("second"));
        std::fs::write(folder.path().join("new"), "third").expect("written");
        std::fs::rename(folder.path().join("new"), &path).expect("moved");
        assert_eq!(loaded.recv().await.as_deref(), Some("third"));
        trigger.trigger();
        follower.await.expect("ended");
    }
}

//! Waiting for files to appear or change, by inotify.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// Wakes when something happens in the watched folders or files.
#[derive(Debug)]
pub(crate) struct Wake(AsyncFd<OwnedFd>);

impl Wake {
    /// Watches a folder for entries that come, or a file for writes and for being moved away.
    pub(crate) fn on(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let events = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF;
        inotify.add_watch(path, events)?;
        Ok(Self(readable(inotify.into())?))
    }

    /// Returns after at least one event since the last call. What happened is not told: look.
    pub(crate) async fn wait(&self) -> io::Result<()> {
        let mut guard = self.0.readable().await?;
        let mut buffer = [0u8; 4096];
        while nix::unistd::read(self.0.get_ref(), &mut buffer).is_ok_and(|n| n > 0) {}
        guard.clear_ready();
        Ok(())
    }
}

/// A descriptor that can be waited for.
#[expect(
    deprecated,
    reason = "the successor is unsafe for types whose descriptor may change or close; an OwnedFd's cannot"
)]
pub(crate) fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}

/// Waits until a path exists. Watches the nearest folder above it that exists, so the folders may be missing at first.
pub(crate) async fn appears(path: &Path) -> io::Result<()> {
    loop {
        let folder = path.ancestors().skip(1).find(|p| p.is_dir()).unwrap_or(Path::new("/"));
        let wake = Wake::on(folder)?;
        // Looked at after the watch is set, so that nothing can slip between the two.
        if path.exists() {
            return Ok(());
        }
        if path.ancestors().skip(1).find(|p| p.is_dir()) == Some(folder) {
            wake.wait().await?;
        }
    }
}

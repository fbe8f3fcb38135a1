//! Reads a log file to its end and, if asked, goes on while the container writes, across rotations.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::Options;
use super::line::{Filter, Formatter, tail_start};
use crate::observed::State;
use crate::shared::Shared;

const CHUNK: usize = 64 * 1024;

/// A position in a log.
pub struct Reader {
    path: PathBuf,
    file: File,
    formatter: Formatter,
    rest: Vec<u8>,
    budget: Option<u64>,
}

/// Why reading paused.
enum Pause {
    /// The file has no more for now.
    End,
    /// The reader has had enough or is gone.
    Stop,
}

impl Reader {
    /// Opens the file where the reader wants to begin.
    pub fn open(path: &str, filter: Filter, options: &Options) -> io::Result<Reader> {
        let mut file = File::open(path)?;
        if let Some(count) = options.tail_lines {
            seek_tail(&mut file, usize::try_from(count).unwrap_or(usize::MAX))?;
        }
        Ok(Reader {
            path: path.into(),
            file,
            formatter: Formatter::new(filter),
            rest: Vec::new(),
            budget: options.limit_bytes,
        })
    }

    /// Sends everything; with `follow` until the container has ended.
    pub async fn run(mut self, shared: Arc<Shared>, id: String, follow: bool, sender: mpsc::Sender<io::Result<Bytes>>) {
        let watch = if follow { Watch::new(&self.path) } else { None };
        let mut events = shared.container_events.subscribe();
        // One more pass after the container's end picks up its last words.
        let mut last_pass = watch.is_none();
        loop {
            match self.drain(&sender).await {
                Ok(Pause::Stop) => return,
                Ok(Pause::End) => {}
                Err(error) => {
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            }
            if self.reopen_rotated() {
                continue;
            }
            let Some(watch) = watch.as_ref().filter(|_| !last_pass) else { return };
            tokio::select! {
                () = sender.closed() => return,
                () = watch.changed() => {}
                _ = events.recv() => last_pass = has_ended(&shared, &id).await,
            }
        }
    }

    async fn drain(&mut self, sender: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<Pause> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = self.file.read(&mut chunk)?;
            if read == 0 {
                return Ok(Pause::End);
            }
            self.rest.extend_from_slice(&chunk[..read]);
            let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else { continue };
            let mut out = Vec::new();
            for line in self.rest[..end].split(|b| *b == b'\n') {
                self.formatter.line(line, &mut out);
            }
            self.rest.drain(..=end);
            if let Some(budget) = &mut self.budget {
                out.truncate(usize::try_from(*budget).unwrap_or(usize::MAX));
                *budget -= out.len() as u64;
            }
            let spent = self.budget == Some(0);
            if !out.is_empty() && sender.send(Ok(out.into())).await.is_err() || spent {
                return Ok(Pause::Stop);
            }
        }
    }

    /// Goes on with the new file if the old one was moved away.
    fn reopen_rotated(&mut self) -> bool {
        let (Ok(new), Ok(old)) = (std::fs::metadata(&self.path), self.file.metadata()) else { return false };
        if (new.dev(), new.ino()) == (old.dev(), old.ino()) {
            return false;
        }
        match File::open(&self.path) {
            Ok(file) => {
                self.file = file;
                true
            }
            Err(_) => false,
        }
    }
}

async fn has_ended(shared: &Shared, id: &str) -> bool {
    !matches!(shared.cri.container_state(id).await, Ok(State::Running | State::Created))
}

/// Reads backwards in growing steps until the wanted lines are found.
fn seek_tail(file: &mut File, count: usize) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut window = CHUNK as u64;
    loop {
        let from = length.saturating_sub(window);
        file.seek(SeekFrom::Start(from))?;
        let mut data = Vec::new();
        Read::by_ref(file).take(length - from).read_to_end(&mut data)?;
        let start = tail_start(&data, count);
        if start > 0 || from == 0 {
            file.seek(SeekFrom::Start(from + start as u64))?;
            return Ok(());
        }
        window = window.saturating_mul(4);
    }
}

/// The kernel's word that the log or its folder changed.
struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    fn new(path: &std::path::Path) -> Option<Watch> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_FROM;
        inotify.add_watch(path.parent()?, flags).ok()?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe to call; an OwnedFd keeps the promise that one asks for"
        )]
        let descriptor = AsyncFd::new(OwnedFd::from(inotify));
        descriptor.ok().map(Watch)
    }

    async fn changed(&self) {
        let Ok(mut guard) = self.0.readable().await else {
            return std::future::pending().await;
        };
        let mut buffer = [0; 4096];
        // What happened does not matter, only that something did.
        while nix::unistd::read(&self.0, &mut buffer).is_ok_and(|n| n > 0) {}
        guard.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_found_from_the_end() {
        let path = std::env::temp_dir().join(format!("kubelet-tail-{}", std::process::id()));
        let text: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, text).unwrap();
        let mut file = File::open(&path).unwrap();
        seek_tail(&mut file, 20_000).unwrap();
        let mut rest = String::new();
        file.read_to_string(&mut rest).unwrap();
        assert!(rest.starts_with("line 30000\n"));
        assert_eq!(rest.lines().count(), 20_000);
        std::fs::remove_file(path).unwrap();
    }
}

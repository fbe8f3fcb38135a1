//! Kernel modules: the image lists the files in an order that satisfies every dependency, so loading is reading a list.
//!
//! Drivers come first, because the next steps look for disks and networks. What only pods and services need (packet filter, overlay)
//! is loaded by a thread meanwhile: checking the signatures of thirty modules takes a second of an emulated processor.

use crate::boot::{Booted, Error, Outcome};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

const FOLDER: &str = "/usr/lib/modules/corten";

/// Loads what a list of this file system says: one file name per line.
pub fn load(list: &str) -> Outcome {
    let list = Path::new(FOLDER).join(list);
    let text = std::fs::read_to_string(&list).map_err(|e| Error::Other(format!("{}: {e}", list.display())))?;
    let names: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    // One module that fails (its hardware may be absent) must not keep the others away.
    let failures: Vec<String> = names
        .iter()
        .filter_map(|name| linux::module::load(&Path::new(FOLDER).join(name)).err())
        .map(|e| e.to_string())
        .collect();
    if failures.is_empty() {
        Ok(format!("{} loaded", names.len()))
    } else {
        Err(Error::Other(format!("{} of {}: {}", failures.len(), names.len(), failures.join("; "))))
    }
}

/// The thread that loads the rest.
pub struct Loading {
    thread: JoinHandle<Outcome>,
    /// Readable (at its end) when the thread is done.
    done: UnixStream,
}

/// The step that starts the thread.
pub fn start_loading_the_rest(booted: &mut Booted) -> Outcome {
    let failed = |e: std::io::Error| Error::Other(format!("loader thread: {e}"));
    let (done, held) = UnixStream::pair().map_err(failed)?;
    let work = move || {
        let outcome = load("node");
        drop(held);
        outcome
    };
    let thread = std::thread::Builder::new().name("modules".to_owned()).spawn(work).map_err(failed)?;
    booted.loading = Some(Loading { thread, done });
    Ok("started".to_owned())
}

impl Loading {
    /// What came of it; waits for the thread.
    pub fn finish(mut self) -> Outcome {
        let _ = self.done.read(&mut [0]);
        self.thread.join().unwrap_or_else(|_| Err(Error::Other("the loader thread panicked".to_owned())))
    }
}

impl AsFd for Loading {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }
}

//! Signals as a descriptor. A child's end comes twice: on its pidfd when it is a service, and as SIGCHLD, which only says that
//! orphans may be waiting as well.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// The signals PID 1 acts on, blocked and readable.
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks them for this (the only) thread; children start with none blocked.
    pub fn open() -> Result<Signals, Errno> {
        let set: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGPWR].into_iter().collect();
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Signals)
    }

    /// What has come.
    pub fn take(&self) -> Vec<Signal> {
        let mut signals = Vec::new();
        while let Ok(Some(info)) = self.0.read_signal() {
            signals.extend(i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()));
        }
        signals
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

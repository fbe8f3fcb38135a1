//! The end, after the services have stopped: the processes of containers, the file systems, the power.

use crate::boot::Booted;
use crate::{now_ms, reaper};
use linux::mount;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::path::Path;

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It starts again.
    Reboot,
    /// It switches itself off.
    PowerOff,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ending::Reboot => "reboot",
            Ending::PowerOff => "power off",
        })
    }
}

/// How long containers' processes have after SIGTERM, and after SIGKILL.
const GRACE_MS: u64 = 5_000;
const KILLED_MS: u64 = 2_000;

/// Ends everything. Does not return.
pub fn finish(ending: Ending, booted: &mut Booted) -> ! {
    // Signalling "everybody" from anything but PID 1 would mean everybody on the host.
    if nix::unistd::getpid() == Pid::from_raw(1) {
        end_processes(booted);
    }
    nix::unistd::sync();
    if booted.cmdline.in_namespace {
        booted.console.line(&format!("{ending} now"));
        std::process::exit(0);
    }
    unmount_all(booted);
    booted.console.line(&format!("{ending} now"));
    let mode = match ending {
        Ending::Reboot => RebootMode::RB_AUTOBOOT,
        Ending::PowerOff => RebootMode::RB_POWER_OFF,
    };
    let Err(errno) = reboot(mode);
    booted.console.line(&format!("{ending}: {errno}"));
    std::process::exit(1);
}

fn end_processes(booted: &mut Booted) {
    for (signal, patience) in [(Signal::SIGTERM, GRACE_MS), (Signal::SIGKILL, KILLED_MS)] {
        match kill(Pid::from_raw(-1), signal) {
            Err(Errno::ESRCH) => return,
            _ if wait_for_all(now_ms() + patience) => return,
            _ => booted.console.line(&format!("processes are left {} s after {}", patience / 1000, signal.as_str())),
        }
    }
}

/// Waits until no process is left; false when the time is over. Every process descends from PID 1, so none is left when it has no child
/// (signal 0 to everybody would also find kernel threads).
fn wait_for_all(deadline: u64) -> bool {
    let Ok(signals) = reaper::Signals::open() else { return false };
    loop {
        linux::process::reap_orphans(|_| false);
        if !linux::process::has_children() {
            return true;
        }
        let left = deadline.saturating_sub(now_ms());
        if left == 0 {
            return false;
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], timeout);
        signals.take();
    }
}

/// Unmounts the data disk and whatever keeps it busy, youngest first, so that its journal is clean: below /run are the root file systems of
/// containers, whose layers lie on it.
fn unmount_all(booted: &mut Booted) {
    let mounted = mount::mounted().unwrap_or_default();
    let is_data = |path: &Path| path.starts_with("/var") || (path.starts_with("/run") && path != Path::new("/run"));
    for entry in mounted.iter().rev().filter(|m| is_data(&m.target)) {
        if let Err(error) = mount::unmount(&entry.target, false) {
            booted.console.line(&error.to_string());
            let _ = mount::remount_read_only(&entry.target);
        }
    }
    nix::unistd::sync();
}

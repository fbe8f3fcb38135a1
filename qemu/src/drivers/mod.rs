//! The ways to run nodes, one file each.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::{Deadline, PROCESS_END, PROCESS_START};

mod disk;
pub mod namespace;
pub mod qemu;

/// A background process that a file remembers. The command line is compared, because process numbers are used again.
#[derive(Debug)]
pub(crate) struct Remembered {
    file: PathBuf,
    mark: String,
}

impl Remembered {
    /// `mark` must occur in the process's command line.
    pub fn new(file: PathBuf, mark: impl Into<String>) -> Self {
        Remembered { file, mark: mark.into() }
    }

    /// Remembers a process just started, and waits until the kernel shows its command line: for a moment it is empty.
    pub fn store(&self, pid: u32) -> Result<()> {
        fs::write(&self.file, pid.to_string()).with_context(|| self.file.display().to_string())?;
        Deadline::after(PROCESS_START).until("the process's start", || Ok(self.pid().map(drop)))
    }

    /// The process, if it runs.
    pub fn pid(&self) -> Option<Pid> {
        let pid: i32 = fs::read_to_string(&self.file).ok()?.trim().parse().ok()?;
        let command = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).ok()?;
        String::from_utf8_lossy(&command).contains(&self.mark).then(|| Pid::from_raw(pid))
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        if let Some(pid) = self.pid() {
            kill(pid, Signal::SIGKILL).with_context(|| format!("process {pid}"))?;
            Deadline::after(PROCESS_END).until("the process's end", || Ok(self.pid().is_none().then_some(())))?;
        }
        let _ = fs::remove_file(&self.file);
        Ok(())
    }
}

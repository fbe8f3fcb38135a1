//! What the kernel knows about a server's process.

use std::fmt;
use std::fs;

use crate::Failure;

/// A process id.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

/// Memory in KiB.
pub struct Memory {
    resident: u64,
    anonymous: u64,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kib: u64| kib / 1024;
        write!(f, "{} MiB resident, {} MiB of it anonymous", mib(self.resident), mib(self.anonymous))
    }
}

impl Process {
    /// Resident and anonymous memory.
    ///
    /// # Errors
    /// There is no such process, or it belongs to someone else.
    pub fn memory(self) -> Result<Memory, Failure> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Ok(Memory { resident: field("Rss:").unwrap_or(0), anonymous: field("Anonymous:").unwrap_or(0) })
    }

    /// CPU time used so far, in seconds.
    ///
    /// # Errors
    /// There is no such process.
    pub fn cpu_seconds(self) -> Result<f64, Failure> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // The name in parentheses may hold anything; user and system time are fields 14 and 15.
        let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u32 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
        // Linux reports clock ticks of 1/100 s to user space on every architecture we build for.
        Ok(f64::from(ticks) / 100.0)
    }
}

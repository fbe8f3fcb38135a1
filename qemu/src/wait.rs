//! Waiting for another process's world: always with a deadline and a name for what is awaited.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// A killed process is gone within this time, or the host is in trouble.
pub const PROCESS_END: Duration = Duration::from_secs(20);

/// A process that does not show within this time has ended at once.
pub const PROCESS_START: Duration = Duration::from_secs(5);

/// Other processes tell us nothing when their state changes, so it is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A moment after which waiting is an error.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    start: Instant,
    limit: Duration,
}

impl Deadline {
    /// Now plus `limit`.
    pub fn after(limit: Duration) -> Self {
        Deadline { start: Instant::now(), limit }
    }

    /// Time passed since the deadline was set.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        self.start.elapsed() >= self.limit
    }

    /// Looks until `look` finds something.
    ///
    /// # Errors
    /// The deadline passed, naming `what`, or `look` failed.
    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if self.passed() {
                bail!("waited {} s for {what}", self.limit.as_secs());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

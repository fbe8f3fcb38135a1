//! The clock that starts with the kernel and keeps counting in suspend.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Time since the kernel started (CLOCK_BOOTTIME). The kernel cannot refuse this clock; zero stands for the impossible.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// Sets the wall clock.
pub fn set_realtime(since_epoch: Duration) -> crate::Result<()> {
    nix::time::clock_settime(ClockId::CLOCK_REALTIME, since_epoch.into())
        .map_err(|e| crate::Error::new("clock_settime", "CLOCK_REALTIME", e))
}

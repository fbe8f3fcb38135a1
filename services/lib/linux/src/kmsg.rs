//! Lines for the kernel log, so that `dmesg` tells the whole story of a boot.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// The syslog severities we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something is broken.
    Error = 3,
    /// Something needs attention.
    Warning = 4,
    /// The story of a boot.
    Info = 6,
}

/// The open kernel log.
#[derive(Debug)]
pub struct Kmsg(File);

impl Kmsg {
    /// Opens /dev/kmsg for writing and lifts its per-writer rate limit, which would drop lines of a busy boot.
    pub fn open() -> crate::Result<Kmsg> {
        let path = Path::new("/dev/kmsg");
        // Fails on kernels booted with printk.devkmsg= on the command line; then the limit simply stays.
        let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
        OpenOptions::new().write(true).open(path).map(Kmsg).map_err(|e| crate::Error::at("open", path, e))
    }

    /// Writes one line. The kernel keeps at most about a kilobyte of it. Nobody can be told when this fails.
    pub fn line(&mut self, level: Level, tag: &str, text: &str) {
        let text: String = text.chars().take(900).collect();
        let _ = self.0.write_all(format!("<{}>{tag}: {text}\n", level as u8).as_bytes());
    }
}

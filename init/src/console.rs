//! What an administrator sees on the screen: one line per step with the milliseconds since the kernel started. The same lines go
//! to the kernel log, so that `dmesg` holds them too.

use linux::kmsg::{Kmsg, Level};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;

/// The console and the kernel log, as far as they exist (a namespace has no kernel log).
pub struct Console {
    screen: Option<File>,
    kmsg: Option<Kmsg>,
}

impl Console {
    /// Opens both. In a namespace the screen is standard output.
    pub fn open(in_namespace: bool) -> Console {
        if in_namespace {
            // A copy of the descriptor: its name, /dev/stdout, does not exist yet.
            let screen = std::io::stdout().as_fd().try_clone_to_owned().ok().map(File::from);
            return Console { screen, kmsg: None };
        }
        // Not the controlling terminal: PID 1 must not get signals from a key press on a serial line.
        let screen = {
            use std::os::unix::fs::OpenOptionsExt;
            OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open("/dev/console").ok()
        };
        Console { screen, kmsg: Kmsg::open().ok() }
    }

    /// One line of the boot's story.
    pub fn line(&mut self, text: &str) {
        // At a level that the kernel does not print itself: the line would be on the screen twice.
        if let Some(kmsg) = &mut self.kmsg {
            kmsg.line(Level::Info, "init", text);
        }
        self.screen("init", text);
    }

    /// A service's own line: on the screen only, the service's log file has it already.
    pub fn echo(&mut self, service: &str, text: &str) {
        self.screen(service, text);
    }

    fn screen(&mut self, tag: &str, text: &str) {
        if let Some(screen) = &mut self.screen {
            // A console that cannot be written to is nothing PID 1 could report anywhere.
            let _ = screen.write_all(format!("[{:>7} ms] {tag}: {text}\r\n", crate::now_ms()).as_bytes());
        }
    }
}

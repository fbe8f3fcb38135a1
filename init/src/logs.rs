//! Service output: every service writes into a pipe that PID 1 reads into `/var/log/services/<name>.log`; two files of at
//! most [`ROTATE_AT`] bytes are kept per service.

use linux::process;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A log file is moved to `.log.1` at this size.
const ROTATE_AT: u64 = 4 * 1024 * 1024;
/// What is read at one turn of the event loop, so that one talkative service cannot keep PID 1 from the others.
const CHUNK: usize = 64 * 1024;
/// A longer line is cut for the console.
const LONGEST_LINE: usize = 400;

/// The output of one service. One pipe serves all its processes in turn, so nothing is lost between two of them.
pub struct Log {
    read: OwnedFd,
    write: OwnedFd,
    file: RotatingFile,
    /// The last line's beginning, not yet ended.
    partial: Vec<u8>,
}

impl Log {
    /// Makes the pipe; the file is made with the first output.
    pub fn new(folder: &Path, service: &str) -> linux::Result<Log> {
        let (read, write) = process::output_pipe()?;
        Ok(Log { read, write, file: RotatingFile::new(folder.join(format!("{service}.log"))), partial: Vec::new() })
    }

    /// The end a service writes to.
    pub fn writer(&self) -> std::io::Result<OwnedFd> {
        self.write.try_clone()
    }

    /// Takes what has come, writes it to the file and returns the lines the console wants.
    pub fn pump(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut chunk = vec![0; CHUNK];
        let Ok(Some(length)) = process::read_available(&self.read, &mut chunk) else { return Vec::new() };
        let bytes = &chunk[..length];
        self.file.append(bytes);
        complete_lines(&mut self.partial, bytes).into_iter().filter(|line| wanted(line)).collect()
    }
}

impl AsFd for Log {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

/// What of machined's output is for the console: warnings, errors, and what it addresses to the console itself.
pub fn is_important(line: &str) -> bool {
    [" WARN ", " ERROR ", " console: ", "panicked at"].iter().any(|mark| line.contains(mark))
}

fn complete_lines(partial: &mut Vec<u8>, bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    for &byte in bytes {
        match byte {
            b'\n' => lines.push(String::from_utf8_lossy(&std::mem::take(partial)).into_owned()),
            _ if partial.len() < LONGEST_LINE => partial.push(byte),
            _ => {}
        }
    }
    lines
}

struct RotatingFile {
    path: PathBuf,
    open: Option<(File, u64)>,
}

impl RotatingFile {
    fn new(path: PathBuf) -> RotatingFile {
        RotatingFile { path, open: None }
    }

    /// A log that cannot be written (a full disk) is lost: a service must not stand still for it.
    fn append(&mut self, bytes: &[u8]) {
        if self.open.as_ref().is_some_and(|(_, size)| size + bytes.len() as u64 > ROTATE_AT) {
            self.open = None;
            let _ = std::fs::rename(&self.path, self.path.with_extension("log.1"));
        }
        if self.open.is_none() {
            self.open = OpenOptions::new().create(true).append(true).open(&self.path).ok().and_then(|file| {
                let size = file.metadata().ok()?.len();
                Some((file, size))
            });
        }
        if let Some((file, size)) = &mut self.open {
            match file.write_all(bytes) {
                Ok(()) => *size += bytes.len() as u64,
                Err(_) => self.open = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_from_pieces() {
        let mut partial = Vec::new();
        assert_eq!(complete_lines(&mut partial, b"one\ntw"), ["one"]);
        assert_eq!(complete_lines(&mut partial, b"o\n\nthree"), ["two", ""]);
        assert_eq!(complete_lines(&mut partial, &[b'x'; 1000]), Vec::<String>::new());
        assert_eq!(complete_lines(&mut partial, b"\n")[0].len(), LONGEST_LINE);
    }

    #[test]
    fn output_is_kept_and_rotated() {
        let folder = std::env::temp_dir().join(format!("corten-logs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut log = Log::new(&folder, "x").unwrap();
        File::from(log.writer().unwrap()).write_all(b"a WARN b\nquiet\n").unwrap();
        assert_eq!(log.pump(is_important), ["a WARN b"]);
        assert!(log.pump(is_important).is_empty(), "an empty pipe does not block");
        log.file.append(&vec![b'y'; usize::try_from(ROTATE_AT).unwrap()]);
        log.file.append(b"z");
        assert_eq!(std::fs::read(folder.join("x.log")).unwrap(), b"z");
        assert!(folder.join("x.log.1").exists());
        std::fs::remove_dir_all(folder).unwrap();
    }
}

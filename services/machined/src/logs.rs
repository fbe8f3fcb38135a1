//! Reading logs: a service's file with its rotation, and the kernel's ring buffer.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tokio::sync::mpsc::Sender;

use crate::wake::Wake;

const PIECE: usize = 64 * 1024;

/// Where logs go: to a caller, piece by piece. An error ends the stream.
pub(crate) type Out = Sender<io::Result<Vec<u8>>>;

/// Sends a log file, then, if asked to follow, what is added to it. Follows the name, so a rotated file's successor is
/// read as well.
pub(crate) async fn send_file(path: PathBuf, tail_lines: usize, follow: bool, out: Out) {
    if let Err(error) = file(&path, tail_lines, follow, &out).await {
        let _ = out.send(Err(error)).await;
    }
}

async fn file(path: &Path, tail_lines: usize, follow: bool, out: &Out) -> io::Result<()> {
    let mut current = File::open(path)?;
    if tail_lines > 0 {
        let start = tail_start(&mut current, tail_lines)?;
        current.seek(SeekFrom::Start(start))?;
    }
    loop {
        // Set before reading, so that nothing that is written meanwhile goes unnoticed.
        let wake = if follow { Some(Wake::on(path)?) } else { None };
        if !drain(&mut current, out).await? {
            return Ok(());
        }
        let Some(wake) = wake else { return Ok(()) };
        let next = File::open(path)?;
        if !same(&current, &next)? {
            // Rotated away: its end is read above, its successor is read from the start.
            current = next;
            continue;
        }
        tokio::select! {
            woken = wake.wait() => woken?,
            () = out.closed() => return Ok(()),
        }
        // Rotation takes the name away for a moment.
        crate::wake::appears(path).await?;
    }
}

fn same(a: &File, b: &File) -> io::Result<bool> {
    let (a, b) = (a.metadata()?, b.metadata()?);
    Ok(a.ino() == b.ino() && a.dev() == b.dev())
}

/// Sends what is left of a file; false when nobody listens any more.
async fn drain(file: &mut File, out: &Out) -> io::Result<bool> {
    loop {
        let mut piece = vec![0; PIECE];
        let n = file.read(&mut piece)?;
        if n == 0 {
            return Ok(true);
        }
        piece.truncate(n);
        if out.send(Ok(piece)).await.is_err() {
            return Ok(false);
        }
    }
}

/// The offset at which the last `lines` lines start, found from the end.
fn tail_start(file: &mut File, lines: usize) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    // A line break at the very end closes the last line rather than opening another.
    let mut wanted = lines + 1;
    let mut last = true;
    while end > 0 {
        let start = end.saturating_sub(PIECE as u64);
        let mut piece = vec![0; usize::try_from(end - start).unwrap_or(PIECE)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut piece)?;
        if last && piece.last() != Some(&b'\n') {
            wanted -= 1;
        }
        last = false;
        for (i, _) in piece.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            wanted -= 1;
            if wanted == 0 {
                return Ok(start + i as u64 + 1);
            }
        }
        end = start;
    }
    Ok(0)
}

/// Sends the kernel's log from its beginning.
pub(crate) async fn send_kernel(follow: bool, out: Out) {
    if let Err(error) = kernel(follow, &out).await {
        let _ = out.send(Err(error)).await;
    }
}

async fn kernel(follow: bool, out: &Out) -> io::Result<()> {
    let device = std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/kmsg")?;
    let device = crate::wake::readable(OwnedFd::from(device))?;
    // The kernel gives one record per read, and none is longer.
    let mut record = [0u8; 8192];
    loop {
        match nix::unistd::read(device.get_ref(), &mut record) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                let line = kernel_line(&String::from_utf8_lossy(&record[..n]));
                if out.send(Ok(line.into_bytes())).await.is_err() {
                    return Ok(());
                }
            }
            // Records were overwritten before we read them: go on with the oldest that is left.
            Err(nix::errno::Errno::EPIPE) => {}
            Err(nix::errno::Errno::EAGAIN) if follow => {
                tokio::select! {
                    ready = device.readable() => ready?.clear_ready(),
                    () = out.closed() => return Ok(()),
                }
            }
            Err(nix::errno::Errno::EAGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// `6,339,5140900,-;text\n SUBSYSTEM=..` becomes `[    5.140900] text`.
fn kernel_line(record: &str) -> String {
    let (head, text) = record.split_once(';').unwrap_or(("", record));
    let micros: u64 = head.split(',').nth(2).and_then(|t| t.parse().ok()).unwrap_or(0);
    let text = text.lines().next().unwrap_or_default();
    format!("[{:>5}.{:06}] {text}\n", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn kernel_records_read_like_dmesg() {
        assert_eq!(kernel_line("6,339,5140900,-;NET: Registered\n SUBSYSTEM=x\n"), "[    5.140900] NET: Registered\n");
        assert_eq!(kernel_line("no header"), "[    0.000000] no header\n");
    }

    #[test]
    fn the_tail_is_found_from_the_end() {
        let long = "x".repeat(PIECE);
        let long_case = format!("a\n{long}\nb\n");
        for (text, lines, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\n", 5, "a\n"),
            ("", 3, ""),
            (long_case.as_str(), 1, "b\n"),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let start = tail_start(&mut file, lines).unwrap();
            assert_eq!(&text[usize::try_from(start).unwrap()..], expected, "{lines} of {text:.20?}");
        }
    }

    #[tokio::test]
    async fn following_goes_on_after_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::write(&path, "one\n").unwrap();
        let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
        tokio::spawn(send_file(path.clone(), 0, true, sender));
        let mut next = async || String::from_utf8(receiver.recv().await.unwrap().unwrap()).unwrap();
        assert_eq!(next().await, "one\n");
        File::options().append(true).open(&path).unwrap().write_all(b"two\n").unwrap();
        assert_eq!(next().await, "two\n");
        std::fs::rename(&path, folder.path().join("x.log.1")).unwrap();
        std::fs::write(folder.path().join("new"), "three\n").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(next().await, "three\n");
    }
}

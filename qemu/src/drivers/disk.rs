//! The disk of an emulated machine: it forgets what was not flushed when the plug is pulled, as real disks do.
//!
//! QEMU alone cannot show that: what it wrote stays in the host's page cache when it is killed. So nbdkit stands between, with
//! its cache filter: writes stay in the cache until the guest asks for a flush (VIRTIO_BLK_T_FLUSH, NBD_CMD_FLUSH).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Remembered;

/// Sparse: it takes what is written.
const BYTES: u64 = 20 << 30;

/// A disk: an image file and the process that serves it to QEMU on a socket.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    socket: PathBuf,
    pid_file: PathBuf,
}

impl Disk {
    /// The disk of this name in a folder.
    pub fn new(folder: &Path, name: &str) -> Self {
        let file = |suffix: &str| folder.join(format!("{name}.{suffix}"));
        Disk { image: file("disk"), socket: file("nbd"), pid_file: file("nbd-pid") }
    }

    /// QEMU's name for it.
    pub fn file_options(&self) -> String {
        format!("file.driver=nbd,file.server.type=unix,file.server.path={}", self.socket.display())
    }

    fn process(&self) -> Remembered {
        Remembered::new(self.pid_file.clone(), self.pid_file.display().to_string())
    }

    /// Serves it until the one who uses it is gone.
    ///
    /// # Errors
    /// The image cannot be made, or nbdkit does not start.
    pub fn power_on(&self) -> Result<()> {
        if !self.image.exists() {
            let file = File::create(&self.image).with_context(|| self.image.display().to_string())?;
            file.set_len(BYTES).with_context(|| self.image.display().to_string())?;
        }
        self.power_off()?;
        let output = Command::new("nbdkit")
            .arg("--unix")
            .arg(&self.socket)
            .arg("--pidfile")
            .arg(&self.pid_file)
            .args(["--filter=exitlast", "--filter=cache", "file"])
            .arg(&self.image)
            .arg("cache=writeback")
            .output()
            .context("nbdkit")?;
        if !output.status.success() {
            bail!("nbdkit: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Pulls the plug: what was not flushed is lost.
    ///
    /// # Errors
    /// The process does not end.
    pub fn power_off(&self) -> Result<()> {
        self.process().kill()?;
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(self.socket.display().to_string())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    const WRITE: u16 = 1;
    const FLUSH: u16 = 3;

    /// A client of the NBD protocol that just asks and gets no error back.
    struct Client(UnixStream);

    impl Client {
        fn connect(socket: &Path) -> Self {
            let mut stream = UnixStream::connect(socket).unwrap();
            stream.read_exact(&mut [0; 18]).unwrap();
            // Fixed newstyle without zeroes; the export without a name (NBD_OPT_EXPORT_NAME).
            stream.write_all(&3u32.to_be_bytes()).unwrap();
            stream.write_all(b"IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x00").unwrap();
            stream.read_exact(&mut [0; 10]).unwrap();
            Client(stream)
        }

        fn ask(&mut self, kind: u16, data: &[u8]) {
            let mut request = 0x2560_9513_u32.to_be_bytes().to_vec();
            request.extend([0, 0]);
            request.extend(kind.to_be_bytes());
            request.extend([0; 16]);
            request.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
            request.extend(data);
            self.0.write_all(&request).unwrap();
            let mut reply = [0; 16];
            self.0.read_exact(&mut reply).unwrap();
            assert_eq!(reply[4..8], [0; 4], "no error");
        }
    }

    #[test]
    fn what_was_not_flushed_is_lost_with_the_power() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path(), "n1");
        disk.power_on().unwrap();
        let mut client = Client::connect(&disk.socket);
        client.ask(WRITE, &[1; 4096]);
        client.ask(FLUSH, &[]);
        client.ask(WRITE, &[2; 4096]);
        disk.power_off().unwrap();
        let mut found = [0; 4096];
        File::open(&disk.image).unwrap().read_exact_at(&mut found, 0).unwrap();
        assert!(found == [1; 4096], "what was flushed is there, what came later is not");
    }
}

//! A copy of the whole database as one stream: a tar archive of a checkpoint, then its SHA-256.
//!
//! The form suits `etcdctl snapshot save`, which checks for a digest behind a multiple of 512 bytes. To restore, unpack it
//! into `<data-dir>/member`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use store_api::etcdserverpb as pb;
use tokio::sync::mpsc;
use tonic::Status;

use crate::engine::Engine;

const CHUNK: usize = 64 << 10;
const DIGEST: u64 = 32;

/// Writes a snapshot into `out`; blocks, and ends early when the receiver is gone.
pub fn send(
    engine: &Engine,
    folder: &Path,
    header: pb::ResponseHeader,
    version: &str,
    out: &mpsc::Sender<Result<pb::SnapshotResponse, Status>>,
) {
    let result =
        engine.checkpoint(folder).map_err(io::Error::from).and_then(|()| archive(folder, header, version, out));
    if let Err(error) = fs::remove_dir_all(folder) {
        tracing::warn!(%error, folder = %folder.display(), "cannot remove a checkpoint");
    }
    if let Err(error) = result
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        tracing::warn!(%error, "snapshot failed");
        // The client sees the end of the stream as an error in any case.
        let _ = out.blocking_send(Err(Status::internal(format!("snapshot: {error}"))));
    }
}

fn archive(
    folder: &Path,
    header: pb::ResponseHeader,
    version: &str,
    out: &mpsc::Sender<Result<pb::SnapshotResponse, Status>>,
) -> io::Result<()> {
    let mut files: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    let mut total = 1024 + DIGEST;
    for file in &files {
        total += 512 + file.metadata()?.len().next_multiple_of(512);
    }
    let chunks =
        Chunks { out, header, version, remaining: total, digest: Sha256::new(), buffer: Vec::with_capacity(CHUNK) };
    let mut tar = tar::Builder::new(chunks);
    tar.mode(tar::HeaderMode::Deterministic);
    for file in files {
        tar.append_file(file.file_name(), &mut fs::File::open(file.path())?)?;
    }
    tar.into_inner()?.finish()
}

struct Chunks<'o> {
    out: &'o mpsc::Sender<Result<pb::SnapshotResponse, Status>>,
    header: pb::ResponseHeader,
    version: &'o str,
    remaining: u64,
    digest: Sha256,
    buffer: Vec<u8>,
}

impl Chunks<'_> {
    fn flush_buffer(&mut self) -> io::Result<()> {
        let blob = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK)));
        self.remaining = self.remaining.saturating_sub(blob.len() as u64);
        let response = pb::SnapshotResponse {
            header: Some(self.header),
            remaining_bytes: self.remaining,
            blob,
            version: self.version.to_owned(),
        };
        self.out.blocking_send(Ok(response)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn finish(mut self) -> io::Result<()> {
        let digest = std::mem::take(&mut self.digest).finalize();
        self.buffer.extend_from_slice(&digest);
        self.flush_buffer()
    }
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.digest.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush_buffer()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

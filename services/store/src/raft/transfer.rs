//! The state machine as a stream, for a member that is too far behind for the log.
//!
//! The sender reads all families but the log's from one view of the database and holds one chunk at a time. The receiver
//! verifies every record and writes it into sorted table files; when all is there and synced, the files replace its own
//! content. A mark in the database makes that repeatable: a crash in the middle does it again at the next start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter, WriteBatch};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::wire::pb;
use super::{SnapshotMeta, log_id, thread};
use crate::engine::Engine;
use crate::error::Error;
use crate::schema::{self, Applied, state};

const CHUNK_BYTES: usize = 256 << 10;
/// Chunks on their way: enough to keep disk and network busy at the same time.
const CHUNKS: usize = 4;
/// The folder of a snapshot that arrives, beside the database.
const INCOMING: &str = "incoming-";

/// Families that travel: all but the log and the vote, which are each member's own.
fn families() -> impl Iterator<Item = &'static str> {
    schema::FAMILIES.into_iter()
}

/// Records that are each member's own.
fn own(family: &str, key: &[u8]) -> bool {
    family == schema::STATE && [state::FORMAT, state::IDENTITY, state::INSTALLING].contains(&key)
}

/// Streams the state machine as of now behind the chunk `first`. A failure ends the stream before its last chunk.
pub fn send(engine: Engine, first: pb::SnapshotChunk) -> ReceiverStream<pb::SnapshotChunk> {
    let (out, chunks) = mpsc::channel(CHUNKS);
    thread::produce(out, move |push| {
        if !push(first) {
            return;
        }
        match stream(&engine, push) {
            Ok(true) => {
                let last = pb::SnapshotChunk { complete: true, ..Default::default() };
                // A receiver that is gone does not miss it.
                let _ = push(last);
            }
            Ok(false) => tracing::debug!("the receiver of a snapshot is gone"),
            Err(error) => tracing::error!(%error, "cannot read a snapshot"),
        }
    });
    ReceiverStream::new(chunks)
}

/// Sends all records; `false` if nobody listens any more.
fn stream(engine: &Engine, push: &mut dyn FnMut(pb::SnapshotChunk) -> bool) -> Result<bool, Error> {
    let view = engine.view();
    for family in families() {
        let mut pairs = Vec::new();
        let mut bytes = 0;
        let mut listening = true;
        let chunk = |pairs: Vec<pb::Pair>| pb::SnapshotChunk { family: family.into(), pairs, ..Default::default() };
        view.scan(family, |key, value| {
            if own(family, key) {
                return Ok(true);
            }
            schema::unseal(family, key, &value)?;
            bytes += key.len() + value.len();
            pairs.push(pb::Pair { key: key.to_vec().into(), value: value.into_vec().into() });
            if bytes >= CHUNK_BYTES {
                bytes = 0;
                listening = push(chunk(std::mem::take(&mut pairs)));
            }
            Ok(listening)
        })?;
        if !listening || (!pairs.is_empty() && !push(chunk(pairs))) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A snapshot that arrived completely.
#[derive(Debug)]
pub struct Received {
    /// Where its table files are.
    pub folder: PathBuf,
    /// What it covers.
    pub meta: SnapshotMeta,
}

/// Writes an arriving snapshot into table files.
pub struct Receiver {
    folder: PathBuf,
    meta: SnapshotMeta,
    applied: bool,
}

impl Receiver {
    /// Starts a new folder in the data directory.
    ///
    /// # Errors
    /// The disk failed or is full.
    pub fn new(data_dir: &Path) -> Result<Self, Error> {
        let folder = data_dir.join(format!("{INCOMING}{:016x}", rand::random::<u64>()));
        fs::create_dir_all(&folder).map_err(|e| disk(&folder, &e))?;
        let meta = SnapshotMeta { last_log_id: None, last_membership: Default::default() };
        Ok(Receiver { folder, meta, applied: false })
    }

    /// Takes chunks until the last one; blocks. Removes the folder if they end early.
    ///
    /// # Errors
    /// A record was changed on the way, records are out of order, the stream ended early, or the disk failed.
    pub fn receive(mut self, chunks: &mut dyn Iterator<Item = pb::SnapshotChunk>) -> Result<Received, Error> {
        match self.take_all(chunks) {
            Ok(()) => Ok(Received { folder: self.folder, meta: self.meta }),
            Err(error) => {
                remove(&self.folder);
                Err(error)
            }
        }
    }

    fn take_all(&mut self, chunks: &mut dyn Iterator<Item = pb::SnapshotChunk>) -> Result<(), Error> {
        let options = Options::default();
        let mut open: Option<(&'static str, SstFileWriter<'_>)> = None;
        loop {
            let chunk = chunks.next().ok_or_else(|| bad("the stream ended early"))?;
            if chunk.complete {
                break;
            }
            let family = families().find(|f| *f == chunk.family).ok_or_else(|| bad("an unknown family"))?;
            if open.as_ref().is_none_or(|(current, _)| *current != family) {
                if let Some((_, mut file)) = open.take() {
                    file.finish()?;
                }
                let path = self.folder.join(format!("{family}.sst"));
                if path.exists() {
                    return Err(bad("a family comes twice"));
                }
                let file = SstFileWriter::create(&options);
                file.open(&path)?;
                open = Some((family, file));
            }
            let Some((_, file)) = &mut open else { continue };
            for pair in chunk.pairs {
                self.note(family, &pair)?;
                file.put(&pair.key, &pair.value)?;
            }
        }
        if let Some((_, mut file)) = open {
            file.finish()?;
        }
        if !self.applied {
            return Err(bad("it does not say what it covers"));
        }
        // The files are synced by their writer; their names are not.
        let folder = fs::File::open(&self.folder).and_then(|folder| folder.sync_all());
        folder.map_err(|e| disk(&self.folder, &e))
    }

    /// Verifies a record and keeps what it says about the whole.
    fn note(&mut self, family: &'static str, pair: &pb::Pair) -> Result<(), Error> {
        let payload = schema::unseal(family, &pair.key, &pair.value)?;
        if own(family, &pair.key) {
            return Err(bad("it holds the sender's own identity"));
        }
        if family == schema::STATE && pair.key == state::APPLIED {
            let applied = Applied::decode(payload).ok_or_else(|| bad("not an applied mark"))?;
            self.meta.last_log_id = applied.log.map(|(term, index)| log_id(term, index));
            self.applied = true;
        }
        if family == schema::STATE && pair.key == state::MEMBERSHIP {
            self.meta.last_membership = serde_json::from_slice(payload).map_err(|e| bad(&e.to_string()))?;
        }
        Ok(())
    }
}

fn bad(reason: &str) -> Error {
    Error::Consensus(format!("a snapshot from another member cannot be used: {reason}"))
}

fn disk(path: &Path, error: &io::Error) -> Error {
    Error::Layout(format!("{}: {error}", path.display()))
}

fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder) {
        tracing::warn!(%error, folder = %folder.display(), "cannot remove a received snapshot");
    }
}

/// Replaces the state machine's content by a received one. From the mark on there is no way back.
///
/// # Errors
/// The disk failed or is full: the process must end, and the next start goes on.
pub fn install(engine: &Engine, folder: &Path) -> Result<(), Error> {
    let mut batch = WriteBatch::default();
    engine.put(&mut batch, schema::STATE, state::INSTALLING, folder.as_os_str().as_encoded_bytes());
    engine.write(batch)?;
    engine.sync()?;
    replace(engine, folder)
}

fn replace(engine: &Engine, folder: &Path) -> Result<(), Error> {
    for family in families() {
        let mut batch = WriteBatch::default();
        let mut first: Option<Vec<u8>> = None;
        let mut last = Vec::new();
        engine.scan(family, &[], |key, _| {
            if !own(family, key) {
                first.get_or_insert_with(|| key.to_vec());
                last = key.to_vec();
                if family == schema::STATE {
                    engine.delete(&mut batch, family, key);
                }
            }
            Ok(true)
        })?;
        if let Some(first) = first.filter(|_| family != schema::STATE) {
            // Up to and including the last key.
            last.push(0);
            engine.delete_range(&mut batch, family, &first, &last);
        }
        engine.write(batch)?;
        let file = folder.join(format!("{family}.sst"));
        if file.exists() {
            // Copied, not moved: a repetition needs it again.
            engine.ingest(family, &file, &IngestExternalFileOptions::default())?;
        }
    }
    let mut batch = WriteBatch::default();
    engine.delete(&mut batch, schema::STATE, state::INSTALLING);
    engine.write(batch)?;
    engine.sync()?;
    remove(folder);
    Ok(())
}

/// Goes on with a replacement that a crash interrupted, and removes snapshots that never became complete.
///
/// # Errors
/// The disk failed, or the files of a replacement are gone.
pub fn resume(engine: &Engine, data_dir: &Path) -> Result<(), Error> {
    if let Some(folder) = engine.get(schema::STATE, state::INSTALLING)? {
        let name = String::from_utf8(folder).map_err(|_| bad("its folder has no name"))?;
        // The data directory may have been moved meanwhile.
        let name = Path::new(&name).file_name().ok_or_else(|| bad("its folder has no name"))?.to_owned();
        let folder = data_dir.join(name);
        if !folder.is_dir() {
            return Err(Error::Layout(format!(
                "{}: half of this snapshot is installed, but it is gone",
                folder.display()
            )));
        }
        tracing::warn!(folder = %folder.display(), "going on with a snapshot whose installation was interrupted");
        replace(engine, &folder)?;
    }
    let entries = fs::read_dir(data_dir).map_err(|e| disk(data_dir, &e))?;
    for entry in entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(INCOMING)) {
        remove(&entry.path());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(folder: &Path, keys: std::ops::Range<u8>) -> Engine {
        let (engine, _) = Engine::open(folder).unwrap();
        let mut batch = WriteBatch::default();
        for key in keys {
            engine.put(&mut batch, schema::LEASE, &[key], &[key; 100]);
        }
        let applied = Applied { log: Some((2, 9)), revision: 5 };
        engine.put(&mut batch, schema::STATE, state::APPLIED, &applied.encode());
        engine.put(&mut batch, schema::STATE, state::IDENTITY, folder.as_os_str().as_encoded_bytes());
        engine.write(batch).unwrap();
        engine
    }

    fn keys(engine: &Engine, family: &'static str) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        engine
            .scan(family, &[], |key, _| {
                found.push(key.to_vec());
                Ok(true)
            })
            .unwrap();
        found
    }

    /// Sends `from`'s content, lets `change` tamper with the chunks, and receives it in `to`.
    async fn transfer(
        from: &Engine,
        to: &Path,
        change: impl FnMut(&mut pb::SnapshotChunk) -> bool + Send + 'static,
    ) -> Result<Received, Error> {
        use futures_util::StreamExt;

        let mut change = change;
        let mut chunks = send(from.clone(), pb::SnapshotChunk::default());
        let (forward, arrived) = mpsc::channel(1);
        let receiver = Receiver::new(to).unwrap();
        let receiving = thread::consume(arrived, move |chunks| receiver.receive(chunks));
        chunks.next().await;
        while let Some(mut chunk) = chunks.next().await {
            if change(&mut chunk) && forward.send(chunk).await.is_err() {
                break;
            }
        }
        drop(forward);
        receiving.await.unwrap()
    }

    #[tokio::test]
    async fn content_moves_and_what_is_each_members_own_stays() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [from, to] = [engine(&folders[0].path().join("db"), 0..50), engine(&folders[1].path().join("db"), 40..90)];
        let received = transfer(&from, folders[1].path(), |_| true).await.unwrap();
        assert_eq!(received.meta.last_log_id, Some(log_id(2, 9)));
        install(&to, &received.folder).unwrap();
        assert_eq!(keys(&to, schema::LEASE), keys(&from, schema::LEASE));
        assert_eq!(keys(&to, schema::STATE), keys(&from, schema::STATE));
        let identity = to.get(schema::STATE, state::IDENTITY).unwrap().unwrap();
        assert!(identity.starts_with(folders[1].path().as_os_str().as_encoded_bytes()));
        assert!(!received.folder.exists() && to.get(schema::STATE, state::INSTALLING).unwrap().is_none());
    }

    #[tokio::test]
    async fn an_interrupted_installation_goes_on() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [from, to] = [engine(&folders[0].path().join("db"), 0..50), engine(&folders[1].path().join("db"), 40..90)];
        let received = transfer(&from, folders[1].path(), |_| true).await.unwrap();
        let mut batch = WriteBatch::default();
        to.put(&mut batch, schema::STATE, state::INSTALLING, received.folder.as_os_str().as_encoded_bytes());
        to.delete_range(&mut batch, schema::LEASE, &[0], &[255]);
        to.write(batch).unwrap();
        let incomplete = folders[1].path().join(format!("{INCOMING}1"));
        fs::create_dir(&incomplete).unwrap();
        resume(&to, folders[1].path()).unwrap();
        assert_eq!(keys(&to, schema::LEASE), keys(&from, schema::LEASE));
        assert!(!incomplete.exists() && !received.folder.exists());
    }

    #[tokio::test]
    async fn a_damaged_or_cut_stream_leaves_nothing() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let from = engine(&folders[0].path().join("db"), 0..50);
        let flip = |chunk: &mut pb::SnapshotChunk| {
            if let Some(pair) = chunk.pairs.first_mut() {
                let mut value = pair.value.to_vec();
                value[4] ^= 1;
                pair.value = value.into();
            }
            true
        };
        let error = transfer(&from, folders[1].path(), flip).await.unwrap_err().to_string();
        assert!(error.contains("checksum"), "{error}");
        let error = transfer(&from, folders[1].path(), |chunk| !chunk.complete).await.unwrap_err().to_string();
        assert!(error.contains("ended early"), "{error}");
        assert_eq!(fs::read_dir(folders[1].path()).unwrap().count(), 0);
    }
}

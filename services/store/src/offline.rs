//! `store snapshot restore` and `store snapshot status`: what an administrator does with a snapshot file while no member
//! runs.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use rocksdb::WriteBatch;
use sha2::{Digest, Sha256};

use crate::config::{ClusterFlags, Url};
use crate::engine::Engine;
use crate::error::Error;
use crate::lease::LeaseTable;
use crate::mvcc::Mvcc;
use crate::raft::membership::{self, Identity};
use crate::raft::{StoredMembership, log_id};
use crate::schema::{self, Applied, state};

/// Bytes of the SHA-256 behind the archive.
const DIGEST: usize = 32;

/// The store's commands besides running a member.
#[derive(Debug, Parser)]
#[command(name = "store", disable_help_subcommand = true)]
pub struct Offline {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Work with a snapshot file
    #[command(subcommand)]
    Snapshot(Snapshot),
}

#[derive(Debug, Subcommand)]
enum Snapshot {
    /// Make a snapshot the data directory of a new cluster's member
    Restore(Box<Restore>),
    /// Show what a snapshot holds
    Status(Status),
}

#[derive(Debug, Args)]
struct Status {
    /// The snapshot
    file: PathBuf,
    /// How to print
    #[arg(short = 'w', long, value_enum, default_value = "simple")]
    write_out: Form,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// Hash, revision, keys and bytes in one line
    Simple,
    /// An object
    Json,
}

#[derive(Debug, Args)]
struct Restore {
    /// The snapshot
    file: PathBuf,
    /// The new member's data directory; must not exist or be empty
    #[arg(long)]
    data_dir: PathBuf,
    /// The new member's name
    #[arg(long, default_value = "default")]
    name: String,
    /// The new member's peer URLs
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2380")]
    initial_advertise_peer_urls: Vec<Url>,
    #[command(flatten)]
    cluster: ClusterFlags,
    /// Take a snapshot whose digest is missing or wrong
    #[arg(long)]
    skip_hash_check: bool,
    /// Add this to the revision, so that clients of the old cluster never see one go back
    #[arg(long, default_value_t = 0)]
    bump_revision: u64,
    /// Mark everything before the revision as compacted, so that watchers of the old cluster start anew
    #[arg(long)]
    mark_compacted: bool,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// A file or folder.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Flags that do not fit together.
    #[error("{0}")]
    Flags(String),
    /// The content.
    #[error(transparent)]
    Store(#[from] Error),
}

fn file_error(path: &Path, reason: impl ToString) -> OfflineError {
    OfflineError::File { path: path.to_owned(), reason: reason.to_string() }
}

/// Runs the command.
///
/// # Errors
/// The snapshot is damaged, the data directory is in use, or the disk failed.
pub fn run(command: Offline) -> Result<(), OfflineError> {
    let Command::Snapshot(snapshot) = command.command;
    match snapshot {
        Snapshot::Restore(args) => restore(&args),
        Snapshot::Status(args) => {
            println!("{}", status(&args.file, args.write_out)?);
            Ok(())
        }
    }
}

/// Unpacks the archive into `folder` and returns its digest; a wrong one is an error unless `unchecked`.
fn unpack(file: &Path, folder: &Path, unchecked: bool) -> Result<[u8; 32], OfflineError> {
    let failed = |e: io::Error| file_error(file, e);
    let mut source = fs::File::open(file).map_err(failed)?;
    let length = source.metadata().map_err(failed)?.len();
    let signed = length % 512 == DIGEST as u64;
    if !signed && !unchecked {
        return Err(file_error(file, "snapshot missing hash but --skip-hash-check=false"));
    }
    let content = if signed { length - DIGEST as u64 } else { length };
    let mut hashing = Hashing { source: io::Read::by_ref(&mut source).take(content), digest: Sha256::new() };
    let unpacked = tar::Archive::new(&mut hashing).unpack(folder);
    unpacked.map_err(|e| file_error(file, format!("not a snapshot of this store: {e}")))?;
    // What is behind the archive's end mark counts as well.
    io::copy(&mut hashing, &mut io::sink()).map_err(failed)?;
    let digest: [u8; 32] = hashing.digest.finalize().into();
    let mut stored = Vec::new();
    source.read_to_end(&mut stored).map_err(failed)?;
    if stored != digest && !unchecked {
        return Err(file_error(file, "expected sha256 differs: the snapshot was changed"));
    }
    Ok(digest)
}

struct Hashing<R> {
    source: R,
    digest: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.digest.update(&buffer[..count]);
        Ok(count)
    }
}

/// Removes a folder that is only needed for a while.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn status(file: &Path, form: Form) -> Result<String, OfflineError> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}", rand::random::<u64>()));
    let folder = Temporary(file.with_file_name(name));
    unpack(file, &folder.0, false)?;
    let (engine, _) = Engine::open(&folder.0)?;
    let mvcc = Mvcc::open(engine.clone(), &mut LeaseTable::default())?;
    let (hash, revision) = mvcc.hash(0)?;
    let mut records = 0u64;
    engine.scan(schema::MVCC, &[], |_, _| {
        records += 1;
        Ok(true)
    })?;
    let bytes = fs::metadata(file).map_err(|e| file_error(file, e))?.len();
    Ok(match form {
        Form::Simple => format!("{hash:x}, {revision}, {records}, {bytes} B"),
        Form::Json => serde_json::json!({
            "hash": hash, "revision": revision, "totalKey": records, "totalSize": bytes, "version": "3.6.0",
        })
        .to_string(),
    })
}

fn restore(args: &Restore) -> Result<(), OfflineError> {
    let flags = |e: crate::config::Invalid| OfflineError::Flags(e.to_string());
    args.cluster.validate(&args.name, &args.initial_advertise_peer_urls, &[]).map_err(flags)?;
    if args.bump_revision > 0 && !args.mark_compacted {
        return Err(OfflineError::Flags("--mark-compacted required if --bump-revision > 0".into()));
    }
    if fs::read_dir(&args.data_dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(file_error(&args.data_dir, "data-dir not empty or could not be read"));
    }
    let member = args.data_dir.join("member");
    fs::create_dir_all(&member).map_err(|e| file_error(&member, e))?;
    let restored = unpack(&args.file, &member, args.skip_hash_check).and_then(|digest| found(args, &member, digest));
    if restored.is_err() {
        // Half a data directory must not be taken for one.
        drop(Temporary(member));
    }
    restored
}

/// Makes the unpacked database the start of a new cluster with another identity. There are no votes and no log: the log
/// will begin behind what the database holds, so that members added later get that as a snapshot.
fn found(args: &Restore, folder: &Path, digest: [u8; 32]) -> Result<(), OfflineError> {
    let (engine, _) = Engine::open(folder)?;
    // Reads and verifies every record before anything is changed.
    Mvcc::open(engine.clone(), &mut LeaseTable::default())?;
    let salt: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let own = (args.name.as_str(), args.initial_advertise_peer_urls.as_slice());
    let (cluster, member, founders) = membership::restored(&args.cluster, own, &salt)?;
    let identity = Identity { cluster, member, incarnation: membership::random_id(), founder: true };
    let bad = |e: &dyn std::fmt::Display| Error::Layout(format!("{}: {e}", args.file.display()));

    let applied = engine.get(schema::STATE, state::APPLIED)?.and_then(|payload| Applied::decode(&payload));
    let applied = applied.ok_or_else(|| bad(&"it does not say what it covers"))?;
    let (term, index) = applied.log.unwrap_or((1, 1));
    let revision = applied.revision.saturating_add_unsigned(args.bump_revision);
    let voters = founders.keys().copied().collect();
    let members = openraft::Membership::new(vec![voters], founders).map_err(|e| bad(&e))?;
    let stored = StoredMembership::new(Some(log_id(term, index)), members);
    let json = |value: Result<Vec<u8>, serde_json::Error>| value.map_err(|e| bad(&e));

    let mut batch = WriteBatch::default();
    let applied = Applied { log: Some((term, index)), revision };
    engine.put(&mut batch, schema::STATE, state::APPLIED, &applied.encode());
    engine.put(&mut batch, schema::STATE, state::MEMBERSHIP, &json(serde_json::to_vec(&stored))?);
    for key in [state::ALARMS, state::REMOVED, state::INSTALLING] {
        engine.delete(&mut batch, schema::STATE, key);
    }
    if args.mark_compacted {
        engine.put(&mut batch, schema::STATE, state::COMPACT_WANTED, &revision.to_be_bytes());
    }
    engine.write(batch)?;
    identity.write(&engine)?;
    engine.sync()?;
    println!("restored revision {revision} as member {member:x} of cluster {cluster:x}");
    Ok(())
}

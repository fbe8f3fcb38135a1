//! What a power cut leaves on a disk: everything that was synced, and of the rest any sectors.
//!
//! The log is written in order, so its synced part is a beginning of the newest file. The database has no log of its own:
//! what it flushed last is there, the rest is gone.

use std::fs;
use std::io;
use std::path::Path;

use rocksdb::WriteBatch;

use super::World;
use crate::engine::Engine;
use crate::error::Error;
use crate::schema::{self, Applied, state};
use crate::wal::Wal;

const SECTOR: usize = 512;
const BLOCK: usize = 4096;

/// Something that is wrong with members, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// The disk says that something is synced, and forgets it with the power.
    LosesSyncs,
    /// A member that restarts does not know for whom it voted.
    ForgetsVotes,
    /// A member that restarts applies its last entry again.
    AppliesTwice,
}

/// A member's disk, and how much of the log is synced: the number of the newest file and bytes of it.
pub struct Disk<'d> {
    /// The data directory.
    pub folder: &'d Path,
    /// The open database.
    pub engine: &'d Engine,
    /// Now.
    pub synced: (u64, usize),
    /// When the member started.
    pub synced_before: (u64, usize),
}

impl Disk<'_> {
    /// Makes a data directory of what is left; `terms` knows the term of an entry.
    ///
    /// # Errors
    /// The disk of this machine failed.
    pub fn cut_power(
        &self,
        world: &World,
        to: &Path,
        defect: Option<Defect>,
        term: impl Fn(u64) -> Option<u64>,
    ) -> Result<(), Error> {
        fs::create_dir_all(to.join("wal")).map_err(failed)?;
        self.engine.copy_durable(&to.join("member"))?;
        self.log(world, &to.join("wal"), defect == Some(Defect::LosesSyncs)).map_err(failed)?;
        match defect {
            None | Some(Defect::LosesSyncs) => Ok(()),
            Some(Defect::ForgetsVotes) => {
                let mut log = Wal::open(&to.join("wal"), |_, _| Ok(()))?.wal;
                Ok(log.vote(Vec::new())?.sync()?)
            }
            Some(Defect::AppliesTwice) => set_back(&to.join("member"), term),
        }
    }

    fn log(&self, world: &World, to: &Path, lying: bool) -> io::Result<()> {
        let (newest, mut synced) = self.synced;
        for entry in fs::read_dir(self.folder.join("wal"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(number) = name.strip_suffix(".log").and_then(|n| u64::from_str_radix(n, 16).ok()) else {
                continue;
            };
            let mut bytes = fs::read(entry.path())?;
            trim(&mut bytes);
            if number == newest && lying {
                // The first frame of a file begins it, and has always been there.
                let first = crate::wal::frame::decode(&bytes, number, 0).map_or(0, |frame| frame.end);
                synced = if self.synced_before.0 == number { self.synced_before.1 } else { first };
                bytes.truncate(synced);
            }
            if number == newest {
                tear(world, &mut bytes, synced);
            }
            if number <= newest {
                fs::write(to.join(name), bytes)?;
            }
        }
        Ok(())
    }
}

fn failed(error: io::Error) -> Error {
    Error::Layout(error.to_string())
}

/// Cuts zeros off.
fn trim(bytes: &mut Vec<u8>) {
    let used = bytes.chunks(BLOCK).rposition(|block| *block != [0; BLOCK][..block.len()]).map_or(0, |last| last + 1);
    bytes.truncate(used * BLOCK);
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(used);
}

/// Takes away some of what was not synced.
fn tear(world: &World, bytes: &mut Vec<u8>, synced: usize) {
    let end = bytes.len();
    let sectors = || (synced / SECTOR * SECTOR..end).step_by(SECTOR);
    match world.below(4) {
        0 => bytes.truncate(synced),
        1 => {}
        2 => {
            let count = world.below(sectors().count() as u64 + 1) as usize;
            bytes.truncate(sectors().nth(count).unwrap_or(end).max(synced));
        }
        _ => sectors().filter(|_| world.chance(50)).for_each(|at| {
            let from = at.max(synced);
            bytes[from..end.min(at + SECTOR).max(from)].fill(0);
        }),
    }
}

/// Lets the database believe that its last entry was not applied.
fn set_back(database: &Path, term: impl Fn(u64) -> Option<u64>) -> Result<(), Error> {
    let (engine, _) = Engine::open(database)?;
    let mark = engine.get(schema::STATE, state::APPLIED)?.and_then(|mark| Applied::decode(&mark));
    let Some(Applied { log: Some((_, index @ 1..)), revision }) = mark else { return Ok(()) };
    let Some(term) = term(index - 1) else { return Ok(()) };
    let mut batch = WriteBatch::default();
    let mark = Applied { log: Some((term, index - 1)), revision };
    engine.put(&mut batch, schema::STATE, state::APPLIED, &mark.encode());
    engine.write(batch)?;
    engine.sync()
}

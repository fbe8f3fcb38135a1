//! What must be true of every cluster at every moment.

use std::collections::BTreeMap;

use openraft::EntryPayload;

use super::model::Model;
use crate::engine::Engine;
use crate::raft::membership::Identity;
use crate::raft::{Entry, log};
use crate::schema::{self, Applied as Mark, state};

/// A member's state machine between two entries.
#[derive(Debug)]
pub struct Applied {
    /// Whose.
    pub member: u64,
    /// The last entry in it.
    pub index: Option<u64>,
    /// Of everything that members must have in common; not while a compaction is half done.
    pub digest: Option<u32>,
}

impl Applied {
    /// Reads it.
    ///
    /// # Errors
    /// It is damaged.
    pub fn look(engine: &Engine, settled: bool) -> Result<Self, String> {
        let text = |error: crate::error::Error| error.to_string();
        let identity = Identity::read(engine).map_err(text)?.ok_or("a member without an identity")?;
        let mark = engine.get(schema::STATE, state::APPLIED).map_err(text)?;
        let index = mark.and_then(|mark| Mark::decode(&mark)?.log).map(|(_, index)| index);
        let digest = if settled { Some(digest(engine).map_err(text)?) } else { None };
        Ok(Applied { member: identity.member, index, digest })
    }
}

fn digest(engine: &Engine) -> Result<u32, crate::error::Error> {
    let own = [state::FORMAT, state::IDENTITY, state::INSTALLING];
    let mut hasher = crc32fast::Hasher::new();
    for family in schema::FAMILIES {
        engine.scan(family, &[], |key, value| {
            if family != schema::STATE || !own.contains(&key) {
                hasher.update(key);
                hasher.update(&value);
            }
            Ok(true)
        })?;
    }
    Ok(hasher.finalize())
}

/// What was seen so far.
#[derive(Default)]
pub struct Checks {
    /// The first thing that must not be.
    pub violation: Option<String>,
    /// Terms and checksums of committed entries, from the first on.
    committed: Vec<(u64, u32)>,
    /// What the committed entries mean.
    pub model: Model,
    states: BTreeMap<Option<u64>, u32>,
    leaders: BTreeMap<u64, u64>,
    votes: BTreeMap<(String, u64), u64>,
    /// Who got a vote last.
    pub last_candidate: u64,
    /// Who was removed, in which term.
    removed: BTreeMap<u64, u64>,
    members: Vec<u64>,
    /// At or behind every revision that some client knows of.
    pub known: i64,
    /// Requests that were answered.
    pub answered: u64,
}

impl Checks {
    /// A member applies these entries next.
    ///
    /// # Errors
    /// They are others than another member applied there, or do not follow the last; or its state is not what another's was
    /// behind the same entry.
    pub fn applying<'e>(&mut self, seen: &Applied, entries: impl Iterator<Item = &'e Entry>) -> Result<(), String> {
        let member = seen.member;
        self.state(seen)?;
        let first = seen.index.map_or(0, |index| index + 1);
        for (place, entry) in (first..).zip(entries) {
            let index = entry.log_id.index;
            if index != place {
                return Err(format!("{member:x} applies entry {index} where {place} comes next"));
            }
            let record = log::encode(entry).map_err(|error| error.to_string())?;
            let print = (super::super::term(&entry.log_id), crc32fast::hash(&record));
            let slot = usize::try_from(index).map_err(|error| error.to_string())?;
            match self.committed.get(slot) {
                Some(known) if *known == print => {}
                Some(known) => {
                    return Err(format!("{member:x} applies {print:x?} as entry {index}, others {known:x?}"));
                }
                None if slot == self.committed.len() => {
                    self.committed.push(print);
                    self.commit(entry)?;
                }
                None => return Err(format!("{member:x} applies entry {index}, of which nobody has the one before")),
            }
        }
        Ok(())
    }

    /// A member's state.
    ///
    /// # Errors
    /// Another member had another one behind the same entry.
    pub fn state(&mut self, seen: &Applied) -> Result<(), String> {
        let Some(digest) = seen.digest else { return Ok(()) };
        let known = *self.states.entry(seen.index).or_insert(digest);
        // Before the first entry there is nothing but what a member stores about itself.
        if known == digest || seen.index.is_none() {
            return Ok(());
        }
        Err(format!("{:x} has the state {digest:08x} behind entry {:?}, others {known:08x}", seen.member, seen.index))
    }

    fn commit(&mut self, entry: &Entry) -> Result<(), String> {
        match &entry.payload {
            EntryPayload::Blank => Ok(()),
            EntryPayload::Normal(command) => self.model.execute(command),
            EntryPayload::Membership(membership) => {
                let now: Vec<u64> = membership.nodes().map(|(id, _)| *id).collect();
                let term = super::super::term(&entry.log_id);
                self.removed.extend(self.members.iter().filter(|id| !now.contains(id)).map(|id| (*id, term)));
                self.members = now;
                Ok(())
            }
        }
    }

    /// A member leads in a term.
    ///
    /// # Errors
    /// Another one does, or it was removed.
    pub fn leads(&mut self, term: u64, leader: u64) -> Result<(), String> {
        let known = *self.leaders.entry(term).or_insert(leader);
        if known != leader {
            return Err(format!("{leader:x} and {known:x} lead in term {term}"));
        }
        match self.removed.get(&leader) {
            Some(removed) if *removed < term => {
                Err(format!("{leader:x} leads in term {term}, but was removed in {removed}"))
            }
            _ => Ok(()),
        }
    }

    /// A member gave its vote.
    ///
    /// # Errors
    /// It had given it to another candidate.
    pub fn votes(&mut self, voter: &str, term: u64, candidate: u64) -> Result<(), String> {
        self.last_candidate = candidate;
        let known = *self.votes.entry((voter.to_owned(), term)).or_insert(candidate);
        if known == candidate {
            return Ok(());
        }
        Err(format!("{voter} votes for {known:x} and for {candidate:x} in term {term}"))
    }

    /// A client was told that its request `number`, which it sent when `known` was known, made `revision`.
    ///
    /// # Errors
    /// It did not, or what was known before came later.
    pub fn acknowledged(&mut self, number: u64, known: i64, revision: i64, succeeded: bool) -> Result<(), String> {
        let done = self.model.done(number.to_string().as_bytes());
        let done = done.ok_or_else(|| format!("request {number} is acknowledged, but never happened"))?;
        if (done.revision, done.succeeded) != (revision, succeeded) {
            return Err(format!("request {number} is answered with {revision}, {succeeded}, but was {done:?}"));
        }
        if revision <= known {
            return Err(format!("request {number} made revision {revision}, but {known} was known before it"));
        }
        self.known = self.known.max(revision);
        self.answered += 1;
        Ok(())
    }

    /// A client read a key, when `known` was known.
    ///
    /// # Errors
    /// It saw something else than the key held, or not the newest.
    pub fn read(&mut self, known: i64, key: &str, at: i64, found: Option<(i64, &[u8])>) -> Result<(), String> {
        if at < known {
            return Err(format!("a read of {key} sees revision {at}, but {known} was known before it"));
        }
        if at > self.model.revision() {
            return Err(format!("a read of {key} sees revision {at}, which was never committed"));
        }
        let expected = self.model.value(key.as_bytes(), at);
        if expected != found {
            return Err(format!("a read of {key} at {at} finds {found:?} instead of {expected:?}"));
        }
        self.known = self.known.max(at);
        self.answered += 1;
        Ok(())
    }

    /// How many votes were given.
    pub fn given(&self) -> usize {
        self.votes.len()
    }

    /// The term of a committed entry.
    pub fn term(&self, index: u64) -> Option<u64> {
        self.committed.get(usize::try_from(index).ok()?).map(|(term, _)| *term)
    }

    /// A client was told that a member is removed.
    ///
    /// # Errors
    /// It is not.
    pub fn told_of_removal(&mut self, member: u64) -> Result<(), String> {
        match self.members.contains(&member) {
            true => Err(format!("the removal of {member:x} is acknowledged, but never happened")),
            false => Ok(()),
        }
    }

    /// How many entries are committed.
    pub fn committed(&self) -> usize {
        self.committed.len()
    }
}

//! Who the members are: identity on disk, how a member becomes one, and changes of the membership.

mod change;
mod plan;
mod start;

use std::collections::BTreeSet;

use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};

pub use change::Changes;
pub use plan::Known;
pub use start::{Start, decide, restored};

use crate::config::Config;
use crate::engine::Engine;
use crate::error::Error;
use crate::schema::{self, Corruption, state};

/// A member as all members know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNode {
    /// Its name; empty until it was started.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// The data directory that joined; 0 until it was started.
    #[serde(default)]
    pub incarnation: u64,
    /// Added as a voter: it learns first, and votes as soon as it has caught up. So adding a member never costs the
    /// quorum, as it does where a member that was never started counts at once.
    #[serde(default)]
    pub to_vote: bool,
}

impl MemberNode {
    /// This member by its flags.
    pub fn of(config: &Config, incarnation: u64) -> Self {
        let texts = |urls: &[crate::config::Url]| urls.iter().map(ToString::to_string).collect();
        MemberNode {
            name: config.name.clone(),
            peer_urls: texts(&config.initial_advertise_peer_urls),
            client_urls: texts(&config.advertise_client_urls),
            incarnation,
            to_vote: false,
        }
    }
}

/// Who this member is. An id is never used again, and an incarnation is chosen at random for each data directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub member: u64,
    /// The data directory.
    pub incarnation: u64,
    /// It is one of the first members.
    pub founder: bool,
}

/// A random number that is not zero: zero means "none" to clients.
pub(crate) fn random_id() -> u64 {
    #[cfg(test)]
    if let Some(number) = super::sim::number() {
        return number.max(1);
    }
    rand::random::<u64>().max(1)
}

impl Identity {
    /// Reads the identity; `None` in a new data directory.
    ///
    /// # Errors
    /// The record is damaged or the disk failed.
    pub fn read(engine: &Engine) -> Result<Option<Self>, Error> {
        let Some(payload) = engine.get(schema::STATE, state::IDENTITY)? else { return Ok(None) };
        let bad = || Corruption::new(schema::STATE, state::IDENTITY, "not an identity");
        let (numbers, founder) = payload.split_first_chunk::<24>().ok_or_else(bad)?;
        let number = |place: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&numbers[place * 8..place * 8 + 8]);
            u64::from_be_bytes(bytes)
        };
        let founder = match founder {
            [0] => false,
            [1] => true,
            _ => return Err(bad().into()),
        };
        Ok(Some(Identity { cluster: number(0), member: number(1), incarnation: number(2), founder }))
    }

    /// Stores the identity durably.
    ///
    /// # Errors
    /// The disk failed.
    pub fn write(&self, engine: &Engine) -> Result<(), Error> {
        let mut payload = Vec::with_capacity(25);
        for number in [self.cluster, self.member, self.incarnation] {
            payload.extend_from_slice(&number.to_be_bytes());
        }
        payload.push(u8::from(self.founder));
        let mut batch = WriteBatch::default();
        engine.put(&mut batch, schema::STATE, state::IDENTITY, &payload);
        engine.write(batch)?;
        engine.sync()
    }
}

/// Ids of members that were removed.
///
/// # Errors
/// The record is damaged or the disk failed.
pub fn read_removed(engine: &Engine) -> Result<BTreeSet<u64>, Error> {
    match engine.get(schema::STATE, state::REMOVED)? {
        None => Ok(BTreeSet::new()),
        Some(payload) => {
            Ok(serde_json::from_slice(&payload).map_err(|e| Corruption::new(schema::STATE, state::REMOVED, e))?)
        }
    }
}

/// Adds to `removed` who is in `before` but not in `after`, and to `batch` the record of it.
///
/// # Errors
/// The list cannot be encoded.
pub fn note_removed(
    engine: &Engine,
    batch: &mut WriteBatch,
    removed: &mut BTreeSet<u64>,
    before: &super::StoredMembership,
    after: &super::StoredMembership,
) -> Result<(), Error> {
    let gone: Vec<u64> = before.nodes().map(|(id, _)| *id).filter(|id| after.get_node(id).is_none()).collect();
    if gone.is_empty() {
        return Ok(());
    }
    removed.extend(gone);
    let payload = serde_json::to_vec(removed).map_err(|e| Error::Consensus(e.to_string()))?;
    engine.put(batch, schema::STATE, state::REMOVED, &payload);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn identity_and_removed_members_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, _) = Engine::open(folder.path()).unwrap();
        assert_eq!(Identity::read(&engine).unwrap(), None);
        let identity = Identity { cluster: 1, member: u64::MAX, incarnation: 3, founder: true };
        identity.write(&engine).unwrap();
        assert_eq!(Identity::read(&engine).unwrap(), Some(identity));

        let stored = |ids: &[u64]| {
            let nodes: BTreeMap<u64, MemberNode> = ids.iter().map(|id| (*id, MemberNode::default())).collect();
            let voters = ids.iter().copied().collect();
            super::super::StoredMembership::new(None, openraft::Membership::new(vec![voters], nodes).unwrap())
        };
        let mut removed = read_removed(&engine).unwrap();
        for (before, after) in [(stored(&[1, 2, 3]), stored(&[1, 3])), (stored(&[1, 3]), stored(&[1, 3, 4]))] {
            let mut batch = WriteBatch::default();
            note_removed(&engine, &mut batch, &mut removed, &before, &after).unwrap();
            engine.write(batch).unwrap();
        }
        assert_eq!(read_removed(&engine).unwrap(), BTreeSet::from([2]));
    }
}

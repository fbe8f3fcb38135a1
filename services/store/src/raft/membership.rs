//! Who the members are: identity on disk, the first membership, and address changes.

use std::collections::BTreeMap;

use openraft::ChangeMembers;
use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};

use super::Consensus;
use crate::engine::Engine;
use crate::error::Error;
use crate::schema::{self, Corruption};

/// A member as all members know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNode {
    /// Its name.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
}

/// Who this member is. Chosen at random once: an id is never used again, not even by the same machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub member: u64,
}

impl Identity {
    /// Reads the identity or makes one for a new data directory.
    ///
    /// # Errors
    /// The record is damaged or the disk failed.
    pub fn open(engine: &Engine) -> Result<Self, Error> {
        let key = schema::state::IDENTITY;
        if let Some(payload) = engine.get(schema::STATE, key)? {
            let bad = || Corruption::new(schema::STATE, key, "not an identity");
            let (cluster, member) = payload.split_first_chunk::<8>().ok_or_else(bad)?;
            let member: [u8; 8] = member.try_into().map_err(|_| bad())?;
            return Ok(Identity { cluster: u64::from_be_bytes(*cluster), member: u64::from_be_bytes(member) });
        }
        // Zero means "none" to clients.
        let identity = Identity { cluster: rand::random::<u64>().max(1), member: rand::random::<u64>().max(1) };
        let mut batch = WriteBatch::default();
        let payload = [identity.cluster.to_be_bytes(), identity.member.to_be_bytes()].concat();
        engine.put(&mut batch, schema::STATE, key, &payload);
        engine.write(batch)?;
        engine.sync()?;
        Ok(identity)
    }
}

/// Makes a new data directory a cluster of one member, or tells an existing cluster this member's current addresses.
///
/// # Errors
/// Raft stopped or never got a leader.
pub async fn announce(consensus: &Consensus, identity: Identity, node: MemberNode) -> Result<(), Error> {
    let raft = consensus.raft();
    let failed = |error: &dyn std::error::Error| Error::Consensus(error.to_string());
    if !raft.is_initialized().await.map_err(|e| failed(&e))? {
        let members = BTreeMap::from([(identity.member, node.clone())]);
        raft.initialize(members).await.map_err(|e| failed(&e))?;
    }
    let limit = std::time::Duration::from_secs(30);
    raft.wait(Some(limit)).metrics(|m| m.current_leader.is_some(), "a leader").await.map_err(|e| failed(&e))?;
    let known = consensus.members().into_iter().find(|(id, ..)| *id == identity.member);
    if consensus.is_leader() && known.is_some_and(|(_, known, _)| known != node) {
        let change = ChangeMembers::SetNodes(BTreeMap::from([(identity.member, node)]));
        raft.change_membership(change, true).await.map_err(|e| failed(&e))?;
    }
    if consensus.members().len() == 1 && consensus.is_leader() {
        // Alone there is no one to send heartbeats to and no election to time: an idle member should sleep.
        raft.runtime_config().heartbeat(false);
        raft.runtime_config().tick(false);
    }
    Ok(())
}

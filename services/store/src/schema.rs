//! Every column family, every key and the form of every value on disk. Besides the files of [`crate::wal`], nothing else in
//! this crate knows a byte layout.
//!
//! A value is `crc32 (4 bytes, little endian) ++ payload`. The checksum covers the family name and the key as well, so a
//! value that ends up under another key is as wrong as a flipped bit. There is no family for the key index: opening the
//! store reads and verifies every revision anyway, and that one pass rebuilds the index.

use bytes::Bytes;
use prost::Message;
use store_api::mvccpb::KeyValue;

/// Raft entries: no family, but the name under which the values in [`crate::wal`] are sealed. Key: index (8 bytes, big
/// endian); value: [`LogRecord`].
pub const RAFT_LOG: &str = "raft_log";
/// Key-value records; key: [`Revision`]; value: [`encode_record`].
pub const MVCC: &str = "mvcc";
/// Granted leases; key: lease id (8 bytes, big endian); value: granted seconds (8 bytes, big endian).
pub const LEASE: &str = "lease";
/// Everything else the state machine keeps; keys in [`state`].
pub const STATE: &str = "state";

/// All families, in the order they are opened and verified.
pub const FAMILIES: [&str; 3] = [MVCC, LEASE, STATE];

/// Keys of [`STATE`].
pub mod state {
    /// The version of this layout, one byte.
    pub const FORMAT: &[u8] = b"format";
    /// Cluster id, member id and incarnation, 8 bytes each, and whether this member founds the cluster, 1 byte.
    pub const IDENTITY: &[u8] = b"identity";
    /// [`super::Applied`]; written in the same batch as the changes it covers.
    pub const APPLIED: &[u8] = b"applied";
    /// The last applied membership, JSON.
    pub const MEMBERSHIP: &[u8] = b"membership";
    /// The revision that was asked to be compacted to, 8 bytes.
    pub const COMPACT_WANTED: &[u8] = b"compact_wanted";
    /// The revision up to which superseded records are gone, 8 bytes.
    pub const COMPACT_DONE: &[u8] = b"compact_done";
    /// Active alarms: an encoded `AlarmResponse`.
    pub const ALARMS: &[u8] = b"alarms";
    /// Users and roles: an encoded [`crate::auth::Book`].
    pub const AUTH: &[u8] = b"auth";
    /// Ids of members that were removed, JSON: none of them is ever a member again.
    pub const REMOVED: &[u8] = b"removed";
    /// The folder of a received snapshot that is being installed.
    pub const INSTALLING: &[u8] = b"installing";
}

/// The layout this code reads and writes.
pub const FORMAT: u8 = 2;

/// A stored value that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupt record in column family {family}, key {}: {reason}", printable(.key))]
pub struct Corruption {
    /// Where it was found.
    pub family: &'static str,
    /// Under which key.
    pub key: Vec<u8>,
    /// What is wrong.
    pub reason: String,
}

impl Corruption {
    /// Names a damaged record.
    pub fn new(family: &'static str, key: &[u8], reason: impl ToString) -> Self {
        Corruption { family, key: key.to_vec(), reason: reason.to_string() }
    }
}

fn printable(key: &[u8]) -> String {
    let readable = !key.is_empty() && key.iter().all(|b| b.is_ascii_graphic());
    if readable { String::from_utf8_lossy(key).into_owned() } else { format!("0x{}", hex(key)) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn checksum(family: &str, key: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(family.as_bytes());
    hasher.update(key);
    hasher.update(payload);
    hasher.finalize()
}

/// Puts the checksum in front of a payload.
pub fn seal(family: &str, key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(4 + payload.len());
    value.extend_from_slice(&checksum(family, key, payload).to_le_bytes());
    value.extend_from_slice(payload);
    value
}

/// Verifies and removes the checksum.
///
/// # Errors
/// The value is too short or was changed.
pub fn unseal<'v>(family: &'static str, key: &[u8], value: &'v [u8]) -> Result<&'v [u8], Corruption> {
    let Some((stored, payload)) = value.split_first_chunk::<4>() else {
        return Err(Corruption::new(family, key, format!("{} bytes are too few", value.len())));
    };
    let (stored, actual) = (u32::from_le_bytes(*stored), checksum(family, key, payload));
    if stored == actual {
        Ok(payload)
    } else {
        Err(Corruption::new(family, key, format!("checksum is {actual:08x} where {stored:08x} was written")))
    }
}

/// When a change happened: the transaction (`main`) and the place in it (`sub`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The store's revision after the transaction.
    pub main: i64,
    /// The number of earlier changes in the same transaction.
    pub sub: u32,
}

impl Revision {
    /// The first revision of transaction `main`.
    pub fn first(main: i64) -> Self {
        Revision { main, sub: 0 }
    }

    /// The record's key; keys sort as revisions do.
    pub fn key(self) -> [u8; 12] {
        let mut key = [0; 12];
        key[..8].copy_from_slice(&self.main.to_be_bytes());
        key[8..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    /// Reads a record's key.
    ///
    /// # Errors
    /// The key has another length.
    pub fn from_key(key: &[u8]) -> Result<Self, Corruption> {
        let bad = || Corruption::new(MVCC, key, "not a revision");
        let (main, sub) = key.split_first_chunk::<8>().ok_or_else(bad)?;
        let sub: [u8; 4] = sub.try_into().map_err(|_| bad())?;
        Ok(Revision { main: i64::from_be_bytes(*main), sub: u32::from_be_bytes(sub) })
    }
}

const PUT: u8 = 0;
const TOMBSTONE: u8 = 1;

/// One revision's record, sealed: a kind byte and the encoded key-value (a tombstone holds the key only).
pub fn encode_record(revision: Revision, tombstone: bool, kv: &KeyValue) -> Vec<u8> {
    let mut payload = Vec::with_capacity(1 + kv.encoded_len());
    payload.push(if tombstone { TOMBSTONE } else { PUT });
    payload.extend_from_slice(&kv.encode_to_vec());
    seal(MVCC, &revision.key(), &payload)
}

/// Reads a record: whether it is a tombstone, and its content.
///
/// # Errors
/// The record was changed after it was written.
pub fn decode_record(revision: Revision, value: Vec<u8>) -> Result<(bool, KeyValue), Corruption> {
    let key = revision.key();
    let bad = |reason: &str| Corruption::new(MVCC, &key, reason);
    unseal(MVCC, &key, &value)?;
    // Decoding from `Bytes` shares the buffer instead of copying key and value out of it.
    let payload = Bytes::from(value).slice(4..);
    let tombstone = match payload.first() {
        Some(&PUT) => false,
        Some(&TOMBSTONE) => true,
        _ => return Err(bad("unknown kind")),
    };
    let kv = KeyValue::decode(payload.slice(1..)).map_err(|e| bad(&e.to_string()))?;
    if kv.mod_revision != revision.main {
        return Err(bad("holds another revision"));
    }
    Ok((tombstone, kv))
}

/// How far the state machine got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Term and index of the last applied entry; `None` before the first.
    pub log: Option<(u64, u64)>,
    /// The store's revision after it.
    pub revision: i64,
}

impl Applied {
    /// The payload of [`state::APPLIED`].
    pub fn encode(self) -> Vec<u8> {
        let mut out = self.revision.to_be_bytes().to_vec();
        if let Some((term, index)) = self.log {
            out.extend_from_slice(&term.to_be_bytes());
            out.extend_from_slice(&index.to_be_bytes());
        }
        out
    }

    /// Reads [`Applied::encode`]'s bytes; `None` if they are none.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (revision, log) = payload.split_first_chunk::<8>()?;
        let log = match log.split_first_chunk::<8>() {
            None if log.is_empty() => None,
            None => return None,
            Some((term, index)) => Some((u64::from_be_bytes(*term), u64::from_be_bytes(index.try_into().ok()?))),
        };
        Some(Applied { log, revision: i64::from_be_bytes(*revision) })
    }
}

/// What a Raft entry carries on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// Nothing: a new leader's first entry.
    Blank = 0,
    /// An encoded proposal.
    Proposal = 1,
    /// A membership, JSON.
    Membership = 2,
}

/// A Raft entry on disk, without its index (the key).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRecord<'a> {
    /// The leader's term.
    pub term: u64,
    /// What `body` is.
    pub kind: LogKind,
    /// The content.
    pub body: &'a [u8],
}

impl<'a> LogRecord<'a> {
    /// The sealed value for `index`.
    pub fn encode(&self, index: u64) -> Vec<u8> {
        let mut payload = Vec::with_capacity(9 + self.body.len());
        payload.extend_from_slice(&self.term.to_be_bytes());
        payload.push(self.kind as u8);
        payload.extend_from_slice(self.body);
        seal(RAFT_LOG, &index.to_be_bytes(), &payload)
    }

    /// Reads the value of `index`.
    ///
    /// # Errors
    /// The value was changed after it was written.
    pub fn decode(index: u64, value: &'a [u8]) -> Result<Self, Corruption> {
        let key = index.to_be_bytes();
        let payload = unseal(RAFT_LOG, &key, value)?;
        let bad = || Corruption::new(RAFT_LOG, &key, "not a log record");
        let (term, rest) = payload.split_first_chunk::<8>().ok_or_else(bad)?;
        let (kind, body) = rest.split_first().ok_or_else(bad)?;
        let kind = match kind {
            0 => LogKind::Blank,
            1 => LogKind::Proposal,
            2 => LogKind::Membership,
            _ => return Err(bad()),
        };
        Ok(LogRecord { term: u64::from_be_bytes(*term), kind, body })
    }
}

/// Reads an 8-byte big-endian number.
///
/// # Errors
/// Another length.
pub fn decode_i64(family: &'static str, key: &[u8], payload: &[u8]) -> Result<i64, Corruption> {
    let bytes: [u8; 8] = payload.try_into().map_err(|_| Corruption::new(family, key, "not an 8-byte number"))?;
    Ok(i64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_and_a_moved_value_are_found_and_named() {
        let kv = KeyValue { key: "a".into(), value: "b".into(), mod_revision: 7, ..Default::default() };
        let revision = Revision { main: 7, sub: 1 };
        let value = encode_record(revision, false, &kv);
        assert_eq!(decode_record(revision, value.clone()), Ok((false, kv)));
        for place in 0..value.len() {
            let mut flipped = value.clone();
            flipped[place] ^= 1;
            assert!(decode_record(revision, flipped).is_err(), "byte {place}");
        }
        let error = decode_record(Revision { main: 8, sub: 1 }, value).unwrap_err();
        assert!(error.to_string().starts_with("corrupt record in column family mvcc, key 0x0000"), "{error}");
    }

    #[test]
    fn keys_sort_as_revisions() {
        let revisions = [(1, 9), (2, 0), (2, 1), (255, 0), (256, 0)].map(|(main, sub)| Revision { main, sub });
        let keys = revisions.map(Revision::key);
        assert!(keys.is_sorted());
        assert_eq!(keys.map(|k| Revision::from_key(&k).unwrap()), revisions);
        assert!(Revision::from_key(b"short").is_err());
    }

    #[test]
    fn applied_and_log_records_come_back() {
        for applied in [Applied { log: None, revision: 1 }, Applied { log: Some((3, 9)), revision: 12 }] {
            assert_eq!(Applied::decode(&applied.encode()), Some(applied));
        }
        assert_eq!(Applied::decode(b"123456789"), None);
        let record = LogRecord { term: 4, kind: LogKind::Membership, body: b"{}" };
        assert_eq!(LogRecord::decode(11, &record.encode(11)), Ok(record));
        assert!(LogRecord::decode(12, &record.encode(11)).is_err());
    }
}

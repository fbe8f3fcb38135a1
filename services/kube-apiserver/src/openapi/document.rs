//! A document as it is sent: its bytes, their hash, and their compressed form, each made once.

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::OnceLock;

/// A document that does not change while the server runs.
pub struct Document {
    /// What it says.
    pub bytes: Bytes,
    /// SHA-256 in upper-case hexadecimal: its entity tag, and its version in addresses.
    pub hash: String,
    packed: OnceLock<Option<Bytes>>,
}

impl Document {
    pub(super) fn new(bytes: Bytes) -> Self {
        let hash = Sha256::digest(&bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02X}");
            text
        });
        Self::with_hash(bytes, hash)
    }

    /// Another form of a document that has this hash.
    pub(crate) fn with_hash(bytes: Bytes, hash: String) -> Self {
        Self { bytes, hash, packed: OnceLock::new() }
    }

    /// Compressed with gzip.
    pub fn packed(&self) -> Option<Bytes> {
        let pack = || {
            let mut packer = GzEncoder::new(Vec::with_capacity(self.bytes.len() / 8), Compression::default());
            packer.write_all(&self.bytes).ok()?;
            packer.finish().ok().map(Bytes::from)
        };
        self.packed.get_or_init(pack).clone()
    }
}

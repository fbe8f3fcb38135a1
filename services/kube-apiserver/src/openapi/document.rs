//! A document as it is sent: compressed, as almost every client takes it, and its hash.

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};

/// A document that does not change while the server runs.
pub struct Document {
    /// What it says, compressed with gzip.
    pub packed: Bytes,
    /// SHA-256 in upper-case hexadecimal: its entity tag, and its version in addresses.
    pub hash: String,
}

impl Document {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let hash = Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02X}");
            text
        });
        Self::with_hash(bytes, hash)
    }

    /// Another form of a document that has this hash.
    pub(super) fn with_hash(bytes: &[u8], hash: String) -> Self {
        let mut packer = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
        // Writing to a vector cannot fail.
        let packed = packer.write_all(bytes).and_then(|()| packer.finish()).unwrap_or_default();
        Self { packed: packed.into(), hash }
    }

    /// What it says, for clients who do not unpack.
    ///
    /// # Errors
    /// None that can be thought of: what was packed here can be unpacked.
    pub fn unpacked(&self) -> io::Result<Bytes> {
        let mut bytes = Vec::with_capacity(self.packed.len() * 8);
        GzDecoder::new(&self.packed[..]).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }
}

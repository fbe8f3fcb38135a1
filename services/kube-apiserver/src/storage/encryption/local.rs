//! The ciphers whose keys are in the configuration. Pure but for random numbers.

use super::{EncryptionError, Opened};
use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce};
use aws_lc_rs::cipher::{
    self, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand;
use bytes::Bytes;
use crypto_secretbox::{AeadInPlace, KeyInit, XSalsa20Poly1305};

/// Bytes of a GCM nonce, in front of what it belongs to.
pub const NONCE: usize = 12;
const IV: usize = 16;
const BOX_NONCE: usize = 24;

/// Which cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-GCM with random nonces: a nonce, the text and its tag. The key in the store is authenticated too.
    AesGcm,
    /// AES-CBC with PKCS#7 padding: an initial vector and the text. Not authenticated.
    AesCbc,
    /// XSalsa20 and Poly1305 (NaCl): a nonce, a tag and the text.
    Secretbox,
}

impl Cipher {
    /// Allowed sizes of keys, in bytes.
    pub fn key_sizes(self) -> &'static [usize] {
        match self {
            Self::AesGcm | Self::AesCbc => &[16, 24, 32],
            Self::Secretbox => &[32],
        }
    }

    /// In the prefix of values.
    pub fn name(self) -> &'static str {
        match self {
            Self::AesGcm => "aesgcm",
            Self::AesCbc => "aescbc",
            Self::Secretbox => "secretbox",
        }
    }
}

enum Key {
    Gcm(LessSafeKey),
    Cbc(Box<(PaddedBlockEncryptingKey, PaddedBlockDecryptingKey)>),
    Box(Box<XSalsa20Poly1305>),
}

/// A cipher with its named keys.
pub struct Keys {
    prefix: String,
    /// Each with the rest of its prefix.
    keys: Vec<(String, Key)>,
}

impl Keys {
    /// Keys as the configuration has them.
    pub fn new(cipher: Cipher, keys: Vec<(String, Vec<u8>)>) -> Result<Self, String> {
        let key = |(name, secret): (String, Vec<u8>)| Ok((format!("{name}:"), Key::new(cipher, &secret)?));
        let keys: Result<Vec<(String, Key)>, String> = keys.into_iter().map(key).collect();
        Ok(Self { prefix: format!("k8s:enc:{}:v1:", cipher.name()), keys: keys? })
    }

    /// What its values begin with, without the key's name.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A value for a text, by the first key. `path` is where it will be stored.
    pub fn seal(&self, path: &[u8], text: Vec<u8>) -> Result<Vec<u8>, EncryptionError> {
        let (name, key) = self.keys.first().ok_or(EncryptionError::NoProvider)?;
        let sealed = key.seal(path, text).ok_or_else(|| EncryptionError::Undecryptable(self.prefix.clone()))?;
        Ok([self.prefix.as_bytes(), name.as_bytes(), &sealed].concat())
    }

    /// The text of a value that begins with the prefix. Several keys may have the same name.
    pub fn open(&self, path: &[u8], value: &[u8]) -> Result<Opened, EncryptionError> {
        let rest = value.get(self.prefix.len()..).unwrap_or_default();
        let mut named = None;
        for (place, (name, key)) in self.keys.iter().enumerate() {
            let Some(sealed) = rest.strip_prefix(name.as_bytes()) else { continue };
            if let Some(text) = key.open(path, sealed) {
                return Ok(Opened { text, stale: place > 0 });
            }
            named = Some(name);
        }
        Err(named.map_or(EncryptionError::NoProvider, |name| {
            EncryptionError::Undecryptable(format!("{}{name}", self.prefix))
        }))
    }
}

impl Key {
    fn new(cipher: Cipher, secret: &[u8]) -> Result<Self, String> {
        let size = || format!("a {} key of {} bytes", cipher.name(), secret.len());
        match cipher {
            Cipher::AesGcm => gcm_key(secret).map(Key::Gcm).ok_or_else(size),
            Cipher::AesCbc => {
                let algorithm = match secret.len() {
                    16 => &cipher::AES_128,
                    24 => &cipher::AES_192,
                    _ => &cipher::AES_256,
                };
                let unbound = || UnboundCipherKey::new(algorithm, secret).map_err(|_| size());
                let encrypting = PaddedBlockEncryptingKey::cbc_pkcs7(unbound()?).map_err(|_| size())?;
                let decrypting = PaddedBlockDecryptingKey::cbc_pkcs7(unbound()?).map_err(|_| size())?;
                Ok(Key::Cbc(Box::new((encrypting, decrypting))))
            }
            Cipher::Secretbox => {
                XSalsa20Poly1305::new_from_slice(secret).map(|key| Key::Box(Box::new(key))).map_err(|_| size())
            }
        }
    }

    fn seal(&self, path: &[u8], mut text: Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Key::Gcm(key) => gcm_seal(key, path, text),
            Key::Cbc(keys) => {
                let iv: [u8; IV] = random()?;
                keys.0.less_safe_encrypt(&mut text, EncryptionContext::Iv128(FixedLength::from(iv))).ok()?;
                Some([iv.as_slice(), &text].concat())
            }
            Key::Box(key) => {
                let nonce: [u8; BOX_NONCE] = random()?;
                let tag = key.encrypt_in_place_detached(&nonce.into(), &[], &mut text).ok()?;
                Some([nonce.as_slice(), &tag, &text].concat())
            }
        }
    }

    fn open(&self, path: &[u8], sealed: &[u8]) -> Option<Bytes> {
        match self {
            Key::Gcm(key) => gcm_open(key, path, sealed),
            Key::Cbc(keys) => {
                let (iv, text) = sealed.split_first_chunk::<IV>()?;
                let mut text = text.to_vec();
                let open = keys.1.decrypt(&mut text, DecryptionContext::Iv128(FixedLength::from(iv))).ok()?.len();
                text.truncate(open);
                Some(text.into())
            }
            Key::Box(key) => {
                let (nonce, rest) = sealed.split_first_chunk::<BOX_NONCE>()?;
                let (tag, text) = rest.split_first_chunk::<16>()?;
                let mut text = text.to_vec();
                key.decrypt_in_place_detached(nonce.into(), &[], &mut text, tag.into()).ok()?;
                Some(text.into())
            }
        }
    }
}

/// An AES-GCM key of 16, 24 or 32 bytes.
pub fn gcm_key(secret: &[u8]) -> Option<LessSafeKey> {
    let algorithm = match secret.len() {
        16 => &aead::AES_128_GCM,
        24 => &aead::AES_192_GCM,
        32 => &aead::AES_256_GCM,
        _ => return None,
    };
    aead::UnboundKey::new(algorithm, secret).ok().map(LessSafeKey::new)
}

/// A nonce, then the text and its tag.
pub fn gcm_seal(key: &LessSafeKey, path: &[u8], mut text: Vec<u8>) -> Option<Vec<u8>> {
    let nonce: [u8; NONCE] = random()?;
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(path), &mut text).ok()?;
    Some([nonce.as_slice(), &text].concat())
}

/// The text of what [`gcm_seal`] made.
pub fn gcm_open(key: &LessSafeKey, path: &[u8], sealed: &[u8]) -> Option<Bytes> {
    let (nonce, text) = sealed.split_first_chunk::<NONCE>()?;
    let mut text = text.to_vec();
    let open = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(path), &mut text).ok()?.len();
    text.truncate(open);
    Some(text.into())
}

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).ok()?;
    Some(bytes)
}

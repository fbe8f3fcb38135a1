//! The messages of Kubernetes' key service API, v2 (package `v2` of k8s.io/kms), and of what is stored with it. Field numbers are the protocol.

use std::collections::BTreeMap;

/// Asks how the service is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusRequest {}

/// How it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponse {
    /// The API's version.
    #[prost(string, tag = "1")]
    pub version: String,
    /// `ok`, or what is wrong.
    #[prost(string, tag = "2")]
    pub healthz: String,
    /// The key that it encrypts with now.
    #[prost(string, tag = "3")]
    pub key_id: String,
}

/// Asks for a seed in the clear.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DecryptRequest {
    /// As encrypted.
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    /// Of this request, for logs.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// By which key.
    #[prost(string, tag = "3")]
    pub key_id: String,
    /// What the service gave with it.
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub annotations: BTreeMap<String, Vec<u8>>,
}

/// A seed in the clear.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DecryptResponse {
    /// The seed.
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
}

/// Asks for a seed to be encrypted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EncryptRequest {
    /// The seed.
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
    /// Of this request, for logs.
    #[prost(string, tag = "2")]
    pub uid: String,
}

/// An encrypted seed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EncryptResponse {
    /// The seed, encrypted.
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    /// By which key.
    #[prost(string, tag = "2")]
    pub key_id: String,
    /// What is to be stored with it.
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub annotations: BTreeMap<String, Vec<u8>>,
}

/// What is stored: the text, encrypted by a seed, and the seed, encrypted by the service.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EncryptedObject {
    /// The text.
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
    /// By which key the seed is encrypted.
    #[prost(string, tag = "2")]
    pub key_id: String,
    /// The seed.
    #[prost(bytes = "vec", tag = "3")]
    pub source: Vec<u8>,
    /// What the service gave with it.
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub annotations: BTreeMap<String, Vec<u8>>,
    /// How the seed is used: see [`SEED`].
    #[prost(int32, tag = "5")]
    pub kind: i32,
}

/// The seed is itself the AES-GCM key: older servers.
pub const KEY: i32 = 0;
/// A key for each text is derived from the seed by HKDF-SHA-256 (expansion only), with 32 random bytes in front of the text.
pub const SEED: i32 = 1;

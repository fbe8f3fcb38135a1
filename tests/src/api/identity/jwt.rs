//! Tokens as their issuers sign them, and as somebody else would like to.

use anyhow::{Context as _, Result};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use pki::KeyPair;
use serde_json::{Value, json};

/// A token of these claims. The algorithm follows from the key.
pub fn sign(key: &str, kid: &str, claims: &Value) -> Result<String> {
    let (algorithm, key) = match EncodingKey::from_rsa_pem(key.as_bytes()) {
        Ok(key) => (Algorithm::RS256, key),
        Err(_) => (Algorithm::ES256, EncodingKey::from_ec_pem(key.as_bytes())?),
    };
    let mut header = Header::new(algorithm);
    header.kid = Some(kid.to_owned());
    Ok(jsonwebtoken::encode(&header, claims, &key)?)
}

/// What a token says.
pub fn claims(token: &str) -> Result<Value> {
    Ok(jsonwebtoken::dangerous::insecure_decode_claims(token)?)
}

/// The key that a token names.
pub fn kid(token: &str) -> Result<String> {
    jsonwebtoken::decode_header(token)?.kid.context("a token names its key")
}

/// An ECDSA key as a provider publishes it.
pub fn published(key: &KeyPair, kid: &str) -> Result<Value> {
    let public = DecodingKey::from_ec_pem(key.public_pem().as_bytes())?;
    let mut jwk = serde_json::to_value(Jwk::from_decoding_key(&public, Some(Algorithm::ES256))?)?;
    jwk["kid"] = json!(kid);
    Ok(jwk)
}

/// Seconds since 1970.
pub fn now() -> i64 {
    pki::now()
}

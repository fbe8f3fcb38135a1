//! The keys of service-account tokens, RSA or ECDSA P-256, from PEM files with private or public halves.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Error;

/// Signs.
pub struct Signer {
    /// RS256 or ES256, by the key's type.
    pub algorithm: Algorithm,
    /// Names the key in a token's header.
    pub kid: String,
    /// The private half.
    pub key: EncodingKey,
    public_pem: String,
}

/// Verifies.
#[derive(Clone)]
pub struct Verifier {
    /// RS256 or ES256.
    pub algorithm: Algorithm,
    /// The key's name: a digest of its public half, so that every server computes the same.
    pub kid: String,
    /// The public half.
    pub key: DecodingKey,
    /// As published.
    pub jwk: Value,
}

impl Signer {
    /// The private key in a PEM file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::Read(path.into(), e))?;
        Self::from_pem(&text).map_err(|why| Error::Key(path.into(), why))
    }

    /// The private key in a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, String> {
        // Whatever form the file has, the libraries below want PKCS#8.
        let pair = pki::KeyPair::from_pem(pem).map_err(|e| e.to_string())?;
        let verifier = Verifier::from_public_pem(pair.public_pem())?;
        let private = pair.private_pem().as_bytes();
        let key = match verifier.algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem(private),
            _ => EncodingKey::from_rsa_pem(private),
        }
        .map_err(|e| e.to_string())?;
        Ok(Self { algorithm: verifier.algorithm, kid: verifier.kid, key, public_pem: pair.public_pem().to_owned() })
    }

    /// The verifier of its own signatures.
    #[expect(clippy::expect_used, reason = "from_pem read this very text")]
    pub fn verifier(&self) -> Verifier {
        Verifier::from_public_pem(&self.public_pem).expect("a public key read before")
    }
}

impl Verifier {
    /// Every key in a PEM file.
    pub fn load(path: &Path) -> Result<Vec<Self>, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::Read(path.into(), e))?;
        Self::from_pem(&text).map_err(|why| Error::Key(path.into(), why))
    }

    /// Every key in a PEM text; private ones count by their public half.
    pub fn from_pem(text: &str) -> Result<Vec<Self>, String> {
        let mut found = Vec::new();
        for block in blocks(text) {
            let label = block.lines().next().unwrap_or_default();
            if label.contains("PUBLIC KEY") {
                found.push(Self::from_public_pem(&block)?);
            } else if label.contains("PRIVATE KEY") {
                let pair = pki::KeyPair::from_pem(&block).map_err(|e| e.to_string())?;
                found.push(Self::from_public_pem(pair.public_pem())?);
            }
        }
        if found.is_empty() { Err("holds no key in PEM".into()) } else { Ok(found) }
    }

    fn from_public_pem(pem: &str) -> Result<Self, String> {
        let rsa = DecodingKey::from_rsa_pem(pem.as_bytes()).map(|k| (k, Algorithm::RS256));
        let (key, algorithm) = rsa
            .or_else(|_| DecodingKey::from_ec_pem(pem.as_bytes()).map(|k| (k, Algorithm::ES256)))
            .map_err(|_| "is neither an RSA nor an ECDSA key".to_owned())?;
        let body: String = pem.lines().filter(|l| !l.starts_with("-----")).map(str::trim).collect();
        let der = STANDARD.decode(body).map_err(|e| e.to_string())?;
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(&der));
        let jwk = Jwk::from_decoding_key(&key, Some(algorithm)).map_err(|e| e.to_string())?;
        let mut jwk = serde_json::to_value(jwk).map_err(|e| e.to_string())?;
        jwk["kid"] = json!(kid);
        jwk["use"] = json!("sig");
        if algorithm == Algorithm::ES256 && jwk["crv"] != "P-256" {
            return Err(format!("is an ECDSA key on {}; only P-256 is supported", jwk["crv"]));
        }
        Ok(Self { algorithm, kid, key, jwk })
    }

    /// RS256 or ES256.
    pub fn algorithm_name(&self) -> &'static str {
        if self.algorithm == Algorithm::ES256 { "ES256" } else { "RS256" }
    }
}

fn blocks(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        if line.starts_with("-----BEGIN ") {
            current = Some(String::new());
        }
        if let Some(block) = &mut current {
            block.push_str(line);
            block.push('\n');
            if line.starts_with("-----END ") {
                out.extend(current.take());
            }
        }
    }
    out
}

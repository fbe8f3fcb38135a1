//! Service-account tokens: JWTs bound to the account (and usually a pod) they are for. Issued on request, never stored, and dead
//! as soon as what they are bound to is gone.
//!
//! [`keys`] reads and publishes the keys, [`claims`] is the pure part, [`seen`] spares work, [`request`] serves the token subresource.

pub mod claims;
pub mod keys;
pub mod request;
mod seen;

#[cfg(test)]
mod tests;

pub use claims::{Bound, VerifiedToken};
pub use request::token_request;

use std::path::PathBuf;

use jsonwebtoken::{Header, Validation};
use serde_json::{Value, json};

use crate::config::Config;
use keys::{Signer, Verifier};
use seen::Seen;

/// What can be wrong with the keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// The file holds no key that can be used.
    #[error("{0}: {1}")]
    Key(PathBuf, String),
}

/// Issues and verifies.
pub struct Tokens {
    signer: Signer,
    verifiers: Vec<Verifier>,
    seen: Seen,
    issuers: Vec<String>,
    audiences: Vec<String>,
}

impl Tokens {
    /// Reads the keys the flags name.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let signer = Signer::load(&config.service_account_signing_key_file)?;
        let mut verifiers = vec![signer.verifier()];
        for path in &config.service_account_key_file {
            for verifier in Verifier::load(path)? {
                if !verifiers.iter().any(|v| v.kid == verifier.kid) {
                    verifiers.push(verifier);
                }
            }
        }
        Ok(Self {
            signer,
            verifiers,
            seen: Seen::default(),
            issuers: config.service_account_issuer.clone(),
            audiences: config.audiences().to_vec(),
        })
    }

    /// Audiences of a token that asks for none: this server.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    fn issuer(&self) -> &str {
        self.issuers.first().map_or("", String::as_str)
    }

    /// A signed token for what `bound` names.
    pub fn issue(&self, bound: &Bound, audiences: &[String], seconds: i64, now: i64) -> Result<String, String> {
        let extend = audiences.iter().all(|a| self.audiences.contains(a));
        let claims = claims::build(self.issuer(), bound, audiences, claims::Life { seconds, now, extend });
        let mut header = Header::new(self.signer.algorithm);
        header.typ = None;
        header.kid = Some(self.signer.kid.clone());
        jsonwebtoken::encode(&header, &claims, &self.signer.key).map_err(|e| e.to_string())
    }

    /// Checks everything that can be checked without asking the store. No audiences means this server's own.
    pub fn verify(&self, token: &str, audiences: &[String]) -> Result<VerifiedToken, String> {
        let claims = self.seen.claims(token, || self.signed(token))?;
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        claims::check(&claims, &self.issuers, wanted, jsonwebtoken::get_current_timestamp().cast_signed())
    }

    /// The claims of a token one of our keys has signed.
    fn signed(&self, token: &str) -> Result<Value, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|e| format!("invalid bearer token: {e}"))?;
        let candidates = self
            .verifiers
            .iter()
            .filter(|v| header.kid.as_ref().is_none_or(|kid| *kid == v.kid) && v.algorithm == header.alg);
        for verifier in candidates {
            // Signature only: times and audiences are judged in claims::check, where they can be tested.
            let mut validation = Validation::new(verifier.algorithm);
            validation.validate_exp = false;
            validation.validate_aud = false;
            validation.required_spec_claims.clear();
            if let Ok(data) = jsonwebtoken::decode::<Value>(token, &verifier.key, &validation) {
                return Ok(data.claims);
            }
        }
        Err("invalid bearer token: no key of this cluster has signed it".into())
    }

    /// /openid/v1/jwks: the public keys.
    pub fn jwks(&self) -> Value {
        json!({"keys": self.verifiers.iter().map(|v| v.jwk.clone()).collect::<Vec<_>>()})
    }

    /// /.well-known/openid-configuration, for verifiers that only know the issuer.
    pub fn openid_configuration(&self) -> Value {
        let mut algorithms: Vec<&str> = self.verifiers.iter().map(Verifier::algorithm_name).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        json!({
            "issuer": self.issuer(),
            "jwks_uri": format!("{}/openid/v1/jwks", self.issuer().trim_end_matches('/')),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }
}

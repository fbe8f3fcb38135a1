//! Tokens whose signature has been verified: clients send the same one with every request, and checking an RSA signature costs more than all the rest of a
//! small read. Only what can never change is remembered; times, audiences and what a token is bound to are looked at every time.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Each of two generations. A token that is used moves to the young one; the old one is forgotten when the young one is full.
const GENERATION: usize = 2048;

/// Never the tokens themselves.
type Digested = [u8; 32];

#[derive(Default)]
struct Generations {
    young: HashMap<Digested, Arc<Value>>,
    old: HashMap<Digested, Arc<Value>>,
}

/// What has been seen.
#[derive(Default)]
pub struct Seen(Mutex<Generations>);

impl Seen {
    /// The claims of a token seen before, or those that `verify` finds.
    pub fn claims<E>(&self, token: &str, verify: impl FnOnce() -> Result<Value, E>) -> Result<Arc<Value>, E> {
        let digest: Digested = Sha256::digest(token).into();
        if let Some(claims) = self.0.lock().find(&digest) {
            return Ok(claims);
        }
        let claims = Arc::new(verify()?);
        self.0.lock().put(digest, claims.clone());
        Ok(claims)
    }
}

impl Generations {
    fn find(&mut self, digest: &Digested) -> Option<Arc<Value>> {
        if let Some(claims) = self.young.get(digest) {
            return Some(claims.clone());
        }
        let claims = self.old.remove(digest)?;
        self.put(*digest, claims.clone());
        Some(claims)
    }

    fn put(&mut self, digest: Digested, claims: Arc<Value>) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, claims);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_token_is_verified_once_and_forgotten_when_it_is_not_used() {
        let seen = Seen::default();
        let verified = |token: &str| {
            let mut asked = false;
            let verify = || {
                asked = true;
                Ok::<_, ()>(json!(token))
            };
            assert_eq!(seen.claims(token, verify).map(|c| c.as_str() == Some(token)), Ok(true));
            asked
        };
        assert!(verified("a") && !verified("a"));
        for i in 0..3 * GENERATION {
            verified(&format!("t{i}"));
            if i % 1000 == 0 {
                assert!(!verified("a"), "{i}");
            }
        }
        assert!(verified("t0"));
        assert!(seen.0.lock().young.len() <= GENERATION && seen.0.lock().old.len() <= GENERATION);
        // What is no token is asked about each time.
        assert_eq!(seen.claims("no", || Err::<Value, _>(1)), Err(1));
        assert_eq!(seen.claims("no", || Err::<Value, _>(2)), Err(2));
    }
}

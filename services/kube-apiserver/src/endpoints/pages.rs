//! Continue tokens and how a page is cut from a sequence. Pure.

use crate::errors::ApiError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The token's own version.
    v: String,
    /// The version all pages are read at; -1: the newest, after an expired token.
    pub rv: i64,
    /// The first key of the page, below the list's prefix.
    pub start: String,
}

const VERSION: &str = "meta.k8s.io/v1";

/// The version of a token that goes on at whatever is newest.
pub const NEWEST: i64 = -1;

impl Token {
    /// A token for what follows `last`.
    pub fn after(last: &str, rv: i64) -> Self {
        Self { v: VERSION.into(), rv, start: format!("{last}\0") }
    }

    /// As it stands in metadata.continue.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads what a client sent.
    pub fn decode(text: &str) -> Result<Self, ApiError> {
        let bad = || ApiError::bad_request("invalid continue token: continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| bad())?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        if token.v != VERSION || token.start.is_empty() || token.start.starts_with('/') || token.rv < NEWEST {
            Err(bad())
        } else {
            Ok(token)
        }
    }
}

/// The 410 for a token whose version is gone, with a token that goes on from the same place.
pub fn expired(token: &Token) -> ApiError {
    let mut error = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, \
         or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an \
         inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    error.0.continue_token = Some(Token { rv: NEWEST, ..token.clone() }.encode());
    error
}

/// A page being filled in key order.
#[derive(Debug)]
pub struct Page<T> {
    /// What it holds.
    pub items: Vec<T>,
    limit: usize,
    /// Whether something follows.
    pub more: bool,
    /// The key of the last item.
    pub last: String,
}

impl<T> Page<T> {
    /// An empty page; a limit of 0 is none.
    pub fn new(limit: usize) -> Self {
        Self { items: Vec::new(), limit, more: false, last: String::new() }
    }

    /// Offers the next candidate; `false` once the page is full and nothing more need be offered.
    pub fn offer(&mut self, key: impl FnOnce() -> String, item: T, matches: bool) -> bool {
        if self.limit > 0 && self.items.len() == self.limit {
            self.more = true;
            return false;
        }
        if matches {
            self.last = key();
            self.items.push(item);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_trip() {
        let token = Token::after("ns/name", 7);
        assert_eq!(Token::decode(&token.encode()), Ok(token.clone()));
        for bad in ["", "x", "e30", &URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"/etc"}"#)] {
            assert!(Token::decode(bad).is_err(), "{bad}");
        }
        let fresh = expired(&token).0.continue_token.expect("a token");
        assert_eq!(Token::decode(&fresh).map(|t| (t.rv, t.start)), Ok((NEWEST, "ns/name\0".to_string())));
    }

    #[test]
    fn a_page_knows_whether_more_follows() {
        let fill = |limit: usize, candidates: &[(&str, bool)]| {
            let mut page = Page::new(limit);
            for (key, matches) in candidates {
                if !page.offer(|| key.to_string(), *key, *matches) {
                    break;
                }
            }
            (page.items.len(), page.more, page.last)
        };
        assert_eq!(fill(0, &[("a", true), ("b", true)]), (2, false, "b".into()));
        assert_eq!(fill(2, &[("a", true), ("b", true)]), (2, false, "b".into()));
        assert_eq!(fill(1, &[("a", true), ("b", true)]), (1, true, "a".into()));
        assert_eq!(fill(1, &[("a", false), ("b", true)]), (1, false, "b".into()));
    }
}

//! Tokens that were handed out, and how long they are good. Pure: the caller brings the clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// After so long without use; etcd's default.
const LIFE: Duration = Duration::from_secs(300);
/// The one that ends first goes when there are more.
const LIMIT: usize = 1 << 16;

/// All tokens of one member.
#[derive(Debug, Default)]
pub struct Tokens(HashMap<String, (String, Instant)>);

impl Tokens {
    /// Adds a token.
    pub fn insert(&mut self, token: &str, user: &str, now: Instant) {
        if self.0.len() >= LIMIT {
            self.0.retain(|_, (_, end)| *end > now);
        }
        if self.0.len() >= LIMIT
            && let Some(first) = self.0.iter().min_by_key(|(_, (_, end))| *end).map(|(token, _)| token.clone())
        {
            self.0.remove(&first);
        }
        self.0.insert(token.to_owned(), (user.to_owned(), now + LIFE));
    }

    /// Whose token this is; it is good for another while now.
    pub fn user(&mut self, token: &str, now: Instant) -> Option<String> {
        let (user, end) = self.0.get_mut(token).filter(|(_, end)| *end > now)?;
        *end = now + LIFE;
        Some(user.clone())
    }

    /// Takes these users' tokens away.
    pub fn forget(&mut self, users: &[String]) {
        if !users.is_empty() {
            self.0.retain(|_, (user, _)| !users.contains(user));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_as_long_as_it_is_used() {
        let (mut tokens, start) = (Tokens::default(), Instant::now());
        tokens.insert("t", "ann", start);
        tokens.insert("u", "bob", start);
        let nearly = LIFE - Duration::from_secs(1);
        assert_eq!(tokens.user("t", start + nearly).as_deref(), Some("ann"));
        assert_eq!(tokens.user("t", start + 2 * nearly).as_deref(), Some("ann"));
        assert_eq!(tokens.user("u", start + LIFE), None);
        assert_eq!(tokens.user("other", start), None);
        tokens.forget(&["ann".to_owned()]);
        assert_eq!(tokens.user("t", start + 2 * nearly), None);
    }
}

//! Growing pauses before a failed thing is tried again: container restarts and image pulls. Pure: times come in as
//! nanoseconds since 1970.

use std::collections::HashMap;

const SECOND: i64 = 1_000_000_000;
/// The first pause.
pub const FIRST: i64 = 10 * SECOND;
/// The longest pause.
pub const LIMIT: i64 = 300 * SECOND;

#[derive(Clone, Copy, Debug)]
struct Entry {
    pause: i64,
    updated: i64,
}

/// Pauses by key.
#[derive(Clone, Debug)]
pub struct Backoffs {
    entries: HashMap<String, Entry>,
    limit: i64,
}

impl Default for Backoffs {
    fn default() -> Self {
        Backoffs::up_to(LIMIT)
    }
}

impl Backoffs {
    /// No pause is longer than `limit` nanoseconds.
    pub fn up_to(limit: i64) -> Self {
        Backoffs { entries: HashMap::new(), limit }
    }

    /// How long the key still has to pause after a failure at `failed`, and how long the whole pause is; nothing if it may
    /// go on. What went well for twice the longest pause starts afresh.
    pub fn remaining(&self, key: &str, failed: i64, now: i64) -> Option<(i64, i64)> {
        let entry = self.entries.get(key).filter(|e| failed - e.updated <= 2 * LIMIT)?;
        let left = failed + entry.pause - now;
        (left > 0).then_some((left, entry.pause))
    }

    /// Notes another attempt after a failure at `failed`: the next pause is twice as long.
    pub fn next(&mut self, key: &str, failed: i64, now: i64) {
        let pause = match self.entries.get(key) {
            Some(entry) if failed - entry.updated <= 2 * LIMIT => (entry.pause * 2).min(self.limit),
            _ => FIRST.min(self.limit),
        };
        self.entries.insert(key.to_owned(), Entry { pause, updated: now });
    }

    /// When the key's pause was last set.
    pub fn updated(&self, key: &str) -> Option<i64> {
        self.entries.get(key).map(|e| e.updated)
    }

    /// Forgets a key.
    pub fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

/// Nanoseconds since 1970.
pub fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_pauses_double() {
        let mut backoffs = Backoffs::default();
        let mut now = 1000 * SECOND;
        assert_eq!(backoffs.remaining("c", now, now), None);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            backoffs.next("c", now, now);
            now += SECOND;
            let (left, pause) = backoffs.remaining("c", now, now).unwrap();
            assert_eq!(left, pause);
            pauses.push(pause / SECOND);
            now += pause;
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn the_node_can_shorten_the_longest_pause() {
        let mut backoffs = Backoffs::up_to(15 * SECOND);
        let mut pauses = Vec::new();
        for _ in 0..3 {
            backoffs.next("c", 0, 0);
            pauses.push(backoffs.remaining("c", 0, 0).unwrap().1 / SECOND);
        }
        assert_eq!(pauses, [10, 15, 15]);
    }

    #[test]
    fn a_long_good_run_starts_afresh() {
        let mut backoffs = Backoffs::default();
        backoffs.next("c", 0, 0);
        backoffs.next("c", 0, 0);
        let later = 2 * LIMIT + SECOND;
        assert_eq!(backoffs.remaining("c", later, later), None);
        backoffs.next("c", later, later);
        assert_eq!(backoffs.remaining("c", later, later), Some((FIRST, FIRST)));
    }
}

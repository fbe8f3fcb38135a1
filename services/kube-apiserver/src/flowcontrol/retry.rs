//! After how many seconds a refused client should come again: the more were refused, the later. Upstream's rule: it doubles when three times as many
//! requests as it has seconds were refused within them, and shrinks by one when fewer than it has seconds were. Pure.

use std::collections::VecDeque;

/// The longest, in seconds.
const LONGEST: u64 = 32;

/// What one priority level has refused.
#[derive(Debug)]
pub struct Refusals {
    /// How many in which second, oldest first; the current one is the last.
    seconds: VecDeque<(u64, u64)>,
    after: u64,
    raised: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { seconds: VecDeque::new(), after: 1, raised: 0 }
    }
}

impl Refusals {
    /// Another refusal, in a second since any fixed moment before the first one; after how many seconds to come again.
    pub fn add(&mut self, now: u64) -> u32 {
        match self.seconds.back_mut() {
            Some((second, count)) if *second == now => *count += 1,
            _ => {
                self.adjust(now);
                self.seconds.push_back((now, 1));
                while self.seconds.front().is_some_and(|(second, _)| now - second > LONGEST) {
                    self.seconds.pop_front();
                }
            }
        }
        u32::try_from(self.after).unwrap_or(1)
    }

    fn adjust(&mut self, now: u64) {
        let recent = |(second, _): &&(u64, u64)| now - second <= self.after;
        let refused: u64 = self.seconds.iter().filter(recent).map(|(_, count)| count).sum();
        if now - self.raised >= self.after && refused >= 3 * self.after {
            self.after = (self.after * 2).min(LONGEST);
            self.raised = now;
        } else if refused < self.after && self.after > 1 {
            self.after -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_are_refused_the_later_they_come() {
        let mut refusals = Refusals::default();
        let mut second = |now: u64, count: u64| (0..count).map(|_| refusals.add(now)).last();
        // second, refusals in it, what the last one is told
        let table = [
            (100, 10, 1),
            (101, 10, 2),
            (102, 10, 2),
            (103, 10, 4),
            (104, 10, 4),
            (107, 100, 8),
            (115, 100, 16),
            (131, 1000, 32),
            (163, 1000, 32),
            (200, 1, 31),
            (201, 1, 30),
        ];
        for (now, count, want) in table {
            assert_eq!(second(now, count), Some(want), "{now}");
        }
    }
}

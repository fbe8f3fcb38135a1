//! Leases: which exist, which keys hang on them, when they end. Pure: the caller brings the clock.
//!
//! Grants and revokes go through Raft. Deadlines do not: only the leader keeps them, and a new leader starts every lease
//! anew, so that a lease never ends early.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::Refusal;

/// Shorter leases would end during an election.
pub const MIN_TTL: i64 = 2;
/// Longer ones would overflow a deadline.
pub const MAX_TTL: i64 = 9_000_000_000;

#[derive(Debug)]
struct Lease {
    ttl: i64,
    deadline: Instant,
    keys: BTreeSet<Bytes>,
}

/// All leases.
#[derive(Debug, Default)]
pub struct LeaseTable {
    leases: HashMap<i64, Lease>,
    by_key: HashMap<Bytes, i64>,
    deadlines: BTreeSet<(Instant, i64)>,
}

fn end(now: Instant, ttl: i64) -> Instant {
    let seconds = u64::try_from(ttl.clamp(0, MAX_TTL)).unwrap_or(0);
    // An `Instant` that far away may not exist; a century does.
    let far = Duration::from_secs(100 * 365 * 24 * 3600);
    now + Duration::from_secs(seconds).min(far)
}

impl LeaseTable {
    /// Adds a lease; returns the seconds it really gets.
    ///
    /// # Errors
    /// The id is taken or the time too long.
    pub fn grant(&mut self, id: i64, ttl: i64, now: Instant) -> Result<i64, Refusal> {
        if ttl > MAX_TTL {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        let ttl = ttl.max(MIN_TTL);
        let deadline = end(now, ttl);
        self.leases.insert(id, Lease { ttl, deadline, keys: BTreeSet::new() });
        self.deadlines.insert((deadline, id));
        Ok(ttl)
    }

    /// Removes a lease; returns the keys to delete with it, in order.
    ///
    /// # Errors
    /// There is no such lease.
    pub fn revoke(&mut self, id: i64) -> Result<Vec<Bytes>, Refusal> {
        let lease = self.leases.remove(&id).ok_or(Refusal::LeaseNotFound)?;
        self.deadlines.remove(&(lease.deadline, id));
        for key in &lease.keys {
            self.by_key.remove(key);
        }
        Ok(lease.keys.into_iter().collect())
    }

    /// Whether the lease exists.
    pub fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// Hangs a key on a lease instead of the one it hung on; lease 0 is none.
    pub fn attach(&mut self, key: &Bytes, id: i64) {
        // A copy: the caller's key may be a slice of a whole request, which must not live as long as the lease.
        let copy = Bytes::copy_from_slice(key);
        let before = if id == 0 { self.by_key.remove(key) } else { self.by_key.insert(copy.clone(), id) };
        if let Some(lease) = before.filter(|b| *b != id).and_then(|b| self.leases.get_mut(&b)) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert(copy);
        }
    }

    /// Starts a lease's time anew; returns its seconds.
    pub fn renew(&mut self, id: i64, now: Instant) -> Option<i64> {
        let lease = self.leases.get_mut(&id)?;
        self.deadlines.remove(&(lease.deadline, id));
        lease.deadline = end(now, lease.ttl);
        self.deadlines.insert((lease.deadline, id));
        Some(lease.ttl)
    }

    /// Starts every lease's time anew: a new leader does not know when its clients were last heard of.
    pub fn renew_all(&mut self, now: Instant) {
        self.deadlines.clear();
        for (id, lease) in &mut self.leases {
            lease.deadline = end(now, lease.ttl);
            self.deadlines.insert((lease.deadline, *id));
        }
    }

    /// Seconds left and seconds granted.
    pub fn time_to_live(&self, id: i64, now: Instant) -> Option<(i64, i64)> {
        let lease = self.leases.get(&id)?;
        let left = lease.deadline.saturating_duration_since(now).as_secs();
        Some((i64::try_from(left).unwrap_or(lease.ttl), lease.ttl))
    }

    /// The keys on a lease.
    pub fn keys(&self, id: i64) -> Vec<Bytes> {
        self.leases.get(&id).map(|lease| lease.keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// All lease ids, the one that ends first first.
    pub fn ids(&self) -> Vec<i64> {
        self.deadlines.iter().map(|(_, id)| *id).collect()
    }

    /// When the next lease ends.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Leases that have ended, at most `limit`.
    pub fn due(&self, now: Instant, limit: usize) -> Vec<i64> {
        self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).take(limit).map(|(_, id)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn keys_move_between_leases() {
        let now = Instant::now();
        let mut table = LeaseTable::default();
        table.grant(1, 10, now).unwrap();
        table.grant(2, 10, now).unwrap();
        table.attach(&bytes("b"), 1);
        table.attach(&bytes("a"), 1);
        assert_eq!(table.keys(1), ["a", "b"]);
        table.attach(&bytes("a"), 2);
        table.attach(&bytes("b"), 0);
        assert_eq!((table.keys(1), table.keys(2)), (vec![], vec![bytes("a")]));
        assert_eq!(table.revoke(2), Ok(vec![bytes("a")]));
        assert_eq!(table.revoke(2), Err(Refusal::LeaseNotFound));
    }

    #[test]
    fn deadlines_follow_grants_and_renewals() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut table = LeaseTable::default();
        assert_eq!(table.grant(1, 1, start), Ok(MIN_TTL));
        assert_eq!(table.grant(2, 5, start), Ok(5));
        assert_eq!(table.grant(2, 5, start), Err(Refusal::LeaseExists));
        assert_eq!(table.grant(3, MAX_TTL + 1, start), Err(Refusal::LeaseTtlTooLarge));
        assert_eq!(table.grant(4, MAX_TTL, start), Ok(MAX_TTL));
        assert!(table.due(after(1), 9).is_empty());
        assert_eq!(table.due(after(2), 9), [1]);
        assert_eq!(table.renew(1, after(2)), Some(2));
        assert_eq!((table.due(after(3), 9), table.next_deadline()), (vec![], Some(after(4))));
        assert_eq!(table.due(after(5), 9), [1, 2]);
        assert_eq!(table.time_to_live(2, after(3)), Some((2, 5)));
        assert_eq!(table.time_to_live(9, start), None);
        table.renew_all(after(10));
        assert_eq!((table.due(after(11), 9), table.next_deadline()), (vec![], Some(after(12))));
        table.revoke(1).unwrap();
        assert_eq!(table.next_deadline(), Some(after(15)));
        assert_eq!(table.ids(), [2, 4]);
    }
}

//! What stands in for priority and fairness where it is switched off: two counts, of reads and of writes (upstream's max-in-flight filter).

use super::queues::Reason;
use crate::authn::UserInfo;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The two limits; `None`: there is none.
pub struct InFlight {
    reads: Option<Arc<Semaphore>>,
    writes: Option<Arc<Semaphore>>,
}

impl InFlight {
    /// Limits of requests at a time; 0 for none.
    pub fn new(reads: u32, writes: u32) -> Self {
        let limit = |n: u32| (n > 0).then(|| Arc::new(Semaphore::new(n as usize)));
        Self { reads: limit(reads), writes: limit(writes) }
    }

    /// A place, unless all are taken. Superusers need none.
    pub fn enter(&self, user: &UserInfo, reads: bool) -> Result<Option<OwnedSemaphorePermit>, Reason> {
        let Some(limit) = (if reads { &self.reads } else { &self.writes }) else { return Ok(None) };
        match limit.clone().try_acquire_owned() {
            Ok(place) => Ok(Some(place)),
            Err(_) if user.in_group("system:masters") => Ok(None),
            Err(_) => Err(Reason::ConcurrencyLimit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_are_counted_apart() {
        let limits = InFlight::new(1, 0);
        let joe = UserInfo::authenticated("joe", []);
        let held = limits.enter(&joe, true).expect("free");
        assert!(held.is_some() && limits.enter(&joe, true).is_err());
        assert!(limits.enter(&UserInfo::loopback(), true).is_ok_and(|p| p.is_none()));
        assert!(limits.enter(&joe, false).is_ok_and(|p| p.is_none()), "writes have no limit");
        drop(held);
        assert!(limits.enter(&joe, true).is_ok());
    }
}

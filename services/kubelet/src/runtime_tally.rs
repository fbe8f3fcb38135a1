//! How long calls of the runtime took, for the metrics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Upper bounds of the histogram in seconds: from 5 ms on each 2.5 times the one before.
pub const BOUNDS: usize = 14;

/// The bound at a place.
pub fn bound(index: usize) -> f64 {
    0.005 * 2.5_f64.powi(i32::try_from(index).unwrap_or(i32::MAX))
}

/// One kind of call.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Calls {
    /// All of them.
    pub count: u64,
    /// Those that failed.
    pub errors: u64,
    /// Their time together.
    pub time: Duration,
    /// How many took at most as long as each bound.
    pub within: [u64; BOUNDS],
}

/// Counts since the kubelet's start, by upstream's names of the operations.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<&'static str, Calls>>);

impl Tally {
    /// Waits for a call and counts it.
    pub async fn count<T, E>(&self, operation: &'static str, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let start = Instant::now();
        let outcome = call.await;
        self.add(operation, start.elapsed(), outcome.is_err());
        outcome
    }

    fn add(&self, operation: &'static str, time: Duration, failed: bool) {
        let mut all = self.0.lock();
        let calls = all.entry(operation).or_default();
        calls.count += 1;
        calls.errors += u64::from(failed);
        calls.time += time;
        for (index, within) in calls.within.iter_mut().enumerate() {
            *within += u64::from(time.as_secs_f64() <= bound(index));
        }
    }

    /// What was counted.
    pub fn all(&self) -> BTreeMap<&'static str, Calls> {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_their_time() {
        let tally = Tally::default();
        tally.add("version", Duration::from_millis(6), false);
        tally.add("version", Duration::from_millis(1), true);
        let calls = tally.all()["version"];
        assert_eq!((calls.count, calls.errors, calls.time), (2, 1, Duration::from_millis(7)));
        assert_eq!((calls.within[0], calls.within[1], calls.within[BOUNDS - 1]), (1, 2, 2));
    }
}

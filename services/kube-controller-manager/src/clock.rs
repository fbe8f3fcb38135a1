//! Arithmetic on the API's timestamps. Plans are given `now`; only shells read the clock.

use std::time::Duration;

use jiff::Timestamp;

/// Reads an API timestamp, with or without fractions.
pub fn parse(text: &str) -> Option<Timestamp> {
    apimachinery::time::parse_rfc3339(text).ok()
}

/// `time` plus seconds, staying within what a timestamp can hold.
pub fn plus(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// How long from `now` until `then`; zero when it has passed.
pub fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or(Duration::ZERO)
}

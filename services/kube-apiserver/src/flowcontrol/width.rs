//! How many seats a request needs and for how long after it has ended: lists by what they bring into memory, writes by the watchers they wake.
//! Upstream's estimators. Pure.

use std::time::Duration;

/// Bytes of a list that one seat stands for.
const BYTES_PER_SEAT: u64 = 100_000;
/// A list from the watch cache is sent piece by piece and holds no more than this.
const STREAMED: u64 = 1_000_000;
/// The most seats of a list.
const MOST_OF_LIST: u32 = 100;
/// The most seats of a write.
const MOST_OF_WRITE: u32 = 10;
/// Watchers that one seat stands for; fewer cost nothing.
const WATCHERS_PER_SEAT: usize = 10;
/// For how long telling them takes a seat each.
const TELLING: Duration = Duration::from_millis(5);
/// The most of a level's seats that one request may have.
const PART: f64 = 0.15;

/// What is stored of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Objects.
    pub count: u64,
    /// Their texts in sum.
    pub bytes: u64,
}

/// What a request does, as far as its width goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Something small.
    Plain,
    /// A list, or a watch that begins with one.
    List {
        /// Of this.
        stored: Stored,
        /// Only so many; 0 for all.
        limit: u64,
        /// Of one object, by its name.
        single: bool,
        /// Selectors apply.
        selective: bool,
        /// The watch cache answers, not the store.
        cached: bool,
    },
    /// A write that so many watchers are told of.
    Write(usize),
}

/// Seats, and how long they are held after the request has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    /// At least one.
    pub seats: u32,
    /// Zero for most.
    pub after: Duration,
}

impl Work {
    /// The width on a level where no request may have more than `widest` seats.
    pub fn width(self, widest: u32) -> Width {
        match self {
            Work::Plain => Width { seats: 1, after: Duration::ZERO },
            Work::List { stored, limit, single, selective, cached } => {
                let limited = if limit > 0 { limit.min(stored.count) } else { stored.count };
                let loaded = match (single, cached, selective) {
                    (true, ..) => 1,
                    (_, false, true) => limited.max(stored.count / 2),
                    _ => limited,
                };
                let bytes = loaded * stored.bytes.checked_div(stored.count).unwrap_or(0);
                let bytes = if cached { bytes.min(STREAMED) } else { bytes };
                let seats = u32::try_from(bytes.div_ceil(BYTES_PER_SEAT)).unwrap_or(u32::MAX);
                Width { seats: seats.clamp(1, widest.min(MOST_OF_LIST)), after: Duration::ZERO }
            }
            Work::Write(watchers) if watchers >= WATCHERS_PER_SEAT => {
                let wanted = u32::try_from(watchers.div_ceil(WATCHERS_PER_SEAT)).unwrap_or(u32::MAX);
                let seats = wanted.clamp(1, widest.min(MOST_OF_WRITE));
                // The same work on fewer seats takes longer.
                Width { seats, after: TELLING.mul_f64(f64::from(wanted) / f64::from(seats)) }
            }
            Work::Write(_) => Width { seats: 1, after: Duration::ZERO },
        }
    }
}

/// The widest request of a level with so many seats of its own.
pub fn widest(nominal: u32) -> u32 {
    ((f64::from(nominal) * PART).ceil() as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_as_wide_as_what_they_load() {
        let of = |count, bytes| Stored { count, bytes };
        // what is stored, limit, single, selective, cached, seats
        let table = [
            (of(0, 0), 0, false, false, true, 1),
            (of(100, 100_000), 0, false, false, true, 1),
            (of(200, 200_000), 0, false, false, true, 2),
            (of(5000, 50_000_000), 0, false, false, true, 10),
            (of(5000, 50_000_000), 20, false, false, true, 2),
            (of(5000, 50_000_000), 0, true, false, true, 1),
            (of(5000, 50_000_000), 0, false, false, false, 100),
            (of(5000, 50_000_000), 100, false, false, false, 10),
            (of(500, 5_000_000), 100, false, true, false, 25),
        ];
        for (stored, limit, single, selective, cached, want) in table {
            let work = Work::List { stored, limit, single, selective, cached };
            assert_eq!(work.width(1000), Width { seats: want, after: Duration::ZERO }, "{work:?}");
        }
        let all = Work::List { stored: of(5000, 50_000_000), limit: 0, single: false, selective: false, cached: false };
        assert_eq!(all.width(37).seats, 37, "the level's own bound");
    }

    #[test]
    fn writes_pay_for_their_watchers_when_they_have_ended() {
        for (watchers, widest, seats, after) in [
            (0, 10, 1, 0),
            (9, 10, 1, 0),
            (10, 10, 1, 5),
            (11, 10, 2, 5),
            (100, 100, 10, 5),
            (500, 100, 10, 25),
            (100, 4, 4, 12),
        ] {
            let width = Work::Write(watchers).width(widest);
            assert_eq!((width.seats, width.after.as_millis()), (seats, after), "{watchers} {widest}");
        }
        for (nominal, want) in [(0, 1), (13, 2), (245, 37)] {
            assert_eq!(super::widest(nominal), want, "{nominal}");
        }
    }
}

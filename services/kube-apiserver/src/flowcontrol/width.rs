//! How many seats a request needs: one, but more for a list of many objects. Pure.

/// Objects of a list that one seat stands for.
const OBJECTS_PER_SEAT: usize = 100;
/// The most seats of any request.
const MOST: u32 = 10;
/// The most of a level's seats that one request may have.
const PART: f64 = 0.15;

/// Seats for a request: `stored` is how many objects the resource has, for lists; `limit` the page asked for, 0 for all.
pub fn width(stored: Option<usize>, limit: usize) -> u32 {
    let Some(stored) = stored else { return 1 };
    let objects = if limit == 0 { stored } else { stored.min(limit) };
    u32::try_from(objects.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(MOST).clamp(1, MOST)
}

/// The widest request of a level with so many seats of its own.
pub fn widest(nominal: u32) -> u32 {
    ((f64::from(nominal) * PART).ceil() as u32).clamp(1, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_wide() {
        for (stored, limit, want) in [
            (None, 0, 1),
            (Some(0), 0, 1),
            (Some(100), 0, 1),
            (Some(101), 0, 2),
            (Some(5000), 500, 5),
            (Some(1 << 40), 0, 10),
        ] {
            assert_eq!(width(stored, limit), want, "{stored:?} {limit}");
        }
        for (nominal, want) in [(0, 1), (13, 2), (245, 10)] {
            assert_eq!(widest(nominal), want, "{nominal}");
        }
    }
}

//! Which images go when their disk fills up. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// An image as the runtime lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// Bytes.
    pub size: u64,
    /// Whether it must stay whatever happens.
    pub pinned: bool,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    detected: Instant,
    used: Option<Instant>,
}

/// When each image was first seen and last used.
#[derive(Clone, Debug, Default)]
pub struct History(BTreeMap<String, Record>);

/// The rules.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// An image must be known for this long.
    pub minimum_age: Duration,
    /// An image that nobody used for this long goes in any case; never if zero.
    pub maximum_age: Duration,
}

impl History {
    /// Takes note of what there is and what is in use; the record of what is gone is dropped.
    pub fn note(&mut self, images: &[Image], in_use: &BTreeSet<String>, now: Instant) {
        self.0.retain(|id, _| images.iter().any(|i| i.id == *id));
        for image in images {
            let record = self.0.entry(image.id.clone()).or_insert(Record { detected: now, used: None });
            if in_use.contains(&image.id) {
                record.used = Some(now);
            }
        }
    }

    /// The images to remove so that `wanted` bytes become free, the longest unused first, and those that are too old.
    pub fn victims(
        &self,
        images: &[Image],
        in_use: &BTreeSet<String>,
        wanted: u64,
        rules: &Rules,
        now: Instant,
    ) -> Vec<String> {
        let mut unused: Vec<(&Image, Record)> = images
            .iter()
            .filter(|i| !i.pinned && !in_use.contains(&i.id))
            .filter_map(|i| self.0.get(&i.id).map(|record| (i, *record)))
            .collect();
        unused.sort_by_key(|(_, record)| (record.used, record.detected));
        let mut freed = 0;
        let mut victims = Vec::new();
        for (image, record) in unused {
            let idle = now.duration_since(record.used.unwrap_or(record.detected));
            let too_old = !rules.maximum_age.is_zero() && idle > rules.maximum_age;
            let may_go = now.duration_since(record.detected) >= rules.minimum_age;
            if too_old || (may_go && freed < wanted) {
                freed += image.size;
                victims.push(image.id.clone());
            }
        }
        victims
    }
}

/// How many bytes have to become free, if any: above the high mark down to the low one.
pub fn excess(available: i128, capacity: i128, high_percent: i64, low_percent: i64) -> Option<u64> {
    if capacity <= 0 {
        return None;
    }
    let used_percent = 100 - available * 100 / capacity;
    if used_percent < i128::from(high_percent) {
        return None;
    }
    let target = capacity * i128::from(100 - low_percent) / 100;
    u64::try_from(target - available).ok().filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, size: u64) -> Image {
        Image { id: id.into(), size, pinned: id == "pinned" }
    }

    #[test]
    fn between_the_marks_nothing_happens() {
        assert_eq!(excess(20, 100, 85, 80), None);
        assert_eq!(excess(15, 100, 85, 80), Some(5));
        assert_eq!(excess(0, 100, 85, 80), Some(20));
        assert_eq!(excess(0, 0, 85, 80), None);
    }

    #[test]
    fn the_longest_unused_go_first_and_what_is_used_new_or_pinned_stays() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let all = [image("old", 10), image("older", 10), image("used", 10), image("pinned", 10)];
        let set = |ids: &[&str]| ids.iter().map(|i| (*i).to_owned()).collect::<BTreeSet<_>>();
        let mut history = History::default();
        history.note(&all, &set(&["older"]), start);
        history.note(&all, &set(&["old"]), start + second * 10);
        let in_use = set(&["used"]);
        let rules = Rules { minimum_age: second * 60, maximum_age: Duration::ZERO };
        let at = |seconds: u32, wanted: u64, rules: &Rules| {
            history.victims(&all, &in_use, wanted, rules, start + second * seconds)
        };
        assert!(at(30, 100, &rules).is_empty(), "all are too new");
        assert_eq!(at(90, 5, &rules), ["older"]);
        assert_eq!(at(90, 100, &rules), ["older", "old"]);
        let aged = Rules { maximum_age: second * 85, ..rules };
        assert_eq!(at(90, 0, &aged), ["older"]);
    }
}

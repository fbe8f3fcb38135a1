//! A set of keys as requests name it: one key, an interval, or everything from a key on.

use std::ops::Bound;

use bytes::Bytes;

/// The keys a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    /// One key.
    One(Bytes),
    /// The key and everything after it.
    From(Bytes),
    /// From the first key up to, not including, the second.
    Between(Bytes, Bytes),
}

impl KeyRange {
    /// Reads the API's pair: no end means one key, a single zero byte means no upper bound.
    pub fn new(key: &Bytes, range_end: &Bytes) -> Self {
        match range_end.as_ref() {
            [] => KeyRange::One(key.clone()),
            [0] => KeyRange::From(key.clone()),
            _ => KeyRange::Between(key.clone(), range_end.clone()),
        }
    }

    /// Whether the key belongs to the set.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::One(one) => one == key,
            KeyRange::From(start) => key >= start.as_ref(),
            KeyRange::Between(start, end) => key >= start.as_ref() && key < end.as_ref(),
        }
    }

    /// Whether no key can belong to the set.
    pub fn is_empty(&self) -> bool {
        matches!(self, KeyRange::Between(start, end) if start >= end)
    }

    /// Bounds for an ordered map; only for sets that are not empty.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        match self {
            KeyRange::One(key) => (Bound::Included(key), Bound::Included(key)),
            KeyRange::From(start) => (Bound::Included(start), Bound::Unbounded),
            KeyRange::Between(start, end) => (Bound::Included(start), Bound::Excluded(end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_follows_the_api() {
        let range =
            |key: &'static [u8], end: &'static [u8]| KeyRange::new(&Bytes::from_static(key), &Bytes::from_static(end));
        let cases: [(KeyRange, &[u8], bool); 8] = [
            (range(b"a", b""), b"a", true),
            (range(b"a", b""), b"ab", false),
            (range(b"a", b"\0"), b"zz", true),
            (range(b"b", b"\0"), b"a", false),
            (range(b"a", b"b"), b"a", true),
            (range(b"a", b"b"), b"b", false),
            (range(b"b", b"a"), b"a", false),
            (range(b"\0", b"\0"), b"\0", true),
        ];
        for (range, key, expected) in cases {
            assert_eq!(range.contains(key), expected, "{range:?} {key:?}");
        }
        assert!(range(b"b", b"a").is_empty() && !range(b"b", b"\0").is_empty());
    }
}

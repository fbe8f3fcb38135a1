//! Completion indexes and their short text: `1,3-5,7`. Pure.

use std::collections::BTreeSet;
use std::fmt::Write;

/// A set of indexes.
pub(super) type Indexes = BTreeSet<i64>;

/// Reads the text; indexes from `completions` on, which a smaller Job leaves behind, are left out.
pub(super) fn parse(text: &str, completions: i64) -> Indexes {
    let mut indexes = Indexes::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) else { continue };
        indexes.extend(first.max(0)..=last.min(completions - 1));
    }
    indexes
}

/// Writes the text. Two neighbours stand side by side, three or more are a range.
pub(super) fn format(indexes: &Indexes) -> String {
    let mut text = String::new();
    let mut rest = indexes.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while rest.next_if(|next| *next == last + 1).is_some() {
            last += 1;
        }
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to a String cannot fail.
        let _ = match last - first {
            0 => write!(text, "{first}"),
            1 => write!(text, "{first},{last}"),
            _ => write!(text, "{first}-{last}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_pairs() {
        for (text, count) in [("", 0), ("0", 1), ("0,2", 2), ("0,1", 2), ("1,3-5,7", 5), ("0-9", 10)] {
            let indexes = parse(text, 10);
            assert_eq!(indexes.len(), count, "{text}");
            assert_eq!(format(&indexes), text);
        }
        assert_eq!(format(&parse("0-9", 3)), "0-2", "a smaller Job");
        assert_eq!(format(&parse("x,3", 10)), "3");
    }
}

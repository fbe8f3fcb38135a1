//! A set of CPUs, written as the kernel does: `0-3,8`.

use std::collections::BTreeSet;
use std::fmt;

/// A set of CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(pub BTreeSet<usize>);

impl CpuSet {
    /// Reads a list of numbers and ranges.
    ///
    /// # Errors
    /// It is not one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a list of CPUs such as 0-3,8");
        let mut set = BTreeSet::new();
        for part in text.trim().split(',').filter(|_| !text.trim().is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (usize, usize) =
                (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
            if first > last || last - first > 1 << 16 {
                return Err(wrong());
            }
            set.extend(first..=last);
        }
        Ok(CpuSet(set))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those in either.
    pub fn with(&self, other: &CpuSet) -> CpuSet {
        CpuSet(self.0.union(&other.0).copied().collect())
    }

    /// Those that are not in the other.
    pub fn without(&self, other: &CpuSet) -> CpuSet {
        CpuSet(self.0.difference(&other.0).copied().collect())
    }

    /// Those for which it holds.
    pub fn only(&self, holds: impl Fn(usize) -> bool) -> CpuSet {
        self.0.iter().copied().filter(|cpu| holds(*cpu)).collect()
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<T: IntoIterator<Item = usize>>(cpus: T) -> Self {
        CpuSet(cpus.into_iter().collect())
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for cpu in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
                _ => ranges.push((*cpu, *cpu)),
            }
        }
        let text = |(first, last): &(usize, usize)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        };
        f.write_str(&ranges.iter().map(text).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        for (text, back) in [("", ""), ("3", "3"), ("0-2,4", "0-2,4"), ("4,1,2,0\n", "0-2,4")] {
            assert_eq!(CpuSet::parse(text).unwrap().to_string(), back);
        }
        for wrong in ["a", "3-1", "1,,2", "-1"] {
            assert!(CpuSet::parse(wrong).is_err(), "{wrong}");
        }
    }
}

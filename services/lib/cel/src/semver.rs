//! Semantic versions (semver.org 2.0.0).

use std::cmp::Ordering;
use std::fmt;

/// A version. What follows `+` says nothing about its order.
#[derive(Clone, Debug)]
pub struct Semver {
    /// Major, minor and patch.
    pub numbers: [u64; 3],
    before: Vec<Part>,
    build: String,
}

/// A part of what follows `-`: numbers are less than names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Name(String),
}

impl Semver {
    /// Reads a version.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Semver, String> {
        let (text, build) = text.split_once('+').unwrap_or((text, ""));
        let (core, before) = text.split_once('-').map_or((text, None), |(core, before)| (core, Some(before)));
        let mut numbers = [0; 3];
        let parts: Vec<&str> = core.split('.').collect();
        if parts.len() != numbers.len() {
            return Err("No Major.Minor.Patch elements found".to_owned());
        }
        for (number, part) in numbers.iter_mut().zip(parts) {
            *number = natural(part)?;
        }
        let parts = before.map_or(Ok(Vec::new()), |before| before.split('.').map(Part::parse).collect())?;
        Ok(Semver { numbers, before: parts, build: build.to_owned() })
    }

    /// Reads a version that people wrote: `v1.2` is 1.2.0, leading zeros go.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn tolerant(text: &str) -> Result<Semver, String> {
        let text = text.trim().trim_start_matches('v');
        let end = text.find(['-', '+']).unwrap_or(text.len());
        let (core, rest) = text.split_at(end);
        let mut parts: Vec<&str> = core.splitn(3, '.').collect();
        while parts.len() < 3 {
            if !rest.is_empty() {
                return Err("Short version cannot contain PreRelease/Build meta data".to_owned());
            }
            parts.push("0");
        }
        let stripped = |part: &str| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0".to_owned(),
            other => other.to_owned(),
        };
        let core: Vec<String> = parts.into_iter().map(stripped).collect();
        Semver::parse(&format!("{}{rest}", core.join(".")))
    }
}

fn natural(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in number {text:?}"));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("Number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| format!("number {text:?} is too large"))
}

impl Part {
    fn parse(text: &str) -> Result<Part, String> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(format!("Invalid character(s) found in prerelease {text:?}"));
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return natural(text).map(Part::Number);
        }
        Ok(Part::Name(text.to_owned()))
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        let released = |v: &Semver| v.before.is_empty();
        let by_numbers = self.numbers.cmp(&other.numbers).then(released(self).cmp(&released(other)));
        by_numbers.then_with(|| self.before.cmp(&other.before))
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Semver {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Semver {}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        for (i, part) in self.before.iter().enumerate() {
            f.write_str(if i == 0 { "-" } else { "." })?;
            match part {
                Part::Number(number) => write!(f, "{number}")?,
                Part::Name(name) => f.write_str(name)?,
            }
        }
        if self.build.is_empty() { Ok(()) } else { write!(f, "+{}", self.build) }
    }
}

//! Durations as Go writes them: `1m30s`, `300ms`, `0s`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration in a configuration file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    /// Whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        GoDuration(Duration::from_secs(seconds))
    }

    /// Whether it is zero.
    pub const fn is_zero(&self) -> bool {
        self.0.is_zero()
    }

    /// Reads a duration.
    ///
    /// # Errors
    /// It is not one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a duration such as 1m30s");
        let mut total = 0.0;
        let mut rest = text;
        if rest == "0" {
            return Ok(GoDuration::default());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
            let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
            let after = &rest[digits..];
            let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let unit = match &after[..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(wrong()),
            };
            total += number * unit;
            rest = &after[end..];
        }
        if text.is_empty() {
            return Err(wrong());
        }
        Duration::try_from_secs_f64(total).map(GoDuration).map_err(|_| wrong())
    }
}

impl std::fmt::Display for GoDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        if millis > 0 { write!(f, "{seconds}.{millis:03}s") } else { write!(f, "{seconds}s") }
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        GoDuration::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis, back) in [
            ("0s", 0, "0s"),
            ("0", 0, "0s"),
            ("1m30s", 90_000, "1m30s"),
            ("2h45m", 9_900_000, "2h45m0s"),
            ("1.5s", 1500, "1.500s"),
            ("300ms", 300, "0.300s"),
        ] {
            let duration = GoDuration::parse(text).unwrap();
            assert_eq!((duration.0.as_millis(), duration.to_string().as_str()), (millis, back), "{text}");
        }
        for wrong in ["", "5", "s", "1x", "-1s", "1m 2s"] {
            assert!(GoDuration::parse(wrong).is_err(), "{wrong}");
        }
    }
}

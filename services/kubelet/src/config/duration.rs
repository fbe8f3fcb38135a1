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
        apimachinery::duration::parse(text).map(GoDuration).map_err(|e| e.to_string())
    }
}

impl std::fmt::Display for GoDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&apimachinery::duration::to_text(self.0))
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
            ("1.5s", 1500, "1.5s"),
            ("300ms", 300, "300ms"),
        ] {
            let duration = GoDuration::parse(text).unwrap();
            assert_eq!((duration.0.as_millis(), duration.to_string().as_str()), (millis, back), "{text}");
        }
        for wrong in ["", "5", "s", "1x", "-1s", "1m 2s"] {
            assert!(GoDuration::parse(wrong).is_err(), "{wrong}");
        }
    }
}

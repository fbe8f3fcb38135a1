//! Durations as Go writes and reads them: `1m30s`, `300ms`, `1.5µs`. Exact to the nanosecond; negative ones are refused, as no field or flag means one.

use std::time::Duration;

/// Why a text is not a duration, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not of the form number and unit, or beyond the range of 64 bits of nanoseconds.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {0:?}")]
    NoUnit(String),
    /// A unit that does not exist.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    Unit {
        /// What stands in the place of a unit.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// Units and their nanoseconds.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration.
///
/// # Errors
/// It is not one.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
        if unit.is_empty() {
            return Err(DurationError::NoUnit(text.to_owned()));
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(DurationError::Unit { unit: unit.to_owned(), text: text.to_owned() });
        };
        let part = nanos(whole, fraction, *scale).ok_or_else(invalid)?;
        total = total.checked_add(part).filter(|n| i64::try_from(*n).is_ok()).ok_or_else(invalid)?;
        rest = after;
    }
    Ok(Duration::from_nanos(total))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// What is finer than a nanosecond is cut off.
fn nanos(whole: &str, fraction: &str, scale: u64) -> Option<u64> {
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // An hour has 13 digits of nanoseconds: later ones say nothing.
    let fraction = &fraction[..fraction.len().min(18)];
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let below = part * u128::from(scale) / 10u128.pow(fraction.len() as u32);
    whole.checked_mul(scale)?.checked_add(u64::try_from(below).ok()?)
}

/// Writes a duration: hours, minutes and seconds with as many decimals as it takes, or the largest smaller unit.
pub fn to_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    for (unit, size) in [("ns", 1), ("µs", 1_000), ("ms", 1_000_000)] {
        if nanos < size * 1000 {
            return format!("{}{unit}", decimal(nanos, size));
        }
    }
    let (minutes, seconds) = (duration.as_secs() / 60, nanos % 60_000_000_000);
    let seconds = decimal(seconds, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A fraction of a power of ten without zeros at its end.
fn decimal(number: u128, size: u128) -> String {
    let (whole, rest) = (number / size, number % size);
    if rest == 0 {
        return whole.to_string();
    }
    let places = size.ilog10() as usize;
    format!("{whole}.{}", format!("{rest:0places$}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, nanos, back) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("+5s", 5_000_000_000, "5s"),
            ("1m30s", 90_000_000_000, "1m30s"),
            ("2h45m", 9_900_000_000_000, "2h45m0s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("300ms", 300_000_000, "300ms"),
            (".5s", 500_000_000, "500ms"),
            ("1.h", 3_600_000_000_000, "1h0m0s"),
            ("1us1ns", 1001, "1.001µs"),
            ("1h0.001s", 3_600_001_000_000, "1h0m0.001s"),
            ("0.0000000019s", 1, "1ns"),
            ("9223372036854775807ns", 9_223_372_036_854_775_807, "2562047h47m16.854775807s"),
        ] {
            let read = parse(text);
            assert_eq!(read, Ok(Duration::from_nanos(nanos)), "{text}");
            assert_eq!(read.map(to_text).as_deref(), Ok(back), "{text}");
        }
    }

    #[test]
    fn refused() {
        for (text, want) in [
            ("", "time: invalid duration \"\""),
            ("s", "time: invalid duration \"s\""),
            (".s", "time: invalid duration \".s\""),
            ("-1s", "time: invalid duration \"-1s\""),
            ("5", "time: missing unit in duration \"5\""),
            ("1x", "time: unknown unit \"x\" in duration \"1x\""),
            ("1m 2s", "time: unknown unit \"m \" in duration \"1m 2s\""),
            ("3000000h", "time: invalid duration \"3000000h\""),
            ("99999999999999999999s", "time: invalid duration \"99999999999999999999s\""),
        ] {
            assert_eq!(parse(text).map_err(|e| e.to_string()), Err(want.to_owned()), "{text}");
        }
    }
}

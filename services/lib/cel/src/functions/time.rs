//! Durations and points in time; calendars in UTC.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use super::{Row, mismatch};
use crate::value::Value;

pub const ROWS: &[Row] = &[
    ("duration(duration): duration", |v| Ok(v[0].clone())),
    ("duration(string): duration", |v| match &v[0] {
        Value::String(s) => read(s).map(Value::Duration).ok_or_else(|| format!("time: invalid duration {s:?}")),
        _ => mismatch(),
    }),
    ("timestamp(timestamp): timestamp", |v| Ok(v[0].clone())),
    ("timestamp(string): timestamp", |v| match &v[0] {
        Value::String(s) => {
            apimachinery::time::parse_rfc3339(s).map(Value::Timestamp).map_err(|error| error.to_string())
        }
        _ => mismatch(),
    }),
    ("timestamp(int): timestamp", |v| match v[0] {
        Value::Int(n) => Timestamp::from_second(n).map(Value::Timestamp).map_err(|_| "timestamp overflow".to_owned()),
        _ => mismatch(),
    }),
    ("duration.getHours(): int", |v| length(v, |d| d.as_secs() / 3600)),
    ("duration.getMinutes(): int", |v| length(v, |d| d.as_secs() / 60)),
    ("duration.getSeconds(): int", |v| length(v, |d| d.as_secs())),
    ("duration.getMilliseconds(): int", |v| length(v, |d| i64::from(d.subsec_millis()))),
    ("timestamp.getFullYear(): int", |v| calendar(v, |t| t.year().into())),
    ("timestamp.getMonth(): int", |v| calendar(v, |t| i64::from(t.month()) - 1)),
    ("timestamp.getDate(): int", |v| calendar(v, |t| t.day().into())),
    ("timestamp.getDayOfMonth(): int", |v| calendar(v, |t| i64::from(t.day()) - 1)),
    ("timestamp.getDayOfWeek(): int", |v| calendar(v, |t| t.weekday().to_sunday_zero_offset().into())),
    ("timestamp.getDayOfYear(): int", |v| calendar(v, |t| i64::from(t.day_of_year()) - 1)),
    ("timestamp.getHours(): int", |v| calendar(v, |t| t.hour().into())),
    ("timestamp.getMinutes(): int", |v| calendar(v, |t| t.minute().into())),
    ("timestamp.getSeconds(): int", |v| calendar(v, |t| t.second().into())),
    ("timestamp.getMilliseconds(): int", |v| calendar(v, |t| t.millisecond().into())),
];

/// Units of Go's durations, nanoseconds.
const UNITS: [(&str, f64); 7] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];

/// A duration as Go writes it: `1h30m`, `-1.5s`.
fn read(text: &str) -> Option<SignedDuration> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text.strip_prefix('+').unwrap_or(text)), |r| (-1.0, r));
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        nanos += number * UNITS.iter().find(|(unit, _)| *unit == &rest[..end])?.1;
        rest = &rest[end..];
    }
    (!text.trim_start_matches(['-', '+']).is_empty())
        .then(|| SignedDuration::try_from_secs_f64(sign * nanos / 1e9).ok())
        .flatten()
}

pub fn add(v: &[Value]) -> Result<Value, String> {
    match (&v[0], &v[1]) {
        (Value::Duration(a), Value::Duration(b)) => {
            a.checked_add(*b).map(Value::Duration).ok_or_else(|| "duration overflow".to_owned())
        }
        (Value::Timestamp(t), Value::Duration(d)) | (Value::Duration(d), Value::Timestamp(t)) => {
            t.checked_add(*d).map(Value::Timestamp).map_err(|_| "timestamp overflow".to_owned())
        }
        _ => mismatch(),
    }
}

pub fn subtract(v: &[Value]) -> Result<Value, String> {
    match (&v[0], &v[1]) {
        (Value::Duration(a), Value::Duration(b)) => {
            a.checked_sub(*b).map(Value::Duration).ok_or_else(|| "duration overflow".to_owned())
        }
        (Value::Timestamp(t), Value::Duration(d)) => {
            t.checked_sub(*d).map(Value::Timestamp).map_err(|_| "timestamp overflow".to_owned())
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(Value::Duration(a.duration_since(*b))),
        _ => mismatch(),
    }
}

fn length(v: &[Value], of: fn(&SignedDuration) -> i64) -> Result<Value, String> {
    match &v[0] {
        Value::Duration(d) => Ok(Value::Int(of(d))),
        _ => mismatch(),
    }
}

fn calendar(v: &[Value], of: fn(&Zoned) -> i64) -> Result<Value, String> {
    match &v[0] {
        Value::Timestamp(t) => Ok(Value::Int(of(&t.to_zoned(TimeZone::UTC)))),
        _ => mismatch(),
    }
}

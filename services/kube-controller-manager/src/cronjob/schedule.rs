//! Cron lines: five fields, names, ranges, steps, the `@` words and `@every`. Pure.
//!
//! A time that the clock skips when summer comes does not happen; one that it repeats happens once.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

/// Beyond this there is no such date: the thirtieth of February.
const YEARS_MAX: i16 = 5;
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    /// By the calendar.
    Calendar(Calendar),
    /// By the clock alone.
    Every(Duration),
}

/// One bit per allowed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// A `*` among days and weekdays leaves the decision to the other; two restrictions are alternatives.
    any_day: bool,
    any_weekday: bool,
}

struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", low: 0, high: 59, names: &[] },
    Field { name: "hour", low: 0, high: 23, names: &[] },
    Field { name: "day of month", low: 1, high: 31, names: &[] },
    Field { name: "month", low: 1, high: 12, names: &MONTHS },
    Field { name: "day of week", low: 0, high: 6, names: &DAYS },
];

/// Reads a line.
///
/// # Errors
/// A text that names the field that is wrong.
pub(super) fn parse(line: &str) -> Result<Schedule, String> {
    let line = line.trim();
    if let Some(word) = line.strip_prefix('@') {
        return parse_word(word);
    }
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
        return Err(format!("expected exactly 5 fields, found {}: [{line}]", fields.len()));
    };
    let [minute, hour, day, month, weekday] = &FIELDS;
    Ok(Schedule::Calendar(Calendar {
        minutes: minute.bits(minutes)?,
        hours: hour.bits(hours)?,
        days: day.bits(days)?,
        months: month.bits(months)?,
        weekdays: weekday.bits(weekdays)?,
        any_day: days.starts_with(['*', '?']),
        any_weekday: weekdays.starts_with(['*', '?']),
    }))
}

fn parse_word(word: &str) -> Result<Schedule, String> {
    if let Some(text) = word.strip_prefix("every ") {
        let every = duration(text.trim()).ok_or_else(|| format!("failed to parse duration @{word}"))?;
        return Ok(Schedule::Every(every.max(Duration::from_secs(1))));
    }
    parse(match word {
        "yearly" | "annually" => "0 0 1 1 *",
        "monthly" => "0 0 1 * *",
        "weekly" => "0 0 * * 0",
        "daily" | "midnight" => "0 0 * * *",
        "hourly" => "0 * * * *",
        _ => return Err(format!("unrecognized descriptor: @{word}")),
    })
}

/// `1h30m`, whole seconds.
fn duration(text: &str) -> Option<Duration> {
    let mut seconds = 0u64;
    let mut digits = String::new();
    for character in text.chars() {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        let unit = match character {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(digits.parse::<u64>().ok()?.checked_mul(unit)?)?;
        digits.clear();
    }
    (digits.is_empty() && seconds > 0).then(|| Duration::from_secs(seconds))
}

impl Field {
    fn bits(&self, text: &str) -> Result<u64, String> {
        let mut bits = 0;
        for part in text.split(',') {
            bits |= self.range(part)?;
        }
        Ok(bits)
    }

    fn range(&self, part: &str) -> Result<u64, String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let (first, last) = match range {
            "*" | "?" => (self.low, self.high),
            _ => match range.split_once('-') {
                Some((first, last)) => (self.value(first)?, self.value(last)?),
                // `5/15` begins at five and has no end.
                None if step.is_some() => (self.value(range)?, self.high),
                None => (self.value(range)?, self.value(range)?),
            },
        };
        if first > last {
            return Err(format!("{}: beginning of range ({first}) beyond end of range ({last}): {part}", self.name));
        }
        let step = match step {
            Some(step) => step.parse::<usize>().ok().filter(|step| *step > 0),
            None => Some(1),
        };
        let step = step.ok_or_else(|| format!("{}: step of range should be a positive number: {part}", self.name))?;
        Ok((first..=last).step_by(step).fold(0, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        if let Some(position) = self.names.iter().position(|name| *name == lower) {
            return Ok(self.low + u32::try_from(position).unwrap_or(0));
        }
        let value: u32 = text.parse().map_err(|_| format!("{}: failed to parse number: {text:?}", self.name))?;
        if (self.low..=self.high).contains(&value) {
            return Ok(value);
        }
        let (name, low, high) = (self.name, self.low, self.high);
        Err(format!("{name}: {value} is not within {low} and {high}"))
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits & 1 << value != 0)
}

impl Schedule {
    /// The first time after `after`, if there ever is one.
    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(every) => {
                let next = after.checked_add(*every).ok()?;
                Timestamp::from_second(next.as_second()).ok()
            }
            Schedule::Calendar(calendar) => calendar.next(after, zone),
        }
    }
}

impl Calendar {
    fn allows(&self, date: Date) -> bool {
        if !has(self.months, date.month()) {
            return false;
        }
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.any_day || self.any_weekday { day && weekday } else { day || weekday }
    }

    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = zone.to_datetime(after);
        let last_year = start.year().saturating_add(YEARS_MAX);
        let mut date = start.date();
        let mut from = start.time();
        while date.year() <= last_year {
            if self.allows(date)
                && let Some(found) = self.next_on(date, from, after, zone)
            {
                return Some(found);
            }
            date = if has(self.months, date.month()) {
                date.tomorrow().ok()?
            } else {
                date.last_of_month().tomorrow().ok()?
            };
            from = Time::midnight();
        }
        None
    }

    /// The first allowed time of a day, not before `from` and after `after`.
    fn next_on(&self, date: Date, from: Time, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        for hour in (from.hour()..24).filter(|hour| has(self.hours, *hour)) {
            let first = if hour == from.hour() { from.minute() } else { 0 };
            for minute in (first..60).filter(|minute| has(self.minutes, *minute)) {
                let time = DateTime::from_parts(date, Time::constant(hour, minute, 0, 0));
                let ambiguous = zone.to_ambiguous_timestamp(time);
                if ambiguous.offset().is_gap() {
                    continue;
                }
                if let Ok(found) = ambiguous.earlier()
                    && found > after
                {
                    return Some(found);
                }
            }
        }
        None
    }
}

trait IsGap {
    fn is_gap(&self) -> bool;
}

impl IsGap for jiff::tz::AmbiguousOffset {
    fn is_gap(&self) -> bool {
        matches!(self, jiff::tz::AmbiguousOffset::Gap { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_times() {
        let cases = [
            ("* * * * *", "UTC", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
            ("*/1 * * * ?", "UTC", "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"),
            ("5/20 * * * *", "UTC", "2026-01-01T00:06:00Z", "2026-01-01T00:25:00Z"),
            ("0 9-17/4 * * *", "UTC", "2026-01-01T10:00:00Z", "2026-01-01T13:00:00Z"),
            ("30 6 * * MON-FRI", "UTC", "2026-01-02T07:00:00Z", "2026-01-05T06:30:00Z"),
            ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 13 * FRI", "UTC", "2026-01-03T00:00:00Z", "2026-01-09T00:00:00Z"),
            ("@hourly", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
            ("@every 90m", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"),
            ("0 12 * JAN,JUL *", "Europe/Berlin", "2026-02-01T00:00:00Z", "2026-07-01T10:00:00Z"),
            // 02:30 does not exist on that day, so the day after.
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"),
            // 02:30 exists twice on that day; the second is not another.
            ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
        ];
        for (line, zone, after, expected) in cases {
            let zone = TimeZone::get(zone).unwrap();
            let next = parse(line).unwrap().next(after.parse().unwrap(), &zone).unwrap();
            assert_eq!(next.to_string(), expected, "{line} after {after}");
        }
        assert_eq!(parse("0 0 30 2 *").unwrap().next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }

    #[test]
    fn wrong_lines_name_what_is_wrong() {
        let cases = [
            ("", "5 fields"),
            ("* * * *", "5 fields"),
            ("60 * * * *", "minute"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day of month"),
            ("* * * FOO *", "month"),
            ("* * * * 7", "day of week"),
            ("5-1 * * * *", "beginning of range"),
            ("*/0 * * * *", "step"),
            ("@never", "descriptor"),
            ("@every x", "duration"),
        ];
        for (line, expected) in cases {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}

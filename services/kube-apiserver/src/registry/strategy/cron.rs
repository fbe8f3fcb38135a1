//! Schedules in the five fields of cron: only whether one is well formed, in the words of the parser clients know.

/// Minute, hour, day of the month, month, day of the week: their bounds, and the words that stand for numbers.
const FIELDS: [(u32, u32, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];
const WORDS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// What is wrong with a schedule, if anything.
pub fn parse(text: &str) -> Result<(), String> {
    let mut rest = text;
    if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        let (zone, tail) = text.split_once(' ').unwrap_or((text, ""));
        let name = zone.split_once('=').map_or("", |(_, n)| n);
        jiff::tz::TimeZone::get(name).map_err(|_| format!("provided bad location {name}: unknown time zone {name}"))?;
        rest = tail.trim();
    }
    if let Some(word) = rest.strip_prefix('@') {
        if let Some(duration) = word.strip_prefix("every ") {
            let fine = !duration.is_empty() && duration.starts_with(|c: char| c.is_ascii_digit());
            return if fine {
                Ok(())
            } else {
                Err(format!("failed to parse duration {rest}: time: invalid duration {duration:?}"))
            };
        }
        return if WORDS.contains(&rest) { Ok(()) } else { Err(format!("unrecognized descriptor: {rest}")) };
    }
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (field, (low, high, words)) in fields.iter().zip(FIELDS) {
        for part in field.split(',') {
            range(part, low, high, words)?;
        }
    }
    Ok(())
}

fn range(text: &str, low: u32, high: u32, words: &[&str]) -> Result<(), String> {
    let mut halves = text.split('/');
    let (span, step) = (halves.next().unwrap_or_default(), halves.next());
    if halves.next().is_some() {
        return Err(format!("too many slashes: {text}"));
    }
    let mut ends = span.split('-');
    let (from, to) = (ends.next().unwrap_or_default(), ends.next());
    if ends.next().is_some() {
        return Err(format!("too many hyphens: {text}"));
    }
    let (start, end) = if matches!(from, "*" | "?") {
        (low, high)
    } else {
        let start = number(from, words)?;
        let end = match (to, step) {
            (Some(to), _) => number(to, words)?,
            // N/step means from N on.
            (None, Some(_)) => high,
            (None, None) => start,
        };
        (start, end)
    };
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {text}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    match step.map(|s| number(s, &[])).transpose()? {
        Some(0) => Err(format!("step of range should be a positive number: {text}")),
        _ => Ok(()),
    }
}

fn number(text: &str, words: &[&str]) -> Result<u32, String> {
    if let Some(i) = words.iter().position(|w| text.eq_ignore_ascii_case(w)) {
        // Months count from one, days of the week from zero.
        let first = u32::from(words.len() == 12);
        return Ok(u32::try_from(i).unwrap_or(0) + first);
    }
    text.parse().map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in [
            "* * * * *",
            "*/5 0-23/2 1,15 jan-mar MON-fri",
            "@hourly",
            "@every 1h30m",
            "? * * * ?",
            "5/10 * * * *",
            "TZ=UTC 0 0 * * *",
        ] {
            assert_eq!(parse(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("@never", "unrecognized descriptor: @never"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ] {
            assert_eq!(parse(bad), Err(why.to_owned()), "{bad}");
        }
    }
}

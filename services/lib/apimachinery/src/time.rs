//! Times as the API writes them: RFC 3339 in UTC, to the second ("Time") or to the microsecond ("MicroTime").

use jiff::Timestamp;

/// A text that is not an RFC 3339 time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parsing time {0:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0:?} as \"2006\"")]
pub struct TimeError(String);

/// Now, to the second: `2026-01-02T03:04:05Z`.
pub fn now_rfc3339() -> String {
    rfc3339(Timestamp::now())
}

/// Now, to the microsecond: `2026-01-02T03:04:05.000006Z`.
pub fn now_rfc3339_micro() -> String {
    rfc3339_micro(Timestamp::now())
}

/// A time to the second; fractions are cut off.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time to the microsecond, always with six digits.
pub fn rfc3339_micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Parses any RFC 3339 time, whatever its offset and fraction. Looser forms of ISO 8601 are refused, as Go refuses them.
pub fn parse_rfc3339(text: &str) -> Result<Timestamp, TimeError> {
    let bad = || TimeError(text.to_string());
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let fits = bytes.len() > shape.len()
        && shape.iter().zip(bytes).all(|(s, b)| if *s == b'd' { b.is_ascii_digit() } else { s == b })
        // Go knows no leap seconds.
        && &bytes[17..19] != b"60"
        && zone_fits(&bytes[shape.len()..]);
    if !fits {
        return Err(bad());
    }
    text.parse().map_err(|_| bad())
}

/// An optional fraction, then `Z` or `+hh:mm`.
fn zone_fits(rest: &[u8]) -> bool {
    let rest = match rest {
        [b'.', digits @ ..] => {
            let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
            if count == 0 {
                return false;
            }
            &digits[count..]
        }
        rest => rest,
    };
    match rest {
        [b'Z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let cases = [
            ("2026-01-02T03:04:05Z", Some(("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z"))),
            ("2026-01-02T03:04:05.1234567Z", Some(("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456Z"))),
            ("2026-01-02T03:04:05+02:00", Some(("2026-01-02T01:04:05Z", "2026-01-02T01:04:05.000000Z"))),
            ("", None),
            ("2026-01-02", None),
            ("2026-01-02 03:04:05Z", None),
            ("2026-01-02T03:04:05", None),
            ("2026-01-02T03:04:05.Z", None),
            ("2026-13-02T03:04:05Z", None),
            ("2026-12-31T23:59:60Z", None),
        ];
        for (text, want) in cases {
            let got = parse_rfc3339(text).ok().map(|t| (rfc3339(t), rfc3339_micro(t)));
            assert_eq!(got.as_ref().map(|(a, b)| (a.as_str(), b.as_str())), want, "{text}");
        }
    }
}

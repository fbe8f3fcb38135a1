//! Query strings.

use std::time::Duration;

/// The parameters of a query string, in order; a parameter may repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses `a=b&c`, with `+` and `%xx` decoded.
    pub fn parse(text: Option<&str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key, true), decode(value, true))
                })
                .collect(),
        )
    }

    /// The first value, or an empty string.
    pub fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
    }

    /// Whether the parameter is there at all.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// True for `true`, `1` and a bare parameter, as upstream reads booleans.
    pub fn flag(&self, key: &str) -> bool {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .is_some_and(|(_, v)| !matches!(v.to_ascii_lowercase().as_str(), "false" | "0"))
    }
}

/// Undoes percent encoding; malformed escapes stay as they are.
pub fn decode(text: &str, plus_is_space: bool) -> String {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return text.to_string();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let escaped = (bytes[i] == b'%')
            .then(|| text.get(i + 1..i + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                i += 3;
                continue;
            }
            None if bytes[i] == b'+' && plus_is_space => out.push(b' '),
            None => out.push(bytes[i]),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A span of time as Go's `time.ParseDuration` reads it (`1h15m30.5s`); one that is negative is none.
///
/// # Errors
/// Its words.
pub fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            unknown => return Err(format!("time: unknown unit {unknown:?} in duration {text:?}")),
        };
        seconds += number * unit;
        rest = &rest[end..];
    }
    if negative { Ok(Duration::ZERO) } else { Duration::try_from_secs_f64(seconds).map_err(|_| invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let table = [
            ("1h15m30.5s", Ok(4530.5)),
            ("0", Ok(0.0)),
            ("-5s", Ok(0.0)),
            ("250ms", Ok(0.25)),
            ("abc", Err("time: invalid duration \"abc\"")),
            ("5", Err("time: missing unit in duration \"5\"")),
            ("5x", Err("time: unknown unit \"x\" in duration \"5x\"")),
            ("1e9999h", Err("time: unknown unit \"e\" in duration \"1e9999h\"")),
        ];
        for (text, want) in table {
            assert_eq!(duration(text).map(|d| d.as_secs_f64()), want.map_err(str::to_string), "{text}");
        }
    }

    #[test]
    fn parsing() {
        let q = Query::parse(Some("a=b%20c&watch&x=1&x=2&p=a+b&bad=%zz&w=false"));
        assert_eq!(q.get("a"), "b c");
        assert_eq!(q.get("p"), "a b");
        assert_eq!(q.get("bad"), "%zz");
        assert_eq!(q.all("x").collect::<Vec<_>>(), ["1", "2"]);
        assert!(q.flag("watch") && !q.flag("w") && !q.flag("none"));
    }
}

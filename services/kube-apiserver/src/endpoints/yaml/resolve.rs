//! What a plain scalar is, by YAML 1.1 as go-yaml v2 has it.

use super::compose::Kind;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// A scalar that has been read.
#[derive(Debug, PartialEq)]
pub enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    /// Too large for the former.
    Unsigned(u64),
    Float(f64),
    Text(String),
}

const TRUE: [&str; 11] = ["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"];
const FALSE: [&str; 11] = ["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"];
const NULL: [&str; 5] = ["", "~", "null", "Null", "NULL"];

/// Reads a scalar that is said to be something, or not.
pub fn resolve(text: &str, kind: Option<Kind>) -> Result<Scalar, String> {
    let found = match kind {
        Some(Kind::Text) => return Ok(Scalar::Text(text.to_owned())),
        Some(Kind::Binary) => {
            let packed: String = text.split_ascii_whitespace().collect();
            let bytes = STANDARD.decode(packed).map_err(|_| "yaml: !!binary value contains invalid base64 data")?;
            return Ok(Scalar::Text(String::from_utf8_lossy(&bytes).into_owned()));
        }
        _ => plain(text),
    };
    let wanted = match (&found, kind) {
        (_, None)
        | (Scalar::Null, Some(Kind::Null))
        | (Scalar::Bool(_), Some(Kind::Bool))
        | (Scalar::Int(_) | Scalar::Unsigned(_), Some(Kind::Int))
        | (Scalar::Float(_), Some(Kind::Float)) => return Ok(found),
        (Scalar::Int(n), Some(Kind::Float)) => return Ok(Scalar::Float(*n as f64)),
        (_, Some(Kind::Null)) => "!!null",
        (_, Some(Kind::Bool)) => "!!bool",
        (_, Some(Kind::Int)) => "!!int",
        (_, Some(_)) => "!!float",
    };
    Err(format!("yaml: cannot decode {} `{text}` as a {wanted}", found.tag()))
}

/// What an untagged scalar without quotes looks like.
fn plain(text: &str) -> Scalar {
    if TRUE.contains(&text) {
        return Scalar::Bool(true);
    }
    if FALSE.contains(&text) {
        return Scalar::Bool(false);
    }
    if NULL.contains(&text) {
        return Scalar::Null;
    }
    match text {
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.as_bytes().first() {
        Some(b'0'..=b'9' | b'+' | b'-') => number(&text.replace('_', "")),
        Some(b'.') => float(text),
        _ => None,
    };
    number.unwrap_or_else(|| Scalar::Text(text.to_owned()))
}

fn number(text: &str) -> Option<Scalar> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let (radix, rest) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !rest.starts_with(['+', '-'])
        && let Ok(magnitude) = u64::from_str_radix(rest, radix)
    {
        let signed = i128::from(magnitude) * if negative { -1 } else { 1 };
        if let Ok(int) = i64::try_from(signed) {
            return Some(Scalar::Int(int));
        }
        if let Ok(int) = u64::try_from(signed) {
            return Some(Scalar::Unsigned(int));
        }
    }
    float(text)
}

/// Digits with at most one point, and perhaps an exponent; Rust would also take words.
fn float(text: &str) -> Option<Scalar> {
    let bare = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = bare.split_once(['e', 'E']).map_or((bare, None), |(m, e)| (m, Some(e)));
    let is_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !is_digits(whole) || !is_digits(part) || (whole.is_empty() && part.is_empty()) {
        return None;
    }
    let exponent = exponent.map(|e| e.strip_prefix(['+', '-']).unwrap_or(e));
    if exponent.is_some_and(|e| e.is_empty() || !is_digits(e)) {
        return None;
    }
    text.parse().ok().filter(|f: &f64| f.is_finite()).map(Scalar::Float)
}

impl Scalar {
    fn tag(&self) -> &'static str {
        match self {
            Scalar::Null => "!!null",
            Scalar::Bool(_) => "!!bool",
            Scalar::Int(_) | Scalar::Unsigned(_) => "!!int",
            Scalar::Float(_) => "!!float",
            Scalar::Text(_) => "!!str",
        }
    }

    /// As JSON has it: a number without a part is an integer there.
    pub fn into_json(self) -> Result<Value, String> {
        /// Up to here doubles have all integers (2^53).
        const EXACT: f64 = 9_007_199_254_740_992.0;
        Ok(match self {
            Scalar::Null => Value::Null,
            Scalar::Bool(b) => b.into(),
            Scalar::Int(n) => n.into(),
            Scalar::Unsigned(n) => n.into(),
            Scalar::Float(f) if f.fract() == 0.0 && f.abs() <= EXACT => (f as i64).into(),
            Scalar::Float(f) if f.is_finite() => f.into(),
            Scalar::Float(f) if f.is_nan() => return Err("json: unsupported value: NaN".into()),
            Scalar::Float(f) => {
                return Err(format!("json: unsupported value: {}", if f > 0.0 { "+Inf" } else { "-Inf" }));
            }
            Scalar::Text(text) => text.into(),
        })
    }
}

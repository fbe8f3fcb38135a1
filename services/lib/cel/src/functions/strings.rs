//! Texts: cel-go's strings extension and Kubernetes' regular expressions. Places are letters, not bytes.

use regex::{Regex, RegexBuilder};

use super::{Row, mismatch};
use crate::value::Value;

/// How large a compiled pattern may get, bytes.
const PATTERN_MAX: usize = 1 << 20;

pub const ROWS: &[Row] = &[
    ("string.contains(string): bool", |v| two(v, |s, of| Ok(Value::Bool(s.contains(of))))),
    ("string.startsWith(string): bool", |v| two(v, |s, of| Ok(Value::Bool(s.starts_with(of))))),
    ("string.endsWith(string): bool", |v| two(v, |s, of| Ok(Value::Bool(s.ends_with(of))))),
    ("matches(string, string): bool", matches),
    ("string.matches(string): bool", matches),
    ("string.find(string): string", |v| {
        two(v, |s, pattern| Ok(regex(pattern)?.find(s).map_or("", |found| found.as_str()).into()))
    }),
    ("string.findAll(string): list<string>", |v| find_all(v, i64::MAX)),
    ("string.findAll(string, int): list<string>", |v| match v[2] {
        Value::Int(most) => find_all(v, if most < 0 { i64::MAX } else { most }),
        _ => mismatch(),
    }),
    ("string.charAt(int): string", |v| match (&v[0], &v[1]) {
        (Value::String(s), Value::Int(at)) => {
            let letters: Vec<char> = s.chars().collect();
            match usize::try_from(*at) {
                Ok(at) if at == letters.len() => Ok("".into()),
                Ok(at) if at < letters.len() => Ok(letters[at].to_string().into()),
                _ => Err(format!("index out of range: {at}")),
            }
        }
        _ => mismatch(),
    }),
    ("string.indexOf(string): int", |v| two(v, |s, of| Ok(place(s, s.find(of))))),
    ("string.lastIndexOf(string): int", |v| two(v, |s, of| Ok(place(s, s.rfind(of))))),
    ("string.lowerAscii(): string", |v| one(v, |s| s.to_ascii_lowercase().into())),
    ("string.upperAscii(): string", |v| one(v, |s| s.to_ascii_uppercase().into())),
    ("string.trim(): string", |v| one(v, |s| s.trim().into())),
    ("string.reverse(): string", |v| one(v, |s| s.chars().rev().collect::<String>().into())),
    ("string.substring(int): string", |v| match (&v[0], &v[1]) {
        (Value::String(s), Value::Int(from)) => substring(s, *from, None),
        _ => mismatch(),
    }),
    ("string.substring(int, int): string", |v| match (&v[0], &v[1], &v[2]) {
        (Value::String(s), Value::Int(from), Value::Int(to)) => substring(s, *from, Some(*to)),
        _ => mismatch(),
    }),
    ("string.replace(string, string): string", |v| replace(v, -1)),
    ("string.replace(string, string, int): string", |v| match v[3] {
        Value::Int(most) => replace(v, most),
        _ => mismatch(),
    }),
    ("string.split(string): list<string>", |v| split(v, -1)),
    ("string.split(string, int): list<string>", |v| match v[2] {
        Value::Int(most) => split(v, most),
        _ => mismatch(),
    }),
    ("list<string>.join(): string", |v| join(&v[0], "")),
    ("list<string>.join(string): string", |v| match &v[1] {
        Value::String(between) => join(&v[0], between),
        _ => mismatch(),
    }),
];

fn one(v: &[Value], of: fn(&str) -> Value) -> Result<Value, String> {
    match &v[0] {
        Value::String(s) => Ok(of(s)),
        _ => mismatch(),
    }
}

fn two(v: &[Value], of: fn(&str, &str) -> Result<Value, String>) -> Result<Value, String> {
    match (&v[0], &v[1]) {
        (Value::String(a), Value::String(b)) => of(a, b),
        _ => mismatch(),
    }
}

fn regex(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(PATTERN_MAX).build().map_err(|error| error.to_string())
}

fn matches(v: &[Value]) -> Result<Value, String> {
    two(v, |s, pattern| Ok(Value::Bool(regex(pattern)?.is_match(s))))
}

fn find_all(v: &[Value], most: i64) -> Result<Value, String> {
    let (Value::String(s), Value::String(pattern)) = (&v[0], &v[1]) else { return mismatch() };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    Ok(regex(pattern)?.find_iter(s).take(most).map(|found| found.as_str().into()).collect::<Vec<Value>>().into())
}

/// A place in bytes as one in letters; -1 if there is none.
fn place(s: &str, at: Option<usize>) -> Value {
    Value::Int(at.and_then(|at| i64::try_from(s[..at].chars().count()).ok()).unwrap_or(-1))
}

fn substring(s: &str, from: i64, to: Option<i64>) -> Result<Value, String> {
    let letters: Vec<char> = s.chars().collect();
    let whole = i64::try_from(letters.len()).map_err(|_| "integer overflow".to_owned())?;
    let to = to.unwrap_or(whole);
    if !(0..=whole).contains(&from) {
        return Err(format!("index out of range: {from}"));
    }
    if !(0..=whole).contains(&to) {
        return Err(format!("index out of range: {to}"));
    }
    match (usize::try_from(from), usize::try_from(to)) {
        (Ok(from), Ok(to)) if from <= to => Ok(letters[from..to].iter().collect::<String>().into()),
        _ => Err(format!("invalid substring range. start: {from}, end: {to}")),
    }
}

fn replace(v: &[Value], most: i64) -> Result<Value, String> {
    let (Value::String(s), Value::String(old), Value::String(new)) = (&v[0], &v[1], &v[2]) else { return mismatch() };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    Ok(s.replacen(&**old, new, most).into())
}

fn split(v: &[Value], most: i64) -> Result<Value, String> {
    let (Value::String(s), Value::String(by)) = (&v[0], &v[1]) else { return mismatch() };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let parts: Vec<Value> = if by.is_empty() {
        s.chars().map(|c| c.to_string().into()).take(most).collect()
    } else {
        s.splitn(most, &**by).map(Value::from).collect()
    };
    Ok(parts.into())
}

fn join(list: &Value, between: &str) -> Result<Value, String> {
    let Value::List(list) = list else { return mismatch() };
    let parts = list.iter().map(|part| match part {
        Value::String(s) => Ok(&**s),
        _ => Err("no such overload".to_owned()),
    });
    Ok(parts.collect::<Result<Vec<&str>, String>>()?.join(between).into())
}

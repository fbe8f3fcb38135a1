//! Operators, and what lists and maps answer.

use std::cmp::Ordering;

use super::{Row, mismatch};
use crate::eval::select;
use crate::value::{Key, Value};

pub const ROWS: &[Row] = &[
    ("_==_(A, A): bool", |v| Ok(Value::Bool(v[0] == v[1]))),
    ("_!=_(A, A): bool", |v| Ok(Value::Bool(v[0] != v[1]))),
    ("_<_(bool, bool): bool", less),
    ("_<_(int, int): bool", less),
    ("_<_(int, uint): bool", less),
    ("_<_(int, double): bool", less),
    ("_<_(uint, uint): bool", less),
    ("_<_(uint, int): bool", less),
    ("_<_(uint, double): bool", less),
    ("_<_(double, double): bool", less),
    ("_<_(double, int): bool", less),
    ("_<_(double, uint): bool", less),
    ("_<_(string, string): bool", less),
    ("_<_(bytes, bytes): bool", less),
    ("_<_(duration, duration): bool", less),
    ("_<_(timestamp, timestamp): bool", less),
    ("_<=_(bool, bool): bool", less_or_equal),
    ("_<=_(int, int): bool", less_or_equal),
    ("_<=_(int, uint): bool", less_or_equal),
    ("_<=_(int, double): bool", less_or_equal),
    ("_<=_(uint, uint): bool", less_or_equal),
    ("_<=_(uint, int): bool", less_or_equal),
    ("_<=_(uint, double): bool", less_or_equal),
    ("_<=_(double, double): bool", less_or_equal),
    ("_<=_(double, int): bool", less_or_equal),
    ("_<=_(double, uint): bool", less_or_equal),
    ("_<=_(string, string): bool", less_or_equal),
    ("_<=_(bytes, bytes): bool", less_or_equal),
    ("_<=_(duration, duration): bool", less_or_equal),
    ("_<=_(timestamp, timestamp): bool", less_or_equal),
    ("_>_(bool, bool): bool", greater),
    ("_>_(int, int): bool", greater),
    ("_>_(int, uint): bool", greater),
    ("_>_(int, double): bool", greater),
    ("_>_(uint, uint): bool", greater),
    ("_>_(uint, int): bool", greater),
    ("_>_(uint, double): bool", greater),
    ("_>_(double, double): bool", greater),
    ("_>_(double, int): bool", greater),
    ("_>_(double, uint): bool", greater),
    ("_>_(string, string): bool", greater),
    ("_>_(bytes, bytes): bool", greater),
    ("_>_(duration, duration): bool", greater),
    ("_>_(timestamp, timestamp): bool", greater),
    ("_>=_(bool, bool): bool", greater_or_equal),
    ("_>=_(int, int): bool", greater_or_equal),
    ("_>=_(int, uint): bool", greater_or_equal),
    ("_>=_(int, double): bool", greater_or_equal),
    ("_>=_(uint, uint): bool", greater_or_equal),
    ("_>=_(uint, int): bool", greater_or_equal),
    ("_>=_(uint, double): bool", greater_or_equal),
    ("_>=_(double, double): bool", greater_or_equal),
    ("_>=_(double, int): bool", greater_or_equal),
    ("_>=_(double, uint): bool", greater_or_equal),
    ("_>=_(string, string): bool", greater_or_equal),
    ("_>=_(bytes, bytes): bool", greater_or_equal),
    ("_>=_(duration, duration): bool", greater_or_equal),
    ("_>=_(timestamp, timestamp): bool", greater_or_equal),
    ("_+_(int, int): int", |v| integers(v, i64::checked_add, u64::checked_add)),
    ("_+_(uint, uint): uint", |v| integers(v, i64::checked_add, u64::checked_add)),
    ("_+_(double, double): double", |v| doubles(v, |a, b| a + b)),
    ("_+_(string, string): string", joined),
    ("_+_(bytes, bytes): bytes", joined),
    ("_+_(list<A>, list<A>): list<A>", joined),
    ("_+_(duration, duration): duration", super::time::add),
    ("_+_(timestamp, duration): timestamp", super::time::add),
    ("_+_(duration, timestamp): timestamp", super::time::add),
    ("_-_(int, int): int", |v| integers(v, i64::checked_sub, u64::checked_sub)),
    ("_-_(uint, uint): uint", |v| integers(v, i64::checked_sub, u64::checked_sub)),
    ("_-_(double, double): double", |v| doubles(v, |a, b| a - b)),
    ("_-_(duration, duration): duration", super::time::subtract),
    ("_-_(timestamp, duration): timestamp", super::time::subtract),
    ("_-_(timestamp, timestamp): duration", super::time::subtract),
    ("_*_(int, int): int", |v| integers(v, i64::checked_mul, u64::checked_mul)),
    ("_*_(uint, uint): uint", |v| integers(v, i64::checked_mul, u64::checked_mul)),
    ("_*_(double, double): double", |v| doubles(v, |a, b| a * b)),
    ("_/_(int, int): int", |v| divided(v, "division by zero", i64::checked_div, u64::checked_div)),
    ("_/_(uint, uint): uint", |v| divided(v, "division by zero", i64::checked_div, u64::checked_div)),
    ("_/_(double, double): double", |v| doubles(v, |a, b| a / b)),
    ("_%_(int, int): int", |v| divided(v, "modulus by zero", i64::checked_rem, u64::checked_rem)),
    ("_%_(uint, uint): uint", |v| divided(v, "modulus by zero", i64::checked_rem, u64::checked_rem)),
    ("-_(int): int", negated),
    ("-_(double): double", negated),
    ("!_(bool): bool", |v| if let Value::Bool(b) = v[0] { Ok(Value::Bool(!b)) } else { mismatch() }),
    ("@in(A, list<A>): bool", contained),
    ("@in(A, map<A, B>): bool", contained),
    ("_[_](list<A>, int): A", |v| index(v, false)),
    ("_[_](map<A, B>, A): B", |v| index(v, false)),
    ("_[_](optional<list<A>>, int): optional<A>", |v| index(v, true)),
    ("_[_](optional<map<A, B>>, A): optional<B>", |v| index(v, true)),
    ("_[?_](list<A>, int): optional<A>", |v| index(v, true)),
    ("_[?_](map<A, B>, A): optional<B>", |v| index(v, true)),
    ("_[?_](optional<list<A>>, int): optional<A>", |v| index(v, true)),
    ("_[?_](optional<map<A, B>>, A): optional<B>", |v| index(v, true)),
    ("size(string): int", size),
    ("size(bytes): int", size),
    ("size(list<A>): int", size),
    ("size(map<A, B>): int", size),
    ("string.size(): int", size),
    ("bytes.size(): int", size),
    ("list<A>.size(): int", size),
    ("map<A, B>.size(): int", size),
    ("optional.of(A): optional<A>", |v| Ok(Value::some(v[0].clone()))),
    ("optional.ofNonZeroValue(A): optional<A>", |v| {
        Ok(if v[0].is_zero() { Value::Optional(None) } else { Value::some(v[0].clone()) })
    }),
    ("optional.none(): optional<A>", |_| Ok(Value::Optional(None))),
    ("optional<A>.hasValue(): bool", |v| Ok(Value::Bool(v[0] != Value::Optional(None)))),
    ("optional<A>.value(): A", |v| match &v[0] {
        Value::Optional(Some(value)) => Ok((**value).clone()),
        _ => Err("optional.none() dereference".to_owned()),
    }),
    ("optional<A>.or(optional<A>): optional<A>", |v| {
        Ok(if v[0] == Value::Optional(None) { v[1].clone() } else { v[0].clone() })
    }),
    ("optional<A>.orValue(A): A", |v| match &v[0] {
        Value::Optional(Some(value)) => Ok((**value).clone()),
        _ => Ok(v[1].clone()),
    }),
];

fn compared(v: &[Value], holds: fn(Ordering) -> bool) -> Result<Value, String> {
    match (&v[0], &v[1]) {
        // No number stands in any order to NaN.
        (Value::Double(a), _) | (_, Value::Double(a)) if a.is_nan() => Ok(Value::Bool(false)),
        (a, b) => a.compare(b).map_or_else(mismatch, |order| Ok(Value::Bool(holds(order)))),
    }
}

fn less(v: &[Value]) -> Result<Value, String> {
    compared(v, Ordering::is_lt)
}

fn less_or_equal(v: &[Value]) -> Result<Value, String> {
    compared(v, Ordering::is_le)
}

fn greater(v: &[Value]) -> Result<Value, String> {
    compared(v, Ordering::is_gt)
}

fn greater_or_equal(v: &[Value]) -> Result<Value, String> {
    compared(v, Ordering::is_ge)
}

fn integers(
    v: &[Value],
    signed: fn(i64, i64) -> Option<i64>,
    unsigned: fn(u64, u64) -> Option<u64>,
) -> Result<Value, String> {
    match (&v[0], &v[1]) {
        (Value::Int(a), Value::Int(b)) => signed(*a, *b).map(Value::Int).ok_or_else(|| "integer overflow".to_owned()),
        (Value::Uint(a), Value::Uint(b)) => {
            unsigned(*a, *b).map(Value::Uint).ok_or_else(|| "unsigned integer overflow".to_owned())
        }
        _ => mismatch(),
    }
}

fn divided(
    v: &[Value],
    by_zero: &str,
    signed: fn(i64, i64) -> Option<i64>,
    unsigned: fn(u64, u64) -> Option<u64>,
) -> Result<Value, String> {
    if v[1].is_zero() { Err(by_zero.to_owned()) } else { integers(v, signed, unsigned) }
}

fn doubles(v: &[Value], of: fn(f64, f64) -> f64) -> Result<Value, String> {
    match (&v[0], &v[1]) {
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(of(*a, *b))),
        _ => mismatch(),
    }
}

fn negated(v: &[Value]) -> Result<Value, String> {
    match v[0] {
        Value::Int(n) => n.checked_neg().map(Value::Int).ok_or_else(|| "integer overflow".to_owned()),
        Value::Double(n) => Ok(Value::Double(-n)),
        _ => mismatch(),
    }
}

fn joined(v: &[Value]) -> Result<Value, String> {
    match (&v[0], &v[1]) {
        (Value::String(a), Value::String(b)) => Ok(format!("{a}{b}").into()),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes([&**a, &**b].concat().into())),
        (Value::List(a), Value::List(b)) => Ok([&**a, &**b].concat().into()),
        _ => mismatch(),
    }
}

fn contained(v: &[Value]) -> Result<Value, String> {
    match &v[1] {
        Value::List(list) => Ok(Value::Bool(list.contains(&v[0]))),
        Value::Map(map) => Ok(Value::Bool(Key::of(&v[0]).is_some_and(|key| map.entries.contains_key(&key)))),
        _ => mismatch(),
    }
}

fn index(v: &[Value], optional: bool) -> Result<Value, String> {
    match (&v[0], Key::of(&v[1])) {
        (Value::Optional(Some(inner)), _) => index(&[(**inner).clone(), v[1].clone()], true),
        (Value::Optional(None), _) => Ok(Value::Optional(None)),
        (Value::List(list), Some(Key::Int(at))) => match usize::try_from(at).ok().and_then(|at| list.get(at)) {
            Some(value) if optional => Ok(Value::some(value.clone())),
            Some(value) => Ok(value.clone()),
            None if optional => Ok(Value::Optional(None)),
            None => Err(format!("index out of bounds: {at}")),
        },
        (map @ Value::Map(_), Some(key)) => select(map, &key, optional).map_err(|error| error.to_string()),
        _ => mismatch(),
    }
}

fn size(v: &[Value]) -> Result<Value, String> {
    let size = match &v[0] {
        Value::String(text) => text.chars().count(),
        other => other.weight(),
    };
    i64::try_from(size).map(Value::Int).map_err(|_| "integer overflow".to_owned())
}

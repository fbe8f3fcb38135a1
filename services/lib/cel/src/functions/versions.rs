//! Kubernetes' quantities and semantic versions.

use std::cmp::Ordering;
use std::sync::Arc;

use apimachinery::quantity::Quantity;

use super::{Row, mismatch};
use crate::semver::Semver;
use crate::value::Value;

pub const ROWS: &[Row] = &[
    ("quantity(string): quantity", |v| quantity(&v[0]).map(Value::Quantity)),
    ("isQuantity(string): bool", |v| Ok(Value::Bool(quantity(&v[0]).is_ok()))),
    ("quantity.sign(): int", |v| of(v, |q| Value::Int(q.sign().into()))),
    ("quantity.isInteger(): bool", |v| of(v, |q| Value::Bool(whole(q).is_some()))),
    ("quantity.asInteger(): int", |v| match &v[0] {
        Value::Quantity(q) => whole(q).map(Value::Int).ok_or_else(|| "cannot convert value to integer".to_owned()),
        _ => mismatch(),
    }),
    ("quantity.asApproximateFloat(): double", |v| of(v, |q| Value::Double(approximate(q)))),
    ("quantity.add(quantity): quantity", |v| both(v, Quantity::add)),
    ("quantity.add(int): quantity", |v| both(v, Quantity::add)),
    ("quantity.sub(quantity): quantity", |v| both(v, Quantity::sub)),
    ("quantity.sub(int): quantity", |v| both(v, Quantity::sub)),
    ("quantity.isLessThan(quantity): bool", |v| compared(v, |order| Value::Bool(order.is_lt()))),
    ("quantity.isGreaterThan(quantity): bool", |v| compared(v, |order| Value::Bool(order.is_gt()))),
    ("quantity.compareTo(quantity): int", |v| compared(v, |order| Value::Int(order as i64))),
    ("semver(string): semver", |v| semver(v).map(|found| Value::Semver(Arc::new(found)))),
    ("semver(string, bool): semver", |v| semver(v).map(|found| Value::Semver(Arc::new(found)))),
    ("isSemver(string): bool", |v| Ok(Value::Bool(semver(v).is_ok()))),
    ("isSemver(string, bool): bool", |v| Ok(Value::Bool(semver(v).is_ok()))),
    ("semver.major(): int", |v| number(v, 0)),
    ("semver.minor(): int", |v| number(v, 1)),
    ("semver.patch(): int", |v| number(v, 2)),
    ("semver.isLessThan(semver): bool", |v| compared(v, |order| Value::Bool(order.is_lt()))),
    ("semver.isGreaterThan(semver): bool", |v| compared(v, |order| Value::Bool(order.is_gt()))),
    ("semver.compareTo(semver): int", |v| compared(v, |order| Value::Int(order as i64))),
];

fn quantity(value: &Value) -> Result<Quantity, String> {
    match value {
        Value::String(s) => Quantity::parse(s).map_err(|error| error.to_string()),
        _ => Err("no such overload".to_owned()),
    }
}

fn of(v: &[Value], what: fn(&Quantity) -> Value) -> Result<Value, String> {
    match &v[0] {
        Value::Quantity(q) => Ok(what(q)),
        _ => mismatch(),
    }
}

fn whole(q: &Quantity) -> Option<i64> {
    let value = q.value();
    (Quantity::from_value(value) == *q).then_some(value)
}

fn approximate(q: &Quantity) -> f64 {
    q.milli() as f64 / 1000.0
}

fn both(v: &[Value], what: fn(Quantity, Quantity) -> Quantity) -> Result<Value, String> {
    match (&v[0], &v[1]) {
        (Value::Quantity(a), Value::Quantity(b)) => Ok(Value::Quantity(what(*a, *b))),
        (Value::Quantity(a), Value::Int(b)) => Ok(Value::Quantity(what(*a, Quantity::from_value(*b)))),
        _ => mismatch(),
    }
}

fn compared(v: &[Value], what: fn(Ordering) -> Value) -> Result<Value, String> {
    v[0].compare(&v[1]).map_or_else(mismatch, |order| Ok(what(order)))
}

fn semver(v: &[Value]) -> Result<Semver, String> {
    match (&v[0], v.get(1)) {
        (Value::String(s), Some(Value::Bool(true))) => Semver::tolerant(s),
        (Value::String(s), _) => Semver::parse(s),
        _ => Err("no such overload".to_owned()),
    }
}

fn number(v: &[Value], which: usize) -> Result<Value, String> {
    match &v[0] {
        Value::Semver(version) => {
            i64::try_from(version.numbers[which]).map(Value::Int).map_err(|_| "integer overflow".to_owned())
        }
        _ => mismatch(),
    }
}

//! Lists and sets: Kubernetes' list library and cel-go's sets.

use std::cmp::Ordering;

use super::{Row, mismatch};
use crate::value::Value;

pub const ROWS: &[Row] = &[
    ("list<A>.isSorted(): bool", |v| {
        let list = list(&v[0])?;
        let sorted = list.windows(2).all(|pair| pair[0].compare(&pair[1]).is_some_and(Ordering::is_le));
        Ok(Value::Bool(sorted))
    }),
    ("list<int>.sum(): int", |v| sum(v, Value::Int(0))),
    ("list<uint>.sum(): uint", |v| sum(v, Value::Uint(0))),
    ("list<double>.sum(): double", |v| sum(v, Value::Double(0.0))),
    ("list<duration>.sum(): duration", |v| sum(v, Value::Duration(jiff::SignedDuration::ZERO))),
    ("list<A>.min(): A", |v| extreme(v, "min", Ordering::is_lt)),
    ("list<A>.max(): A", |v| extreme(v, "max", Ordering::is_gt)),
    ("list<A>.indexOf(A): int", |v| Ok(place(list(&v[0])?.iter().position(|part| *part == v[1])))),
    ("list<A>.lastIndexOf(A): int", |v| Ok(place(list(&v[0])?.iter().rposition(|part| *part == v[1])))),
    ("sets.contains(list<A>, list<A>): bool", |v| {
        let (all, some) = (list(&v[0])?, list(&v[1])?);
        Ok(Value::Bool(some.iter().all(|part| all.contains(part))))
    }),
    ("sets.equivalent(list<A>, list<A>): bool", |v| {
        let (a, b) = (list(&v[0])?, list(&v[1])?);
        Ok(Value::Bool(a.iter().all(|part| b.contains(part)) && b.iter().all(|part| a.contains(part))))
    }),
    ("sets.intersects(list<A>, list<A>): bool", |v| {
        let (a, b) = (list(&v[0])?, list(&v[1])?);
        Ok(Value::Bool(a.iter().any(|part| b.contains(part))))
    }),
    ("lists.range(int): list<int>", |v| match v[0] {
        Value::Int(end) if end <= RANGE_MAX => Ok((0..end).map(Value::Int).collect::<Vec<_>>().into()),
        Value::Int(end) => Err(format!("lists.range({end}): too long")),
        _ => mismatch(),
    }),
];

/// A range is made at once, whatever is done with it.
const RANGE_MAX: i64 = 10_000;

fn list(value: &Value) -> Result<&[Value], String> {
    match value {
        Value::List(list) => Ok(list),
        _ => Err("no such overload".to_owned()),
    }
}

fn place(at: Option<usize>) -> Value {
    Value::Int(at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

/// An empty list's sum is an integer, whatever it was meant to hold.
fn sum(v: &[Value], zero: Value) -> Result<Value, String> {
    let list = list(&v[0])?;
    let zero = list.first().map_or(zero, |first| match first {
        Value::Uint(_) => Value::Uint(0),
        Value::Double(_) => Value::Double(0.0),
        Value::Duration(_) => Value::Duration(jiff::SignedDuration::ZERO),
        _ => Value::Int(0),
    });
    list.iter().try_fold(zero, |sum, part| {
        let args = [sum, part.clone()];
        let overloads = super::overloads("_+_", false);
        let fits = |overload: &&super::Overload| overload.params.iter().zip(&args).all(|(param, arg)| arg.is(param));
        overloads.iter().find(fits).map_or_else(mismatch, |overload| (overload.call)(&args))
    })
}

fn extreme(v: &[Value], name: &str, better: fn(Ordering) -> bool) -> Result<Value, String> {
    let Some((first, rest)) = list(&v[0])?.split_first() else {
        return Err(format!("{name} called on empty list"));
    };
    let best = rest
        .iter()
        .try_fold(first, |best, part| part.compare(best).map(|order| if better(order) { part } else { best }));
    best.cloned().map_or_else(mismatch, Ok)
}

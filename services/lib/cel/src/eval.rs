//! The interpreter.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::RunError;
use crate::ast::{Each, Expr, Node, What};
use crate::check::type_value;
use crate::cost::LETTERS;
use crate::functions::Overload;
use crate::value::{Key, Map, Value};

type Ran<T = Value> = Result<T, RunError>;

/// Evaluates a checked expression.
pub fn run(root: &Expr, variables: &[(&str, Value)], budget: u64) -> Ran {
    Run { variables, scope: Vec::new(), left: budget }.expr(root)
}

struct Run<'a> {
    variables: &'a [(&'a str, Value)],
    scope: Vec<(&'a str, Value)>,
    left: u64,
}

fn failed<T>(what: impl Into<String>) -> Ran<T> {
    Err(RunError::Failed(what.into()))
}

impl<'a> Run<'a> {
    fn spend(&mut self, cost: u64) -> Ran<()> {
        self.left = self.left.checked_sub(cost).ok_or(RunError::TooExpensive)?;
        Ok(())
    }

    fn expr(&mut self, expr: &'a Expr) -> Ran {
        self.spend(1)?;
        match &expr.node {
            Node::Literal(value) => Ok(value.clone()),
            Node::Name(name) => self.name(name),
            Node::Select { of, field, optional } => {
                let of = self.expr(of)?;
                select(&of, &Key::String(Arc::clone(field)), *optional)
            }
            Node::Has { of, field } => match self.expr(of)? {
                Value::Map(map) => Ok(Value::Bool(map.entries.contains_key(&Key::String(Arc::clone(field))))),
                of @ Value::Optional(_) => {
                    let found = select(&of, &Key::String(Arc::clone(field)), true)?;
                    Ok(Value::Bool(found != Value::Optional(None)))
                }
                _ => failed("no such overload"),
            },
            Node::Call { name, args, overloads, .. } => self.call(name, args, overloads),
            Node::And(parts) => self.chain(parts, false),
            Node::Or(parts) => self.chain(parts, true),
            Node::If(parts) => {
                let [condition, yes, no] = &**parts;
                match self.expr(condition)? {
                    Value::Bool(true) => self.expr(yes),
                    Value::Bool(false) => self.expr(no),
                    _ => failed("no such overload"),
                }
            }
            Node::List(parts) => self.list(parts),
            Node::Map(parts) => self.map(parts),
            Node::Bind { name, value, body } => {
                let value = self.expr(value)?;
                self.with(vec![(name, value)], |run| run.expr(body))
            }
            Node::OptMap { of, name, body, flat } => match self.expr(of)? {
                Value::Optional(None) => Ok(Value::Optional(None)),
                Value::Optional(Some(value)) => {
                    let made = self.with(vec![(name, (*value).clone())], |run| run.expr(body))?;
                    Ok(if *flat { made } else { Value::some(made) })
                }
                _ => failed("no such overload"),
            },
            Node::Each(each) => self.each(each),
        }
    }

    fn name(&self, name: &str) -> Ran {
        let local = self.scope.iter().rev().find(|(known, _)| *known == name);
        let found = local.or_else(|| self.variables.iter().find(|(known, _)| *known == name));
        match found.map(|(_, value)| value.clone()).or_else(|| type_value(name)) {
            Some(value) => Ok(value),
            None => failed(format!("no such attribute(s): {name}")),
        }
    }

    fn with<T>(&mut self, names: Vec<(&'a str, Value)>, inner: impl FnOnce(&mut Self) -> Ran<T>) -> Ran<T> {
        let before = self.scope.len();
        self.scope.extend(names);
        let out = inner(self);
        self.scope.truncate(before);
        out
    }

    fn call(&mut self, name: &str, args: &'a [Expr], overloads: &[&'static Overload]) -> Ran {
        let args = args.iter().map(|arg| self.expr(arg)).collect::<Ran<Vec<Value>>>()?;
        let weight: usize = args.iter().map(Value::weight).sum();
        self.spend(u64::try_from(weight).unwrap_or(u64::MAX) / LETTERS)?;
        let fits = |overload: &&&Overload| overload.params.iter().zip(&args).all(|(param, arg)| arg.is(param));
        match overloads.iter().find(fits) {
            Some(overload) => Ok((overload.call)(&args)?),
            None => failed(format!("no such overload: {name}")),
        }
    }

    /// `decided` by any part that is that; a part that fails counts only if none decides.
    fn chain(&mut self, parts: &'a [Expr], decided: bool) -> Ran {
        let mut outcome = Outcome::new(decided);
        for part in parts {
            let part = self.expr(part);
            if outcome.meets(part)? {
                break;
            }
        }
        outcome.result()
    }

    fn list(&mut self, parts: &'a [(bool, Expr)]) -> Ran {
        let mut list = Vec::with_capacity(parts.len());
        for (optional, part) in parts {
            list.extend(given(*optional, self.expr(part)?)?);
        }
        Ok(list.into())
    }

    fn map(&mut self, parts: &'a [(bool, Expr, Expr)]) -> Ran {
        let mut entries = BTreeMap::new();
        for (optional, key, value) in parts {
            let key = self.expr(key)?;
            let Some(value) = given(*optional, self.expr(value)?)? else { continue };
            insert(&mut entries, &key, value)?;
        }
        Ok(Value::Map(Arc::new(Map { entries, absent: None })))
    }

    fn each(&mut self, each: &'a Each) -> Ran {
        let parts: Vec<(Value, Value)> = match self.expr(&each.range)? {
            Value::List(list) => (0..).map(Value::Int).zip(list.iter().cloned()).collect(),
            Value::Map(map) if each.second.is_some() => {
                map.entries.iter().map(|(key, value)| (key.value(), value.clone())).collect()
            }
            Value::Map(map) => map.entries.keys().map(|key| (Value::Null, key.value())).collect(),
            _ => return failed("no such overload"),
        };
        let mut made = Made::new(each.what);
        for (key, value) in parts {
            self.spend(1)?;
            let names = match &each.second {
                Some(second) => vec![(&*each.first, key.clone()), (&**second, value.clone())],
                None => vec![(&*each.first, value.clone())],
            };
            let done = self.with(names, |run| {
                match each.keep.as_ref().map(|keep| run.expr(keep)).transpose()? {
                    None | Some(Value::Bool(true)) => {}
                    Some(Value::Bool(false)) => return Ok(false),
                    Some(_) => return failed("no such overload"),
                }
                let body = run.expr(&each.body);
                made.meets(key, value, body)
            })?;
            if done {
                break;
            }
        }
        made.result()
    }
}

/// What is known of a chain of `&&` or `||`.
struct Outcome {
    decided: bool,
    result: Ran<bool>,
}

impl Outcome {
    fn new(decided: bool) -> Self {
        Outcome { decided, result: Ok(!decided) }
    }

    /// Whether nothing else counts any more.
    fn meets(&mut self, part: Ran) -> Ran<bool> {
        match part {
            Ok(Value::Bool(value)) if value == self.decided => {
                self.result = Ok(value);
                return Ok(true);
            }
            Ok(Value::Bool(_)) => {}
            Err(RunError::TooExpensive) => return Err(RunError::TooExpensive),
            Ok(_) if self.result.is_ok() => self.result = failed("no such overload"),
            Err(error) if self.result.is_ok() => self.result = Err(error),
            Ok(_) | Err(_) => {}
        }
        Ok(false)
    }

    fn result(self) -> Ran {
        self.result.map(Value::Bool)
    }
}

/// What a macro has made so far.
enum Made {
    Outcome(Outcome),
    Count(u64),
    List(Vec<Value>),
    Filter(Vec<Value>),
    Map(BTreeMap<Key, Value>),
}

impl Made {
    fn new(what: What) -> Self {
        match what {
            What::All => Made::Outcome(Outcome::new(false)),
            What::Exists => Made::Outcome(Outcome::new(true)),
            What::ExistsOne => Made::Count(0),
            What::List => Made::List(Vec::new()),
            What::Filter => Made::Filter(Vec::new()),
            What::Map => Made::Map(BTreeMap::new()),
        }
    }

    /// Whether nothing else counts any more.
    fn meets(&mut self, key: Value, value: Value, body: Ran) -> Ran<bool> {
        match self {
            Made::Outcome(outcome) => return outcome.meets(body),
            Made::Count(count) => *count += u64::from(bool_of(&body?)?),
            Made::List(list) => list.push(body?),
            Made::Filter(list) => {
                if bool_of(&body?)? {
                    list.push(value);
                }
            }
            Made::Map(entries) => insert(entries, &key, body?)?,
        }
        Ok(false)
    }

    fn result(self) -> Ran {
        Ok(match self {
            Made::Outcome(outcome) => return outcome.result(),
            Made::Count(count) => Value::Bool(count == 1),
            Made::List(list) | Made::Filter(list) => list.into(),
            Made::Map(entries) => Value::Map(Arc::new(Map { entries, absent: None })),
        })
    }
}

fn bool_of(value: &Value) -> Ran<bool> {
    match value {
        Value::Bool(value) => Ok(*value),
        _ => failed("no such overload"),
    }
}

/// A part of a list or a map; an optional one may be missing.
fn given(optional: bool, value: Value) -> Ran<Option<Value>> {
    match value {
        Value::Optional(value) if optional => Ok(value.map(|value| (*value).clone())),
        _ if optional => failed("no such overload"),
        value => Ok(Some(value)),
    }
}

fn insert(entries: &mut BTreeMap<Key, Value>, key: &Value, value: Value) -> Ran<()> {
    let Some(found) = Key::of(key) else { return failed(format!("unsupported key type: {}", key.type_name())) };
    if entries.insert(found, value).is_some() {
        return failed(format!("insert failed: key {key} already exists"));
    }
    Ok(())
}

/// What a field or a key leads to. From what may be missing comes what may be missing.
pub fn select(of: &Value, key: &Key, optional: bool) -> Ran {
    match of {
        Value::Map(map) => match map.get(key) {
            Some(value) if optional => Ok(Value::some(value.clone())),
            Some(value) => Ok(value.clone()),
            None if optional => Ok(Value::Optional(None)),
            None => failed(format!("no such key: {}", key.value())),
        },
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => select(inner, key, true),
        _ => failed("no such overload"),
    }
}

//! The functions that expressions may call: one table per library, one row per overload. A row is a declaration as
//! cel-spec writes it, and what it does.

mod conversions;
mod lists;
mod operators;
mod strings;
mod time;
mod versions;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::types::{Type, split};
use crate::value::Value;

/// What a function does; an error is the expression's own.
pub type Call = fn(&[Value]) -> Result<Value, String>;
/// `type.name(types): type` or `name(types): type`, and what it does.
type Row = (&'static str, Call);

/// One meaning of a function's name.
#[derive(Debug)]
pub struct Overload {
    /// The types that it takes; what stands before the dot is the first.
    pub params: Vec<Type>,
    /// The type that it gives.
    pub result: Type,
    /// What it does.
    pub call: Call,
}

const TABLES: [&[Row]; 6] =
    [operators::ROWS, conversions::ROWS, strings::ROWS, lists::ROWS, time::ROWS, versions::ROWS];

/// By name, and whether something stands before the dot.
static FUNCTIONS: LazyLock<HashMap<(String, bool), Vec<Overload>>> = LazyLock::new(|| {
    let mut functions: HashMap<(String, bool), Vec<Overload>> = HashMap::new();
    for (declaration, call) in TABLES.into_iter().flatten() {
        if let Some((name, member, overload)) = declared(declaration, *call) {
            functions.entry((name, member)).or_default().push(overload);
        }
    }
    functions
});

/// What a name may mean.
pub fn overloads(name: &str, member: bool) -> &'static [Overload] {
    FUNCTIONS.get(&(name.to_owned(), member)).map_or(&[], Vec::as_slice)
}

fn declared(text: &str, call: Call) -> Option<(String, bool, Overload)> {
    let (head, result) = text.rsplit_once("): ")?;
    let (name, params) = head.split_once('(')?;
    let receiver = name.rsplit_once('.').and_then(|(of, name)| Some((Type::read(of)?, name)));
    let (member, name) = (receiver.is_some(), receiver.as_ref().map_or(name, |(_, name)| name).to_owned());
    let params = split(params).into_iter().map(Type::read).collect::<Option<Vec<_>>>()?;
    let params = receiver.map(|(of, _)| of).into_iter().chain(params).collect();
    Some((name, member, Overload { params, result: Type::read(result)?, call }))
}

/// What a row says when it is given what its declaration excludes.
fn mismatch() -> Result<Value, String> {
    Err("no such overload".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read() {
        for (declaration, call) in TABLES.into_iter().flatten() {
            assert!(declared(declaration, *call).is_some(), "{declaration}");
        }
    }
}

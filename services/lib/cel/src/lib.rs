//! The Common Expression Language (cel-spec) as Kubernetes uses it: parser, type checker, interpreter, and the function
//! libraries that upstream adds.
//!
//! An [`Env`] knows the variables and their types; [`Env::compile`] turns a text into a [`Program`] or into the errors that
//! upstream's compiler would name, with line and column; [`Program::run`] evaluates it. Everything is bounded: texts by
//! depth, programs by an estimate of what they can cost at most ([`Program::cost`]), runs by a budget. No IO, no clock.
//!
//! Start reading at `parser`; `check` finds types and the functions that a call may mean, `eval` does the work, and
//! `functions` is one table per library. [`device`] is what DRA's selectors need. Not here: message types, `authorizer`,
//! the libraries for URLs, formats and JSON patches, time zones other than UTC.

mod ast;
mod check;
mod cost;
pub mod device;
mod eval;
mod functions;
mod lexer;
mod macros;
mod parser;
mod semver;
mod types;
mod value;

use std::collections::BTreeMap;
use std::fmt;

pub use semver::Semver;
pub use types::{ObjectType, Type};
pub use value::{Key, Map, Value};

/// One thing that is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Where, bytes from the start.
    pub at: usize,
    /// What, in cel-go's words where the fault is one of types.
    pub what: String,
    /// It is a function that no library here has: it may well be one of upstream's.
    pub unknown_function: bool,
}

impl Issue {
    fn new(at: usize, what: impl Into<String>) -> Issue {
        Issue { at, what: what.into(), unknown_function: false }
    }
}

/// Why a text is no program; shown as cel-go shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    text: String,
    /// What is wrong, in the order of the text.
    pub issues: Vec<Issue>,
}

impl CompileError {
    /// Whether all that is wrong is that functions are not known here.
    pub fn is_ignorance(&self) -> bool {
        self.issues.iter().all(|issue| issue.unknown_function)
    }
}

impl std::error::Error for CompileError {}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, issue) in self.issues.iter().enumerate() {
            let at = self.text.floor_char_boundary(issue.at);
            let start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let line = 1 + self.text[..at].matches('\n').count();
            let column = self.text[start..at].chars().count();
            let source = self.text[start..].lines().next().unwrap_or_default();
            let between = if i == 0 { "" } else { "\n" };
            let dots = ".".repeat(column);
            write!(f, "{between}ERROR: <input>:{line}:{}: {}\n | {source}\n | {dots}^", column + 1, issue.what)?;
        }
        Ok(())
    }
}

/// Why a run has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The expression's own fault: a missing key, a division by zero.
    #[error("{0}")]
    Failed(String),
    /// It cost more than it may.
    #[error("actual cost limit exceeded")]
    TooExpensive,
}

impl From<String> for RunError {
    fn from(text: String) -> Self {
        RunError::Failed(text)
    }
}

/// The variables that a text may name.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: BTreeMap<String, Type>,
}

impl Env {
    /// An environment with these variables.
    pub fn new<'a>(variables: impl IntoIterator<Item = (&'a str, Type)>) -> Self {
        Env { variables: variables.into_iter().map(|(name, of)| (name.to_owned(), of)).collect() }
    }

    /// Parses and checks a text.
    ///
    /// # Errors
    /// What is wrong with it, as cel-go says it.
    pub fn compile(&self, text: &str) -> Result<Program, CompileError> {
        let failed = |issues| CompileError { text: text.to_owned(), issues };
        let mut root = parser::parse(text).map_err(|issue| failed(vec![issue]))?;
        let result = check::check(&mut root, &self.variables).map_err(failed)?;
        Ok(Program { root, result })
    }
}

/// A text that can be run.
#[derive(Debug)]
pub struct Program {
    root: ast::Expr,
    result: Type,
}

impl Program {
    /// The type of what a run gives.
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// What a run costs at most if no value that comes from outside has more than `size` parts. Each step costs one, as do
    /// ten bytes of a text that a function looks at.
    pub fn cost(&self, size: u64) -> u64 {
        cost::estimate(&self.root, size)
    }

    /// Evaluates it.
    ///
    /// # Errors
    /// What the expression did wrong, or that it cost more than `budget`.
    pub fn run(&self, variables: &[(&str, Value)], budget: u64) -> Result<Value, RunError> {
        eval::run(&self.root, variables, budget)
    }
}

#[cfg(test)]
mod tests;

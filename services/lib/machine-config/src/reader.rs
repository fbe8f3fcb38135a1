//! Typed reading of a [`Node`]: each wrong value becomes a problem with its line and path, and reading goes on, so that one
//! run reports everything.

use std::cell::RefCell;

use crate::node::{Node, Value};
use crate::problem::Problem;

/// Collects what is wrong.
#[derive(Default)]
pub(crate) struct Report(RefCell<Vec<Problem>>);

impl Report {
    pub(crate) fn add(&self, line: u32, path: &str, message: impl Into<String>) {
        self.0.borrow_mut().push(Problem { line, path: path.to_owned(), message: message.into() });
    }

    pub(crate) fn into_list(self) -> Vec<Problem> {
        let mut list = self.0.into_inner();
        list.sort_by_key(|p| p.line);
        list
    }
}

/// A value with its place.
#[derive(Clone)]
pub(crate) struct Field<'a> {
    report: &'a Report,
    pub(crate) path: String,
    pub(crate) line: u32,
    node: &'a Node,
}

impl<'a> Field<'a> {
    pub(crate) fn root(report: &'a Report, node: &'a Node) -> Self {
        Self { report, path: String::new(), line: node.line, node }
    }

    /// Reports that this value is wrong.
    pub(crate) fn wrong(&self, message: impl Into<String>) {
        self.report.add(self.line, &self.path, message);
    }

    fn unexpected(&self, expected: &str) {
        self.wrong(format!("expected {expected}, found {}", self.node.value.describe()));
    }

    pub(crate) fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) if text.is_empty() => {
                self.wrong("must not be empty");
                None
            }
            Value::Text(text) => Some(text),
            Value::Number(n) => {
                self.wrong(format!("expected text, found the number {n} (put it in quotes)"));
                None
            }
            _ => {
                self.unexpected("text");
                None
            }
        }
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match &self.node.value {
            Value::Bool(value) => Some(*value),
            _ => {
                self.unexpected("true or false");
                None
            }
        }
    }

    pub(crate) fn number(&self, smallest: u32, largest: u32) -> Option<u32> {
        let Value::Number(text) = &self.node.value else {
            self.unexpected("a number");
            return None;
        };
        let number = text.parse().ok().filter(|n| (smallest..=largest).contains(n));
        if number.is_none() {
            self.wrong(format!("{text} is not a whole number from {smallest} to {largest}"));
        }
        number
    }

    /// Reads text and checks it; the check's error is a phrase that follows the quoted value ("is not an address").
    pub(crate) fn parse<T>(&self, check: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text()?;
        check(text).map_err(|phrase| self.wrong(format!("{text:?} {phrase}"))).ok()
    }

    /// Like [`Field::parse`] for values that must not be repeated in a message.
    pub(crate) fn parse_secret<T>(&self, check: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        check(self.text()?).map_err(|phrase| self.wrong(phrase)).ok()
    }

    /// The value as it is, for another program that checks it.
    pub(crate) fn json(&self) -> serde_json::Value {
        (&self.node.value).into()
    }

    pub(crate) fn list(&self) -> Vec<Field<'a>> {
        let Value::List(items) = &self.node.value else {
            self.unexpected("a list");
            return Vec::new();
        };
        items
            .iter()
            .enumerate()
            .map(|(i, node)| Field { report: self.report, path: format!("{}[{i}]", self.path), line: node.line, node })
            .collect()
    }

    pub(crate) fn map(&self) -> Map<'a> {
        let entries = match &self.node.value {
            Value::Map(entries) => entries.as_slice(),
            _ => {
                self.unexpected("a mapping");
                &[]
            }
        };
        Map { field: self.clone(), entries, asked: RefCell::default() }
    }
}

/// A mapping whose fields are asked for by name. [`Map::finish`] reports those nobody asked for.
pub(crate) struct Map<'a> {
    field: Field<'a>,
    entries: &'a [(String, u32, Node)],
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Map<'a> {
    /// A field that may be missing or null.
    pub(crate) fn optional(&self, name: &'static str) -> Option<Field<'a>> {
        self.asked.borrow_mut().push(name);
        let (_, line, node) = self.entries.iter().find(|(key, _, _)| key == name)?;
        if matches!(node.value, Value::Null) {
            return None;
        }
        Some(self.child(name, *line, node))
    }

    /// A field that must be there.
    pub(crate) fn required(&self, name: &'static str) -> Option<Field<'a>> {
        let field = self.optional(name);
        if field.is_none() {
            let line =
                self.entries.iter().find(|(key, _, _)| key == name).map_or(self.field.line, |(_, line, _)| *line);
            self.field.report.add(line, &self.path_of(name), "is required");
        }
        field
    }

    /// A list's items; a missing list is empty.
    pub(crate) fn items(&self, name: &'static str) -> Vec<Field<'a>> {
        self.optional(name).map(|f| f.list()).unwrap_or_default()
    }

    /// All fields, whatever their names.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> {
        self.entries.iter().map(|(key, line, node)| (key.as_str(), self.child(key, *line, node)))
    }

    pub(crate) fn finish(self) {
        let asked = self.asked.borrow();
        for (key, line, _) in self.entries.iter().filter(|(key, _, _)| !asked.contains(&key.as_str())) {
            let known = asked.join(", ");
            self.field.report.add(*line, &self.path_of(key), format!("unknown field (known here: {known})"));
        }
    }

    fn child(&self, name: &str, line: u32, node: &'a Node) -> Field<'a> {
        // A block value starts a line below its key; the key's line is where one looks.
        let line = if matches!(node.value, Value::Map(_) | Value::List(_)) { line } else { node.line };
        Field { report: self.field.report, path: self.path_of(name), line, node }
    }

    fn path_of(&self, name: &str) -> String {
        if self.field.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.field.path) }
    }
}

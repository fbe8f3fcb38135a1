//! What the parser makes of a text. Macros are nodes of their own, not folds.

use std::sync::Arc;

use crate::functions::Overload;
use crate::value::Value;

/// An expression.
#[derive(Debug)]
pub struct Expr {
    /// Where errors point, bytes.
    pub at: usize,
    /// Levels of expressions in it.
    pub depth: usize,
    /// What it is.
    pub node: Node,
}

/// The kinds of expression.
#[derive(Debug)]
pub enum Node {
    /// A value.
    Literal(Value),
    /// A variable.
    Name(String),
    /// `of.field`, or `of.?field`.
    Select { of: Box<Expr>, field: Arc<str>, optional: bool },
    /// `has(of.field)`.
    Has { of: Box<Expr>, field: Arc<str> },
    /// A function; what stands before the dot is its first argument. `overloads` are what it may mean, by the checker.
    Call { name: String, member: bool, args: Vec<Expr>, overloads: Vec<&'static Overload> },
    /// `a && b && c`.
    And(Vec<Expr>),
    /// `a || b || c`.
    Or(Vec<Expr>),
    /// `condition ? yes : no`.
    If(Box<[Expr; 3]>),
    /// `[a, ?b]`: whether optional, and what.
    List(Vec<(bool, Expr)>),
    /// `{a: b, ?c: d}`.
    Map(Vec<(bool, Expr, Expr)>),
    /// `cel.bind(name, value, body)`.
    Bind { name: String, value: Box<Expr>, body: Box<Expr> },
    /// `of.optMap(name, body)`; `flat` if the body is optional itself.
    OptMap { of: Box<Expr>, name: String, body: Box<Expr>, flat: bool },
    /// A macro over the parts of a list or a map.
    Each(Box<Each>),
}

/// A macro over the parts of a list or a map.
#[derive(Debug)]
pub struct Each {
    /// Over what.
    pub range: Expr,
    /// The name of the element, or of the key.
    pub first: String,
    /// The name of the value where the first is index or key.
    pub second: Option<String>,
    /// What is made of them.
    pub what: What,
    /// Which parts are looked at.
    pub keep: Option<Expr>,
    /// Evaluated for each.
    pub body: Expr,
}

/// What a macro makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    All,
    Exists,
    ExistsOne,
    List,
    Filter,
    Map,
}

impl Expr {
    /// An expression at a place.
    pub fn new(at: usize, node: Node) -> Self {
        let depth = 1 + node.parts().into_iter().map(|part| part.depth).max().unwrap_or(0);
        Expr { at, depth, node }
    }

    /// A call of an operator.
    pub fn operator(at: usize, name: &str, args: Vec<Expr>) -> Self {
        Expr::new(at, Node::Call { name: name.to_owned(), member: false, args, overloads: Vec::new() })
    }
}

impl Node {
    /// The expressions directly in this one.
    pub fn parts(&self) -> Vec<&Expr> {
        match self {
            Node::Literal(_) | Node::Name(_) => Vec::new(),
            Node::Select { of, .. } | Node::Has { of, .. } => vec![of],
            Node::Call { args, .. } | Node::And(args) | Node::Or(args) => args.iter().collect(),
            Node::If(parts) => parts.iter().collect(),
            Node::List(parts) => parts.iter().map(|(_, part)| part).collect(),
            Node::Map(parts) => parts.iter().flat_map(|(_, key, value)| [key, value]).collect(),
            Node::Bind { value, body, .. } => vec![value, body],
            Node::OptMap { of, body, .. } => vec![of, body],
            Node::Each(each) => [&each.range, &each.body].into_iter().chain(&each.keep).collect(),
        }
    }
}

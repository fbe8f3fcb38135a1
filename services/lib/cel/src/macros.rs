//! Calls that are no calls: macros bind names, which only the parser can do.

use crate::Issue;
use crate::ast::{Each, Expr, Node, What};

/// A call without something before a dot.
pub fn global(at: usize, name: String, mut args: Vec<Expr>) -> Result<Expr, Issue> {
    if name != "has" || args.len() != 1 {
        return Ok(Expr::new(at, Node::Call { name, member: false, args, overloads: Vec::new() }));
    }
    match args.pop().map(|arg| arg.node) {
        Some(Node::Select { of, field, optional: false }) => Ok(Expr::new(at, Node::Has { of, field })),
        _ => Err(Issue::new(at, "invalid argument to has() macro")),
    }
}

/// A call of something's function.
pub fn member(at: usize, of: Expr, name: String, args: Vec<Expr>) -> Result<Expr, Issue> {
    if let (Node::Name(space), "bind", 3) = (&of.node, &*name, args.len())
        && space == "cel"
    {
        let [name, value, body] = three(args, at)?;
        let name = variable(name, "cel.bind() variable names must be simple identifiers")?;
        return Ok(Expr::new(at, Node::Bind { name, value: Box::new(value), body: Box::new(body) }));
    }
    let flat = name == "optFlatMap";
    if (flat || name == "optMap") && args.len() == 2 {
        let mut args = args.into_iter();
        let (Some(var), Some(body)) = (args.next(), args.next()) else { return Err(wrong(at)) };
        let name = variable(var, "optMap() variable name must be a simple identifier")?;
        return Ok(Expr::new(at, Node::OptMap { of: Box::new(of), name, body: Box::new(body), flat }));
    }
    match shape(&name, args.len()) {
        Some((what, two, filtered)) => each(at, of, args, what, two, filtered),
        None => {
            let args = std::iter::once(of).chain(args).collect();
            Ok(Expr::new(at, Node::Call { name, member: true, args, overloads: Vec::new() }))
        }
    }
}

/// Which macro has this name and so many arguments: what it makes, whether it has two variables, whether it has a filter.
fn shape(name: &str, args: usize) -> Option<(What, bool, bool)> {
    Some(match (name, args) {
        ("all", 2) => (What::All, false, false),
        ("all", 3) => (What::All, true, false),
        ("exists", 2) => (What::Exists, false, false),
        ("exists", 3) => (What::Exists, true, false),
        ("exists_one" | "existsOne", 2) => (What::ExistsOne, false, false),
        ("exists_one" | "existsOne", 3) => (What::ExistsOne, true, false),
        ("map", 2) => (What::List, false, false),
        ("map", 3) => (What::List, false, true),
        ("filter", 2) => (What::Filter, false, false),
        ("transformList", 3) => (What::List, true, false),
        ("transformList", 4) => (What::List, true, true),
        ("transformMap", 3) => (What::Map, true, false),
        ("transformMap", 4) => (What::Map, true, true),
        _ => return None,
    })
}

fn each(at: usize, range: Expr, args: Vec<Expr>, what: What, two: bool, filtered: bool) -> Result<Expr, Issue> {
    let mut args = args.into_iter();
    let mut name = || variable(args.next().ok_or_else(|| wrong(at))?, "argument must be a simple name");
    let first = name()?;
    let second = if two { Some(name()?) } else { None };
    let keep = if filtered { args.next() } else { None };
    let body = args.next().ok_or_else(|| wrong(at))?;
    Ok(Expr::new(at, Node::Each(Box::new(Each { range, first, second, what, keep, body }))))
}

fn variable(expr: Expr, otherwise: &str) -> Result<String, Issue> {
    match expr.node {
        Node::Name(name) => Ok(name),
        _ => Err(Issue::new(expr.at, otherwise)),
    }
}

fn three(args: Vec<Expr>, at: usize) -> Result<[Expr; 3], Issue> {
    args.try_into().map_err(|_| wrong(at))
}

fn wrong(at: usize) -> Issue {
    Issue::new(at, "wrong number of arguments to a macro")
}

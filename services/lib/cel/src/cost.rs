//! What a program costs at most, without running it.

use crate::ast::{Each, Expr, Node};

/// Ten letters that a function looks at cost as much as a step.
pub const LETTERS: u64 = 10;

/// The most that an expression costs if values from outside have at most `size` parts.
pub fn estimate(expr: &Expr, size: u64) -> u64 {
    let inner = |expr: &Expr| estimate(expr, size);
    match &expr.node {
        Node::Each(each) => {
            let Each { range, keep, body, .. } = &**each;
            let step = keep.as_ref().map_or(0, inner).saturating_add(inner(body)).saturating_add(1);
            step.saturating_mul(parts(range, size)).saturating_add(inner(range))
        }
        Node::If(branches) => {
            let [condition, yes, no] = &**branches;
            inner(condition).saturating_add(inner(yes).max(inner(no))).saturating_add(1)
        }
        Node::Call { args, .. } => {
            let looked_at = args.iter().map(|arg| parts(arg, size)).fold(0, u64::saturating_add) / LETTERS;
            sum(args.iter().map(inner)).saturating_add(looked_at)
        }
        node => sum(node.parts().into_iter().map(inner)),
    }
}

fn sum(costs: impl Iterator<Item = u64>) -> u64 {
    costs.fold(1, u64::saturating_add)
}

/// How many parts an expression's value has at most.
fn parts(expr: &Expr, size: u64) -> u64 {
    match &expr.node {
        Node::Literal(value) => u64::try_from(value.weight()).unwrap_or(u64::MAX),
        Node::List(parts) => u64::try_from(parts.len()).unwrap_or(u64::MAX),
        Node::Map(parts) => u64::try_from(parts.len()).unwrap_or(u64::MAX),
        Node::Each(each) => parts(&each.range, size),
        Node::Bind { body, .. } => parts(body, size),
        // A sum of two texts or lists has the parts of both.
        Node::Call { args, .. } => args.iter().map(|arg| parts(arg, size)).fold(0, u64::saturating_add).max(size),
        _ => size,
    }
}

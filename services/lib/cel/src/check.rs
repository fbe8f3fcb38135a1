//! Types: which names there are, which functions a call may mean, what comes out.

use std::collections::{BTreeMap, HashMap};

use crate::Issue;
use crate::ast::{Each, Expr, Node, What};
use crate::functions::{Overload, overloads};
use crate::types::Type;
use crate::value::Value;

/// Names of types, which are values too.
pub const TYPE_NAMES: [&str; 11] =
    ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "optional_type"];

/// Finds the type of an expression, and what its calls may mean.
pub fn check(root: &mut Expr, variables: &BTreeMap<String, Type>) -> Result<Type, Vec<Issue>> {
    let mut checker = Checker { variables, scope: Vec::new(), issues: Vec::new() };
    let found = checker.expr(root);
    if checker.issues.is_empty() { Ok(found) } else { Err(checker.issues) }
}

struct Checker<'a> {
    variables: &'a BTreeMap<String, Type>,
    scope: Vec<(String, Type)>,
    issues: Vec<Issue>,
}

impl Checker<'_> {
    /// What is wrong; the type of a wrong expression can be anything, so that nothing around it is wrong for it.
    fn wrong(&mut self, at: usize, what: String) -> Type {
        self.issues.push(Issue::new(at, what));
        Type::Dyn
    }

    fn lookup(&self, name: &str) -> Option<Type> {
        let local = self.scope.iter().rev().find(|(known, _)| known == name).map(|(_, of)| of.clone());
        local.or_else(|| self.variables.get(name).cloned())
    }

    /// Checks what sees one more variable, or two.
    fn with<T>(&mut self, names: Vec<(String, Type)>, inner: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.scope.len();
        self.scope.extend(names);
        let out = inner(self);
        self.scope.truncate(before);
        out
    }

    fn expr(&mut self, expr: &mut Expr) -> Type {
        let at = expr.at;
        match &mut expr.node {
            Node::Literal(value) => value.type_of(),
            Node::Name(name) => match self.lookup(name) {
                Some(found) => found,
                None if TYPE_NAMES.contains(&&**name) => Type::Type,
                None => self.wrong(at, format!("undeclared reference to '{name}' (in container '')")),
            },
            Node::Select { of, field, optional } => {
                let (of, optional) = (self.expr(of), *optional);
                self.select(at, &of, field, optional)
            }
            Node::Has { of, field } => {
                let of = self.expr(of);
                self.select(at, &of, field, false);
                Type::Bool
            }
            Node::Call { name, member, args, overloads } => {
                let (found, result) = self.call(at, name, member, args);
                *overloads = found;
                result
            }
            Node::And(parts) => self.bools(at, "_&&_", parts),
            Node::Or(parts) => self.bools(at, "_||_", parts),
            Node::If(parts) => {
                let [condition, yes, no] = &mut **parts;
                let given = self.expr(condition);
                let (yes, no) = (self.expr(yes), self.expr(no));
                let mut bound = HashMap::new();
                let alike = Type::Param('A').takes(&yes, &mut bound) && Type::Param('A').takes(&no, &mut bound);
                if !alike || !matches!(given, Type::Bool | Type::Dyn) {
                    let applied = format!("({given}, {yes}, {no})");
                    return self.wrong(at, format!("found no matching overload for '_?_:_' applied to '{applied}'"));
                }
                if yes == no { yes } else { Type::Dyn }
            }
            Node::List(parts) => {
                let types: Vec<(usize, Type)> =
                    parts.iter_mut().map(|(optional, part)| (part.at, self.part(*optional, part))).collect();
                Type::list(self.one_type(types))
            }
            Node::Map(parts) => {
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                for (optional, key, value) in parts {
                    keys.push((key.at, self.expr(key)));
                    values.push((value.at, self.part(*optional, value)));
                }
                Type::map(self.one_type(keys), self.one_type(values))
            }
            Node::Bind { name, value, body } => {
                let bound = (name.clone(), self.expr(value));
                self.with(vec![bound], |checker| checker.expr(body))
            }
            Node::OptMap { of, name, body, flat } => {
                let inner = match self.expr(of) {
                    Type::Optional(inner) => *inner,
                    Type::Dyn => Type::Dyn,
                    other => {
                        self.wrong(at, format!("found no matching overload for 'hasValue' applied to '{other}.()'"))
                    }
                };
                let (bound, flat) = ((name.clone(), inner), *flat);
                let result = self.with(vec![bound], |checker| checker.expr(body));
                if flat { result } else { Type::optional(result) }
            }
            Node::Each(each) => self.each(at, each),
        }
    }

    /// A part of a list or a map; an optional one gives what it has.
    fn part(&mut self, optional: bool, part: &mut Expr) -> Type {
        let (at, found) = (part.at, self.expr(part));
        match found {
            Type::Optional(inner) if optional => *inner,
            other if !optional || other == Type::Dyn => other,
            other => self.wrong(at, format!("expected type 'optional_type(dyn)' but found '{other}'")),
        }
    }

    /// The type that all parts have.
    fn one_type(&mut self, parts: Vec<(usize, Type)>) -> Type {
        let mut parts = parts.into_iter();
        let Some((_, first)) = parts.next() else { return Type::Dyn };
        let mut known = first;
        for (at, part) in parts {
            if known == Type::Dyn || part == Type::Dyn {
                known = Type::Dyn;
            } else if !known.takes(&part, &mut HashMap::new()) {
                return self.wrong(at, format!("expected type '{known}' but found '{part}'"));
            }
        }
        known
    }

    fn bools(&mut self, at: usize, name: &str, parts: &mut [Expr]) -> Type {
        for part in parts {
            let found = self.expr(part);
            self.predicate(at, name, &found);
        }
        Type::Bool
    }

    fn predicate(&mut self, at: usize, name: &str, found: &Type) {
        if !matches!(found, Type::Bool | Type::Dyn) {
            self.wrong(at, format!("found no matching overload for '{name}' applied to '(bool, {found})'"));
        }
    }

    fn select(&mut self, at: usize, of: &Type, field: &str, optional: bool) -> Type {
        let (inner, optional) = match of {
            Type::Optional(inner) => (&**inner, true),
            other => (other, optional),
        };
        let found = match inner {
            Type::Dyn => Type::Dyn,
            Type::Map(_, value) => (**value).clone(),
            Type::Object(object) => match object.fields.get(field) {
                Some(found) => found.clone(),
                None => return self.wrong(at, format!("undefined field '{field}'")),
            },
            other => return self.wrong(at, format!("type '{other}' does not support field selection")),
        };
        if optional { Type::optional(found) } else { found }
    }

    fn call(
        &mut self,
        at: usize,
        name: &mut String,
        member: &mut bool,
        args: &mut Vec<Expr>,
    ) -> (Vec<&'static Overload>, Type) {
        if *member
            && let Some(Node::Name(space)) = args.first().map(|arg| &arg.node)
            && self.lookup(space).is_none()
            && !overloads(&format!("{space}.{name}"), false).is_empty()
        {
            *name = format!("{space}.{name}");
            *member = false;
            args.remove(0);
        }
        let types: Vec<Type> = args.iter_mut().map(|arg| self.expr(arg)).collect();
        let known = overloads(name, *member);
        if known.is_empty() {
            let issue = Issue::new(at, format!("undeclared reference to '{name}' (in container '')"));
            self.issues.push(Issue { unknown_function: true, ..issue });
            return (Vec::new(), Type::Dyn);
        }
        let (mut found, mut results) = (Vec::new(), Vec::new());
        for overload in known.iter().filter(|overload| overload.params.len() == types.len()) {
            let mut bound = HashMap::new();
            if overload.params.iter().zip(&types).all(|(param, given)| param.takes(given, &mut bound)) {
                found.push(overload);
                results.push(overload.result.filled(&bound));
            }
        }
        let Some(result) = results.pop() else {
            let shown: Vec<String> = types.iter().map(Type::to_string).collect();
            let applied = match shown.split_first().filter(|_| *member) {
                Some((of, rest)) => format!("{of}.({})", rest.join(", ")),
                None => format!("({})", shown.join(", ")),
            };
            let what = format!("found no matching overload for '{name}' applied to '{applied}'");
            return (Vec::new(), self.wrong(at, what));
        };
        let result = if results.iter().all(|other| *other == result) { result } else { Type::Dyn };
        (found, result)
    }

    fn each(&mut self, at: usize, each: &mut Each) -> Type {
        let range = self.expr(&mut each.range);
        let (key, value) = match range {
            Type::List(of) => (Type::Int, *of),
            Type::Map(key, value) if each.second.is_some() => (*key, *value),
            Type::Map(key, _) => (Type::Dyn, *key),
            Type::Dyn => (Type::Dyn, Type::Dyn),
            other => {
                let must = "cannot be range of a comprehension (must be list, map, or dynamic)";
                (Type::Dyn, self.wrong(each.range.at, format!("expression of type '{other}' {must}")))
            }
        };
        let names = match &each.second {
            Some(second) => vec![(each.first.clone(), key.clone()), (second.clone(), value.clone())],
            None => vec![(each.first.clone(), value.clone())],
        };
        let (kept, body) = self.with(names, |checker| {
            let kept = each.keep.as_mut().map(|keep| checker.expr(keep));
            (kept, checker.expr(&mut each.body))
        });
        if let Some(kept) = kept {
            self.predicate(at, "_?_:_", &kept);
        }
        match each.what {
            What::List => return Type::list(body),
            What::Map => return Type::map(key, body),
            What::All => self.predicate(at, "_&&_", &body),
            What::Exists => self.predicate(at, "_||_", &body),
            What::ExistsOne | What::Filter => self.predicate(at, "_?_:_", &body),
        }
        if each.what == What::Filter { Type::list(value) } else { Type::Bool }
    }
}

/// The value of a type's name.
pub fn type_value(name: &str) -> Option<Value> {
    TYPE_NAMES.iter().find(|known| **known == name).map(|known| Value::Type(known))
}

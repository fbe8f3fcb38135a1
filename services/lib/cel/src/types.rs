//! Types of expressions.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

/// A type.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Whatever it is at run time.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    /// The type of types.
    Type,
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Optional(Box<Type>),
    /// A Kubernetes quantity.
    Quantity,
    /// A semantic version.
    Semver,
    /// A structure whose fields are known.
    Object(Arc<ObjectType>),
    /// A parameter of a function's declaration.
    Param(char),
}

/// A structure.
#[derive(Debug, PartialEq)]
pub struct ObjectType {
    /// How errors call it.
    pub name: &'static str,
    /// Its fields.
    pub fields: BTreeMap<&'static str, Type>,
}

/// Types without parts, as declarations name them and as cel-go shows them.
const PLAIN: [(&str, &str, Type); 13] = [
    ("dyn", "dyn", Type::Dyn),
    ("null", "null", Type::Null),
    ("bool", "bool", Type::Bool),
    ("int", "int", Type::Int),
    ("uint", "uint", Type::Uint),
    ("double", "double", Type::Double),
    ("string", "string", Type::String),
    ("bytes", "bytes", Type::Bytes),
    ("duration", "duration", Type::Duration),
    ("timestamp", "timestamp", Type::Timestamp),
    ("type", "type", Type::Type),
    ("quantity", "kubernetes.Quantity", Type::Quantity),
    ("semver", "kubernetes.Semver", Type::Semver),
];

impl Type {
    /// A list.
    pub fn list(of: Type) -> Type {
        Type::List(Box::new(of))
    }

    /// A map.
    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Box::new(key), Box::new(value))
    }

    /// Something that may be missing.
    pub fn optional(of: Type) -> Type {
        Type::Optional(Box::new(of))
    }

    /// A type as declarations write it: `map<string, A>`.
    pub fn read(text: &str) -> Option<Type> {
        let text = text.trim();
        if let Some((.., plain)) = PLAIN.iter().find(|(name, ..)| *name == text) {
            return Some(plain.clone());
        }
        if let (1, Some(letter)) = (text.len(), text.chars().next().filter(char::is_ascii_uppercase)) {
            return Some(Type::Param(letter));
        }
        let (name, parts) = text.strip_suffix('>')?.split_once('<')?;
        let parts = split(parts).into_iter().map(Type::read).collect::<Option<Vec<_>>>()?;
        match (name, <[Type; 1]>::try_from(parts.clone()), <[Type; 2]>::try_from(parts)) {
            ("list", Ok([of]), _) => Some(Type::list(of)),
            ("optional", Ok([of]), _) => Some(Type::optional(of)),
            ("map", _, Ok([key, value])) => Some(Type::map(key, value)),
            _ => None,
        }
    }

    /// Whether `given` may stand where this is wanted; parameters take what they meet first.
    pub fn takes(&self, given: &Type, bound: &mut HashMap<char, Type>) -> bool {
        match (self, given) {
            (Type::Param(letter), _) => match bound.get(letter).cloned() {
                None => {
                    bound.insert(*letter, given.clone());
                    true
                }
                Some(known) if known == Type::Dyn || *given == Type::Dyn => {
                    bound.insert(*letter, Type::Dyn);
                    true
                }
                Some(known) => known.takes(given, bound),
            },
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => a.takes(b, bound),
            (Type::Map(a, b), Type::Map(c, d)) => a.takes(c, bound) && b.takes(d, bound),
            // Values of these may be missing.
            (Type::Null, Type::Object(_) | Type::Optional(_) | Type::Duration | Type::Timestamp)
            | (Type::Object(_) | Type::Optional(_) | Type::Duration | Type::Timestamp, Type::Null) => true,
            (a, b) => a == b,
        }
    }

    /// The type with its parameters filled in; what nothing decided is dynamic.
    pub fn filled(&self, bound: &HashMap<char, Type>) -> Type {
        match self {
            Type::Param(letter) => bound.get(letter).cloned().unwrap_or(Type::Dyn),
            Type::List(of) => Type::list(of.filled(bound)),
            Type::Optional(of) => Type::optional(of.filled(bound)),
            Type::Map(key, value) => Type::map(key.filled(bound), value.filled(bound)),
            plain => plain.clone(),
        }
    }
}

/// Parts between commas that stand in no brackets.
pub fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    if !text[from..].trim().is_empty() {
        parts.push(&text[from..]);
    }
    parts
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::List(of) => write!(f, "list({of})"),
            Type::Map(key, value) => write!(f, "map({key}, {value})"),
            Type::Optional(of) => write!(f, "optional_type({of})"),
            Type::Object(of) => f.write_str(of.name),
            Type::Param(letter) => write!(f, "{letter}"),
            plain => {
                let shown = PLAIN.iter().find(|(.., known)| known == plain).map(|(_, shown, _)| *shown);
                f.write_str(shown.unwrap_or("dyn"))
            }
        }
    }
}

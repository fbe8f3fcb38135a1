//! Values of expressions.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use apimachinery::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};

use crate::semver::Semver;
use crate::types::Type;

/// A value. Copies share what is large.
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    Duration(SignedDuration),
    Timestamp(Timestamp),
    /// A type's name.
    Type(&'static str),
    List(Arc<[Value]>),
    Map(Arc<Map>),
    /// Something that may be missing.
    Optional(Option<Arc<Value>>),
    Quantity(Quantity),
    Semver(Arc<Semver>),
}

/// A map or a structure.
#[derive(Clone, Debug, Default)]
pub struct Map {
    /// What is in it.
    pub entries: BTreeMap<Key, Value>,
    /// What every other key leads to; it is not in the map for `in`, and is not iterated.
    pub absent: Option<Value>,
}

/// What a map finds its values by. Integers that are equal are one key, whatever their types.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Arc<str>),
}

impl Key {
    /// A value as a key; none if its type has no keys.
    pub fn of(value: &Value) -> Option<Key> {
        Some(match value {
            Value::Bool(b) => Key::Bool(*b),
            Value::Int(n) => Key::Int(*n),
            Value::Uint(n) => i64::try_from(*n).map_or(Key::Uint(*n), Key::Int),
            Value::Double(n) if (*n as i64) as f64 == *n => Key::Int(*n as i64),
            Value::String(s) => Key::String(Arc::clone(s)),
            _ => return None,
        })
    }

    /// The key as a value.
    pub fn value(&self) -> Value {
        match self {
            Key::Bool(b) => Value::Bool(*b),
            Key::Int(n) => Value::Int(*n),
            Key::Uint(n) => Value::Uint(*n),
            Key::String(s) => Value::String(Arc::clone(s)),
        }
    }
}

impl Map {
    /// What a key leads to.
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.entries.get(key).or(self.absent.as_ref())
    }
}

impl Value {
    /// A map from names to values.
    pub fn map<K: Into<Arc<str>>>(entries: impl IntoIterator<Item = (K, Value)>) -> Value {
        let entries = entries.into_iter().map(|(key, value)| (Key::String(key.into()), value)).collect();
        Value::Map(Arc::new(Map { entries, absent: None }))
    }

    /// What is there.
    pub fn some(value: Value) -> Value {
        Value::Optional(Some(Arc::new(value)))
    }

    /// Whether it is of a type, as far as one can tell without looking at its parts.
    pub fn is(&self, of: &Type) -> bool {
        match of {
            Type::Dyn | Type::Param(_) => true,
            Type::List(_) => matches!(self, Value::List(_)),
            Type::Map(..) | Type::Object(_) => matches!(self, Value::Map(_)),
            Type::Optional(_) => matches!(self, Value::Optional(_)),
            plain => self.type_of() == *plain,
        }
    }

    /// Its type; that of parts is not looked for.
    pub fn type_of(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Duration(_) => Type::Duration,
            Value::Timestamp(_) => Type::Timestamp,
            Value::Type(_) => Type::Type,
            Value::List(_) => Type::list(Type::Dyn),
            Value::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Value::Optional(_) => Type::optional(Type::Dyn),
            Value::Quantity(_) => Type::Quantity,
            Value::Semver(_) => Type::Semver,
        }
    }

    /// The name that `type()` gives.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Type(_) => "type",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Optional(_) => "optional_type",
            Value::Quantity(_) => "kubernetes.Quantity",
            Value::Semver(_) => "kubernetes.Semver",
        }
    }

    /// What it weighs for a function that looks at it: letters, bytes or parts.
    pub fn weight(&self) -> usize {
        match self {
            Value::String(s) => s.len(),
            Value::Bytes(b) => b.len(),
            Value::List(l) => l.len(),
            Value::Map(m) => m.entries.len(),
            _ => 1,
        }
    }

    /// How it stands to another; none if they cannot be compared.
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            (Value::Quantity(a), Value::Quantity(b)) => Some(a.cmp(b)),
            (Value::Semver(a), Value::Semver(b)) => Some(a.cmp(b)),
            _ => match (self.integer(), other.integer()) {
                (Some(a), Some(b)) => Some(a.cmp(&b)),
                _ => self.number()?.partial_cmp(&other.number()?),
            },
        }
    }

    fn integer(&self) -> Option<i128> {
        match self {
            Value::Int(n) => Some((*n).into()),
            Value::Uint(n) => Some((*n).into()),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Value::Int(n) => Some(*n as f64),
            Value::Uint(n) => Some(*n as f64),
            Value::Double(n) => Some(*n),
            _ => None,
        }
    }

    /// Whether it says nothing: zero, empty, missing.
    pub fn is_zero(&self) -> bool {
        match self {
            Value::Null | Value::Optional(None) => true,
            Value::Bool(b) => !b,
            Value::Int(_) | Value::Uint(_) | Value::Double(_) => self.number() == Some(0.0),
            Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => self.weight() == 0,
            Value::Duration(d) => d.is_zero(),
            Value::Optional(Some(_)) | Value::Timestamp(_) | Value::Type(_) => false,
            Value::Quantity(q) => q.is_zero(),
            Value::Semver(_) => false,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Type(a), Value::Type(b)) => a == b,
            (Value::List(a), Value::List(b)) => a == b,
            (Value::Map(a), Value::Map(b)) => a.entries == b.entries,
            (Value::Optional(a), Value::Optional(b)) => a == b,
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::String(text.into())
    }
}

impl From<Vec<Value>> for Value {
    fn from(list: Vec<Value>) -> Self {
        Value::List(list.into())
    }
}

impl From<&serde_json::Value> for Value {
    fn from(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(n), _) => Value::Int(n),
                (_, Some(n)) => Value::Uint(n),
                _ => Value::Double(n.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(s) => s.as_str().into(),
            serde_json::Value::Array(list) => list.iter().map(Value::from).collect::<Vec<_>>().into(),
            serde_json::Value::Object(map) => Value::map(map.iter().map(|(key, value)| (key.as_str(), value.into()))),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int(n) => write!(f, "{n}"),
            Value::Uint(n) => write!(f, "{n}"),
            Value::Double(n) => write!(f, "{n}"),
            Value::String(s) => f.write_str(s),
            Value::Bytes(b) => f.write_str(&String::from_utf8_lossy(b)),
            Value::Duration(d) => write!(f, "{}s", d.as_secs_f64()),
            Value::Timestamp(t) => write!(f, "{t}"),
            Value::Type(name) => f.write_str(name),
            Value::List(list) => {
                f.write_str("[")?;
                for (i, part) in list.iter().enumerate() {
                    write!(f, "{}{part}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Value::Map(map) => {
                f.write_str("{")?;
                for (i, (key, value)) in map.entries.iter().enumerate() {
                    write!(f, "{}{}: {value}", if i == 0 { "" } else { ", " }, key.value())?;
                }
                f.write_str("}")
            }
            Value::Optional(Some(value)) => write!(f, "optional({value})"),
            Value::Optional(None) => f.write_str("optional.none()"),
            Value::Quantity(q) => write!(f, "{q}"),
            Value::Semver(v) => write!(f, "{v}"),
        }
    }
}

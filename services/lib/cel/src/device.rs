//! What selects devices (resource.k8s.io, KEP-4381): one variable, `device`, and an answer of yes or no.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use apimachinery::quantity::Quantity;
use serde_json::Value as Json;

use crate::{Env, Key, Map, ObjectType, Program, RunError, Semver, Type, Value};

/// What an expression may cost for one device.
pub const COST_MAX: u64 = 1_000_000;
/// The longest text that an attribute may be, bytes; there are fewer attributes of a device.
const SIZE_MAX: u64 = 64;

static ENV: LazyLock<Env> = LazyLock::new(|| {
    let by_domain = |of: Type| Type::map(Type::String, Type::map(Type::String, of));
    let fields = BTreeMap::from([
        ("driver", Type::String),
        ("attributes", by_domain(Type::Dyn)),
        ("capacity", by_domain(Type::Quantity)),
        ("allowMultipleAllocations", Type::Bool),
    ]);
    Env::new([("device", Type::Object(Arc::new(ObjectType { name: "kubernetes.DRADevice", fields })))])
});

/// An expression that selects devices.
#[derive(Debug)]
pub struct Selector(Program);

/// Why an expression cannot select devices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no expression, or gives no answer of yes or no.
    #[error("{0}")]
    Invalid(String),
    /// It can cost more than [`COST_MAX`].
    #[error("too complex, exceeds cost limit")]
    TooComplex,
}

impl Selector {
    /// Reads an expression.
    ///
    /// # Errors
    /// In upstream's words.
    pub fn compile(text: &str) -> Result<Selector, Refusal> {
        let program = ENV.compile(text).map_err(|error| Refusal::Invalid(format!("compilation failed: {error}")))?;
        match program.result() {
            Type::Bool | Type::Dyn if program.cost(SIZE_MAX) > COST_MAX => Err(Refusal::TooComplex),
            Type::Bool | Type::Dyn => Ok(Selector(program)),
            other => Err(Refusal::Invalid(format!("must evaluate to bool or the unknown type, not {other}"))),
        }
    }

    /// Whether a device, as [`device`] makes it, is selected.
    ///
    /// # Errors
    /// The expression's own: an attribute that the device lacks, a comparison of different types.
    pub fn matches(&self, device: &Value) -> Result<bool, RunError> {
        match self.0.run(&[("device", device.clone())], COST_MAX)? {
            Value::Bool(answer) => Ok(answer),
            other => Err(RunError::Failed(format!("expression returned {}, expected bool", other.type_name()))),
        }
    }
}

/// A device as expressions see it: its attributes and capacities by domain, the driver's own under the driver's name. A
/// domain that it has nothing of is empty, not missing.
///
/// # Errors
/// A value that is none of what the API knows.
pub fn device(driver: &str, attributes: &Json, capacity: &Json, multiple: bool) -> Result<Value, String> {
    Ok(Value::map([
        ("driver", driver.into()),
        ("attributes", by_domain(driver, attributes, attribute)?),
        ("capacity", by_domain(driver, capacity, amount)?),
        ("allowMultipleAllocations", Value::Bool(multiple)),
    ]))
}

fn by_domain(driver: &str, values: &Json, read: fn(&Json) -> Result<Value, String>) -> Result<Value, String> {
    let mut domains: BTreeMap<&str, BTreeMap<Key, Value>> = BTreeMap::new();
    for (name, value) in values.as_object().into_iter().flatten() {
        let (domain, id) = name.split_once('/').unwrap_or((driver, name));
        let value = read(value).map_err(|error| format!("{name}: {error}"))?;
        domains.entry(domain).or_default().insert(Key::String(id.into()), value);
    }
    let map = |entries| Value::Map(Arc::new(Map { entries, absent: None }));
    let entries = domains.into_iter().map(|(domain, values)| (Key::String(domain.into()), map(values))).collect();
    Ok(Value::Map(Arc::new(Map { entries, absent: Some(map(BTreeMap::new())) })))
}

fn attribute(value: &Json) -> Result<Value, String> {
    let kind = value.as_object().and_then(|kinds| kinds.iter().next());
    match kind.map(|(kind, value)| (kind.as_str(), value)) {
        Some(("version", Json::String(text))) => Ok(Value::Semver(Arc::new(Semver::parse(text)?))),
        Some(("string" | "int" | "bool", plain)) => Ok(Value::from(plain)),
        _ => Err("unsupported attribute value".to_owned()),
    }
}

fn amount(value: &Json) -> Result<Value, String> {
    let text = value["value"].as_str().unwrap_or_default();
    Quantity::parse(text).map(Value::Quantity).map_err(|error| error.to_string())
}

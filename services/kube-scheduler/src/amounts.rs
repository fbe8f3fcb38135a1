//! Amounts of resources, and how much a pod asks for.

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity;
use serde_json::{Map, Value};

use crate::objects::{Container, PodSpec};

/// What scores assume of a container that asks for nothing, so that many such pods still spread.
const ASSUMED_MILLI_CPU: i64 = 100;
const ASSUMED_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts of resources; cpu in thousandths, the rest in units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub storage: i64,
    /// Everything else, by name.
    pub other: BTreeMap<Box<str>, i64>,
}

impl Amounts {
    /// Reads a ResourceList. Unreadable quantities count as zero: the API server lets none through.
    pub fn read(list: &Map<String, Value>) -> Amounts {
        let mut amounts = Amounts::default();
        for (name, value) in list {
            let Some(quantity) = quantity(value) else { continue };
            match name.as_str() {
                "cpu" => amounts.milli_cpu = i64::try_from(quantity.milli()).unwrap_or(i64::MAX),
                "memory" => amounts.memory = quantity.value(),
                "ephemeral-storage" => amounts.storage = quantity.value(),
                "pods" => {}
                _ if quantity.is_zero() => {}
                _ => drop(amounts.other.insert(name.as_str().into(), quantity.value())),
            }
        }
        amounts
    }

    /// Applies `combine` to each amount of both.
    pub fn merge(&mut self, more: &Amounts, combine: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = combine(self.milli_cpu, more.milli_cpu);
        self.memory = combine(self.memory, more.memory);
        self.storage = combine(self.storage, more.storage);
        for (name, amount) in &more.other {
            match self.other.get_mut(name) {
                Some(mine) => *mine = combine(*mine, *amount),
                None => drop(self.other.insert(name.clone(), combine(0, *amount))),
            }
        }
    }

    /// The amount of a resource by its API name.
    pub fn of(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.storage,
            _ => self.other.get(name).copied().unwrap_or(0),
        }
    }
}

/// A quantity in either of its JSON forms.
pub fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// The most that the pod needs at any time, and the same with assumed amounts: its containers and sidecars together, or
/// an init container beside the sidecars started before it; pod-level requests override the sum; plus the overhead.
pub fn requests(spec: &PodSpec) -> (Amounts, Amounts) {
    (total(spec, false), total(spec, true))
}

fn total(spec: &PodSpec, assume: bool) -> Amounts {
    let container = |c: &Container| {
        let mut amounts = Amounts::read(&c.resources.requests);
        if assume {
            let asked = |name: &str| c.resources.requests.contains_key(name);
            amounts.milli_cpu = if asked("cpu") { amounts.milli_cpu } else { ASSUMED_MILLI_CPU };
            amounts.memory = if asked("memory") { amounts.memory } else { ASSUMED_MEMORY };
        }
        amounts
    };
    let (mut sidecars, mut peak) = (Amounts::default(), Amounts::default());
    for init in &spec.init_containers {
        let mut now = container(init);
        if &*init.restart_policy == "Always" {
            sidecars.merge(&now, i64::saturating_add);
            now = sidecars.clone();
        } else {
            now.merge(&sidecars, i64::saturating_add);
        }
        peak.merge(&now, i64::max);
    }
    for running in &spec.containers {
        sidecars.merge(&container(running), i64::saturating_add);
    }
    peak.merge(&sidecars, i64::max);
    let whole = Amounts::read(&spec.resources.requests);
    peak.merge(&whole, |sum, whole| if whole == 0 { sum } else { whole });
    peak.merge(&Amounts::read(&spec.overhead), i64::saturating_add);
    peak
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_needs_the_larger_of_starting_and_running() {
        let ask = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        let read = |spec: &Value| requests(&serde_json::from_value(spec.clone()).unwrap());
        let cases = [
            (json!({"containers": [ask("1"), ask("250m")]}), 1250),
            (json!({"containers": [ask("1")], "initContainers": [ask("2")]}), 2000),
            (json!({"containers": [ask("1")], "initContainers": [sidecar("1"), ask("2")]}), 3000),
            (json!({"containers": [ask("3")], "initContainers": [ask("2"), sidecar("1")]}), 4000),
            (json!({"containers": [ask("1")], "overhead": {"cpu": "100m"}}), 1100),
            (json!({"containers": [ask("1")], "resources": {"requests": {"cpu": "5"}}}), 5000),
        ];
        for (spec, expected) in cases {
            assert_eq!(read(&spec).0.milli_cpu, expected, "{spec}");
        }
        let (asked, assumed) = read(&json!({"containers": [{}, ask("1")]}));
        assert_eq!((asked.milli_cpu, asked.memory), (1000, 0));
        assert_eq!((assumed.milli_cpu, assumed.memory), (1100, 2 * ASSUMED_MEMORY));
    }
}

//! A configuration merged into an object: what the configuration says wins, everything else stays.

use super::slot::{List, Slot, Structure, field_slot};
use crate::Map;
use crate::schema::TypeRef;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// The object after the configuration has been laid over it.
pub fn merge(ty: TypeRef<'_>, live: &Value, config: &Value) -> Value {
    over(Slot::root(ty), live, config)
}

fn over(slot: Slot<'_>, live: &Value, config: &Value) -> Value {
    match (slot.structure(config), live, config) {
        (Structure::Struct(ty), Value::Object(live), Value::Object(config)) => {
            maps(live, config, |name| field_slot(ty, name).0)
        }
        (Structure::Map(element), Value::Object(live), Value::Object(config)) => maps(live, config, |_| element),
        (Structure::List(list), Value::Array(live), Value::Array(config)) => lists(list, live, config),
        _ => config.clone(),
    }
}

fn maps<'a>(live: &Map, config: &Map, slot: impl Fn(&str) -> Slot<'a>) -> Value {
    let mut out = live.clone();
    for (key, value) in config {
        let merged = match live.get(key) {
            Some(live) => over(slot(key), live, value),
            None => value.clone(),
        };
        out.insert(key.clone(), merged);
    }
    Value::Object(out)
}

/// Elements of the live list keep their order, as do those of the configuration; where the two orders contradict each other, the configuration's counts.
/// Live elements that the configuration does not name come as early as they can.
fn lists(list: List<'_>, live: &[Value], config: &[Value]) -> Value {
    let (live, config) = (list.steps(live), list.steps(config));
    let mut found: HashMap<&str, &Value> = HashMap::new();
    for (step, item) in &live {
        found.entry(step).or_insert(item);
    }
    let named: HashSet<&str> = config.iter().map(|(step, _)| step.as_str()).collect();
    let mut out = Vec::with_capacity(live.len() + config.len());
    let mut rest = live.iter().peekable();
    for (index, (step, item)) in config.iter().enumerate() {
        let next = config[index..].iter().map(|(step, _)| step).find(|step| found.contains_key(step.as_str()));
        while let Some((own, value)) = rest.next_if(|(own, _)| Some(own) != next) {
            if !named.contains(own.as_str()) {
                out.push((*value).clone());
            }
        }
        rest.next_if(|(own, _)| own == step);
        out.push(found.get(step.as_str()).map_or_else(|| (*item).clone(), |live| over(list.element, live, item)));
    }
    out.extend(rest.filter(|(own, _)| !named.contains(own.as_str())).map(|(_, value)| (*value).clone()));
    Value::Array(out)
}

//! What a pod asks for in sum, as quotas and limit ranges count it.

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity;
use serde_json::Value;

use crate::registry::strategy::tree::{at, items, map_at, str_at};

/// Amounts by resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// A map of quantities; what is not a quantity is left out, as validation has refused it.
pub fn amounts(v: Option<&Value>) -> Amounts {
    let map = v.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(name, v)| Some((name.clone(), quantity(v)?))).collect()
}

/// One quantity, however it is written.
pub fn quantity(v: &Value) -> Option<Quantity> {
    match v {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(n) => Quantity::parse(&n.to_string()).ok(),
        _ => None,
    }
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let old = sum.remove(name);
        sum.insert(name.clone(), old.map_or(*amount, |o| o.add(*amount)));
    }
}

fn raise(sum: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        if sum.get(name).is_none_or(|have| have.milli() < amount.milli()) {
            sum.insert(name.clone(), *amount);
        }
    }
}

/// `requests` or `limits` of the whole pod: its containers and sidecars together, or what one init container needs beside the sidecars
/// started before it, plus overhead; amounts given for the pod as a whole win.
pub fn total(pod: &Value, which: &str) -> Amounts {
    let spec = at(pod, &["spec"]).unwrap_or(&Value::Null);
    let of = |c: &Value| amounts(at(c, &["resources", which]));
    let mut sum = Amounts::new();
    for c in items(spec, &["containers"]) {
        add(&mut sum, &of(c));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for c in items(spec, &["initContainers"]) {
        if str_at(c, &["restartPolicy"]) == "Always" {
            add(&mut sum, &of(c));
            add(&mut sidecars, &of(c));
            raise(&mut peak, &sidecars);
        } else {
            let mut now = sidecars.clone();
            add(&mut now, &of(c));
            raise(&mut peak, &now);
        }
    }
    raise(&mut sum, &peak);
    for (name, amount) in amounts(at(spec, &["resources", which])) {
        sum.insert(name, amount);
    }
    if map_at(spec, &["overhead"]).is_some() {
        let overhead = amounts(at(spec, &["overhead"]));
        // A limit that is not set has no overhead either: it is unlimited.
        let counted = overhead.into_iter().filter(|(name, _)| which == "requests" || sum.contains_key(name)).collect();
        add(&mut sum, &counted);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn init_containers_count_if_they_need_more() {
        let c = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = c("100m");
        sidecar["restartPolicy"] = json!("Always");
        let table = [
            (json!([c("1"), c("500m")]), json!([]), Value::Null, "1500m"),
            (json!([c("1")]), json!([c("3")]), Value::Null, "3"),
            (json!([c("1")]), json!([sidecar, c("3")]), Value::Null, "3100m"),
            (json!([c("1")]), json!([sidecar]), json!({"cpu": "50m"}), "1150m"),
        ];
        for (containers, init, overhead, want) in table {
            let pod = json!({"spec": {"containers": containers, "initContainers": init, "overhead": overhead}});
            assert_eq!(total(&pod, "requests")["cpu"].to_string(), want);
        }
    }
}

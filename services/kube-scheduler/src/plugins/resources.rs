//! What the arguments of plugins have in common: checked objects, and resources with weights.

use serde_json::Value;

use crate::amounts::Amounts;
use crate::node::Node;
use crate::terms::list;

/// An error that names a field beside the known ones; `apiVersion` and `kind` are always known.
pub fn no_fields_but(args: &Value, known: &[&str]) -> Result<(), String> {
    let is_known = |name: &&String| known.contains(&name.as_str()) || matches!(name.as_str(), "apiVersion" | "kind");
    match args.as_object().and_then(|object| object.keys().find(|name| !is_known(name))) {
        Some(name) => Err(format!("unknown field {name:?}")),
        None => Ok(()),
    }
}

/// A whole number in a range, or a default.
pub fn number(args: &Value, name: &str, default: i64, range: std::ops::RangeInclusive<i64>) -> Result<i64, String> {
    match &args[name] {
        Value::Null => Ok(default),
        value => match value.as_i64().filter(|n| range.contains(n)) {
            Some(number) => Ok(number),
            None => {
                Err(format!("{name}: Invalid value: {value}: not in valid range [{}-{}]", range.start(), range.end()))
            }
        },
    }
}

/// Resources with weights; cpu and memory with the same weight unless given.
pub fn weighted(resources: &Value, path: &str) -> Result<Vec<(String, i64)>, String> {
    if resources.is_null() {
        return Ok(vec![("cpu".to_owned(), 1), ("memory".to_owned(), 1)]);
    }
    let mut weighted = Vec::new();
    for (index, resource) in list(resources, "").iter().enumerate() {
        let at = |e: String| format!("{path}[{index}].{e}");
        no_fields_but(resource, &["name", "weight"]).map_err(at)?;
        let name = resource["name"].as_str().ok_or_else(|| at("name: Required value".to_owned()))?;
        weighted.push((name.to_owned(), number(resource, "weight", 1, 1..=100).map_err(at)?));
    }
    Ok(weighted)
}

/// What a node offers of a resource and what would be in use of it with the pod. `assumed` counts cpu and memory of
/// containers that ask for nothing. None if the resource plays no role for this pod and node.
pub fn usage(name: &str, assumed: bool, asked: (&Amounts, &Amounts), node: &Node) -> Option<(i64, i64)> {
    let offer = node.offer.allocatable.of(name);
    let by_assumption = assumed && matches!(name, "cpu" | "memory");
    let (asked, used) = if by_assumption { (asked.1, &node.assumed) } else { (asked.0, &node.requested) };
    let extra = asked.of(name);
    let plays = offer > 0 && (extra > 0 || matches!(name, "cpu" | "memory" | "ephemeral-storage"));
    plays.then(|| (offer, used.of(name).saturating_add(extra)))
}

//! Reading pod specs the way the checks need it, and their way of talking.

use serde_json::Value;

use crate::registry::strategy::tree::{items, str_at};

/// Every container of the three lists, in the order checks name them.
pub fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| items(spec, &[list]))
}

/// The containers something holds of, by name.
pub fn which<'a>(spec: &'a Value, bad: impl Fn(&'a Value) -> bool) -> Vec<&'a str> {
    containers(spec).filter(|c| bad(c)).map(name).collect()
}

/// A container's name.
pub fn name(c: &Value) -> &str {
    str_at(c, &["name"])
}

/// One or many.
pub fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`
pub fn quoted(list: &[&str]) -> String {
    list.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ")
}

/// `container "a"` or `containers "a", "b"`.
pub fn named(list: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", list.len()), quoted(list))
}

/// Sorted, each once.
pub fn set(mut list: Vec<&str>) -> Vec<&str> {
    list.sort_unstable();
    list.dedup();
    list
}

/// A Windows pod: what is about Linux does not concern it.
pub fn is_windows(spec: &Value) -> bool {
    str_at(spec, &["os", "name"]) == "windows"
}

/// A pod with users of its own: root in it is nobody on the host.
pub fn has_own_users(spec: &Value) -> bool {
    spec.get("hostUsers").is_some_and(|v| v == false)
}

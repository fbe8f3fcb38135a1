//! What cells of several kinds have in common.

use apimachinery::{meta, time};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::registry::strategy::tree::{at, int_at, items, map_at, str_at};

/// What stands where there is nothing.
pub const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";

/// The name.
pub fn name(object: &Value) -> Value {
    json!(meta::name(object))
}

/// Time since creation.
pub fn age(object: &Value, now: Timestamp) -> Value {
    json!(since(meta::creation_timestamp(object), now))
}

/// Time since a moment, as people say it.
pub fn since(moment: &str, now: Timestamp) -> String {
    match time::parse_rfc3339(moment) {
        Ok(then) => human(now.as_second() - then.as_second()),
        Err(_) => UNKNOWN.to_owned(),
    }
}

/// A duration with two units at most, the precision falling with its length.
pub fn human(seconds: i64) -> String {
    let pair = |big: i64, unit: &str, small: i64, sub: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{sub}") }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        i64::MIN..=-2 => "<invalid>".to_owned(),
        -1..=0 => "0s".to_owned(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// A string field, or `<none>`.
pub fn or_none(object: &Value, path: &[&str]) -> Value {
    match str_at(object, path) {
        "" => json!(NONE),
        text => json!(text),
    }
}

/// A number, zero when missing.
pub fn int(object: &Value, path: &[&str]) -> Value {
    json!(int_at(object, path).unwrap_or(0))
}

/// Names and images of a template's containers, and the workload's selector: the wide columns of workloads.
pub fn template(object: &Value, spec: &[&str]) -> [Value; 2] {
    let containers = items(at(object, spec).unwrap_or(&Value::Null), &["containers"]);
    let join = |field: &str| json!(containers.iter().map(|c| str_at(c, &[field])).collect::<Vec<_>>().join(","));
    [join("name"), join("image")]
}

/// A map as `a=b,c=d`, or `<none>`.
pub fn pairs(map: Option<&Map<String, Value>>) -> String {
    let list: Vec<String> =
        map.into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    if list.is_empty() { NONE.to_owned() } else { list.join(",") }
}

/// A label selector in the syntax of `-l`, `<none>` for nothing and nothing for everything.
pub fn selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return NONE.to_owned() };
    let mut parts: Vec<(String, String)> = Vec::new();
    for (k, v) in map_at(selector, &["matchLabels"]).into_iter().flatten() {
        parts.push((k.clone(), format!("{k}={}", v.as_str().unwrap_or_default())));
    }
    for e in items(selector, &["matchExpressions"]) {
        let key = str_at(e, &["key"]);
        let mut values: Vec<&str> = items(e, &["values"]).iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match str_at(e, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        parts.push((key.to_owned(), text));
    }
    parts.sort();
    let text = parts.into_iter().map(|(_, t)| t).collect::<Vec<_>>().join(",");
    if text.is_empty() { NONE.to_owned() } else { text }
}

/// The first few of a list and how many more there are.
pub fn first_few(list: &[String], max: usize, empty: &str) -> String {
    if list.is_empty() {
        return empty.to_owned();
    }
    let shown = list[..list.len().min(max)].join(",");
    if list.len() > max { format!("{shown} + {} more...", list.len() - max) } else { shown }
}

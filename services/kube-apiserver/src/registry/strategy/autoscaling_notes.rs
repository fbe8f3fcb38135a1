//! Metrics in the annotations of autoscaling/v1. They are written as that version once wrote metrics: flat, with other names than
//! autoscaling/v2 has. One table says both.

use serde_json::{Map, Value};

/// Which list: what shall be, or what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// `spec.metrics`.
    Wanted,
    /// `status.currentMetrics`.
    Current,
}

impl List {
    /// What `@` stands for in [`SOURCES`].
    fn word(self) -> &'static str {
        match self {
            Self::Wanted => "target",
            Self::Current => "current",
        }
    }
}

/// Names in v1 and pointers in v2.
type Fields = &'static [(&'static str, &'static str)];

/// The types of metrics, where each has its fields, and which quantity v1 always shows in [`List::Wanted`] and [`List::Current`].
const SOURCES: [(&str, &str, [&str; 2], Fields); 5] = [
    (
        "Object",
        "object",
        ["targetValue", "currentValue"],
        &[
            ("target", "/describedObject"),
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("@Value", "/@/value"),
            ("averageValue", "/@/averageValue"),
        ],
    ),
    (
        "Pods",
        "pods",
        ["targetAverageValue", "currentAverageValue"],
        &[("metricName", "/metric/name"), ("selector", "/metric/selector"), ("@AverageValue", "/@/averageValue")],
    ),
    (
        "Resource",
        "resource",
        ["", "currentAverageValue"],
        &[("name", "/name"), ("@AverageUtilization", "/@/averageUtilization"), ("@AverageValue", "/@/averageValue")],
    ),
    (
        "ContainerResource",
        "containerResource",
        ["", "currentAverageValue"],
        &[
            ("name", "/name"),
            ("container", "/container"),
            ("@AverageUtilization", "/@/averageUtilization"),
            ("@AverageValue", "/@/averageValue"),
        ],
    ),
    (
        "External",
        "external",
        ["", "currentValue"],
        &[
            ("metricName", "/metric/name"),
            ("metricSelector", "/metric/selector"),
            ("@Value", "/@/value"),
            ("@AverageValue", "/@/averageValue"),
        ],
    ),
];

/// A metric of v2 as v1 has it; what is of no known type stays.
pub fn to_v1(metric: &Value, list: List) -> Value {
    let Some((kind, source, shown, fields)) = SOURCES.iter().find(|s| metric["type"] == s.0) else {
        return metric.clone();
    };
    let mut flat = Map::new();
    for (name, pointer) in *fields {
        let found = metric[source].pointer(&pointer.replace('@', list.word()));
        if let Some(value) = found.filter(|v| !v.is_null()) {
            flat.insert(name.replace('@', list.word()), value.clone());
        }
    }
    let shown = shown[usize::from(list == List::Current)];
    if !shown.is_empty() && !flat.contains_key(shown) {
        flat.insert(shown.into(), "0".into());
    }
    serde_json::json!({"type": kind, *source: flat})
}

/// A metric of v1 as v2 has it.
pub fn to_v2(metric: &Value, list: List) -> Value {
    let Some((kind, source, _, fields)) = SOURCES.iter().find(|s| metric["type"] == s.0) else {
        return metric.clone();
    };
    let mut nested = Value::Object(Map::new());
    for (name, pointer) in *fields {
        let Some(value) = metric[source].get(name.replace('@', list.word())).filter(|v| !v.is_null()) else { continue };
        let mut place = &mut nested;
        for step in pointer.replace('@', list.word()).split('/').skip(1) {
            place = &mut place[step];
        }
        *place = value.clone();
    }
    if list == List::Wanted {
        let target = &nested["target"];
        let kind = match (target.get("averageUtilization"), target.get("averageValue")) {
            (Some(_), _) => "Utilization",
            (None, Some(_)) => "AverageValue",
            (None, None) => "Value",
        };
        nested["target"]["type"] = kind.into();
    }
    serde_json::json!({"type": kind, *source: nested})
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_versions_say_the_same() {
        let cases = [
            (
                List::Wanted,
                json!({"type": "Resource", "resource": {"name": "memory", "targetAverageUtilization": 60}}),
                json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 60}}}),
            ),
            (
                List::Wanted,
                json!({"type": "Pods", "pods": {"metricName": "m", "targetAverageValue": "5"}}),
                json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "5"}}}),
            ),
            (
                List::Wanted,
                json!({"type": "Object", "object": {"target": {"kind": "Service", "name": "s"}, "metricName": "m", "targetValue": "7"}}),
                json!({"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "m"},
                    "target": {"type": "Value", "value": "7"}}}),
            ),
            (
                List::Wanted,
                json!({"type": "External", "external": {"metricName": "m", "metricSelector": {"matchLabels": {"a": "b"}}, "targetAverageValue": "1"}}),
                json!({"type": "External", "external": {"metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}},
                    "target": {"type": "AverageValue", "averageValue": "1"}}}),
            ),
            (
                List::Current,
                json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "currentAverageValue": "9m"}}),
                json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "current": {"averageValue": "9m"}}}),
            ),
        ];
        for (list, older, newer) in cases {
            assert_eq!(to_v2(&older, list), newer);
            assert_eq!(to_v1(&newer, list), older);
        }
        let shown = to_v1(&json!({"type": "External", "external": {"metric": {"name": "m"}}}), List::Current);
        assert_eq!(shown["external"], json!({"metricName": "m", "currentValue": "0"}));
    }
}

//! How long a pod bears its node's taints. Pure.

use jiff::Timestamp;
use serde_json::Value;

use crate::nodes::tolerates;
use crate::{clock, object};

/// A node's NoExecute taints.
pub fn executing(node: &Value) -> Vec<Value> {
    let taints = object::list(node, "/spec/taints").iter();
    taints.filter(|taint| taint["effect"] == "NoExecute").cloned().collect()
}

/// When the first of them was added, where it says so.
pub fn oldest(taints: &[Value]) -> Option<Timestamp> {
    taints.iter().filter_map(|taint| clock::parse(taint["timeAdded"].as_str()?)).min()
}

/// Seconds that a pod may stay; none if it may stay for good.
pub fn patience(taints: &[Value], tolerations: &[Value]) -> Option<i64> {
    let mut shortest = None;
    for taint in taints {
        let mut tolerated = false;
        for toleration in tolerations.iter().filter(|t| tolerates(t, taint)) {
            tolerated = true;
            // Every matching toleration counts, and the shortest wins, as upstream has it.
            if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
                shortest = Some(shortest.unwrap_or(i64::MAX).min(seconds.max(0)));
            }
        }
        if !tolerated {
            return Some(0);
        }
    }
    shortest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_shortest_matching_toleration_wins() {
        let taint = |key: &str| json!({"key": key, "value": "v", "effect": "NoExecute"});
        let cases = [
            ("no taint", vec![], json!([]), None),
            ("not tolerated", vec![taint("a")], json!([]), Some(0)),
            ("for good", vec![taint("a")], json!([{"operator": "Exists"}]), None),
            (
                "for a while",
                vec![taint("a")],
                json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 300}]),
                Some(300),
            ),
            (
                "two",
                vec![taint("a")],
                json!([{"key": "a", "value": "v", "tolerationSeconds": 25}, {"operator": "Exists", "tolerationSeconds": 5}]),
                Some(5),
            ),
            ("one of two taints", vec![taint("a"), taint("b")], json!([{"key": "a", "operator": "Exists"}]), Some(0)),
            ("wrong value", vec![taint("a")], json!([{"key": "a", "value": "w"}]), Some(0)),
            ("wrong effect", vec![taint("a")], json!([{"operator": "Exists", "effect": "NoSchedule"}]), Some(0)),
            ("negative", vec![taint("a")], json!([{"operator": "Exists", "tolerationSeconds": -1}]), Some(0)),
        ];
        for (what, taints, tolerations, expected) in cases {
            assert_eq!(patience(&taints, tolerations.as_array().unwrap()), expected, "{what}");
        }
    }
}

//! What a node's silence and conditions mean. Pure.

use std::time::Duration;

use apimachinery::{meta, time};
use client::Change;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::zones::Eviction;
use crate::object;

/// A node may be silent for this long: four missed lease renewals.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// A node that has never reported gets longer, as it may be booting.
const FIRST_REPORT_MAX: Duration = Duration::from_secs(60);

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Conditions that, when True, keep new pods away.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Only the kubelet reports these.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// How long a node may be silent.
pub fn grace(node: &Value) -> Duration {
    if meta::condition(node, "Ready").is_some() { SILENCE_MAX } else { FIRST_REPORT_MAX }
}

/// A new node, or a status that the kubelet wrote: its heartbeat moved.
pub fn is_sign_of_life(change: &Change) -> bool {
    let heartbeat = |node: &Value| meta::condition(node, "Ready").map(|c| c["lastHeartbeatTime"].clone());
    match change {
        Change::Applied { old: Some(old), new } => heartbeat(old) != heartbeat(new),
        Change::Applied { old: None, .. } => true,
        Change::Deleted(_) => false,
    }
}

/// What is said of a node that came or went: the reason, and what this process did about it.
pub fn arrival(change: &Change) -> Option<(&'static str, String)> {
    let name = meta::name(change.object());
    match change {
        Change::Applied { old: None, .. } => Some(("RegisteredNode", format!("Registered Node {name} in"))),
        Change::Applied { old: Some(_), .. } => None,
        Change::Deleted(_) => Some(("RemovingNode", format!("Removing Node {name} from"))),
    }
}

/// A node came, went, or changed between ready and not.
pub fn readiness_changed(change: &Change) -> bool {
    match change {
        Change::Applied { old: Some(old), new } => {
            meta::is_condition_true(old, "Ready") != meta::is_condition_true(new, "Ready")
        }
        _ => true,
    }
}

/// What a silent node's conditions become; none if they are so already.
pub fn unknown_conditions(node: &Value, now: Timestamp) -> Option<Vec<Value>> {
    let now = time::rfc3339(now);
    let unknown = |kind: &&str| {
        let old = meta::condition(node, kind);
        if old.is_some_and(|c| c["status"] == "Unknown") {
            return None;
        }
        let (reason, message) = match old {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let heartbeat =
            old.and_then(|c| c["lastHeartbeatTime"].as_str()).unwrap_or_else(|| meta::creation_timestamp(node));
        Some(json!({"type": kind, "status": "Unknown", "reason": reason, "message": message,
                    "lastHeartbeatTime": heartbeat, "lastTransitionTime": now}))
    };
    let conditions: Vec<Value> = REPORTED.iter().filter_map(unknown).collect();
    (!conditions.is_empty()).then_some(conditions)
}

/// Whether the node is to lose its pods, and whether it has been told so.
pub fn is_to_be_emptied(node: &Value) -> Option<bool> {
    let (key, effect) = wanted(node).into_iter().find(|(_, effect)| *effect == "NoExecute")?;
    Some(object::list(node, "/spec/taints").iter().any(|taint| taint["key"] == key && taint["effect"] == effect))
}

/// The node's taints with those that follow from its conditions made right; none if they are. How fast pods may be driven
/// out is decided by `eviction`.
pub fn taints(node: &Value, eviction: Eviction, now: Timestamp) -> Option<Vec<Value>> {
    let mut wanted = wanted(node);
    if eviction != Eviction::Now {
        wanted.retain(|(_, effect)| *effect != "NoExecute");
    }
    let old = object::list(node, "/spec/taints");
    let is = |taint: &Value, key: &str, effect: &str| taint["key"] == key && taint["effect"] == effect;
    let managed = |taint: &Value| {
        let keys = PRESSURES.iter().map(|(_, key)| *key).chain([UNSCHEDULABLE, NOT_READY, UNREACHABLE]);
        let executes = taint["effect"] == "NoExecute" && (taint["key"] == NOT_READY || taint["key"] == UNREACHABLE);
        executes || (taint["effect"] == "NoSchedule" && keys.into_iter().any(|key| taint["key"] == key))
    };
    let mut new: Vec<Value> = old.to_vec();
    new.retain(|taint| !managed(taint) || wanted.iter().any(|(key, effect)| is(taint, key, effect)));
    for (key, effect) in &wanted {
        if !new.iter().any(|taint| is(taint, key, effect)) {
            let mut taint = json!({"key": key, "effect": effect});
            if *effect == "NoExecute" {
                taint["timeAdded"] = time::rfc3339(now).into();
            }
            new.push(taint);
        }
    }
    (new != old).then_some(new)
}

fn wanted(node: &Value) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    let state = |kind: &str| meta::condition(node, kind).and_then(|c| c["status"].as_str());
    let key = match state("Ready") {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    };
    if let Some(key) = key {
        wanted.extend([(key, "NoSchedule"), (key, "NoExecute")]);
    }
    wanted
        .extend(PRESSURES.iter().filter(|(kind, _)| state(kind) == Some("True")).map(|(_, key)| (*key, "NoSchedule")));
    if node["spec"]["unschedulable"] == true {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn nodes_come_and_go() {
        let node = Arc::new(json!({"metadata": {"name": "a"}}));
        let applied = |old: Option<&Arc<Value>>| Change::Applied { old: old.cloned(), new: Arc::clone(&node) };
        let said = |change: &Change| arrival(change).map(|(reason, what)| format!("{reason}: {what}"));
        assert_eq!(said(&applied(None)).as_deref(), Some("RegisteredNode: Registered Node a in"));
        assert_eq!(said(&applied(Some(&node))), None);
        assert_eq!(said(&Change::Deleted(node)).as_deref(), Some("RemovingNode: Removing Node a from"));
    }

    fn node(conditions: &[(&str, &str)]) -> Value {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status)| json!({"type": kind, "status": status, "lastHeartbeatTime": "h"}))
            .collect();
        json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]},
               "status": {"conditions": conditions}})
    }

    #[test]
    fn taints_follow_conditions_and_leave_others_alone() {
        type Conditions = &'static [(&'static str, &'static str)];
        let cases: &[(Conditions, &[&str])] = &[
            (&[("Ready", "True")], &["mine:NoSchedule"]),
            (&[], &["mine:NoSchedule"]),
            (&[("Ready", "False")], &["mine:NoSchedule", "not-ready:NoSchedule", "not-ready:NoExecute"]),
            (&[("Ready", "Unknown")], &["mine:NoSchedule", "unreachable:NoSchedule", "unreachable:NoExecute"]),
            (&[("Ready", "True"), ("DiskPressure", "True")], &["mine:NoSchedule", "disk-pressure:NoSchedule"]),
        ];
        let mut before = node(&[]);
        for (conditions, expected) in cases {
            let mut now = node(conditions);
            now["spec"] = before["spec"].clone();
            if let Some(taints) = taints(&now, Eviction::Now, Timestamp::UNIX_EPOCH) {
                now["spec"]["taints"] = taints.into();
            }
            let text = |t: &Value| format!("{}:{}", t["key"].as_str().unwrap(), t["effect"].as_str().unwrap());
            let got: Vec<String> = object::list(&now, "/spec/taints").iter().map(text).collect();
            let got: Vec<&str> = got.iter().map(|t| t.strip_prefix("node.kubernetes.io/").unwrap_or(t)).collect();
            assert_eq!(got, *expected, "{conditions:?}");
            assert!(taints(&now, Eviction::Now, Timestamp::UNIX_EPOCH).is_none(), "settled");
            before = now;
        }
    }

    #[test]
    fn pods_are_driven_out_only_when_they_may() {
        let effects = |taints: Option<Vec<Value>>| {
            let all = taints.unwrap_or_default().into_iter().map(|t| t["effect"].as_str().unwrap().to_owned());
            all.collect::<Vec<_>>()
        };
        let mut silent = node(&[("Ready", "Unknown")]);
        assert_eq!(is_to_be_emptied(&silent), Some(false));
        let held = taints(&silent, Eviction::Never, Timestamp::UNIX_EPOCH);
        assert_eq!(effects(held), ["NoSchedule", "NoSchedule"]);
        silent["spec"]["taints"] = taints(&silent, Eviction::Now, Timestamp::UNIX_EPOCH).into();
        assert_eq!(is_to_be_emptied(&silent), Some(true));
        let taken_back = taints(&silent, Eviction::Never, Timestamp::UNIX_EPOCH);
        assert_eq!(effects(taken_back), ["NoSchedule", "NoSchedule"], "nobody knows anything any more");
        assert_eq!(is_to_be_emptied(&node(&[("Ready", "True")])), None);
    }

    #[test]
    fn silence_makes_everything_unknown_once() {
        let silent = node(&[("Ready", "True"), ("DiskPressure", "Unknown")]);
        let conditions = unknown_conditions(&silent, Timestamp::UNIX_EPOCH).unwrap();
        let kinds: Vec<_> =
            conditions.iter().map(|c| (c["type"].as_str().unwrap(), c["reason"].as_str().unwrap())).collect();
        assert_eq!(
            kinds,
            [
                ("Ready", "NodeStatusUnknown"),
                ("MemoryPressure", "NodeStatusNeverUpdated"),
                ("PIDPressure", "NodeStatusNeverUpdated")
            ]
        );
        assert_eq!(conditions[0]["lastHeartbeatTime"], "h");
        let all = REPORTED.map(|kind| (kind, "Unknown"));
        assert!(unknown_conditions(&node(&all), Timestamp::UNIX_EPOCH).is_none());
    }
}

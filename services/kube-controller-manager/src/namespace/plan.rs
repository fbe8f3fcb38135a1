//! What a namespace that is going away says about its content, and when it may go. Pure.

use std::collections::BTreeMap;

use apimachinery::{meta, time};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object;

const FINALIZER: &str = "kubernetes";

/// Accepts new content.
pub fn is_active(namespace: &Value) -> bool {
    meta::deletion_timestamp(namespace).is_none() && object::text(namespace, "/status/phase") != "Terminating"
}

/// Going away, and this controller has not yet finished with it.
pub fn is_to_be_emptied(namespace: &Value) -> bool {
    meta::deletion_timestamp(namespace).is_some()
        && object::list(namespace, "/spec/finalizers").iter().any(|f| f == FINALIZER)
}

/// The namespace without this controller's finalizer, for its `finalize` subresource.
pub fn finalized(namespace: &Value) -> Value {
    let mut released = namespace.clone();
    if let Some(finalizers) = released["spec"]["finalizers"].as_array_mut() {
        finalizers.retain(|f| f != FINALIZER);
    }
    released
}

/// Objects of one resource that are still there.
#[derive(Debug, Default)]
pub struct Remaining {
    /// How many.
    pub count: usize,
    /// How many have each finalizer.
    pub finalizers: BTreeMap<String, usize>,
}

/// The outcome of one attempt to empty a namespace.
#[derive(Debug, Default)]
pub struct Found {
    /// Groups whose resources could not be discovered.
    pub undiscovered: Vec<String>,
    /// What could not be deleted, and why.
    pub failures: Vec<String>,
    /// What is still there, by resource and group.
    pub remaining: BTreeMap<(String, String), Remaining>,
}

impl Found {
    /// Nothing failed and nothing is left.
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.remaining.is_empty()
    }
}

/// The new status, if it differs.
pub fn status(namespace: &Value, found: &Found, now: Timestamp) -> Option<Value> {
    let mut status = namespace["status"].clone();
    let mut conditions = object::list(namespace, "/status/conditions").to_vec();
    let mut changed = false;
    for condition in conditions_of(found) {
        changed |= object::set_condition(&mut conditions, condition, &time::rfc3339(now));
    }
    status["conditions"] = conditions.into();
    changed.then_some(status)
}

fn conditions_of(found: &Found) -> [Value; 5] {
    let condition = |kind: &str, bad: Option<(&str, String)>, good: (&str, &str)| {
        let state = if bad.is_some() { "True" } else { "False" };
        let (reason, message) = bad.unwrap_or((good.0, good.1.to_owned()));
        json!({"type": kind, "status": state, "reason": reason, "message": message})
    };
    let undiscovered = (!found.undiscovered.is_empty()).then(|| {
        let groups = found.undiscovered.join(", ");
        ("DiscoveryFailed", format!("Discovery failed for some groups, {} failing: {groups}", found.undiscovered.len()))
    });
    let mut failures = found.failures.clone();
    // A pod that a finalizer holds may stay for good; the namespace must say what it is stuck on.
    let pods = found.remaining.get(&("pods".to_owned(), String::new()));
    if pods.is_some_and(|pods| !pods.finalizers.is_empty()) {
        failures.push("unexpected items still remain in namespace for gvr: /v1, Resource=pods".to_owned());
    }
    failures.sort();
    let failed = (!failures.is_empty()).then(|| {
        let text =
            format!("Failed to delete all resource types, {} remaining: {}", failures.len(), failures.join(", "));
        ("ContentDeletionFailed", text)
    });
    let remaining = (!found.remaining.is_empty()).then(|| {
        let each = found.remaining.iter();
        let text: Vec<String> =
            each.map(|((plural, group), r)| format!("{plural}.{group} has {} resource instances", r.count)).collect();
        ("SomeResourcesRemain", format!("Some resources are remaining: {}", text.join(", ")))
    });
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, count) in found.remaining.values().flat_map(|r| &r.finalizers) {
        *finalizers.entry(name).or_default() += count;
    }
    let held = (!finalizers.is_empty()).then(|| {
        let text: Vec<String> =
            finalizers.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
        ("SomeFinalizersRemain", format!("Some content in the namespace has finalizers remaining: {}", text.join(", ")))
    });
    [
        condition(
            "NamespaceDeletionDiscoveryFailure",
            undiscovered,
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        condition(
            "NamespaceDeletionContentFailure",
            failed,
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        condition("NamespaceContentRemaining", remaining, ("ContentRemoved", "All content successfully removed")),
        condition(
            "NamespaceFinalizersRemaining",
            held,
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_tell_what_is_left() {
        let namespace = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes", "mine"]}, "status": {"phase": "Terminating"}});
        assert!(is_to_be_emptied(&namespace) && !is_active(&namespace));
        let now = Timestamp::UNIX_EPOCH;
        let mut found = Found::default();
        let one = Remaining { count: 1, finalizers: [("a/b".to_owned(), 1)].into() };
        found.remaining.insert(("pods".to_owned(), String::new()), one);
        let status = status(&namespace, &found, now).unwrap();
        let find = |kind: &str| {
            let all = status["conditions"].as_array().unwrap();
            all.iter().find(|c| c["type"] == kind).map(|c| (c["status"].clone(), c["message"].clone())).unwrap()
        };
        assert_eq!(
            find("NamespaceContentRemaining"),
            ("True".into(), "Some resources are remaining: pods. has 1 resource instances".into())
        );
        assert_eq!(find("NamespaceFinalizersRemaining").0, "True");
        assert_eq!(find("NamespaceDeletionContentFailure").0, "True");

        let again = json!({"metadata": namespace["metadata"], "status": status});
        assert!(super::status(&again, &found, now).is_none(), "nothing new to say");
        assert_eq!(finalized(&namespace)["spec"]["finalizers"], json!(["mine"]));
    }
}

//! Kinds that need little more than the generic path.

use serde_json::{Value, json};

use super::checks::{dns_label, immutable, label_selector, labels, named, non_negative, one_of};
use super::container_checks::resource_name;
use super::kind::Kind;
use super::scheduling_checks::tolerations;
use super::tree::{at, default, int_at, items, str_at};
use super::workload::zero_status;
use crate::errors::FieldError;

/// Lease: who leads, and which kubelet lives.
pub static LEASE: Kind = Kind {
    check: |errors, l| {
        if let Some(n) = int_at(l, &["spec", "leaseDurationSeconds"]).filter(|n| *n <= 0) {
            errors.push(FieldError::invalid("spec.leaseDurationSeconds", n, "must be greater than 0"));
        }
        non_negative(errors, "spec.leaseTransitions", at(l, &["spec", "leaseTransitions"]));
    },
    ..Kind::BASE
};

/// The highest priority a user may define; the system's own classes lie above.
const MAX_USER_PRIORITY: i64 = 1_000_000_000;
/// Names that start like this are the system's.
pub const SYSTEM_PREFIX: &str = "system-";
/// The system's classes and their values.
pub const SYSTEM_PRIORITIES: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

/// PriorityClass.
pub static PRIORITY_CLASS: Kind = Kind {
    generation: true,
    defaults: |p| default(p, "preemptionPolicy", "PreemptLowerPriority"),
    check: check_priority,
    check_update: |errors, _, new, old| {
        if int_at(new, &["value"]).unwrap_or(0) != int_at(old, &["value"]).unwrap_or(0) {
            errors.push(FieldError::forbidden("value", "may not be changed in an update."));
        }
        immutable(errors, "preemptionPolicy", new.get("preemptionPolicy"), old.get("preemptionPolicy"));
    },
    ..Kind::BASE
};

fn check_priority(errors: &mut Vec<FieldError>, p: &Value) {
    let (name, value) = (str_at(p, &["metadata", "name"]), int_at(p, &["value"]).unwrap_or(0));
    if name.starts_with(SYSTEM_PREFIX) {
        let known = SYSTEM_PRIORITIES.iter().any(|(n, v, _)| *n == name && *v == value);
        if !known {
            let detail = "priority class names with 'system-' prefix are reserved for system use only. error: ";
            let why = match SYSTEM_PRIORITIES.iter().find(|(n, _, _)| *n == name) {
                Some((_, v, _)) => format!("value of {name} PriorityClass must be {v}"),
                None => format!("{name} is not a known system priority class"),
            };
            errors.push(FieldError::forbidden("metadata.name", format!("{detail}{why}")));
        }
    } else if value > MAX_USER_PRIORITY {
        let detail = format!("maximum allowed value of a user defined priority is {MAX_USER_PRIORITY}");
        errors.push(FieldError::forbidden("value", detail));
    }
    one_of(errors, "preemptionPolicy", str_at(p, &["preemptionPolicy"]), &["Never", "PreemptLowerPriority"]);
}

/// RuntimeClass.
pub static RUNTIME_CLASS: Kind = Kind {
    check: |errors, r| {
        named(errors, "handler", str_at(r, &["handler"]), dns_label);
        if let Some(fixed) = at(r, &["overhead", "podFixed"]) {
            super::container_checks::resources(errors, "overhead", &json!({"limits": fixed}), resource_name);
        }
        if let Some(scheduling) = at(r, &["scheduling"]) {
            labels(errors, "scheduling.nodeSelector", at(scheduling, &["nodeSelector"]));
            tolerations(errors, "scheduling.tolerations", scheduling);
            let list = items(scheduling, &["tolerations"]);
            for (i, t) in list.iter().enumerate().filter(|(i, t)| list[..*i].contains(t)) {
                errors.push(FieldError::duplicate(format!("scheduling.tolerations[{i}]"), t.clone()));
            }
        }
    },
    check_update: |errors, _, new, old| immutable(errors, "handler", new.get("handler"), old.get("handler")),
    ..Kind::BASE
};

/// ComponentStatus: nobody writes one.
pub static COMPONENT_STATUS: Kind = Kind::BASE;

/// PodDisruptionBudget.
pub static POD_DISRUPTION_BUDGET: Kind = Kind {
    defaults: |p| zero_status(p, &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"]),
    check: |errors, p| {
        if at(p, &["spec", "minAvailable"]).is_some() && at(p, &["spec", "maxUnavailable"]).is_some() {
            let detail = "minAvailable and maxUnavailable cannot be both set";
            errors.push(FieldError::invalid("spec", p["spec"].clone(), detail));
        }
        for field in ["minAvailable", "maxUnavailable"] {
            share(errors, &format!("spec.{field}"), at(p, &["spec", field]));
        }
        if let Some(s) = at(p, &["spec", "selector"]) {
            label_selector(errors, "spec.selector", s);
        }
        let policy = str_at(p, &["spec", "unhealthyPodEvictionPolicy"]);
        if !policy.is_empty() {
            one_of(errors, "spec.unhealthyPodEvictionPolicy", policy, &["AlwaysAllow", "IfHealthyBudget"]);
        }
    },
    check_update: |errors, sub, new, _| {
        if sub == Some("status") {
            for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
                non_negative(errors, &format!("status.{field}"), at(new, &["status", field]));
            }
        }
    },
    ..Kind::SPEC_STATUS
};

/// A number of pods or a share of all of them.
fn share(errors: &mut Vec<FieldError>, path: &str, v: Option<&Value>) {
    super::checks::int_or_percent(errors, path, v);
    super::checks::at_most_all(errors, path, v);
}

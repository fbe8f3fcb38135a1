//! Workloads that keep a number of pods: Deployment, ReplicaSet, DaemonSet, StatefulSet, ReplicationController, and their helpers.

use apimachinery::selector::LabelSelector;
use serde_json::Value;

use super::checks::{
    at_most_all, dns_label, immutable, int_or_percent, label_selector, labels, non_negative, one_of, optional_named,
    required_one_of,
};
use super::kind::Kind;
use super::pod_checks::pod_spec;
use super::pod_defaults;
use super::tree::{at, default, has, int_at, items, keep, map_at, object, same, set, str_at};
use super::volume::claim_templates;
use crate::errors::FieldError;

/// Deployment.
pub static DEPLOYMENT: Kind = Kind {
    defaults: deployment_defaults,
    check: check_deployment,
    check_update: selector_and_counters,
    ..Kind::SPEC_STATUS
};

/// ReplicaSet.
pub static REPLICA_SET: Kind = Kind {
    defaults: |rs| {
        scaled(rs);
        zero_status(rs, &["replicas"]);
    },
    check: |errors, rs| {
        let spec = spec(rs);
        scale(errors, spec);
        selector(errors, spec, "invalid label value");
        template(errors, spec, &["Always"], "ReplicaSet");
    },
    check_update: selector_and_counters,
    ..Kind::SPEC_STATUS
};

/// DaemonSet.
pub static DAEMON_SET: Kind = Kind {
    defaults: |ds| {
        let spec = object(ds, "spec");
        pod_defaults::template(spec);
        let strategy = object(spec, "updateStrategy");
        default(strategy, "type", "RollingUpdate");
        if str_at(strategy, &["type"]) == "RollingUpdate" {
            let rolling = object(strategy, "rollingUpdate");
            default(rolling, "maxUnavailable", 1);
            default(rolling, "maxSurge", 0);
        }
        default(spec, "revisionHistoryLimit", 10);
        zero_status(ds, &["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"]);
    },
    check: |errors, ds| {
        let spec = spec(ds);
        selector(errors, spec, "empty selector is invalid for daemonset");
        template(errors, spec, &["Always"], "DaemonSet");
        required_one_of(
            errors,
            "spec.updateStrategy.type",
            str_at(spec, &["updateStrategy", "type"]),
            &["RollingUpdate", "OnDelete"],
        );
        if let Some(rolling) = at(spec, &["updateStrategy", "rollingUpdate"]) {
            daemon_rolling(errors, rolling);
        }
        non_negative(errors, "spec.minReadySeconds", spec.get("minReadySeconds"));
        non_negative(errors, "spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"));
    },
    check_update: |errors, sub, new, old| {
        selector_fixed(errors, sub, new, old);
        if sub == Some("status") {
            let fields = [
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
            ];
            counters(errors, new, &fields);
        }
    },
    ..Kind::SPEC_STATUS
};

/// StatefulSet.
pub static STATEFUL_SET: Kind = Kind {
    defaults: stateful_defaults,
    check: |errors, ss| {
        let spec = spec(ss);
        scale(errors, spec);
        selector(errors, spec, "empty selector is invalid for statefulset");
        template(errors, spec, &["Always"], "StatefulSet");
        required_one_of(
            errors,
            "spec.podManagementPolicy",
            str_at(spec, &["podManagementPolicy"]),
            &["OrderedReady", "Parallel"],
        );
        required_one_of(
            errors,
            "spec.updateStrategy.type",
            str_at(spec, &["updateStrategy", "type"]),
            &["RollingUpdate", "OnDelete"],
        );
        stateful_rest(errors, spec);
    },
    check_update: stateful_fixed,
    ..Kind::SPEC_STATUS
};

/// ReplicationController.
pub static REPLICATION_CONTROLLER: Kind = Kind {
    defaults: |rc| {
        scaled(rc);
        let labels = at(rc, &["spec", "template", "metadata", "labels"]).cloned();
        if let Some(labels) = labels {
            if map_at(rc, &["spec", "selector"]).is_none_or(serde_json::Map::is_empty) {
                set(&mut rc["spec"], "selector", labels.clone());
            }
            if map_at(rc, &["metadata", "labels"]).is_none_or(serde_json::Map::is_empty) {
                set(&mut rc["metadata"], "labels", labels);
            }
        }
        zero_status(rc, &["replicas"]);
    },
    check: |errors, rc| {
        let spec = spec(rc);
        scale(errors, spec);
        let chosen = map_at(spec, &["selector"]);
        if chosen.is_none_or(serde_json::Map::is_empty) {
            errors.push(FieldError::required("spec.selector", ""));
        } else if let (Some(chosen), Some(labels)) = (chosen, map_at(spec, &["template", "metadata", "labels"]))
            && !chosen.iter().all(|(k, v)| labels.get(k) == Some(v))
        {
            let value = spec["template"]["metadata"]["labels"].clone();
            errors.push(FieldError::invalid(
                "spec.template.metadata.labels",
                value,
                "`selector` does not match template `labels`",
            ));
        }
        template(errors, spec, &["Always"], "ReplicationController");
    },
    fields: |rc| vec![("status.replicas", int_at(rc, &["status", "replicas"]).unwrap_or(0).to_string())],
    ..Kind::SPEC_STATUS
};

/// PodTemplate.
pub static POD_TEMPLATE: Kind = Kind {
    generation: true,
    defaults: pod_defaults::template,
    check: |errors, t| pod_spec(errors, "template.spec", at(t, &["template", "spec"]).unwrap_or(&Value::Null)),
    ..Kind::BASE
};

/// ControllerRevision: the history of a template.
pub static CONTROLLER_REVISION: Kind = Kind {
    check: |errors, r| non_negative(errors, "revision", r.get("revision")),
    check_update: |errors, _, new, old| immutable(errors, "data", new.get("data"), old.get("data")),
    ..Kind::BASE
};

fn spec(obj: &Value) -> &Value {
    at(obj, &["spec"]).unwrap_or(&Value::Null)
}

fn scaled(obj: &mut Value) {
    let spec = object(obj, "spec");
    default(spec, "replicas", 1);
    pod_defaults::template(spec);
}

/// Counters that typed servers always write, zero or not.
pub fn zero_status(obj: &mut Value, fields: &[&str]) {
    let status = object(obj, "status");
    for field in fields {
        default(status, field, 0);
    }
}

fn deployment_defaults(d: &mut Value) {
    scaled(d);
    let spec = object(d, "spec");
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    let strategy = object(spec, "strategy");
    default(strategy, "type", "RollingUpdate");
    if str_at(strategy, &["type"]) == "RollingUpdate" {
        let rolling = object(strategy, "rollingUpdate");
        default(rolling, "maxUnavailable", "25%");
        default(rolling, "maxSurge", "25%");
    }
}

fn check_deployment(errors: &mut Vec<FieldError>, d: &Value) {
    let spec = spec(d);
    scale(errors, spec);
    selector(errors, spec, "empty selector is invalid for deployment");
    template(errors, spec, &["Always"], "Deployment");
    non_negative(errors, "spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"));
    non_negative(errors, "spec.progressDeadlineSeconds", spec.get("progressDeadlineSeconds"));
    let (deadline, ready) =
        (int_at(spec, &["progressDeadlineSeconds"]), int_at(spec, &["minReadySeconds"]).unwrap_or(0));
    if let Some(n) = deadline.filter(|n| *n <= ready) {
        errors.push(FieldError::invalid("spec.progressDeadlineSeconds", n, "must be greater than minReadySeconds"));
    }
    let kind = str_at(spec, &["strategy", "type"]);
    required_one_of(errors, "spec.strategy.type", kind, &["Recreate", "RollingUpdate"]);
    let rolling = at(spec, &["strategy", "rollingUpdate"]);
    match (kind, rolling) {
        ("Recreate", Some(_)) => {
            errors.push(FieldError::forbidden(
                "spec.strategy.rollingUpdate",
                "may not be specified when strategy `type` is 'Recreate'",
            ));
        }
        ("RollingUpdate", Some(r)) => rolling_update(errors, r),
        _ => {}
    }
}

fn rolling_update(errors: &mut Vec<FieldError>, r: &Value) {
    let path = "spec.strategy.rollingUpdate";
    for field in ["maxUnavailable", "maxSurge"] {
        int_or_percent(errors, &format!("{path}.{field}"), r.get(field));
    }
    at_most_all(errors, &format!("{path}.maxUnavailable"), r.get("maxUnavailable"));
    let zero = |v: &Value| v == 0 || v == "0%";
    if zero(&r["maxUnavailable"]) && zero(&r["maxSurge"]) {
        errors.push(FieldError::invalid(
            format!("{path}.maxUnavailable"),
            r["maxUnavailable"].clone(),
            "may not be 0 when `maxSurge` is 0",
        ));
    }
}

/// Counters in a status; none is negative.
fn counters(errors: &mut Vec<FieldError>, new: &Value, fields: &[&str]) {
    for field in fields {
        non_negative(errors, &format!("status.{field}"), at(new, &["status", field]));
    }
}

/// As [`counters`], and no part is larger than all replicas.
fn replica_counters(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value) {
    if sub != Some("status") {
        return;
    }
    let fields = ["replicas", "fullyLabeledReplicas", "updatedReplicas", "readyReplicas", "availableReplicas"];
    counters(errors, new, &fields);
    counters(errors, new, &["unavailableReplicas", "observedGeneration"]);
    let count = |field: &str| int_at(new, &["status", field]).unwrap_or(0);
    for field in &fields[1..] {
        if count(field) > count("replicas") {
            let path = format!("status.{field}");
            errors.push(FieldError::invalid(path, count(field), "cannot be greater than status.replicas"));
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        let detail = "cannot be greater than readyReplicas";
        errors.push(FieldError::invalid("status.availableReplicas", count("availableReplicas"), detail));
    }
}

fn selector_and_counters(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    selector_fixed(errors, sub, new, old);
    replica_counters(errors, sub, new);
}

fn daemon_rolling(errors: &mut Vec<FieldError>, r: &Value) {
    let path = "spec.updateStrategy.rollingUpdate";
    for field in ["maxUnavailable", "maxSurge"] {
        int_or_percent(errors, &format!("{path}.{field}"), r.get(field));
        at_most_all(errors, &format!("{path}.{field}"), r.get(field));
    }
    let some = |v: &Value| !v.is_null() && v != 0 && v != "0%";
    match (some(&r["maxUnavailable"]), some(&r["maxSurge"])) {
        (true, true) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.push(FieldError::invalid(format!("{path}.maxSurge"), r["maxSurge"].clone(), detail));
        }
        (false, false) => {
            errors.push(FieldError::required(format!("{path}.maxUnavailable"), "cannot be 0 when maxSurge is 0"));
        }
        _ => {}
    }
}

fn scale(errors: &mut Vec<FieldError>, spec: &Value) {
    non_negative(errors, "spec.replicas", spec.get("replicas"));
    non_negative(errors, "spec.minReadySeconds", spec.get("minReadySeconds"));
}

fn selector(errors: &mut Vec<FieldError>, spec: &Value, empty: &str) {
    let Some(chosen) = at(spec, &["selector"]) else {
        errors.push(FieldError::required("spec.selector", ""));
        return;
    };
    let before = errors.len();
    label_selector(errors, "spec.selector", chosen);
    if map_at(chosen, &["matchLabels"]).is_none_or(serde_json::Map::is_empty)
        && items(chosen, &["matchExpressions"]).is_empty()
    {
        errors.push(FieldError::invalid("spec.selector", chosen.clone(), empty));
    }
    if errors.len() > before {
        return;
    }
    let own = map_at(spec, &["template", "metadata", "labels"]);
    if LabelSelector::from_object(chosen).is_ok_and(|s| !s.matches(own)) {
        let value = at(spec, &["template", "metadata", "labels"]).cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(
            "spec.template.metadata.labels",
            value,
            "`selector` does not match template `labels`",
        ));
    }
}

/// The template of a workload whose pods may restart only in these ways.
pub fn template(errors: &mut Vec<FieldError>, spec: &Value, restart: &[&str], kind: &str) {
    template_at(errors, "spec.template", spec, restart, kind);
}

/// As [`template`], wherever it stands.
pub fn template_at(errors: &mut Vec<FieldError>, path: &str, spec: &Value, restart: &[&str], kind: &str) {
    labels(errors, &format!("{path}.labels"), at(spec, &["template", "metadata", "labels"]));
    let pod = at(spec, &["template", "spec"]).unwrap_or(&Value::Null);
    let path = format!("{path}.spec");
    pod_spec(errors, &path, pod);
    one_of(errors, &format!("{path}.restartPolicy"), str_at(pod, &["restartPolicy"]), restart);
    if kind != "Job" && has(pod, "activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(format!("{path}.activeDeadlineSeconds"), detail));
    }
    if !items(pod, &["ephemeralContainers"]).is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(format!("{path}.ephemeralContainers"), detail));
    }
}

fn selector_fixed(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    if sub.is_none() {
        immutable(errors, "spec.selector", at(new, &["spec", "selector"]), at(old, &["spec", "selector"]));
    }
}

fn stateful_defaults(ss: &mut Value) {
    scaled(ss);
    let spec = object(ss, "spec");
    default(spec, "podManagementPolicy", "OrderedReady");
    default(spec, "revisionHistoryLimit", 10);
    let strategy = object(spec, "updateStrategy");
    default(strategy, "type", "RollingUpdate");
    if str_at(strategy, &["type"]) == "RollingUpdate" {
        default(object(strategy, "rollingUpdate"), "partition", 0);
    }
    let policy = object(spec, "persistentVolumeClaimRetentionPolicy");
    default(policy, "whenDeleted", "Retain");
    default(policy, "whenScaled", "Retain");
    claim_templates(spec);
    zero_status(ss, &["replicas", "availableReplicas"]);
}

fn stateful_rest(errors: &mut Vec<FieldError>, spec: &Value) {
    let rolling = ["updateStrategy", "rollingUpdate"];
    if str_at(spec, &["updateStrategy", "type"]) == "OnDelete" && at(spec, &rolling).is_some() {
        let detail = "only allowed for updateStrategy 'RollingUpdate'";
        let value = at(spec, &rolling).cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid("spec.updateStrategy.rollingUpdate", value, detail));
    }
    let path = "spec.updateStrategy.rollingUpdate";
    non_negative(errors, &format!("{path}.partition"), at(spec, &["updateStrategy", "rollingUpdate", "partition"]));
    let most = at(spec, &["updateStrategy", "rollingUpdate", "maxUnavailable"]);
    int_or_percent(errors, &format!("{path}.maxUnavailable"), most);
    at_most_all(errors, &format!("{path}.maxUnavailable"), most);
    non_negative(errors, "spec.ordinals.start", at(spec, &["ordinals", "start"]));
    non_negative(errors, "spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"));
    optional_named(errors, "spec.serviceName", str_at(spec, &["serviceName"]), dns_label);
    for field in ["whenDeleted", "whenScaled"] {
        let policy = str_at(spec, &["persistentVolumeClaimRetentionPolicy", field]);
        let path = format!("spec.persistentVolumeClaimRetentionPolicy.{field}");
        one_of(errors, &path, policy, &["Delete", "Retain"]);
    }
    for (i, claim) in items(spec, &["volumeClaimTemplates"]).iter().enumerate() {
        let path = format!("spec.volumeClaimTemplates[{i}]");
        super::volume::claim_spec(errors, &format!("{path}.spec"), at(claim, &["spec"]).unwrap_or(&Value::Null));
    }
}

const STATEFUL_MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn stateful_fixed(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    if sub == Some("status") {
        let fields = ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
        counters(errors, new, &fields);
        let count = |field: &str| int_at(new, &["status", field]).unwrap_or(0);
        for field in fields[1..].iter().filter(|f| count(f) > count("replicas")) {
            let detail = "cannot be greater than status.replicas";
            errors.push(FieldError::invalid(format!("status.{field}"), count(field), detail));
        }
    }
    if sub.is_some() {
        return;
    }
    let mut rest = new["spec"].clone();
    for field in STATEFUL_MUTABLE {
        keep(&mut rest, &old["spec"], field);
    }
    if !same(Some(&rest), old.get("spec")) {
        errors.push(FieldError::forbidden("spec", "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"));
    }
}

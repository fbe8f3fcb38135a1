//! Workloads that keep a number of pods: Deployment, ReplicaSet, DaemonSet, StatefulSet, ReplicationController, and their helpers.

use apimachinery::intstr::percent;
use apimachinery::selector::LabelSelector;
use serde_json::Value;

use super::checks::{immutable, label_selector, labels, non_negative, one_of, required_one_of};
use super::kind::Kind;
use super::pod_checks::pod_spec;
use super::pod_defaults;
use super::tree::{at, default, has, int_at, items, keep, map_at, object, same, set, str_at};
use super::volume::claim_templates;
use crate::errors::FieldError;

/// Deployment.
pub static DEPLOYMENT: Kind =
    Kind { defaults: deployment_defaults, check: check_deployment, check_update: selector_fixed, ..Kind::SPEC_STATUS };

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
    check_update: selector_fixed,
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
        non_negative(errors, "spec.minReadySeconds", spec.get("minReadySeconds"));
        non_negative(errors, "spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"));
    },
    check_update: selector_fixed,
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
        let value = &r[field];
        let path = format!("{path}.{field}");
        match value {
            Value::Number(_) => non_negative(errors, &path, Some(value)),
            Value::String(s) => match percent(value) {
                Ok(n) if field == "maxUnavailable" && n > 100 => {
                    errors.push(FieldError::invalid(path, s.as_str(), "must not be greater than 100%"))
                }
                Ok(_) => {}
                Err(_) => {
                    errors.push(FieldError::invalid(path, s.as_str(), "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"));
                }
            },
            _ => {}
        }
    }
    let zero = |v: &Value| v == 0 || v == "0%";
    if zero(&r["maxUnavailable"]) && zero(&r["maxSurge"]) {
        errors.push(FieldError::invalid(
            format!("{path}.maxUnavailable"),
            r["maxUnavailable"].clone(),
            "may not be 0 when `maxSurge` is 0",
        ));
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
    labels(errors, "spec.template.labels", at(spec, &["template", "metadata", "labels"]));
    let pod = at(spec, &["template", "spec"]).unwrap_or(&Value::Null);
    pod_spec(errors, "spec.template.spec", pod);
    one_of(errors, "spec.template.spec.restartPolicy", str_at(pod, &["restartPolicy"]), restart);
    if kind != "Job" && has(pod, "activeDeadlineSeconds") {
        errors.push(FieldError::forbidden(
            "spec.template.spec.activeDeadlineSeconds",
            format!("activeDeadlineSeconds in {kind} is not Supported"),
        ));
    }
    if !items(pod, &["ephemeralContainers"]).is_empty() {
        errors.push(FieldError::forbidden(
            "spec.template.spec.ephemeralContainers",
            "ephemeral containers not allowed in pod template",
        ));
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

//! Workloads that keep a number of pods: Deployment, ReplicaSet, DaemonSet, StatefulSet, ReplicationController, and their helpers.

use apimachinery::selector::LabelSelector;
use serde_json::Value;

use super::checks::{
    at_most_all, dns_label, immutable, int_or_percent, label_selector, labels, non_negative, one_of, optional_named,
};
use super::kind::Kind;
use super::pod_checks::pod_spec;
use super::tree::{at, default, has, int_at, items, keep, map_at, object, same, set, str_at};
use super::volume::claim_templates;
use super::{pod_annotations, pod_defaults};
use crate::errors::FieldError;

/// Deployment.
pub static DEPLOYMENT: Kind = Kind {
    defaults: deployment_defaults,
    check: check_deployment,
    check_update: selector_and_counters,
    status_leaves: &["ownerReferences", "labels"],
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
        selector(errors, spec, "empty selector is invalid for deployment");
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
    create: |_, ds| {
        let wanted = template_generation(ds).filter(|n| *n > 0).unwrap_or(1);
        set_template_generation(ds, wanted);
        Ok(())
    },
    update: |_, _, new, old| {
        let step = i64::from(!same(at(new, &["spec", "template"]), at(old, &["spec", "template"])));
        set_template_generation(new, template_generation(old).unwrap_or(1) + step);
        Ok(())
    },
    check: |errors, ds| {
        let spec = spec(ds);
        daemon_selector(errors, spec);
        template(errors, spec, &["Always"], "DaemonSet");
        let strategy = at(spec, &["updateStrategy"]).unwrap_or(&Value::Null);
        match (str_at(strategy, &["type"]), at(strategy, &["rollingUpdate"])) {
            ("OnDelete", _) => {}
            ("RollingUpdate", Some(rolling)) => daemon_rolling(errors, rolling),
            ("RollingUpdate", None) => errors.push(FieldError::required("spec.updateStrategy.rollingUpdate", "")),
            _ => {
                let known = ["RollingUpdate", "OnDelete"];
                errors.push(FieldError::not_supported("spec.updateStrategy", strategy.clone(), &known));
            }
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
                "collisionCount",
            ];
            counters(errors, new, &fields);
            collisions(errors, new, old);
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
        template(errors, &stateful_template(spec), &["Always"], "StatefulSet");
        stateful_rest(errors, spec);
    },
    check_create: stateful_new,
    check_update: stateful_fixed,
    // Pods are named after their set, and a pod's name is a label of its own domain name.
    names: dns_label,
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
    check_update: |errors, sub, new, _| replica_counters(errors, sub, new),
    fields: |rc| vec![("status.replicas", int_at(rc, &["status", "replicas"]).unwrap_or(0).to_string())],
    ..Kind::SPEC_STATUS
};

/// PodTemplate.
pub static POD_TEMPLATE: Kind = Kind {
    generation: true,
    defaults: pod_defaults::template,
    check: |errors, t| template_itself(errors, "template", at(t, &["template"]).unwrap_or(&Value::Null)),
    ..Kind::BASE
};

/// ControllerRevision: the history of a template.
pub static CONTROLLER_REVISION: Kind = Kind {
    check: |errors, r| non_negative(errors, "revision", r.get("revision")),
    check_create: |errors, r| match r.get("data") {
        None | Some(Value::Null) => errors.push(FieldError::required("data", "data is mandatory")),
        Some(Value::Object(_)) => {}
        Some(_) => errors.push(FieldError::required("data", "data must be a valid JSON object")),
    },
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
    let strategy = at(spec, &["strategy"]).unwrap_or(&Value::Null);
    match (str_at(strategy, &["type"]), at(strategy, &["rollingUpdate"])) {
        ("Recreate", None) => {}
        ("Recreate", Some(_)) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", detail));
        }
        ("RollingUpdate", Some(r)) => rolling_update(errors, r),
        ("RollingUpdate", None) => {
            let detail = "this should be defaulted and never be nil";
            errors.push(FieldError::required("spec.strategy.rollingUpdate", detail));
        }
        _ => {
            let known = ["Recreate", "RollingUpdate"];
            errors.push(FieldError::not_supported("spec.strategy", strategy.clone(), &known));
        }
    }
}

fn rolling_update(errors: &mut Vec<FieldError>, r: &Value) {
    let path = "spec.strategy.rollingUpdate";
    for field in ["maxUnavailable", "maxSurge"] {
        int_or_percent(errors, &format!("{path}.{field}"), r.get(field));
    }
    at_most_all(errors, &format!("{path}.maxUnavailable"), r.get("maxUnavailable"));
    let zero = |v: &Value| v.is_null() || v == 0 || v == "0%";
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
    if sub == Some("status") {
        counters(errors, new, &["terminatingReplicas", "collisionCount"]);
        collisions(errors, new, old);
    }
}

/// Names that collided are counted, never forgotten.
fn collisions(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    let count = |v: &Value| int_at(v, &["status", "collisionCount"]);
    let Some(before) = count(old) else { return };
    if count(new).is_none_or(|now| now < before) {
        let now = count(new).unwrap_or(0);
        errors.push(FieldError::invalid("status.collisionCount", now, "cannot be decremented"));
    }
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

/// Counts the changes of a DaemonSet's template; apps/v1 keeps in an annotation what was once a field.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(ds: &Value) -> Option<i64> {
    str_at(ds, &["metadata", "annotations", TEMPLATE_GENERATION]).parse().ok()
}

fn set_template_generation(ds: &mut Value, generation: i64) {
    let annotations = object(object(ds, "metadata"), "annotations");
    set(annotations, TEMPLATE_GENERATION, generation.to_string());
}

/// A DaemonSet's selector; one that is missing only matches nothing.
fn daemon_selector(errors: &mut Vec<FieldError>, spec: &Value) {
    if at(spec, &["selector"]).is_some() {
        selector(errors, spec, "empty selector is invalid for daemonset");
    } else {
        mismatch(errors, spec);
    }
}

fn mismatch(errors: &mut Vec<FieldError>, spec: &Value) {
    let value = at(spec, &["template", "metadata", "labels"]).cloned().unwrap_or(Value::Null);
    let detail = "`selector` does not match template `labels`";
    errors.push(FieldError::invalid("spec.template.metadata.labels", value, detail));
}

fn selector(errors: &mut Vec<FieldError>, spec: &Value, empty: &str) {
    let Some(chosen) = at(spec, &["selector"]) else {
        errors.push(FieldError::required("spec.selector", ""));
        return;
    };
    let before = errors.len();
    label_selector(errors, "spec.selector", chosen);
    let wrong = errors.len() > before;
    if map_at(chosen, &["matchLabels"]).is_none_or(serde_json::Map::is_empty)
        && items(chosen, &["matchExpressions"]).is_empty()
    {
        errors.push(FieldError::invalid("spec.selector", chosen.clone(), empty));
    }
    match LabelSelector::from_object(chosen) {
        Ok(s) if !s.matches(map_at(spec, &["template", "metadata", "labels"])) => mismatch(errors, spec),
        Err(_) if wrong => errors.push(FieldError::invalid("spec.selector", chosen.clone(), "invalid label selector")),
        _ => {}
    }
}

/// The template of a workload whose pods may restart only in these ways.
pub fn template(errors: &mut Vec<FieldError>, spec: &Value, restart: &[&str], kind: &str) {
    template_at(errors, "spec.template", spec, restart, kind);
}

/// A template as such, whoever makes pods of it.
pub fn template_itself(errors: &mut Vec<FieldError>, path: &str, template: &Value) {
    let (metadata, pod) = (&template["metadata"], at(template, &["spec"]).unwrap_or(&Value::Null));
    labels(errors, &format!("{path}.labels"), metadata.get("labels"));
    super::checks::annotations(errors, &format!("{path}.annotations"), metadata.get("annotations"));
    pod_annotations::check(errors, &format!("{path}.annotations"), metadata, pod);
    let path = format!("{path}.spec");
    pod_spec(errors, &path, pod, None);
    pod_annotations::agree(errors, &path, metadata, pod);
    if !items(pod, &["ephemeralContainers"]).is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(format!("{path}.ephemeralContainers"), detail));
    }
}

/// As [`template`], wherever it stands.
pub fn template_at(errors: &mut Vec<FieldError>, path: &str, spec: &Value, restart: &[&str], kind: &str) {
    let template = at(spec, &["template"]).unwrap_or(&Value::Null);
    template_itself(errors, path, template);
    let path = format!("{path}.spec");
    one_of(errors, &format!("{path}.restartPolicy"), str_at(template, &["spec", "restartPolicy"]), restart);
    if has(&template["spec"], "activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(format!("{path}.activeDeadlineSeconds"), detail));
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

/// The template as the set's pods will be made of it: claims become volumes, and names are the set's to give.
fn stateful_template(spec: &Value) -> Value {
    let mut out = serde_json::json!({"template": spec["template"]});
    let Some(pod) = out.pointer_mut("/template/spec").filter(|p| p.is_object()) else { return out };
    for field in ["subdomain", "hostname"] {
        super::tree::remove(pod, field);
    }
    let claims: Vec<&str> =
        items(spec, &["volumeClaimTemplates"]).iter().map(|c| str_at(c, &["metadata", "name"])).collect();
    if !claims.is_empty() {
        let made =
            claims.iter().map(|name| serde_json::json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        let own = items(pod, &["volumes"]).iter().filter(|v| !claims.contains(&str_at(v, &["name"]))).cloned();
        let volumes: Vec<Value> = made.chain(own).collect();
        set(pod, "volumes", volumes);
    }
    out
}

fn stateful_rest(errors: &mut Vec<FieldError>, spec: &Value) {
    match str_at(spec, &["podManagementPolicy"]) {
        "" => errors.push(FieldError::required("spec.podManagementPolicy", "")),
        "OrderedReady" | "Parallel" => {}
        other => {
            let detail = "must be 'OrderedReady' or 'Parallel'";
            errors.push(FieldError::invalid("spec.podManagementPolicy", other, detail));
        }
    }
    let strategy = at(spec, &["updateStrategy"]).unwrap_or(&Value::Null);
    let path = "spec.updateStrategy.rollingUpdate";
    match (str_at(strategy, &["type"]), at(strategy, &["rollingUpdate"])) {
        ("", _) => errors.push(FieldError::required("spec.updateStrategy", "")),
        ("OnDelete" | "RollingUpdate", None) => {}
        ("OnDelete", Some(rolling)) => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(FieldError::invalid(path, rolling.clone(), detail));
        }
        ("RollingUpdate", Some(rolling)) => {
            non_negative(errors, &format!("{path}.partition"), rolling.get("partition"));
            if let Some(most) = at(rolling, &["maxUnavailable"]) {
                let path = format!("{path}.maxUnavailable");
                int_or_percent(errors, &path, Some(most));
                if most == 0 || most == "0%" {
                    errors.push(FieldError::invalid(path.clone(), most.clone(), "cannot be 0"));
                }
                at_most_all(errors, &path, Some(most));
            }
        }
        _ => {
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::invalid("spec.updateStrategy", strategy.clone(), detail));
        }
    }
    non_negative(errors, "spec.ordinals.start", at(spec, &["ordinals", "start"]));
    for field in ["whenDeleted", "whenScaled"] {
        let policy = str_at(spec, &["persistentVolumeClaimRetentionPolicy", field]);
        let path = format!("spec.persistentVolumeClaimRetentionPolicy.{field}");
        one_of(errors, &path, policy, &["Retain", "Delete"]);
    }
}

/// What is only judged when a set is made, as it can never be changed.
fn stateful_new(errors: &mut Vec<FieldError>, ss: &Value) {
    let spec = spec(ss);
    optional_named(errors, "spec.serviceName", str_at(spec, &["serviceName"]), dns_label);
    for (i, claim) in items(spec, &["volumeClaimTemplates"]).iter().enumerate() {
        let path = format!("spec.volumeClaimTemplates[{i}].spec");
        super::volume::claim_spec(errors, &path, at(claim, &["spec"]).unwrap_or(&Value::Null));
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
        counters(errors, new, &["observedGeneration", "collisionCount"]);
        collisions(errors, new, old);
        let count = |field: &str| int_at(new, &["status", field]).unwrap_or(0);
        for field in fields[1..].iter().filter(|f| count(f) > count("replicas")) {
            let detail = "cannot be greater than status.replicas";
            errors.push(FieldError::invalid(format!("status.{field}"), count(field), detail));
        }
        if count("availableReplicas") > count("readyReplicas") {
            let detail = "cannot be greater than status.readyReplicas";
            errors.push(FieldError::invalid("status.availableReplicas", count("availableReplicas"), detail));
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

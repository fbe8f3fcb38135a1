//! HorizontalPodAutoscaler. It is stored as autoscaling/v2; v1 knows one metric only and keeps the rest in annotations.

use serde_json::{Value, json};

use super::autoscaling_notes::{self, List};
use super::checks::{dns_label, named, non_negative, one_of, optional_one_of, path_segment, required_named};
use super::kind::Kind;
use super::tree::{at, default, has, int_at, items, object, remove, set, str_at, within};
use super::workload::zero_status;
use crate::admission::pod_resources::quantity;
use crate::errors::FieldError;

/// The older version.
pub static AUTOSCALER_V1: Kind = Kind {
    defaults: |h| {
        default(object(h, "spec"), "minReplicas", 1);
        zero_status(h, &["currentReplicas", "desiredReplicas"]);
    },
    check: |errors, h| {
        let mut newer = h.clone();
        to_v2(&mut newer);
        check(errors, &newer);
    },
    check_update,
    stored: |h| {
        let mut newer = h.clone();
        to_v2(&mut newer);
        Some(newer)
    },
    completed: defaults_v2,
    served: to_v1,
    generation: false,
    ..Kind::SPEC_STATUS
};

/// The stored version.
pub static AUTOSCALER_V2: Kind =
    Kind { defaults: defaults_v2, check, check_update, generation: false, ..Kind::SPEC_STATUS };

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// What is measured if nothing is said, percent of the CPU requests.
const CPU_TARGET: i64 = 80;

fn cpu(percent: i64) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn defaults_v2(h: &mut Value) {
    zero_status(h, &["desiredReplicas"]);
    let spec = object(h, "spec");
    default(spec, "minReplicas", 1);
    if items(spec, &["metrics"]).is_empty() {
        set(spec, "metrics", json!([cpu(CPU_TARGET)]));
    }
    within(spec, "behavior", |b| {
        let up = object(b, "scaleUp");
        default(up, "stabilizationWindowSeconds", 0);
        default(up, "selectPolicy", "Max");
        if items(up, &["policies"]).is_empty() {
            set(
                up,
                "policies",
                json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]),
            );
        }
        let down = object(b, "scaleDown");
        default(down, "selectPolicy", "Max");
        if items(down, &["policies"]).is_empty() {
            set(down, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
        }
    });
}

fn is_plain_cpu(metric: &Value) -> bool {
    str_at(metric, &["type"]) == "Resource"
        && str_at(metric, &["resource", "name"]) == "cpu"
        && int_at(metric, &["resource", "target", "averageUtilization"]).is_some()
}

/// The stored version as autoscaling/v1 shows it.
pub fn to_v1(h: &mut Value) {
    let metrics = items(h, &["spec", "metrics"]).to_vec();
    let plain = metrics.iter().position(is_plain_cpu);
    let others: Vec<Value> =
        metrics.iter().enumerate().filter(|(i, _)| Some(*i) != plain).map(|(_, m)| m.clone()).collect();
    if let Some(n) = plain.and_then(|i| int_at(&metrics[i], &["resource", "target", "averageUtilization"])) {
        set(&mut h["spec"], "targetCPUUtilizationPercentage", n);
    }
    let behavior = h.get_mut("spec").and_then(|s| remove(s, "behavior"));
    if let Some(spec) = h.get_mut("spec") {
        remove(spec, "metrics");
    }
    let current = items(h, &["status", "currentMetrics"]).to_vec();
    let used = current.iter().find(|m| str_at(m, &["resource", "name"]) == "cpu");
    if let Some(n) = used.and_then(|m| int_at(m, &["resource", "current", "averageUtilization"])) {
        set(object(h, "status"), "currentCPUUtilizationPercentage", n);
    }
    let conditions = at(h, &["status", "conditions"]).cloned();
    within(h, "status", |s| {
        remove(s, "currentMetrics");
        remove(s, "conditions");
        default(s, "currentReplicas", 0);
    });
    let noted = |metrics: &[Value], list| -> Option<Value> {
        let written = metrics.iter().map(|m| autoscaling_notes::to_v1(m, list)).collect();
        (!metrics.is_empty()).then_some(Value::Array(written))
    };
    let notes = [
        (METRICS, noted(&others, List::Wanted)),
        (CURRENT_METRICS, noted(&current, List::Current)),
        (CONDITIONS, conditions),
        (BEHAVIOR, behavior.filter(|b| !b.is_null())),
    ];
    for (name, value) in notes {
        if let Some(value) = value {
            set(object(object(h, "metadata"), "annotations"), name, value.to_string());
        }
    }
    set(h, "apiVersion", "autoscaling/v1");
}

/// An autoscaling/v1 object as it is stored.
pub fn to_v2(h: &mut Value) {
    let mut take = |name: &str| -> Option<Value> {
        let text = remove(h.pointer_mut("/metadata/annotations")?, name)?;
        serde_json::from_str(text.as_str()?).ok()
    };
    let (metrics, current, conditions, behavior) =
        (take(METRICS), take(CURRENT_METRICS), take(CONDITIONS), take(BEHAVIOR));
    if h.pointer("/metadata/annotations").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
        remove(&mut h["metadata"], "annotations");
    }
    let spec = object(h, "spec");
    let percent = remove(spec, "targetCPUUtilizationPercentage").and_then(|v| v.as_i64());
    let mut list: Vec<Value> = percent.map(cpu).into_iter().collect();
    let newer = |noted: &Value, list| -> Vec<Value> {
        noted.as_array().into_iter().flatten().map(|m| autoscaling_notes::to_v2(m, list)).collect()
    };
    list.extend(metrics.iter().flat_map(|noted| newer(noted, List::Wanted)));
    if !list.is_empty() {
        set(spec, "metrics", list);
    }
    if let Some(b) = behavior {
        set(spec, "behavior", b);
    }
    let status = object(h, "status");
    let percent = remove(status, "currentCPUUtilizationPercentage").and_then(|v| v.as_i64());
    match (current, percent) {
        (Some(noted), _) => set(status, "currentMetrics", newer(&noted, List::Current)),
        (None, Some(n)) => set(
            status,
            "currentMetrics",
            json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": n}}}]),
        ),
        _ => {}
    }
    if let Some(list) = conditions {
        set(status, "conditions", list);
    }
    set(h, "apiVersion", "autoscaling/v2");
}

fn check_update(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, _: &Value) {
    if sub == Some("status") {
        for field in ["currentReplicas", "desiredReplicas"] {
            non_negative(errors, &format!("status.{field}"), at(new, &["status", field]));
        }
    }
}

fn check(errors: &mut Vec<FieldError>, h: &Value) {
    let spec = at(h, &["spec"]).unwrap_or(&Value::Null);
    let (min, max) = (int_at(spec, &["minReplicas"]).unwrap_or(1), int_at(spec, &["maxReplicas"]).unwrap_or(0));
    if min < 1 {
        errors.push(FieldError::invalid("spec.minReplicas", min, "must be greater than or equal to 1"));
    }
    if max < 1 {
        errors.push(FieldError::invalid("spec.maxReplicas", max, "must be greater than 0"));
    }
    if max < min {
        errors.push(FieldError::invalid("spec.maxReplicas", max, "must be greater than or equal to `minReplicas`"));
    }
    reference(errors, "spec.scaleTargetRef", at(spec, &["scaleTargetRef"]).unwrap_or(&Value::Null));
    for (i, m) in items(spec, &["metrics"]).iter().enumerate() {
        metric(errors, &format!("spec.metrics[{i}]"), m);
    }
    for side in ["scaleUp", "scaleDown"] {
        if let Some(rules) = at(spec, &["behavior", side]) {
            scaling(errors, &format!("spec.behavior.{side}"), rules);
        }
    }
}

fn reference(errors: &mut Vec<FieldError>, path: &str, r: &Value) {
    for field in ["kind", "name"] {
        required_named(errors, &format!("{path}.{field}"), str_at(r, &[field]), path_segment);
    }
}

const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

fn metric(errors: &mut Vec<FieldError>, path: &str, m: &Value) {
    let kind = str_at(m, &["type"]);
    let known = SOURCES.map(|(k, _)| k);
    if kind.is_empty() {
        errors.push(FieldError::required(format!("{path}.type"), "must specify a metric source type"));
    }
    one_of(errors, &format!("{path}.type"), kind, &known);
    // Only the first of several is judged, in the order in which the kinds came to be.
    let mut given = ["object", "external", "pods", "resource", "containerResource"].into_iter().filter(|f| has(m, f));
    let first = given.next();
    if let Some(field) = first {
        metric_source(errors, &format!("{path}.{field}"), field, &m[field]);
    }
    let expected = SOURCES.iter().find(|(k, _)| *k == kind).map(|(_, f)| *f);
    match expected {
        Some(field) if !has(m, field) => {
            let detail = "must populate information for the given metric source";
            errors.push(FieldError::required(format!("{path}.{field}"), detail));
        }
        Some(_) => {}
        None => one_of(errors, &format!("{path}.type"), kind, &known),
    }
    let rest: Vec<&str> = given.collect();
    if !rest.is_empty() {
        for extra in first.into_iter().chain(rest).filter(|f| Some(*f) != expected) {
            let detail = "must populate the given metric source only";
            errors.push(FieldError::forbidden(format!("{path}.{extra}"), detail));
        }
    }
}

fn metric_source(errors: &mut Vec<FieldError>, path: &str, field: &str, source: &Value) {
    let name = str_at(source, &["name"]);
    match field {
        "resource" | "containerResource" => {
            if name.is_empty() {
                errors.push(FieldError::required(format!("{path}.name"), "must specify a resource name"));
            } else if field == "containerResource" {
                super::container_checks::resource_name(errors, &format!("{path}.name"), name);
            }
            if field == "containerResource" {
                match str_at(source, &["container"]) {
                    "" => errors.push(FieldError::required(format!("{path}.container"), "must specify a container")),
                    name => named(errors, &format!("{path}.container"), name, dns_label),
                }
            }
        }
        other => {
            if other == "object" {
                let about = at(source, &["describedObject"]).unwrap_or(&Value::Null);
                reference(errors, &format!("{path}.describedObject"), about);
            }
            let (path, name) = (format!("{path}.metric.name"), str_at(source, &["metric", "name"]));
            if name.is_empty() {
                errors.push(FieldError::required(path, "must specify a metric name"));
            } else {
                named(errors, &path, name, path_segment);
            }
        }
    }
    target(errors, &format!("{path}.target"), at(source, &["target"]).unwrap_or(&Value::Null), field);
}

fn target(errors: &mut Vec<FieldError>, path: &str, t: &Value, source: &str) {
    let kind = str_at(t, &["type"]);
    if kind.is_empty() {
        errors.push(FieldError::required(format!("{path}.type"), "must specify a metric target type"));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind) {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(format!("{path}.type"), kind, detail));
    }
    for field in ["value", "averageValue"] {
        if let Some(q) = at(t, &[field]).and_then(quantity).filter(|q| q.sign() <= 0) {
            errors.push(FieldError::invalid(format!("{path}.{field}"), q.to_string(), "must be positive"));
        }
    }
    if let Some(n) = int_at(t, &["averageUtilization"]).filter(|n| *n < 1) {
        errors.push(FieldError::invalid(format!("{path}.averageUtilization"), n, "must be greater than 0"));
    }
    let (value, average, share) = (has(t, "value"), has(t, "averageValue"), has(t, "averageUtilization"));
    let (field, detail, missing) = match source {
        "resource" | "containerResource" if !share && !average => {
            ("averageUtilization", "must set either a target raw value or a target utilization", true)
        }
        "resource" | "containerResource" if share && average => {
            ("averageValue", "may not set both a target raw value and a target utilization", false)
        }
        "pods" if !average => ("averageValue", "must specify a positive target averageValue", true),
        "object" if !value && !average => ("averageValue", "must set either a target value or averageValue", true),
        "external" if !value && !average => {
            ("averageValue", "must set either a target value for metric or a per-pod target", true)
        }
        "external" if value && average => {
            ("value", "may not set both a target value for metric and a per-pod target", false)
        }
        _ => return,
    };
    let path = format!("{path}.{field}");
    errors.push(if missing { FieldError::required(path, detail) } else { FieldError::forbidden(path, detail) });
}

/// The longest a decision may be held back, and the longest a policy may look back, seconds.
const WINDOW_MAX: i64 = 3600;
const PERIOD_MAX: i64 = 1800;

fn scaling(errors: &mut Vec<FieldError>, path: &str, rules: &Value) {
    if let Some(n) = int_at(rules, &["stabilizationWindowSeconds"]) {
        let path = format!("{path}.stabilizationWindowSeconds");
        if n < 0 {
            errors.push(FieldError::invalid(path, n, "must be greater than or equal to zero"));
        } else if n > WINDOW_MAX {
            errors.push(FieldError::invalid(path, n, format!("must be less than or equal to {WINDOW_MAX}")));
        }
    }
    let select = str_at(rules, &["selectPolicy"]);
    optional_one_of(errors, &format!("{path}.selectPolicy"), select, &["Disabled", "Max", "Min"]);
    if items(rules, &["policies"]).is_empty() {
        errors.push(FieldError::required(format!("{path}.policies"), "must specify at least one Policy"));
    }
    if let Some(q) = at(rules, &["tolerance"]).and_then(quantity).filter(|q| q.sign() < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(format!("{path}.tolerance"), q.to_string(), detail));
    }
    for (i, p) in items(rules, &["policies"]).iter().enumerate() {
        let path = format!("{path}.policies[{i}]");
        one_of(errors, &format!("{path}.type"), str_at(p, &["type"]), &["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            let n = int_at(p, &[field]).unwrap_or(0);
            if n <= 0 {
                errors.push(FieldError::invalid(format!("{path}.{field}"), n, "must be greater than zero"));
            }
        }
        if let Some(n) = int_at(p, &["periodSeconds"]).filter(|n| *n > PERIOD_MAX) {
            let detail = format!("must be less than or equal to {PERIOD_MAX}");
            errors.push(FieldError::invalid(format!("{path}.periodSeconds"), n, detail));
        }
    }
}

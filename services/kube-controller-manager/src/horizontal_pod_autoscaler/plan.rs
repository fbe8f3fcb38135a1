//! What an autoscaler makes of its metrics, and what it says about itself. Pure.

use apimachinery::quantity::Quantity;
use apimachinery::{meta, time};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::behavior::{History, Limited};
use super::replicas::{Goal, Proposal};
use crate::object;

/// One metric: what it proposes and what it shows, or why it says nothing.
pub(super) type Outcome = Result<(Proposal, Value), Failure>;

/// A metric that says nothing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) reason: &'static str,
    pub(super) why: String,
    /// What could not be had, as in `failed to get cpu resource metric value`.
    pub(super) what: String,
}

/// What to do, and what to say.
#[derive(Debug, PartialEq)]
pub(super) struct Decision {
    /// The new size, and why.
    pub(super) rescale: Option<(i64, String)>,
    pub(super) desired: i64,
    pub(super) conditions: Vec<Value>,
    pub(super) shown: Vec<Value>,
    /// Warnings: reason and message.
    pub(super) warnings: Vec<(&'static str, String)>,
}

pub(super) fn bounds(hpa: &Value) -> (i64, i64) {
    let least = object::int(hpa, "/spec/minReplicas").unwrap_or(1);
    (least, object::int(hpa, "/spec/maxReplicas").unwrap_or(least.max(1)))
}

/// Whether the size can be decided without asking for metrics.
pub(super) fn is_out_of_bounds(hpa: &Value, current: i64) -> bool {
    let (least, most) = bounds(hpa);
    (current == 0 && least != 0) || current > most || current < least
}

pub(super) fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

/// Decides. `outcomes` is empty where [`is_out_of_bounds`].
pub(super) fn decide(
    hpa: &Value,
    current: i64,
    outcomes: Vec<Outcome>,
    history: &mut History,
    now: Timestamp,
) -> Decision {
    let (least, most) = bounds(hpa);
    let able = condition(
        "AbleToScale",
        "True",
        "SucceededGetScale",
        "the HPA controller was able to get the target's current scale",
    );
    if current == 0 && least != 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        let disabled = condition("ScalingActive", "False", "ScalingDisabled", message);
        return Decision {
            rescale: None,
            desired: 0,
            conditions: vec![able, disabled],
            shown: Vec::new(),
            warnings: Vec::new(),
        };
    }
    if is_out_of_bounds(hpa, current) {
        let (desired, why) = if current > most {
            (most, "Current number of replicas above Spec.MaxReplicas")
        } else {
            (least, "Current number of replicas below Spec.MinReplicas")
        };
        return rescaled(desired, why.to_owned(), Vec::new(), Vec::new());
    }
    let (metrics, failures): (usize, Vec<Failure>) =
        (outcomes.len(), outcomes.iter().filter_map(|o| o.as_ref().err()).cloned().collect());
    let failed = failures.first();
    let warnings: Vec<_> = failures.iter().map(|failure| (failure.reason, failure.why.clone())).collect();
    let good: Vec<(Proposal, Value)> = outcomes.into_iter().filter_map(Result::ok).collect();
    let best = good.iter().enumerate().max_by_key(|(_, (proposal, _))| proposal.replicas);
    let shown: Vec<Value> = good.iter().map(|(_, shown)| shown.clone()).collect();
    let unusable = match (failed, best) {
        (_, None) => true,
        // A metric that is missing may have asked for more, so nothing shrinks on the word of the others.
        (Some(_), Some((_, (proposal, _)))) => proposal.replicas < current,
        (None, Some(_)) => false,
    };
    if unusable {
        return unable(current, &failures, metrics, able, shown, warnings);
    }
    let Some((index, proposal)) = best.map(|(index, (proposal, _))| (index, proposal.replicas)) else {
        // Unusable, as said above.
        return Decision { rescale: None, desired: current, conditions: vec![able], shown, warnings };
    };
    let name = metric_name(&shown[index]);
    let active = condition(
        "ScalingActive",
        "True",
        "ValidMetricFound",
        &format!("the HPA was able to successfully calculate a replica count from {name}"),
    );
    let limited = history.limit(hpa, current, proposal, now);
    Decision { warnings, ..finish(limited, current, &name, active, shown) }
}

/// Too few of so many metrics say anything.
fn unable(
    current: i64,
    failures: &[Failure],
    metrics: usize,
    able: Value,
    shown: Vec<Value>,
    mut warnings: Vec<(&'static str, String)>,
) -> Decision {
    let failed = failures.first();
    let (reason, why) =
        failed.map_or(("InvalidMetricSourceType", "no metrics"), |failure| (failure.reason, failure.why.as_str()));
    let message = format!("the HPA was unable to compute the replica count: {why}");
    let conditions = vec![able, condition("ScalingActive", "False", reason, &message)];
    let (invalid, what) = (failures.len(), failed.map_or("metric", |failure| failure.what.as_str()));
    let all = format!(
        "invalid metrics ({invalid} invalid out of {metrics}), first error is: failed to get {what} value: {why}"
    );
    warnings.push(("FailedComputeMetricsReplicas", all));
    Decision { rescale: None, desired: current, conditions, shown, warnings }
}

fn finish(limited: Limited, current: i64, name: &str, active: Value, shown: Vec<Value>) -> Decision {
    let (status, reason, message) = &limited.limit;
    let limit = condition("ScalingLimited", status, reason, message);
    if limited.replicas != current {
        let why = if limited.replicas > current {
            format!("{name} above target")
        } else {
            "All metrics below target".to_owned()
        };
        return rescaled(limited.replicas, why, vec![active, limit], shown);
    }
    let (reason, message) = limited.stabilized.unwrap_or(("ReadyForNewScale", "recommended size matches current size"));
    let able = condition("AbleToScale", "True", reason, message);
    Decision { rescale: None, desired: current, conditions: vec![able, active, limit], shown, warnings: Vec::new() }
}

fn rescaled(desired: i64, why: String, mut conditions: Vec<Value>, shown: Vec<Value>) -> Decision {
    let message = format!("the HPA controller was able to update the target scale to {desired}");
    conditions.insert(0, condition("AbleToScale", "True", "SucceededRescale", &message));
    Decision { rescale: Some((desired, why)), desired, conditions, shown, warnings: Vec::new() }
}

fn metric_name(shown: &Value) -> String {
    let (kind, field) = match object::text(shown, "/type") {
        "Resource" => ("resource", "resource"),
        "ContainerResource" => ("container resource", "containerResource"),
        "Pods" => ("pods metric", "pods"),
        "Object" => ("object metric", "object"),
        _ => ("external metric", "external"),
    };
    let of = &shown[field];
    let name = of["name"].as_str().or(of["metric"]["name"].as_str()).unwrap_or_default();
    match (kind, shown[field]["current"].get("averageUtilization")) {
        ("resource", Some(_)) => format!("{name} resource utilization (percentage of request)"),
        ("resource", None) => format!("{name} resource"),
        _ => format!("{kind} {name}"),
    }
}

/// What a metric aims at.
///
/// # Errors
/// The target is of no known form; the API lets none through.
pub(super) fn goal(target: &Value) -> Result<Goal, String> {
    if let Some(percent) = target["averageUtilization"].as_i64() {
        return Ok(Goal::Utilization(percent));
    }
    amount(&target["averageValue"]).map(Goal::Average).ok_or_else(|| "invalid metric target".to_owned())
}

pub(super) fn amount(value: &Value) -> Option<i128> {
    Quantity::parse(value.as_str()?).ok().map(|quantity| quantity.milli())
}

fn quantity(milli: i128) -> Value {
    Quantity::from_milli(i64::try_from(milli).unwrap_or(i64::MAX)).to_string().into()
}

/// The metric as it stands in the status.
pub(super) fn shown(metric: &Value, field: &str, proposal: &Proposal, whole: bool) -> Value {
    let source = &metric[field];
    let mut current = json!({});
    current[if whole { "value" } else { "averageValue" }] = quantity(proposal.average);
    if let Some(utilization) = proposal.utilization {
        current["averageUtilization"] = utilization.into();
    }
    let mut status = json!({"current": current});
    for name in ["name", "container", "metric", "describedObject"] {
        if let Some(value) = source.get(name) {
            status[name] = value.clone();
        }
    }
    let mut shown = json!({"type": metric["type"]});
    shown[field] = status;
    shown
}

/// The status to write, if it differs.
pub(super) fn status(hpa: &Value, current: Option<i64>, decision: &Decision, now: Timestamp) -> Option<Value> {
    let at = time::rfc3339(now);
    let mut status = hpa["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    let mut conditions = object::list(hpa, "/status/conditions").to_vec();
    for condition in &decision.conditions {
        object::set_condition(&mut conditions, condition.clone(), &at);
    }
    status["conditions"] = conditions.into();
    status["desiredReplicas"] = decision.desired.into();
    status["observedGeneration"] = meta::generation(hpa).into();
    if let Some(current) = current {
        status["currentReplicas"] = current.into();
    }
    if decision.rescale.is_some() {
        status["lastScaleTime"] = at.into();
    }
    if let Some(fields) = status.as_object_mut() {
        fields.remove("currentMetrics");
        if !decision.shown.is_empty() {
            fields.insert("currentMetrics".to_owned(), decision.shown.clone().into());
        }
    }
    (status != hpa["status"]).then_some(status)
}

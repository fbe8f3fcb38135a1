//! How many of a budget's pods may be taken away. Pure.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::intstr::{self, Round};
use apimachinery::{meta, time};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{clock, object, pods};

/// An eviction that has not become a deletion by then is forgotten, in seconds.
const EVICTION_LASTS: i64 = 120;

/// What the budget's pods are a part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// The sum of the sizes of all workloads that control them.
    Known(i64),
    /// A pod's workload has no size, or is not there.
    Unknown(String),
}

/// What to say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// The new status, if it differs.
    pub(super) status: Option<Value>,
    /// Why the number cannot be told.
    pub(super) failure: Option<String>,
    /// Names of pods whose eviction came to nothing.
    pub(super) not_deleted: Vec<String>,
    /// When the next eviction is forgotten.
    pub(super) next: Option<Duration>,
}

/// Whether the sizes of the pods' workloads matter: a plain minimum needs none.
pub(super) fn needs_scale(budget: &Value) -> bool {
    let spec = &budget["spec"];
    spec.get("maxUnavailable").is_some_and(|v| !v.is_null()) || spec["minAvailable"].is_string()
}

/// Decides. `pods` are those that the budget selects.
pub(super) fn plan(budget: &Value, pods: &[Arc<Value>], scale: &Scale, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let disrupted = plan.still_disrupted(budget, pods, now);
    let counted = match expectation(budget, pods, scale) {
        Ok(counted) => counted,
        Err(why) => {
            plan.failure = Some(why.clone());
            let mut status = budget["status"].as_object().cloned().unwrap_or_default();
            // Nothing may be taken away from what cannot be counted.
            status.insert("disruptionsAllowed".to_owned(), json!(0));
            let seen = status.get("observedGeneration").cloned().unwrap_or(json!(0));
            plan.finish(budget, status.into(), &disrupted, ("False", "SyncFailed", why), (seen, now));
            return plan;
        }
    };
    let (expected, desired) = counted;
    let healthy = |pod: &&Arc<Value>| {
        pods::is_ready(pod) && !pods::is_terminating(pod) && !disrupted.contains_key(meta::name(pod))
    };
    let current = i64::try_from(pods.iter().filter(healthy).count()).unwrap_or(i64::MAX);
    let allowed = if expected > 0 { (current - desired).max(0) } else { 0 };
    let condition = if allowed > 0 {
        ("True", "SufficientPods", String::new())
    } else {
        ("False", "InsufficientPods", String::new())
    };
    let status = json!({"currentHealthy": current, "desiredHealthy": desired, "expectedPods": expected,
                        "disruptionsAllowed": allowed});
    plan.finish(budget, status, &disrupted, condition, (meta::generation(budget).into(), now));
    plan
}

/// How long until a pod that was to be disrupted has been left alone for so long that it is not true any more; `None` if
/// nothing of the kind is said of it. What its kubelet says stays true for as long as its end takes.
pub(super) fn stale_in(pod: &Value, now: Timestamp) -> Option<Duration> {
    let condition = meta::condition(pod, "DisruptionTarget")?;
    let said = condition["status"] == "True" && condition["reason"] != "TerminationByKubelet";
    if !said || pods::is_terminating(pod) || pods::is_finished(pod) {
        return None;
    }
    let since = condition["lastTransitionTime"].as_str().and_then(clock::parse);
    Some(since.map_or(Duration::ZERO, |since| clock::until(now, clock::plus(since, EVICTION_LASTS))))
}

/// What is said of pods that nobody controls, where sizes matter. The selector stands as Go prints it.
pub(super) fn unmanaged(budget: &Value) -> String {
    let selector = go_selector(&budget["spec"]["selector"]);
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the status of \
         the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \
         \".spec.minAvailable\" field of the PDB to an integer value."
    )
}

fn go_selector(selector: &Value) -> String {
    if selector.is_null() {
        return "nil".to_owned();
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels: String = object::map(selector, "/matchLabels")
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}: {},", text(value)))
        .collect();
    let expressions: String = object::list(selector, "/matchExpressions")
        .iter()
        .map(|e| {
            let values: Vec<String> = object::list(e, "/values").iter().map(text).collect();
            let (key, operator) = (text(&e["key"]), text(&e["operator"]));
            format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},", values.join(" "))
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

/// Pods that should be there, and pods that must.
fn expectation(budget: &Value, pods: &[Arc<Value>], scale: &Scale) -> Result<(i64, i64), String> {
    let spec = &budget["spec"];
    let selected = i64::try_from(pods.len()).unwrap_or(i64::MAX);
    let of_scale = |field: &str| {
        let total = match scale {
            Scale::Known(total) => *total,
            Scale::Unknown(why) => return Err(why.clone()),
        };
        let scaled = intstr::scaled_value(&spec[field], total, Round::Up).map_err(|e| format!("{field}: {e}"))?;
        Ok((total, scaled))
    };
    if spec.get("maxUnavailable").is_some_and(|v| !v.is_null()) {
        let (total, unavailable) = of_scale("maxUnavailable")?;
        return Ok((total, (total - unavailable).max(0)));
    }
    match &spec["minAvailable"] {
        Value::Number(number) => Ok((selected, number.as_i64().unwrap_or(0))),
        Value::String(_) => of_scale("minAvailable"),
        // The API's default.
        _ => Ok((selected, 1)),
    }
}

impl Plan {
    /// Evictions that the pods' informer may not have shown yet.
    fn still_disrupted(&mut self, budget: &Value, pods: &[Arc<Value>], now: Timestamp) -> Map<String, Value> {
        let mut kept = Map::new();
        for (name, since) in object::map(budget, "/status/disruptedPods").into_iter().flatten() {
            let Some(pod) = pods.iter().find(|pod| meta::name(pod) == name) else { continue };
            if pods::is_terminating(pod) {
                continue;
            }
            let until = since.as_str().and_then(clock::parse).map_or(now, |since| clock::plus(since, EVICTION_LASTS));
            if until <= now {
                self.not_deleted.push(name.clone());
                continue;
            }
            let left = clock::until(now, until);
            self.next = Some(self.next.map_or(left, |next| next.min(left)));
            kept.insert(name.clone(), since.clone());
        }
        kept
    }

    fn finish(
        &mut self,
        budget: &Value,
        mut status: Value,
        disrupted: &Map<String, Value>,
        condition: (&str, &str, String),
        (generation, now): (Value, Timestamp),
    ) {
        let (state, reason, message) = condition;
        let mut conditions = object::list(budget, "/status/conditions").to_vec();
        let new = json!({"type": "DisruptionAllowed", "status": state, "reason": reason, "message": message,
                         "observedGeneration": generation});
        object::set_condition(&mut conditions, new, &time::rfc3339(now));
        status["conditions"] = conditions.into();
        status["observedGeneration"] = generation;
        if let Some(fields) = status.as_object_mut() {
            fields.remove("disruptedPods");
            if !disrupted.is_empty() {
                fields.insert("disruptedPods".to_owned(), disrupted.clone().into());
            }
        }
        self.status = (!same(&status, &budget["status"])).then_some(status);
    }
}

fn same(new: &Value, old: &Value) -> bool {
    let counts = ["currentHealthy", "desiredHealthy", "expectedPods", "disruptionsAllowed", "observedGeneration"];
    let count = |status: &Value, field: &str| status[field].as_i64();
    counts.iter().all(|field| count(new, field) == count(old, field))
        && object::map(new, "/disruptedPods").filter(|m| !m.is_empty())
            == object::map(old, "/disruptedPods").filter(|m| !m.is_empty())
        && object::list(new, "/conditions") == object::list(old, "/conditions")
}

//! POST pods/<name>/eviction: a delete that respects disruption budgets.

use super::super::delete::{self, DeleteOptions};
use super::super::{Target, decode, read};
use crate::admission::{self, AdmissionRequest, Operation};
use crate::errors::ApiError;
use crate::registry::lookup;
use crate::server::body::{Request, Response};
use crate::server::handler::Call;
use crate::server::respond;
use crate::storage::{Preconditions, Stored};
use apimachinery::meta::{self, Condition};
use apimachinery::selector::LabelSelector;
use serde_json::{Value, json};
use std::sync::Arc;

/// How many evictions a budget remembers that its controller has not seen yet.
const DISRUPTED_MAX: usize = 2000;

/// Evicts a pod.
pub async fn create(call: &Call, target: &Target, request: Request) -> Result<Response, ApiError> {
    let mut eviction = decode::object(call, request, "policy", "v1", "Eviction").await?.object;
    if !meta::name(&eviction).is_empty() && meta::name(&eviction) != target.name {
        return Err(ApiError::bad_request(format!(
            "name in URL does not match name in Eviction object: {} != {}",
            target.name,
            meta::name(&eviction)
        )));
    }
    let mut options = DeleteOptions::parse(&eviction["deleteOptions"], call)?;
    let admission = AdmissionRequest {
        operation: Operation::Create,
        resource: target.res,
        subresource: Some("eviction"),
        namespace: &target.namespace,
        name: &target.name,
        object: &mut eviction,
        old: None,
    };
    admission::admit(&call.context(options.dry_run), admission).await?;
    let pod = read::find(call, target).await?;
    options.preconditions.check(target.res, &pod)?;
    let object = pod.object();
    if !goes_anyway(&object) {
        if let Some(budget) = budget_of(call, &pod).await? {
            take_from(call, &budget, &pod.name, options.dry_run).await?;
        }
        if !options.dry_run {
            mark_disrupted(call, target, &pod).await?;
        }
    }
    // The version has changed by our own mark; the uid still says which pod was meant.
    options.preconditions = Preconditions { uid: Some(pod.uid()), resource_version: None };
    delete::remove(call, target.res, &target.namespace, &target.name, &options).await?;
    Ok(respond::json(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

/// Finished, waiting and already deleted pods disrupt nothing.
fn goes_anyway(pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    matches!(phase, "Succeeded" | "Failed" | "Pending") || meta::deletion_timestamp(pod).is_some()
}

async fn budget_of(call: &Call, pod: &Stored) -> Result<Option<Arc<Stored>>, ApiError> {
    let Some(res) = lookup("policy", "v1", "poddisruptionbudgets") else { return Ok(None) };
    let (budgets, _) = call.state.storage.list(res, Some(&pod.namespace)).await?;
    let mut matching = budgets.into_iter().filter(|b| {
        LabelSelector::from_object(&b.object()["spec"]["selector"])
            .is_ok_and(|selector| selector.matches(pod.labels.as_ref()))
    });
    let first = matching.next();
    if matching.next().is_some() {
        return Err(ApiError::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    Ok(first)
}

async fn take_from(call: &Call, budget: &Stored, pod: &str, dry_run: bool) -> Result<(), ApiError> {
    let Some(res) = lookup("policy", "v1", "poddisruptionbudgets") else { return Ok(()) };
    if dry_run {
        return disrupt(budget.object(), pod, &call.now).map(|_| ());
    }
    let take = |object: Value| disrupt(object, pod, &call.now);
    call.state
        .storage
        .guaranteed_update(res, &budget.namespace, &budget.name, &Preconditions::default(), take)
        .await
        .map(|_| ())
}

/// The budget with one disruption less; 429 if it has none to give.
fn disrupt(mut budget: Value, pod: &str, now: &str) -> Result<Value, ApiError> {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let name = meta::name(&budget).to_string();
    let refuse = |cause: String, retry| {
        Err(ApiError::too_many_requests(message, retry).with_cause("DisruptionBudget", cause, ""))
    };
    if budget["status"]["observedGeneration"].as_i64().unwrap_or(0) < meta::generation(&budget) {
        return refuse(format!("The disruption budget {name} is still being processed by the server."), 10);
    }
    let allowed = budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
    if allowed <= 0 {
        let number = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
        let cause = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number("desiredHealthy"),
            number("currentHealthy")
        );
        return refuse(cause, 0);
    }
    let status = meta::child_mut(&mut budget, "status");
    status.insert("disruptionsAllowed".into(), json!(allowed - 1));
    let disrupted = status.entry("disruptedPods").or_insert_with(|| json!({}));
    if disrupted.as_object().is_some_and(|map| map.len() > DISRUPTED_MAX) {
        return refuse("too many evictions not confirmed by the disruption budget's controller".into(), 10);
    }
    disrupted[pod] = json!(now);
    Ok(budget)
}

async fn mark_disrupted(call: &Call, target: &Target, pod: &Stored) -> Result<(), ApiError> {
    let preconditions = Preconditions { uid: Some(pod.uid()), resource_version: None };
    let message = "Eviction API: evicting";
    let mark = |mut object: Value| {
        let condition =
            Condition { kind: "DisruptionTarget", status: "True", reason: "EvictionByEvictionAPI", message };
        meta::set_condition(&mut object, condition, &call.now);
        Ok(object)
    };
    call.state
        .storage
        .guaranteed_update(target.res, &target.namespace, &target.name, &preconditions, mark)
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent() {
        let budget = json!({"metadata": {"name": "b", "generation": 2}, "status": {"observedGeneration": 2, "disruptionsAllowed": 1}});
        let spent = disrupt(budget, "p", "t").expect("one left");
        assert_eq!(spent["status"]["disruptedPods"], json!({"p": "t"}));
        let refused = disrupt(spent.clone(), "q", "t").expect_err("none left");
        assert_eq!(
            (refused.code(), refused.0.details.map(|d| d.causes[0].reason.clone())),
            (429, Some("DisruptionBudget".to_string()))
        );
        let mut stale = spent;
        stale["metadata"]["generation"] = json!(3);
        assert_eq!(disrupt(stale, "q", "t").map_err(|e| e.code()), Err(429));
    }
}

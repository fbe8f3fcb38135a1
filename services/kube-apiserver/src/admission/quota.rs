//! ResourceQuotas: what a namespace may have in sum. Usage is counted in the quota's own status, which every request that adds to it changes
//! atomically before its object is stored; a controller sets it right again from time to time.
//!
//! A request is charged once, however often it is tried ([`Charges`]), and gets back what it was charged if it is refused after all. If nobody knows how it
//! ended (the store did not answer, the client went away), the charge stands until the controller counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::quantity::Quantity;
use serde_json::{Value, json};

use super::pod_resources::{Amounts, amounts};
use super::quota_usage::{in_scope, of, unstated};
use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::errors::ApiError;
use crate::registry::Context;
use crate::registry::strategy::tree::{at, object, set, str_at};
use crate::server::State;
use crate::storage::{Preconditions, Stored, Swap};

/// What a request has added to quotas so far, by namespace and name of the quota.
pub type Charges = BTreeMap<(String, String), Amounts>;

/// The plugin.
pub struct ResourceQuota;

impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn validate<'a>(&'a self, cx: &'a Context<'_>, request: &'a AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move { if counts(request) { charge(cx, request).await } else { Ok(()) } })
    }
}

/// Everything in a namespace is counted when it is made; some things change what they use.
fn counts(request: &AdmissionRequest<'_>) -> bool {
    let row = request.resource;
    if !row.namespaced
        || row.virtual_
        || (row.group.is_empty() && row.plural == "events")
        || row.group == "events.k8s.io"
    {
        return false;
    }
    match (request.operation, request.subresource) {
        (Operation::Create, None) => true,
        (Operation::Update, None) => {
            row.group.is_empty() && matches!(row.plural, "services" | "persistentvolumeclaims")
        }
        (Operation::Update, Some("resize")) => row.group.is_empty() && row.plural == "pods",
        _ => false,
    }
}

/// What the request adds to what the quota limits.
fn added(request: &AdmissionRequest<'_>, quota: &Value) -> Amounts {
    let row = request.resource;
    let usage = |o: &Value| {
        if in_scope(quota, row.group, row.plural, o) { of(row.group, row.plural, o) } else { Amounts::new() }
    };
    let before = request.old.filter(|_| request.operation == Operation::Update).map(usage).unwrap_or_default();
    let mut delta = usage(request.object);
    for (name, amount) in before {
        let now = delta.remove(&name).unwrap_or(Quantity::from_value(0));
        delta.insert(name, now.sub(amount));
    }
    let hard = amounts(at(quota, &["status", "hard"]));
    delta.retain(|name, amount| hard.contains_key(name) && amount.sign() != 0);
    delta
}

/// Adds to the quota's usage, or says why that is too much.
pub fn spend(quota: &Value, delta: &Amounts) -> Result<Value, String> {
    let name = str_at(quota, &["metadata", "name"]);
    let (hard, used) = (amounts(at(quota, &["status", "hard"])), amounts(at(quota, &["status", "used"])));
    let unknown: Vec<&str> = delta.keys().filter(|n| !used.contains_key(*n)).map(String::as_str).collect();
    if !unknown.is_empty() {
        return Err(format!("status unknown for quota: {name}, resources: {}", unknown.join(",")));
    }
    let mut next = used.clone();
    let mut over = Vec::new();
    for (resource, amount) in delta {
        let (Some(have), Some(limit)) = (used.get(resource), hard.get(resource)) else { continue };
        let sum = have.add(*amount);
        // Who gives back is never refused, even where too much is used already.
        if amount.sign() > 0 && sum.milli() > limit.milli() {
            over.push(resource.as_str());
        }
        let sum = if sum.sign() < 0 { Quantity::from_value(0) } else { sum };
        next.insert(resource.clone(), sum);
    }
    if !over.is_empty() {
        let shown = |map: &Amounts| {
            let parts: Vec<String> = over.iter().filter_map(|n| Some(format!("{n}={}", map.get(*n)?))).collect();
            parts.join(",")
        };
        let (requested, used, limited) = (shown(delta), shown(&used), shown(&hard));
        return Err(format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"));
    }
    let next: serde_json::Map<String, Value> = next.into_iter().map(|(n, q)| (n, json!(q.to_string()))).collect();
    let mut changed = quota.clone();
    set(object(&mut changed, "status"), "used", Value::Object(next));
    Ok(changed)
}

/// Charges every quota of the namespace, or none: all are asked before the first is written, and those that somebody else wrote meanwhile are asked again.
async fn charge(cx: &Context<'_>, request: &AdmissionRequest<'_>) -> Result<(), ApiError> {
    let Some(row) = cx.state.resource("", "v1", "resourcequotas") else { return Ok(()) };
    let storage = &cx.state.storage;
    let cache = storage.cache(row);
    cache.synced().await;
    let (mut pending, _) = cache.snapshot(&format!("{}/", request.namespace));
    let mut cached = true;
    while !pending.is_empty() {
        let changes = match changes(cx, request, &pending) {
            Ok(changes) => changes,
            // What the cache has may be out of date.
            Err(_) if cached => {
                pending = newest(cx, &pending).await?;
                cached = false;
                continue;
            }
            Err(why) => return Err(request.forbidden(&why)),
        };
        pending = Vec::new();
        for (stored, delta, changed) in changes {
            if cx.dry_run {
                continue;
            }
            match storage.swap(row, changed, stored.revision).await? {
                Swap::Done(_) => {
                    let mut charges = cx.charges.lock();
                    let charged = charges.entry((stored.namespace.clone(), stored.name.clone())).or_default();
                    *charged = sum(charged, &delta, Quantity::add);
                }
                // A quota that has just gone limits nothing.
                Swap::Lost(found) => pending.extend(found),
            }
        }
    }
    Ok(())
}

async fn newest(cx: &Context<'_>, quotas: &[Arc<Stored>]) -> Result<Vec<Arc<Stored>>, ApiError> {
    let Some(row) = cx.state.resource("", "v1", "resourcequotas") else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for quota in quotas {
        found.extend(cx.state.storage.get(row, &quota.namespace, &quota.name).await?);
    }
    Ok(found)
}

/// A quota, what is added to it, and what it is then.
type Change = (Arc<Stored>, Amounts, Value);

fn changes(cx: &Context<'_>, request: &AdmissionRequest<'_>, quotas: &[Arc<Stored>]) -> Result<Vec<Change>, String> {
    let mut changes = Vec::new();
    for stored in quotas {
        let charged = cx.charges.lock().get(&(stored.namespace.clone(), stored.name.clone())).cloned();
        let quota = stored.object();
        let delta = due(request, &quota, &charged.unwrap_or_default())?;
        if !delta.is_empty() {
            let changed = spend(&quota, &delta)?;
            changes.push((stored.clone(), delta, changed));
        }
    }
    Ok(changes)
}

/// What the request still owes: less what it was charged when it was tried before.
fn due(request: &AdmissionRequest<'_>, quota: &Value, charged: &Amounts) -> Result<Amounts, String> {
    let row = request.resource;
    let hard = amounts(at(quota, &["status", "hard"]));
    if row.group.is_empty()
        && row.plural == "pods"
        && in_scope(quota, row.group, row.plural, request.object)
        && let Some(why) = unstated(&hard, request.object)
    {
        return Err(format!("failed quota: {}: {why}", str_at(quota, &["metadata", "name"])));
    }
    let mut delta = sum(&added(request, quota), charged, Quantity::sub);
    delta.retain(|name, amount| hard.contains_key(name) && amount.sign() != 0);
    Ok(delta)
}

fn sum(left: &Amounts, right: &Amounts, combine: impl Fn(Quantity, Quantity) -> Quantity) -> Amounts {
    let mut sum = left.clone();
    for (name, amount) in right {
        let have = sum.remove(name).unwrap_or(Quantity::from_value(0));
        sum.insert(name.clone(), combine(have, *amount));
    }
    sum
}

/// Gives back what a refused request was charged.
pub async fn refund(state: &State, charges: Charges) {
    let Some(row) = state.resource("", "v1", "resourcequotas") else { return };
    for ((namespace, name), charged) in charges {
        let back = sum(&Amounts::new(), &charged, Quantity::sub);
        let change = |quota: Value| Ok(spend(&quota, &back).unwrap_or(quota));
        let written = state.storage.guaranteed_update(row, &namespace, &name, &Preconditions::default(), change).await;
        if let Err(error) = written {
            tracing::warn!(namespace, name, %error, "a quota keeps the usage of a refused request until it is counted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(hard: Value, used: Value) -> Value {
        json!({"metadata": {"name": "q"}, "status": {"hard": hard, "used": used}})
    }

    #[test]
    fn spending_is_counted_and_bounded() {
        let pod = |cpu: &str| {
            let object = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}});
            let mut usage = of("", "pods", &object);
            usage.retain(|n, _| matches!(n.as_str(), "pods" | "requests.cpu"));
            usage
        };
        let q = quota(json!({"pods": "2", "requests.cpu": "1"}), json!({"pods": "1", "requests.cpu": "600m"}));
        let after = spend(&q, &pod("400m")).expect("fits");
        assert_eq!(after["status"]["used"], json!({"pods": "2", "requests.cpu": "1"}));
        assert_eq!(
            spend(&q, &pod("500m")).expect_err("too much"),
            "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"
        );
        assert_eq!(
            spend(&after, &pod("0")).expect_err("too many"),
            "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
        );
        let fresh = quota(json!({"pods": "2"}), json!({}));
        let only = Amounts::from([("pods".to_owned(), Quantity::from_value(1))]);
        assert_eq!(spend(&fresh, &only).expect_err("unknown"), "status unknown for quota: q, resources: pods");
    }

    #[test]
    fn a_request_is_charged_once() {
        let q = quota(
            json!({"services.nodeports": "5", "services": "5"}),
            json!({"services.nodeports": "2", "services": "1"}),
        );
        let service = |ports: usize| json!({"spec": {"type": "NodePort", "ports": vec![json!({"port": 1}); ports]}});
        let (old, mut new) = (service(2), service(4));
        let resource = crate::registry::lookup("", "v1", "services").expect("in the table");
        let mut request = AdmissionRequest {
            operation: Operation::Update,
            resource,
            subresource: None,
            namespace: "n",
            name: "s",
            object: &mut new,
            old: Some(&old),
        };
        let shown = |delta: Amounts| delta.iter().map(|(n, q)| format!("{n}={q}")).collect::<Vec<_>>();
        let first = due(&request, &q, &Amounts::new()).expect("known");
        assert_eq!(shown(first.clone()), ["services.nodeports=2"]);
        assert!(due(&request, &q, &first).expect("known").is_empty(), "the same again");
        let meanwhile = service(3);
        request.old = Some(&meanwhile);
        let less = due(&request, &q, &first).expect("known");
        assert_eq!(shown(less.clone()), ["services.nodeports=-1"], "another write has come between");
        let spent = spend(&spend(&q, &first).expect("fits"), &less).expect("gives back");
        assert_eq!(spent["status"]["used"], json!({"services.nodeports": "3", "services": "1"}));
        let back = sum(&Amounts::new(), &sum(&first, &less, Quantity::add), Quantity::sub);
        assert_eq!(spend(&spent, &back).expect("gives back")["status"], q["status"], "a refused request costs nothing");
    }

    #[test]
    fn scopes_choose() {
        let scoped = |scope: &str| json!({"spec": {"scopes": [scope]}});
        let best = json!({"spec": {"containers": [{"name": "a"}]}});
        let ends = json!({"spec": {"activeDeadlineSeconds": 5, "containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}]}});
        for (scope, pod, want) in [
            ("BestEffort", &best, true),
            ("BestEffort", &ends, false),
            ("NotBestEffort", &ends, true),
            ("Terminating", &ends, true),
            ("NotTerminating", &ends, false),
            ("NotTerminating", &best, true),
        ] {
            assert_eq!(in_scope(&scoped(scope), "", "pods", pod), want, "{scope}");
            assert!(!in_scope(&scoped(scope), "", "services", pod), "scopes are about pods");
        }
        let class = json!({"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}});
        assert!(in_scope(&class, "", "pods", &json!({"spec": {"priorityClassName": "high"}})));
        assert!(!in_scope(&class, "", "pods", &json!({"spec": {"priorityClassName": "low"}})));
    }

    #[test]
    fn kinds_count_what_they_use() {
        let names = |group: &str, plural: &str, o: Value| -> Vec<String> {
            of(group, plural, &o).into_iter().filter(|(_, q)| q.sign() != 0).map(|(n, q)| format!("{n}={q}")).collect()
        };
        let ports = json!([{"port": 1}, {"port": 2}]);
        assert_eq!(
            names("", "services", json!({"spec": {"type": "LoadBalancer", "ports": ports}})),
            ["count/services=1", "services=1", "services.loadbalancers=1", "services.nodeports=2"]
        );
        assert_eq!(names("apps", "deployments", json!({})), ["count/deployments.apps=1"]);
        let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}});
        assert_eq!(
            names("", "persistentvolumeclaims", claim),
            [
                "count/persistentvolumeclaims=1",
                "gold.storageclass.storage.k8s.io/persistentvolumeclaims=1",
                "gold.storageclass.storage.k8s.io/requests.storage=1Gi",
                "persistentvolumeclaims=1",
                "requests.storage=1Gi"
            ]
        );
        let grown = json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}},
            "status": {"allocatedResources": {"storage": "2Gi"}}});
        assert_eq!(
            names("", "persistentvolumeclaims", grown),
            ["count/persistentvolumeclaims=1", "persistentvolumeclaims=1", "requests.storage=2Gi"]
        );
        let devices = json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
            {"name": "b", "exactly": {"deviceClassName": "nic", "allocationMode": "All"}},
            {"name": "c", "firstAvailable": [
                {"name": "x", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 4},
                {"name": "y", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1},
                {"name": "z", "deviceClassName": "fpga", "allocationMode": "ExactCount", "count": 1}]}]}}});
        assert_eq!(
            names("resource.k8s.io", "resourceclaims", devices),
            [
                "count/resourceclaims.resource.k8s.io=1",
                "fpga.deviceclass.resource.k8s.io/devices=1",
                "gpu.deviceclass.resource.k8s.io/devices=6",
                "nic.deviceclass.resource.k8s.io/devices=32"
            ]
        );
        let hard = Amounts::from([("requests.cpu".to_owned(), Quantity::from_value(1))]);
        let silent = json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}]}});
        assert_eq!(unstated(&hard, &silent).as_deref(), Some("must specify requests.cpu for: a,b"));
    }
}

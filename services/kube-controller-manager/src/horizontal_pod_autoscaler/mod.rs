//! horizontal-pod-autoscaler-controller: sizes workloads by what is measured of them.
//!
//! Metrics cannot be watched, so each autoscaler is looked at every 15 seconds; a cluster without any asks nothing.

mod behavior;
mod metrics;
mod plan;
mod replicas;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta;
use apimachinery::selector::LabelSelector;
use client::resource::PODS;
use client::{Change, Client, Informer, Resource, WorkQueue};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use crate::context::Context;
use crate::error::Error;
use crate::events::Events;
use crate::resource::HORIZONTALPODAUTOSCALERS;
use crate::resources::Resources;
use crate::worker::{self, Next};
use crate::{object, pods};

use behavior::History;
use plan::{Decision, Failure, Outcome};
use replicas::Proposal;

const PERIOD: Duration = Duration::from_secs(15);

struct Controller {
    client: Client,
    events: Events,
    resources: Arc<Resources>,
    autoscalers: Informer,
    pods: Informer,
    histories: Mutex<HashMap<String, History>>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        autoscalers: context.informers.get(HORIZONTALPODAUTOSCALERS),
        pods: context.informers.get(PODS),
        client: context.client,
        events: context.events,
        resources: context.resources,
        histories: Mutex::default(),
    });
    controller.autoscalers.synced().await;
    controller.pods.synced().await;
    let queue = WorkQueue::new();
    let (this, to) = (Arc::clone(&controller), queue.clone());
    worker::on_change(&controller.autoscalers, move |change| match &change {
        Change::Deleted(hpa) => drop(this.histories.lock().remove(meta::uid(hpa))),
        // Its own status writes must not shorten the period.
        Change::Applied { old: Some(old), new } if old["spec"] == new["spec"] => {}
        Change::Applied { new, .. } => to.add(meta::key(new)),
    });
    worker::run("horizontal-pod-autoscaler", queue, 5, |key| sync(&controller, key)).await;
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(hpa) = controller.autoscalers.get(namespace, name) else { return Ok(Next::Done) };
    let now = Timestamp::now();
    let (decision, current) = match controller.scale(&hpa).await {
        Ok((resource, scale)) => controller.decide(&hpa, resource, &scale, now).await?,
        Err(why) => {
            let message = format!("the HPA controller was unable to get the target's current scale: {why}");
            controller.events.note(&hpa, "Warning", "FailedGetScale", why);
            let condition = plan::condition("AbleToScale", "False", "FailedGetScale", &message);
            let desired = object::int(&hpa, "/status/desiredReplicas").unwrap_or(0);
            let conditions = vec![condition];
            (Decision { rescale: None, desired, conditions, shown: Vec::new(), warnings: Vec::new() }, None)
        }
    };
    for (reason, message) in &decision.warnings {
        controller.events.note(&hpa, "Warning", reason, message.clone());
    }
    if let Some(status) = plan::status(&hpa, current, &decision, now) {
        let mut new = Value::clone(&hpa);
        new["status"] = status;
        controller.client.update_sub(HORIZONTALPODAUTOSCALERS, Some(namespace), name, "status", &new).await?;
    }
    Ok(Next::After(PERIOD))
}

impl Controller {
    /// The target's resource and its scale.
    async fn scale(&self, hpa: &Value) -> Result<(Resource<'static>, Value), String> {
        let target = &hpa["spec"]["scaleTargetRef"];
        let (version, kind) = (object::text(target, "/apiVersion"), object::text(target, "/kind"));
        let resource = self.resources.of_kind(version, kind).await.map_err(|e| e.to_string())?;
        let resource = resource.ok_or_else(|| format!("no matches for kind {kind:?} in version {version:?}"))?;
        let name = object::text(target, "/name");
        let path = resource.path(Some(meta::namespace(hpa)), Some(name), Some("scale"));
        self.client.get_raw(&path).await.map(|scale| (resource, scale)).map_err(|e| e.to_string())
    }

    async fn decide(
        &self,
        hpa: &Value,
        resource: Resource<'static>,
        scale: &Value,
        now: Timestamp,
    ) -> Result<(Decision, Option<i64>), Error> {
        let current = object::int(scale, "/spec/replicas").unwrap_or(0);
        let mut outcomes = Vec::new();
        if !plan::is_out_of_bounds(hpa, current) {
            for metric in object::list(hpa, "/spec/metrics") {
                outcomes.push(self.measure(hpa, scale, metric, current, now).await);
            }
        }
        let decision = {
            let mut histories = self.histories.lock();
            let history = histories.entry(meta::uid(hpa).to_owned()).or_default();
            plan::decide(hpa, current, outcomes, history, now)
        };
        if let Some((desired, why)) = &decision.rescale {
            let mut new = scale.clone();
            new["spec"]["replicas"] = (*desired).into();
            let (namespace, name) = (Some(meta::namespace(hpa)), meta::name(scale));
            self.client.update_sub(resource, namespace, name, "scale", &new).await?;
            if let Some(history) = self.histories.lock().get_mut(meta::uid(hpa)) {
                history.changed(now, desired - current);
            }
            let message = format!("New size: {desired}; reason: {why}");
            self.events.note(hpa, "Normal", "SuccessfulRescale", message);
        }
        Ok((decision, Some(current)))
    }

    /// One metric.
    async fn measure(&self, hpa: &Value, scale: &Value, metric: &Value, current: i64, now: Timestamp) -> Outcome {
        let (field, reason) = match object::text(metric, "/type") {
            "Resource" => ("resource", "FailedGetResourceMetric"),
            "ContainerResource" => ("containerResource", "FailedGetContainerResourceMetric"),
            "Pods" => ("pods", "FailedGetPodsMetric"),
            "Object" => ("object", "FailedGetObjectMetric"),
            "External" => ("external", "FailedGetExternalMetric"),
            other => {
                let why = format!("unknown metric source type {other:?}");
                return Err(Failure { reason: "InvalidMetricSourceType", why, what: "metric".to_owned() });
            }
        };
        let source = &metric[field];
        let name = object::text(source, "/name");
        let what = match field {
            "resource" => format!("{name} resource metric"),
            "containerResource" => format!("{name} container metric"),
            "external" => format!("{} external metric", object::text(source, "/metric/name")),
            _ => format!("{field} metric"),
        };
        let selector = object::text(scale, "/status/selector");
        if selector.is_empty() {
            let why = "the HPA target's scale is missing a selector".to_owned();
            return Err(Failure { reason: "InvalidSelector", why, what });
        }
        let found = match field {
            "resource" | "containerResource" => {
                let aim = if source["target"]["averageUtilization"].is_i64() { "utilization" } else { "usage" };
                let found = self.by_resource(hpa, selector, source, current, now).await;
                found.map_err(|why| format!("failed to get {name} {aim}: {why}"))
            }
            "pods" => self.by_pods(hpa, selector, source, current, now).await,
            "object" => self.by_object(hpa, selector, source, current).await,
            _ => self.by_external(hpa, selector, source, current).await,
        };
        match found {
            Ok(proposal) => {
                let whole = source["target"]["type"] == "Value";
                let shown = plan::shown(metric, field, &proposal, whole);
                Ok((proposal, shown))
            }
            Err(why) => Err(Failure { reason, why, what }),
        }
    }

    fn pods_of(&self, hpa: &Value, selector: &str) -> Result<Vec<Arc<Value>>, String> {
        let selector = LabelSelector::parse(selector).map_err(|e| format!("selector of the target: {e}"))?;
        let all = self.pods.each_in(meta::namespace(hpa));
        Ok(all.filter(|pod| selector.matches(meta::labels(pod))).collect())
    }

    async fn by_resource(
        &self,
        hpa: &Value,
        selector: &str,
        source: &Value,
        current: i64,
        now: Timestamp,
    ) -> Result<Proposal, String> {
        let (name, container) = (object::text(source, "/name"), source["container"].as_str());
        let path = metrics::resource_path(meta::namespace(hpa), selector);
        let list = self.client.get_raw(&path).await.map_err(|e| {
            format!("unable to get metrics for resource {name}: unable to fetch metrics from resource metrics API: {e}")
        })?;
        let samples = metrics::resource_samples(&list, name, container, now);
        if samples.is_empty() {
            return Err(format!(
                "unable to get metrics for resource {name}: no metrics returned from resource metrics API"
            ));
        }
        let all = self.pods_of(hpa, selector)?;
        let goal = plan::goal(&source["target"])?;
        replicas::per_pod(current, goal, &all, &samples, Some((name, container)), now)
    }

    async fn by_pods(
        &self,
        hpa: &Value,
        selector: &str,
        source: &Value,
        current: i64,
        now: Timestamp,
    ) -> Result<Proposal, String> {
        let metric = object::text(source, "/metric/name");
        let path = metrics::pods_path(meta::namespace(hpa), selector, metric, &selector_of(source)?);
        let list = self.client.get_raw(&path).await.map_err(|e| {
            format!("unable to get metric {metric}: unable to fetch metrics from custom metrics API: {e}")
        })?;
        let samples = metrics::custom_samples(&list, now);
        let all = self.pods_of(hpa, selector)?;
        replicas::per_pod(current, plan::goal(&source["target"])?, &all, &samples, None, now)
    }

    async fn by_object(&self, hpa: &Value, selector: &str, source: &Value, current: i64) -> Result<Proposal, String> {
        let (metric, about) = (object::text(source, "/metric/name"), &source["describedObject"]);
        let (version, kind) = (object::text(about, "/apiVersion"), object::text(about, "/kind"));
        let resource = self.resources.of_kind(version, kind).await.map_err(|e| e.to_string())?;
        let resource = resource.ok_or_else(|| format!("no matches for kind {kind:?} in version {version:?}"))?;
        let plural = match resource.group {
            "" => resource.plural.to_owned(),
            group => format!("{}.{group}", resource.plural),
        };
        let name = object::text(about, "/name");
        let path = metrics::object_path(meta::namespace(hpa), &plural, name, metric, &selector_of(source)?);
        let list = self
            .client
            .get_raw(&path)
            .await
            .map_err(|e| format!("unable to get metric {metric}: {kind} on {} {name}/{e}", meta::namespace(hpa)))?;
        let samples = metrics::custom_samples(&list, Timestamp::UNIX_EPOCH);
        let value = samples.values().next().map(|sample| sample.milli);
        let value = value.ok_or_else(|| format!("unable to get metric {metric}: no metrics returned"))?;
        self.of_whole(hpa, selector, source, current, value)
    }

    async fn by_external(&self, hpa: &Value, selector: &str, source: &Value, current: i64) -> Result<Proposal, String> {
        let metric = object::text(source, "/metric/name");
        let (namespace, labels) = (meta::namespace(hpa), selector_of(source)?);
        let path = metrics::external_path(namespace, metric, &labels);
        let list = self.client.get_raw(&path).await.map_err(|e| {
            format!("unable to get external metric {namespace}/{metric}: unable to fetch metrics from external metrics API: {e}")
        })?;
        let value = metrics::external_sum(&list).ok_or_else(|| {
            format!("unable to get external metric {namespace}/{metric}: no metrics returned from external metrics API")
        })?;
        self.of_whole(hpa, selector, source, current, value)
    }

    fn of_whole(
        &self,
        hpa: &Value,
        selector: &str,
        source: &Value,
        current: i64,
        value: i128,
    ) -> Result<Proposal, String> {
        let target = &source["target"];
        let average = target["averageValue"].is_string();
        let wanted = plan::amount(&target[if average { "averageValue" } else { "value" }]);
        let wanted = wanted.filter(|milli| *milli > 0).ok_or("invalid metric target")?;
        let ready = self.pods_of(hpa, selector)?.iter().filter(|pod| pods::is_running_and_ready(pod)).count();
        Ok(replicas::of_whole(current, i64::try_from(ready).unwrap_or(i64::MAX), value, wanted, average))
    }
}

/// The metric's own selector in query syntax.
fn selector_of(source: &Value) -> Result<String, String> {
    match &source["metric"]["selector"] {
        Value::Null => Ok(String::new()),
        selector => {
            let selector = LabelSelector::from_object(selector).map_err(|e| format!("metric.selector: {e}"))?;
            let requirements = selector.requirements().unwrap_or_default().iter();
            Ok(requirements.map(ToString::to_string).collect::<Vec<_>>().join(","))
        }
    }
}

//! Input that makes no sense: said so where users look for it, as upstream says it, and not tried again and again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use client::{Client, ListParams, Resource, resource};
use serde_json::{Value, json};

use super::proxy::Proxy;
use crate::bench::stack::{Stack, System};

const PATIENCE: Duration = Duration::from_secs(30);
/// Retries have slowed down by then.
const SETTLE: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(20);
/// Each of two autoscalers looks every 15 s: a scale, a metric and the counts of its events.
const REQUESTS_MAX: usize = 60;

const BUDGETS: Resource<'static> = Resource::new("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true);
const CRONJOBS: Resource<'static> = Resource::new("batch", "v1", "cronjobs", "CronJob", true);
const JOBS: Resource<'static> = Resource::new("batch", "v1", "jobs", "Job", true);
const QUOTAS: Resource<'static> = Resource::new("", "v1", "resourcequotas", "ResourceQuota", true);
const AUTOSCALERS: Resource<'static> =
    Resource::new("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", true);

/// A condition that must come, with the start of its message.
const CONDITIONS: &[(Resource<'static>, &str, [&str; 4])] = &[
    (BUDGETS, "nobody", ["DisruptionAllowed", "False", "InsufficientPods", ""]),
    (resource::DEPLOYMENTS, "refused", ["ReplicaFailure", "True", "FailedCreate", "pods \"refused-"]),
    (
        AUTOSCALERS,
        "astray",
        [
            "AbleToScale",
            "False",
            "FailedGetScale",
            "the HPA controller was unable to get the target's current scale: deployments.apps \"missing\" not found",
        ],
    ),
    (
        AUTOSCALERS,
        "blind",
        [
            "ScalingActive",
            "False",
            "FailedGetResourceMetric",
            "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: \
             unable to fetch metrics from resource metrics API: ",
        ],
    ),
];

/// An event that must come: about what, its reason, and a part of its message.
const EVENTS: &[[&str; 3]] = &[
    ["nobody", "NoPods", "No matching pods found"],
    ["refused-", "FailedCreate", "exceeded quota: nothing, requested: pods=1, used: pods=0, limited: pods=0"],
    ["astray", "FailedGetScale", "deployments.apps \"missing\" not found"],
    ["blind", "FailedGetResourceMetric", "failed to get cpu utilization: unable to get metrics for resource cpu"],
    [
        "blind",
        "FailedComputeMetricsReplicas",
        "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: failed to get cpu utilization",
    ],
];

/// The check.
pub async fn run() -> Result<()> {
    let stack = Stack::start_api(&Stack::corten()?, &[], &[]).await?;
    let client = stack.client()?;
    let proxy = Proxy::start(&stack, System::ControllerManager.user()).await?;
    let mut child = stack.spawn_system(System::ControllerManager, proxy.port(), &["--leader-elect=false"])?;
    let outcome = told(&client, &proxy).await;
    // It may have ended by itself.
    let _ = child.kill();
    child.wait()?;
    outcome
}

async fn told(client: &Client, proxy: &Proxy) -> Result<()> {
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    for name in ["odd", "full"] {
        client.create(resource::NAMESPACES, None, &namespace(name)).await?;
    }
    refused(client).await?;
    create(client).await?;
    for (resource, name, condition) in CONDITIONS {
        eventually(&format!("{} {name}: {condition:?}", resource.kind), async || {
            condition_of(client, *resource, name, condition).await
        })
        .await?;
    }
    for event in EVENTS {
        eventually(&format!("event {event:?}"), async || has_event(client, event).await).await?;
    }
    overlapping(client).await?;
    let never = client.list(JOBS, Some("odd"), &ListParams::default()).await?.items;
    ensure!(never.is_empty(), "the thirtieth of February has come: {never:?}");
    tokio::time::sleep(SETTLE).await;
    proxy.take_asked();
    tokio::time::sleep(WINDOW).await;
    let asked = proxy.take_asked();
    let sum: usize = asked.values().sum();
    println!("  {sum} requests in {} s with all of it in place", WINDOW.as_secs());
    ensure!(sum <= REQUESTS_MAX, "{sum} requests in {} s: {asked:#?}", WINDOW.as_secs());
    Ok(())
}

/// What the API server does not let in.
async fn refused(client: &Client) -> Result<()> {
    for (change, expected) in [
        (json!({"schedule": "61 * * * *"}), "spec.schedule: Invalid value: \"61 * * * *\""),
        (
            json!({"timeZone": "Mars/Olympus"}),
            "spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus",
        ),
    ] {
        let mut cron = cron("wrong", "0 0 * * *");
        for (field, value) in change.as_object().into_iter().flatten() {
            cron["spec"][field] = value.clone();
        }
        let error = client
            .create(CRONJOBS, Some("odd"), &cron)
            .await
            .err()
            .with_context(|| format!("{change} was accepted"))?;
        ensure!(error.to_string().contains(expected), "{change}: {error}");
    }
    Ok(())
}

async fn create(client: &Client) -> Result<()> {
    let meta = |name: &str| json!({"name": name});
    let scaler = |name: &str, target: &str| {
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta(name),
               "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
                        "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                            "target": {"type": "Utilization", "averageUtilization": 50}}}]}})
    };
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta("nobody"),
                        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "nobody"}}}});
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta("nothing"), "spec": {"hard": {"pods": "0"}}});
    client.create(QUOTAS, Some("full"), &quota).await?;
    for (resource, namespace, object) in [
        (BUDGETS, "odd", budget),
        (CRONJOBS, "odd", cron("never", "0 0 30 2 *")),
        (resource::DEPLOYMENTS, "odd", deployment("one")),
        (resource::DEPLOYMENTS, "odd", deployment("two")),
        (AUTOSCALERS, "odd", scaler("astray", "missing")),
        (AUTOSCALERS, "odd", scaler("blind", "one")),
    ] {
        client.create(resource, Some(namespace), &object).await.with_context(|| object.to_string())?;
    }
    // The quota counts only from when its status says so.
    eventually("the quota has been counted", async || {
        let quota = client.get(QUOTAS, Some("full"), "nothing").await?;
        ensure!(quota["status"]["used"]["pods"] == "0", "status: {}", quota["status"]);
        Ok(())
    })
    .await?;
    client.create(resource::DEPLOYMENTS, Some("full"), &deployment("refused")).await?;
    Ok(())
}

fn cron(name: &str, schedule: &str) -> Value {
    let template =
        json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "example.com/c:1"}]}});
    json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
           "spec": {"schedule": schedule, "jobTemplate": {"spec": {"template": template}}}})
}

/// All of them select the same pods.
fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "same"}},
            "template": {
                "metadata": {"labels": {"app": "same"}},
                "spec": {"containers": [{"name": name, "image": "example.com/c:1", "resources": {"requests": {"cpu": "1m"}}}]},
            },
        },
    })
}

/// Selectors that overlap: each Deployment has pods of its own and leaves the other's alone.
async fn overlapping(client: &Client) -> Result<()> {
    eventually("two Deployments with one selector have two pods each", async || {
        let pods = client.list(resource::PODS, Some("odd"), &ListParams::default()).await?.items;
        let of = |name: &str| pods.iter().filter(|pod| pod["spec"]["containers"][0]["name"] == name).count();
        ensure!(of("one") == 2 && of("two") == 2 && pods.len() == 4, "one has {}, two has {}", of("one"), of("two"));
        for name in ["one", "two"] {
            let status = client.get(resource::DEPLOYMENTS, Some("odd"), name).await?["status"].clone();
            ensure!(status["replicas"] == 2 && status["updatedReplicas"] == 2, "{name}: {status}");
        }
        Ok(())
    })
    .await
}

async fn condition_of(client: &Client, resource: Resource<'static>, name: &str, expected: &[&str; 4]) -> Result<()> {
    let namespace = if name == "refused" { "full" } else { "odd" };
    let object = client.get(resource, Some(namespace), name).await?;
    let [kind, status, reason, message] = expected;
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found =
        conditions.iter().find(|c| c["type"] == *kind).with_context(|| format!("conditions: {conditions:?}"))?;
    let says = found["message"].as_str().unwrap_or_default();
    ensure!(found["status"] == *status && found["reason"] == *reason && says.starts_with(message), "{found}");
    Ok(())
}

async fn has_event(client: &Client, [about, reason, message]: &[&str; 3]) -> Result<()> {
    let events = client.list(resource::EVENTS, None, &ListParams::default()).await?.items;
    let text =
        |event: &Value, pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let of: Vec<&Value> = events.iter().filter(|e| text(e, "/involvedObject/name").starts_with(about)).collect();
    let says = |e: &&&Value| text(e, "/reason") == *reason && text(e, "/message").contains(message);
    ensure!(of.iter().any(|e| says(&e)), "{:?}", of.iter().map(|e| text(e, "/message")).collect::<Vec<_>>());
    Ok(())
}

/// Looks until the check succeeds, for as long as anybody would wait for it.
pub(super) async fn eventually(what: &str, check: impl AsyncFn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        ticks.tick().await;
        match check().await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.context(what.to_owned())),
            Err(_) => {}
        }
    }
}

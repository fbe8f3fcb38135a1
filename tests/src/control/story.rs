//! What happens to the cluster while its processes are killed: most kinds of controllers have something to do in it.

use anyhow::{Context as _, Result};
use client::{Client, DeleteParams, Patch, Resource, resource};
use serde_json::{Value, json};

use super::faults::Effect;

/// Where everything lives; the second one is deleted on the way.
pub const NAMESPACES: &[&str] = &["shop", "leaving"];

const STATEFULSETS: Resource<'static> = Resource::new("apps", "v1", "statefulsets", "StatefulSet", true);
const DAEMONSETS: Resource<'static> = Resource::new("apps", "v1", "daemonsets", "DaemonSet", true);
const JOBS: Resource<'static> = Resource::new("batch", "v1", "jobs", "Job", true);
const BUDGETS: Resource<'static> = Resource::new("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true);
const QUOTAS: Resource<'static> = Resource::new("", "v1", "resourcequotas", "ResourceQuota", true);

/// A part of the story, and what must have come of it.
pub struct Phase {
    pub name: &'static str,
    steps: fn() -> Vec<Step>,
    pub effects: &'static [Effect],
}

enum Step {
    Create(Resource<'static>, &'static str, Value),
    /// Created with an owner reference to the object of that kind and name.
    Owned(Resource<'static>, &'static str, Value, (Resource<'static>, &'static str)),
    Merge(Resource<'static>, &'static str, Value),
    Delete(Resource<'static>, &'static str, &'static str),
}

const fn effect(of: &'static str, at: &'static str, is: &'static str) -> Effect {
    Effect { of, at, is }
}

pub const PHASES: &[Phase] = &[
    Phase {
        name: "made",
        steps: made,
        effects: &[
            effect("Deployment shop/web", "/status/availableReplicas", "3"),
            effect("StatefulSet shop/db", "/status/availableReplicas", "2"),
            effect("DaemonSet shop/agent", "/status/numberAvailable", "3"),
            effect("Job shop/sum", "/status/succeeded", "3"),
            effect("PodDisruptionBudget shop/web", "/status/disruptionsAllowed", "1"),
            effect("ResourceQuota shop/all", "/status/used/pods", "\"9\""),
            effect("ReplicaSet shop/lone", "/status/readyReplicas", "1"),
            effect("Deployment leaving/web", "/status/availableReplicas", "1"),
        ],
    },
    Phase {
        name: "changed",
        steps: changed,
        effects: &[
            effect("Deployment shop/web", "/status/updatedReplicas", "4"),
            effect("Deployment shop/web", "/status/replicas", "4"),
            effect("Deployment shop/web", "/status/availableReplicas", "4"),
            effect("StatefulSet shop/db", "/status/updatedReplicas", "3"),
            effect("StatefulSet shop/db", "/status/availableReplicas", "3"),
            effect("DaemonSet shop/agent", "/status/updatedNumberScheduled", "3"),
            effect("DaemonSet shop/agent", "/status/numberAvailable", "3"),
            effect("ConfigMap shop/owner", "", "null"),
            effect("ConfigMap shop/owned", "", "null"),
            effect("ReplicaSet shop/lone", "", "null"),
            effect("Pod shop/lone", "/metadata/ownerReferences", "null"),
            effect("Namespace /leaving", "", "null"),
            effect("ResourceQuota shop/all", "/status/used/pods", "\"11\""),
        ],
    },
    Phase {
        name: "removed",
        steps: removed,
        effects: &[
            effect("Deployment", "", "null"),
            effect("ReplicaSet", "", "null"),
            effect("StatefulSet", "", "null"),
            effect("Job", "", "null"),
            effect("EndpointSlice", "", "null"),
            effect("ControllerRevision shop/agent", "/revision", "2"),
            effect("ResourceQuota shop/all", "/status/used/pods", "\"4\""),
        ],
    },
];

fn made() -> Vec<Step> {
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let map =
        |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}});
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "all"},
                       "spec": {"hard": {"pods": "20", "services": "5", "count/deployments.apps": "3"}}});
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
                        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    let mut web = workload("apps/v1", "Deployment", "web");
    web["spec"]["replicas"] = 3.into();
    web["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let mut leaving = workload("apps/v1", "Deployment", "web");
    leaving["spec"]["replicas"] = 1.into();
    let mut db = workload("apps/v1", "StatefulSet", "db");
    db["spec"]["replicas"] = 2.into();
    db["spec"]["serviceName"] = "db".into();
    let mut sum = workload("batch/v1", "Job", "sum");
    sum["spec"] =
        json!({"completions": 3, "parallelism": 2, "completionMode": "Indexed", "template": sum["spec"]["template"]});
    sum["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
    vec![
        Step::Create(resource::NAMESPACES, "", namespace("shop")),
        Step::Create(resource::NAMESPACES, "", namespace("leaving")),
        Step::Create(QUOTAS, "shop", quota),
        Step::Create(BUDGETS, "shop", budget),
        Step::Create(resource::SERVICES, "shop", service("web", false)),
        Step::Create(resource::SERVICES, "shop", service("db", true)),
        Step::Create(resource::DEPLOYMENTS, "shop", web),
        Step::Create(STATEFULSETS, "shop", db),
        Step::Create(DAEMONSETS, "shop", workload("apps/v1", "DaemonSet", "agent")),
        Step::Create(JOBS, "shop", sum),
        Step::Create(resource::REPLICASETS, "shop", workload("apps/v1", "ReplicaSet", "lone")),
        Step::Create(resource::CONFIGMAPS, "shop", map("owner")),
        Step::Owned(resource::CONFIGMAPS, "shop", map("owned"), (resource::CONFIGMAPS, "owner")),
        Step::Create(resource::DEPLOYMENTS, "leaving", leaving),
        Step::Create(resource::SERVICES, "leaving", service("web", false)),
        Step::Create(resource::CONFIGMAPS, "leaving", map("some")),
    ]
}

fn changed() -> Vec<Step> {
    let version = json!({"spec": {"template": {"metadata": {"labels": {"version": "2"}}}}});
    let scaled = |replicas: u32| {
        let mut patch = version.clone();
        patch["spec"]["replicas"] = replicas.into();
        patch
    };
    vec![
        Step::Merge(resource::DEPLOYMENTS, "web", scaled(4)),
        Step::Merge(STATEFULSETS, "db", scaled(3)),
        Step::Merge(DAEMONSETS, "agent", version.clone()),
        Step::Delete(resource::NAMESPACES, "leaving", "Background"),
        Step::Delete(resource::CONFIGMAPS, "owner", "Foreground"),
        Step::Delete(resource::REPLICASETS, "lone", "Orphan"),
    ]
}

fn removed() -> Vec<Step> {
    vec![
        Step::Delete(resource::DEPLOYMENTS, "web", "Foreground"),
        Step::Delete(STATEFULSETS, "db", "Background"),
        Step::Delete(JOBS, "sum", "Foreground"),
        Step::Delete(resource::SERVICES, "web", "Background"),
        Step::Delete(resource::SERVICES, "db", "Background"),
    ]
}

fn workload(api_version: &str, kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind, "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "example.com/c:1"}]},
            },
        },
    })
}

fn service(name: &str, headless: bool) -> Value {
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                             "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}});
    if headless {
        service["spec"]["clusterIP"] = "None".into();
    }
    service
}

/// Does what a user would do in a phase.
pub async fn play(client: &Client, phase: &Phase) -> Result<()> {
    for step in (phase.steps)() {
        match step {
            Step::Create(resource, namespace, object) => {
                client
                    .create(resource, Some(namespace), &object)
                    .await
                    .with_context(|| format!("creating {object}"))?;
            }
            Step::Owned(resource, namespace, mut object, (of, owner)) => {
                let owner = client.get(of, Some(namespace), owner).await?;
                object["metadata"]["ownerReferences"] = json!([{
                    "apiVersion": of.api_version(), "kind": of.kind, "name": owner["metadata"]["name"],
                    "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true,
                }]);
                client
                    .create(resource, Some(namespace), &object)
                    .await
                    .with_context(|| format!("creating {object}"))?;
            }
            Step::Merge(resource, name, patch) => {
                client.patch(resource, Some("shop"), name, None, &Patch::Merge(patch)).await.context(name)?;
            }
            Step::Delete(resource, name, policy) => {
                let params = DeleteParams { propagation_policy: Some(policy.to_owned()), ..DeleteParams::default() };
                client.delete(resource, Some("shop"), name, &params).await.context(name)?;
            }
        }
    }
    Ok(())
}

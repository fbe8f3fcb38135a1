//! What is special: scale, eviction, logs, status, and the runtime's watcher.

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, EvictParams, LogParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::NAMESPACE;

/// # Errors
/// A call that fails, or an answer that is not what was asked for.
pub async fn run(client: &Client) -> Result<()> {
    let containers = json!([{"name": "c", "image": "i"}]);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let web = serde_json::from_value(json!({"metadata": {"name": "kube-rs"}, "spec": {"replicas": 0,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}}}))?;
    deployments.create(&PostParams::default(), &web).await.context("a deployment")?;
    let more = json!({"spec": {"replicas": 2}});
    let scale =
        deployments.patch_scale("kube-rs", &PatchParams::default(), &Patch::Merge(&more)).await.context("scale")?;
    ensure!(scale.spec.and_then(|s| s.replicas) == Some(2), "scaled");
    let scale = deployments.get_scale("kube-rs").await?;
    ensure!(scale.status.and_then(|s| s.selector).as_deref() == Some("a=b"), "the scale's selector");
    deployments.delete("kube-rs", &DeleteParams::foreground()).await?;

    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pod = serde_json::from_value(json!({"metadata": {"name": "kube-rs"}, "spec": {"containers": containers}}))?;
    pods.create(&PostParams::default(), &pod).await.context("a pod")?;
    let status = json!({"status": {"phase": "Running", "message": "by kube-rs"}});
    let by = PatchParams::default();
    let now = pods.patch_status("kube-rs", &by, &Patch::Strategic(&status)).await.context("status")?;
    ensure!(now.status.and_then(|s| s.message).as_deref() == Some("by kube-rs"), "the status");
    // No node has it, so there is nothing to read, and that is said in the way of the API.
    match pods.logs("kube-rs", &LogParams { container: Some("c".into()), ..LogParams::default() }).await {
        Ok(text) => ensure!(text.is_empty(), "logs of a pod on no node: {text}"),
        Err(kube::Error::Api(status)) => ensure!(matches!(status.code, 400 | 500), "{status:?}"),
        Err(other) => bail!("logs: {other:?}"),
    }
    pods.evict("kube-rs", &EvictParams::default()).await.context("evict")?;
    match pods.get("kube-rs").await {
        Err(kube::Error::Api(status)) => ensure!(status.code == 404 && status.reason == "NotFound", "{status:?}"),
        other => bail!("an evicted pod: {other:?}"),
    }
    Ok(())
}

/// The watcher lists, follows, and sees what comes and goes.
pub async fn watched(client: &Client) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let map = |name: &str| -> Result<ConfigMap> {
        Ok(serde_json::from_value(json!({"metadata": {"name": name, "labels": {"watcher": "yes"}}}))?)
    };
    maps.create(&PostParams::default(), &map("before")?).await?;
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut events = watcher::watcher(maps.clone(), config.labels("watcher=yes")).boxed();
        let mut seen = Vec::new();
        while let Some(event) = tokio::time::timeout(std::time::Duration::from_secs(20), events.try_next()).await?? {
            match event {
                Event::Init => seen.push("init".to_owned()),
                Event::InitApply(o) => seen.push(format!("first {}", o.name_any())),
                Event::InitDone => {
                    seen.push("done".to_owned());
                    maps.create(&PostParams::default(), &map("later")?).await?;
                    maps.delete("later", &DeleteParams::default()).await?;
                }
                Event::Apply(o) => seen.push(format!("came {}", o.name_any())),
                Event::Delete(o) => {
                    seen.push(format!("went {}", o.name_any()));
                    break;
                }
            }
        }
        ensure!(seen == ["init", "first before", "done", "came later", "went later"], "{seen:?}");
    }
    maps.delete("before", &DeleteParams::default()).await?;
    Ok(())
}

//! What a pod may be at most, and pods that want more than they may: fifty volumes, hundreds of updates, a full node, a log
//! without end, a full scratch volume and tasks without end.
//!
//! `NODE_PODS` is the number of small pods that are started at once (few by default; a node takes 110).

use anyhow::{Context as _, Result, ensure};
use client::resource::PODS;
use client::{Client, Patch};
use serde_json::{Value, json};

use crate::context::Context;

const VOLUMES: usize = 50;
const UPDATES: usize = 500;
const FEW: usize = 20;
/// Tasks of a pod (podPidsLimit), and how many of them a runtime may need for itself.
const TASKS: usize = 4096;
const RUNTIMES_OWN: usize = 64;
/// Whole files of a log before the oldest goes, and bytes of each (containerLogMaxFiles and containerLogMaxSize).
const LOG_FILES: usize = 5;

const GREEDY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: loud}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "corten.local/test-web:v1", args: [shout]}]
---
apiVersion: v1
kind: Pod
metadata: {name: full}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: corten.local/test-web:v1
    args: [hoard, /scratch/file, "4"]
    volumeMounts: [{name: scratch, mountPath: /scratch}]
  volumes: [{name: scratch, emptyDir: {sizeLimit: 1Mi}}]
---
apiVersion: v1
kind: Pod
metadata: {name: crowd}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "corten.local/test-web:v1", args: [crowd]}]
"#;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    // First: it takes the kubelet's rounds to be noticed.
    context.apply(GREEDY)?;
    crowd(context)?;
    volumes(context)?;
    updates(context)?;
    many(context)?;
    full(context)?;
    loud(context)?;
    context.kubectl("delete pod/loud pod/full pod/crowd pod/volumes --timeout=60s").map(drop)
}

fn volumes(context: &Context) -> Result<()> {
    let numbers = 0..VOLUMES;
    let volumes: Vec<Value> = numbers
        .clone()
        .map(|n| match n % 3 {
            0 => json!({"name": format!("v{n}"), "emptyDir": {}}),
            1 => json!({"name": format!("v{n}"), "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}),
            _ => json!({"name": format!("v{n}"), "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}}),
        })
        .collect();
    let mounts: Vec<Value> =
        numbers.map(|n| json!({"name": format!("v{n}"), "mountPath": format!("/v/{n}")})).collect();
    let container =
        json!({"name": "main", "image": "corten.local/test-web:v1", "args": ["sleep"], "volumeMounts": mounts});
    let spec = json!({"terminationGracePeriodSeconds": 0, "volumes": volumes, "containers": [container]});
    context.apply(
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "volumes"}, "spec": spec}).to_string(),
    )?;
    context.kubectl("wait --for=condition=Ready pod/volumes --timeout=120s")?;
    let told = context.kubectl("exec volumes -- /test-web cat /v/49/name")?;
    ensure!(told == "volumes", "the last volume says {told:?}");
    Ok(())
}

/// Changes of a specification that restart nothing.
fn updates(context: &Context) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::from_kubeconfig(&context.cluster.kubeconfig())?;
        for round in 0..UPDATES {
            let patch = Patch::Merge(json!({"spec": {"activeDeadlineSeconds": 1_000_000 - round}}));
            client.patch(PODS, Some("default"), "volumes", None, &patch).await?;
        }
        anyhow::Ok(())
    })?;
    context.eventually("a status of the last update", || {
        let pod = context.get("pod volumes")?;
        ensure!(pod["status"]["observedGeneration"] == pod["metadata"]["generation"], "{}", pod["status"]);
        ensure!(pod["status"]["containerStatuses"][0]["restartCount"] == 0, "{}", pod["status"]);
        ensure!(pod["metadata"]["generation"].as_u64() > Some(UPDATES as u64), "{}", pod["metadata"]);
        Ok(())
    })?;
    Ok(())
}

fn many(context: &Context) -> Result<()> {
    let count = match std::env::var("NODE_PODS") {
        Ok(text) => text.parse().with_context(|| format!("NODE_PODS={text}"))?,
        Err(_) => FEW,
    };
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"},
        "spec": {"replicas": count, "selector": {"matchLabels": {"app": "many"}}, "template": {
            "metadata": {"labels": {"app": "many"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": "corten.local/test-web:v1"}]},
        }},
    });
    context.apply(&deployment.to_string())?;
    let room: usize = {
        let node = context.get(&format!("node {}", context.node().name))?;
        let all = context.get("pods -A --field-selector=status.phase=Running")?;
        let others =
            all["items"].as_array().into_iter().flatten().filter(|p| p["metadata"]["labels"]["app"] != "many").count();
        let most: usize = node["status"]["allocatable"]["pods"].as_str().unwrap_or_default().parse()?;
        most.saturating_sub(others)
    };
    let took = context.eventually("as many pods as there is room for", || {
        let ready = context.get("deployment many")?["status"]["readyReplicas"].as_u64().unwrap_or(0);
        ensure!(ready == room.min(count) as u64, "{ready} are ready of {count}, and there is room for {room}");
        Ok(())
    })?;
    println!("  {} pods ready after {:.1} s", room.min(count), took.as_secs_f64());
    context.kubectl("delete deployment/many --timeout=60s")?;
    context.eventually("no pod of the deployment", || {
        let left = context.get("pods -l app=many")?["items"].as_array().map_or(0, Vec::len);
        ensure!(left == 0, "{left} are left");
        Ok(())
    })?;
    Ok(())
}

/// A pod's tasks come to an end, and those of the others do not.
fn crowd(context: &Context) -> Result<()> {
    context.eventually("the pod has all the tasks it may have", || {
        let said = context.kubectl("logs crowd")?;
        let tasks: usize = said.trim().parse().with_context(|| format!("the pod says {said:?}"))?;
        ensure!(tasks < TASKS && tasks > TASKS - RUNTIMES_OWN, "{tasks} tasks");
        Ok(())
    })?;
    let status = context.get("pod crowd")?["status"]["containerStatuses"][0].clone();
    ensure!(status["ready"] == true && status["restartCount"] == 0, "status: {status}");
    Ok(())
}

fn full(context: &Context) -> Result<()> {
    context.eventually("the pod that filled its volume is evicted", || {
        let status = context.get("pod full")?["status"].clone();
        ensure!(status["phase"] == "Failed" && status["reason"] == "Evicted", "{status}");
        let message = status["message"].as_str().unwrap_or_default();
        ensure!(message == "Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\". ", "{message:?}");
        Ok(())
    })?;
    Ok(())
}

/// The log is cut into files of which the oldest go, and is still read without a gap at its end.
fn loud(context: &Context) -> Result<()> {
    let folder = context.cluster.folder.join(format!("{}.var/log/pods", context.node().name));
    let uid = context.get("pod loud")?["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let folder = folder.join(format!("default_loud_{uid}/main"));
    context.eventually("a log that was cut", || {
        let files: Vec<_> =
            std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?.flatten().collect();
        ensure!(files.len() > 2 && files.len() <= LOG_FILES, "{files:?}");
        Ok(())
    })?;
    // Only the newest file is read, as upstream does it, and that one has just begun.
    context.eventually("the log's end", || {
        let tail = context.kubectl("logs loud --tail=3")?;
        ensure!(tail.lines().count() == 3, "the log's end: {tail:?}");
        Ok(())
    })?;
    Ok(())
}

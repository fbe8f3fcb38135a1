//! Where pods go with a configuration of the scheduler that has two profiles and an extender, with a volume that waits for its
//! first user, and when an important pod finds no room.

use std::collections::BTreeSet;
use std::convert::Infallible;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use client::resource::{NAMESPACES, NODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS};
use client::{Client, ListParams, Patch, Resource, resource};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::bad_input::eventually;
use crate::bench::hollow;
use crate::bench::stack::{Stack, System};

const NAMESPACE: &str = "placed";
const HOLLOW: usize = 3;
/// From binding to Running.
const START: std::time::Duration = std::time::Duration::from_millis(20);
const CLASSES: Resource<'static> = Resource::new("storage.k8s.io", "v1", "storageclasses", "StorageClass", false);
const PRIORITIES: Resource<'static> =
    Resource::new("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", false);
/// What only the extender knows where to find.
const LICENCE: &str = "example.com/licence";
const REFUSED: &str = "bench-node-0";
const PREFERRED: &str = "bench-node-2";

/// The check.
pub async fn run() -> Result<()> {
    let mut stack = Stack::start_api(&Stack::corten()?, &[], &[]).await?;
    stack.start_system(System::ControllerManager)?;
    let client = stack.client()?;
    hollow::register(std::slice::from_ref(&client), HOLLOW).await?;
    let living = tokio::spawn(hollow::live(stack.client()?, HOLLOW, START));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    stack.write("scheduler.yaml", &configuration(listener.local_addr()?.port()))?;
    let extender = tokio::spawn(extend(listener));
    let config = format!("--config={}", stack.path("scheduler.yaml").display());
    let port = stack.api_address().port();
    let mut scheduler = stack.spawn_system(System::Scheduler, port, &["--leader-elect=false", &config])?;
    let outcome = placed(&client).await.with_context(|| stack.log_tail(System::Scheduler));
    // It may have ended by itself.
    let _ = scheduler.kill();
    scheduler.wait()?;
    extender.abort();
    living.abort();
    outcome
}

fn configuration(port: u16) -> String {
    format!(
        "apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
- schedulerName: packer
  plugins: {{score: {{disabled: [{{name: '*'}}], enabled: [{{name: NodeResourcesFit}}]}}}}
  pluginConfig:
  - name: NodeResourcesFit
    args: {{scoringStrategy: {{type: MostAllocated, resources: [{{name: cpu, weight: 1}}]}}}}
extenders:
- urlPrefix: http://127.0.0.1:{port}
  filterVerb: filter
  prioritizeVerb: prioritize
  weight: 100
  nodeCacheCapable: true
  managedResources: [{{name: {LICENCE}}}]
"
    )
}

/// An extender that has no licences for one node and likes another one most.
async fn extend(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            // The scheduler's connection ends with the scheduler.
            let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let names = || asked["nodenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let answer = if path == "/filter" {
        let refused = names().filter(|name| *name == REFUSED).map(|name| (name.to_owned(), json!("no licence here")));
        json!({"nodenames": names().filter(|name| *name != REFUSED).collect::<Vec<_>>(),
               "failedNodes": refused.collect::<serde_json::Map<_, _>>()})
    } else {
        names().map(|name| json!({"host": name, "score": if name == PREFERRED { 10 } else { 0 }})).collect()
    };
    Ok(Response::new(Full::new(Bytes::from(answer.to_string()))))
}

async fn placed(client: &Client) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    client.create(NAMESPACES, None, &namespace).await?;
    for number in 0..HOLLOW {
        let amounts = json!({LICENCE: "9"});
        let patch = Patch::Merge(json!({"status": {"capacity": amounts, "allocatable": amounts}}));
        client.patch(NODES, None, &format!("bench-node-{number}"), Some("status"), &patch).await?;
    }
    profiles(client).await?;
    extender(client).await?;
    volume(client).await?;
    preemption(client).await
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "c", "image": "example.com/c:1", "resources": {"requests": {"cpu": cpu}, "limits": {}}}]},
    })
}

async fn create(client: &Client, pod: &Value) -> Result<()> {
    client.create(PODS, Some(NAMESPACE), pod).await.map(drop).with_context(|| pod["metadata"]["name"].to_string())
}

async fn node_of(client: &Client, name: &str) -> Result<String> {
    let pod = client.get(PODS, Some(NAMESPACE), name).await?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    ensure!(!node.is_empty(), "{name} has no node: {}", pod["status"]);
    Ok(node)
}

/// One profile spreads, the other one packs.
async fn profiles(client: &Client) -> Result<()> {
    for (scheduler, expected) in [("default-scheduler", HOLLOW), ("packer", 1)] {
        let name = |number: usize| format!("{scheduler}-{number}");
        let mut nodes = BTreeSet::new();
        for number in 0..HOLLOW {
            let mut pod = pod(&name(number), "500m");
            pod["spec"]["schedulerName"] = scheduler.into();
            create(client, &pod).await?;
            eventually("a node", async || node_of(client, &name(number)).await.map(drop)).await?;
            nodes.insert(node_of(client, &name(number)).await?);
        }
        ensure!(nodes.len() == expected, "{scheduler} used {nodes:?}");
    }
    Ok(())
}

/// It is asked about pods with its resource only, and its words reach their users.
async fn extender(client: &Client) -> Result<()> {
    let licensed = |name: &str| {
        let mut pod = pod(name, "10m");
        for amounts in ["requests", "limits"] {
            pod["spec"]["containers"][0]["resources"][amounts][LICENCE] = "1".into();
        }
        pod
    };
    create(client, &licensed("licensed")).await?;
    eventually("the extender's choice", async || {
        let node = node_of(client, "licensed").await?;
        ensure!(node == PREFERRED, "on {node}");
        Ok(())
    })
    .await?;
    let mut astray = licensed("astray");
    astray["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": REFUSED});
    create(client, &astray).await?;
    eventually("the extender's refusal", async || {
        let pod = client.get(PODS, Some(NAMESPACE), "astray").await?;
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let told = conditions.iter().any(|c| c["message"].as_str().is_some_and(|m| m.contains("1 no licence here")));
        ensure!(told, "{conditions:?}");
        Ok(())
    })
    .await
}

/// A claim waits for its first user, who goes where the volume is.
async fn volume(client: &Client) -> Result<()> {
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "disks"},
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"});
    client.create(CLASSES, None, &class).await?;
    let here = json!([{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["bench-node-1"]}]}]);
    let disk = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "disks",
        "local": {"path": "/mnt/disk"}, "nodeAffinity": {"required": {"nodeSelectorTerms": here}}}});
    client.create(PERSISTENTVOLUMES, None, &disk).await?;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "disks", "resources": {"requests": {"storage": "1Gi"}}}});
    client.create(PERSISTENTVOLUMECLAIMS, Some(NAMESPACE), &claim).await?;
    eventually("the claim waits", async || has_event(client, "data", "WaitForFirstConsumer").await).await?;
    let mut user = pod("user", "10m");
    user["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    create(client, &user).await?;
    eventually("the volume's node and its claim", async || {
        let node = node_of(client, "user").await?;
        ensure!(node == "bench-node-1", "on {node}");
        let claim = client.get(PERSISTENTVOLUMECLAIMS, Some(NAMESPACE), "data").await?;
        ensure!(claim["status"]["phase"] == "Bound" && claim["spec"]["volumeName"] == "disk", "{claim}");
        Ok(())
    })
    .await
}

/// The least important pod goes, and only that one.
async fn preemption(client: &Client) -> Result<()> {
    for (name, value) in [("low", 10), ("middle", 20), ("high", 30), ("urgent", 1000)] {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
                           "metadata": {"name": name}, "value": value});
        client.create(PRIORITIES, None, &class).await?;
    }
    for pod in client.list(PODS, Some(NAMESPACE), &ListParams::default()).await?.items {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        client.delete(PODS, Some(NAMESPACE), name, &client::DeleteParams::default()).await?;
    }
    let important = |class: &str| {
        let mut pod = pod(class, "3");
        pod["spec"]["priorityClassName"] = class.into();
        pod
    };
    for class in ["low", "middle", "high"] {
        create(client, &important(class)).await?;
        eventually("a node of its own", async || node_of(client, class).await.map(drop)).await?;
    }
    let cleared = node_of(client, "low").await?;
    create(client, &important("urgent")).await?;
    eventually("the place of the least important", async || {
        let node = node_of(client, "urgent").await?;
        ensure!(node == cleared, "on {node}, not {cleared}");
        Ok(())
    })
    .await?;
    eventually("the event", async || has_event(client, "low", "Preempted").await).await?;
    let left: Vec<Value> = client.list(PODS, Some(NAMESPACE), &ListParams::default()).await?.items;
    let left: BTreeSet<&str> = left.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
    ensure!(left == BTreeSet::from(["high", "middle", "urgent"]), "{left:?}");
    Ok(())
}

async fn has_event(client: &Client, about: &str, reason: &str) -> Result<()> {
    let events = client.list(resource::EVENTS, Some(NAMESPACE), &ListParams::default()).await?.items;
    let told = events.iter().any(|e| e["involvedObject"]["name"] == about && e["reason"] == reason);
    ensure!(told, "no event {reason} of {about}");
    Ok(())
}

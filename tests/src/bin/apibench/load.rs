//! Loads: a job says what the n-th request is, connections take numbers until none is left.

use super::connection::{Access, Connection};
use anyhow::{Context, Result};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A request: method, path, media type of the body, body.
type Shot = (Method, String, &'static str, String);
/// The n-th request.
pub type Job = Box<dyn Fn(usize) -> Shot + Send + Sync>;

const JSON: &str = "application/json";
/// How long watchers may take to see everything.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came out.
pub struct Figures {
    latencies: Vec<Duration>,
    took: Duration,
    bytes: usize,
}

impl Figures {
    fn new(mut latencies: Vec<Duration>, took: Duration, bytes: usize) -> Self {
        latencies.sort_unstable();
        Self { latencies, took, bytes }
    }

    /// Requests, or events, a second.
    pub fn rate(&self) -> f64 {
        self.count() as f64 / self.took.as_secs_f64()
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.latencies.len()
    }

    /// A percentile of the latencies, in milliseconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        let at = (self.latencies.len() * percent / 100).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }

    /// Of response bodies.
    pub fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64()
    }
}

fn object(namespace: &str, n: usize, value: &str) -> String {
    let metadata =
        json!({"name": format!("o{n}"), "namespace": namespace, "labels": {"shard": format!("s{}", n % 100)}});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}).to_string()
}

/// About 200 bytes of data.
fn filling(mark: &str) -> String {
    format!("{mark}-{}", "x".repeat(190))
}

fn collection(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

/// Makes the n-th object.
pub fn create(namespace: &str) -> Job {
    let namespace = namespace.to_string();
    Box::new(move |n| (Method::POST, collection(&namespace), JSON, object(&namespace, n, &filling("a"))))
}

/// Replaces the n-th object, whatever its version.
pub fn replace(namespace: &str) -> Job {
    let namespace = namespace.to_string();
    Box::new(move |n| {
        (Method::PUT, format!("{}/o{n}", collection(&namespace)), JSON, object(&namespace, n, &filling("b")))
    })
}

/// Changes a label of the n-th object.
pub fn patch(namespace: &str) -> Job {
    let namespace = namespace.to_string();
    Box::new(move |n| {
        let body = json!({"metadata": {"labels": {"patched": format!("p{n}")}}}).to_string();
        (Method::PATCH, format!("{}/o{n}", collection(&namespace)), "application/merge-patch+json", body)
    })
}

/// Reads one object, always the same.
pub fn read(namespace: &str) -> Job {
    let path = format!("{}/o0", collection(namespace));
    Box::new(move |_| (Method::GET, path.clone(), JSON, String::new()))
}

/// Lists everything, from whatever the server has at hand.
pub fn list(namespace: &str) -> Job {
    let path = format!("{}?resourceVersion=0", collection(namespace));
    Box::new(move |_| (Method::GET, path.clone(), JSON, String::new()))
}

/// Lists the hundredth part that has a certain label.
pub fn by_label(namespace: &str) -> Job {
    let path = format!("{}?resourceVersion=0&labelSelector=shard%3Ds", collection(namespace));
    Box::new(move |n| (Method::GET, format!("{path}{}", n % 100), JSON, String::new()))
}

/// Lists the one object that has a certain name.
pub fn by_field(namespace: &str) -> Job {
    let path = format!("{}?resourceVersion=0&fieldSelector=metadata.name%3Do", collection(namespace));
    Box::new(move |n| (Method::GET, format!("{path}{}", n % 100), JSON, String::new()))
}

/// What a busy cluster sends: of ten requests six read an object, two patch one, one replaces one and one lists by label.
pub fn mixed(namespace: &str, objects: usize) -> Job {
    let (replace, patch, list, path) =
        (replace(namespace), patch(namespace), by_label(namespace), collection(namespace));
    Box::new(move |n| match n % 10 {
        0..6 => (Method::GET, format!("{path}/o{}", n % objects), JSON, String::new()),
        6..8 => patch(n % objects),
        8 => replace(n % objects),
        _ => list(n),
    })
}

/// Whether a list has nothing in it.
pub fn is_empty(list: &[u8]) -> Result<bool> {
    let list: Value = serde_json::from_slice(list)?;
    Ok(list["items"].as_array().context("no list")?.is_empty())
}

/// Runs `total` requests of a job over so many connections.
pub async fn run(access: &Arc<Access>, connections: usize, total: usize, job: Arc<Job>) -> Result<Figures> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(access).await?);
    }
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in open {
        let (next, job) = (next.clone(), job.clone());
        tasks.spawn(async move {
            let (mut latencies, mut bytes) = (Vec::new(), 0);
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= total {
                    return Ok::<_, anyhow::Error>((latencies, bytes));
                }
                let (method, path, media, body) = job(n);
                let sent = Instant::now();
                bytes += connection.call(method, &path, media, body).await?.len();
                latencies.push(sent.elapsed());
            }
        });
    }
    let (mut latencies, mut bytes) = (Vec::with_capacity(total), 0);
    while let Some(done) = tasks.join_next().await {
        let (mine, read) = done??;
        latencies.extend(mine);
        bytes += read;
    }
    Ok(Figures::new(latencies, begun.elapsed(), bytes))
}

/// Watchers of one namespace while objects are made in it; latencies are from sending the request to a watcher's reading the event.
pub async fn fan_out(access: &Arc<Access>, namespace: &str, watchers: usize, objects: usize) -> Result<Figures> {
    let begun = Instant::now();
    let (ready, mut all_ready) = mpsc::channel(watchers);
    let mut tasks = JoinSet::new();
    for _ in 0..watchers {
        let (access, path, ready) = (access.clone(), collection(namespace), ready.clone());
        tasks.spawn(async move { watch(&access, &path, objects, begun, ready).await });
    }
    for _ in 0..watchers {
        all_ready.recv().await.context("a watcher failed")?;
    }
    let mut connection = Connection::open(access).await?;
    let writing = Instant::now();
    for n in 0..objects {
        let body = object(namespace, n, &begun.elapsed().as_nanos().to_string());
        connection.call(Method::POST, &collection(namespace), JSON, body).await?;
    }
    let (mut latencies, mut bytes) = (Vec::new(), 0);
    while let Some(done) = tokio::time::timeout(PATIENCE, tasks.join_next()).await.context("watchers are behind")? {
        let (mine, read) = done??;
        latencies.extend(mine);
        bytes += read;
    }
    Ok(Figures::new(latencies, writing.elapsed(), bytes))
}

/// Reads events until it has seen every object made.
async fn watch(
    access: &Access,
    path: &str,
    expected: usize,
    begun: Instant,
    ready: mpsc::Sender<()>,
) -> Result<(Vec<Duration>, usize)> {
    let mut connection = Connection::open(access).await?;
    let mut body = connection.watch(path).await?;
    ready.send(()).await?;
    let (mut latencies, mut bytes, mut rest) = (Vec::new(), 0, Vec::new());
    while latencies.len() < expected {
        let frame = body.frame().await.context("the watch ended early")??;
        let now = begun.elapsed();
        let Ok(data) = frame.into_data() else { continue };
        bytes += data.len();
        rest.extend_from_slice(&data);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line)?;
            if let Some(sent) = event["object"]["data"]["value"].as_str().and_then(|text| text.parse().ok()) {
                latencies.push(now.saturating_sub(Duration::from_nanos(sent)));
            }
        }
    }
    Ok((latencies, bytes))
}

//! From a pod's creation to Running on a real node, with the image present: one after the other and many at once, split into
//! the parts of API server, scheduler, kubelet and runtime; and what the kubelet costs at rest.
//!
//! The first two parts are seen from outside (answers and watch events), the runtime's is what the kubelet says of its own
//! calls (`kubelet_runtime_operations_duration_seconds`).

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use client::resource::{NODES, PODS};
use client::{Change, Changes, Client, DeleteParams, Informer, InformerParams, ListParams};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(300);
/// What a node does to start a pod, as opposed to looking at what there is.
const STARTING: [&str; 3] = ["run_podsandbox", "create_container", "start_container"];
/// For how long the kubelet is watched at rest, and how long it gets to come to rest.
const REST: Duration = Duration::from_secs(20);
const OWN_SHARE_MS: f64 = 50.0;

/// When which pod got how far.
#[derive(Clone, Copy, Debug)]
struct Times {
    asked: Instant,
    answered: Instant,
    bound: Option<Instant>,
    running: Option<Instant>,
}

/// A node, and the pods of this benchmark on it.
struct Stage {
    client: Client,
    node: String,
    changes: Changes,
    _informer: Informer,
    made: usize,
    /// By uid.
    alive: HashSet<String>,
}

/// Measures on the cluster of a kubeconfig.
pub async fn run(kubeconfig: &Path, sequential: usize, parallel: usize, counts: &[usize]) -> Result<()> {
    let client = Client::from_kubeconfig(kubeconfig).with_context(|| kubeconfig.display().to_string())?;
    let nodes = client.list(NODES, None, &ListParams::default()).await?;
    let node = nodes.items.first().and_then(|n| n["metadata"]["name"].as_str()).context("a cluster without nodes")?;
    let params = InformerParams { label_selector: "bench=pods".into(), ..InformerParams::default() };
    let informer = Informer::start(client.clone(), PODS, params);
    informer.synced().await;
    let changes = informer.subscribe();
    let mut stage =
        Stage { node: node.to_owned(), changes, _informer: informer, client, made: 0, alive: HashSet::new() };
    stage.rest(0).await?;
    println!(
        "{:<20} {:>8} {:>8} {:>8} {:>8} {:>10} {:>8} {:>8} {:>8}   own share: target {OWN_SHARE_MS}",
        "milliseconds per pod", "total", "p99", "runtime", "API", "scheduler", "kubelet", "of it", "own"
    );
    // The first pod pays for what is loaded on first use.
    stage.wave("", 1).await?;
    let (mut rows, before) = (Vec::new(), stage.operations().await?);
    for _ in 0..sequential {
        rows.extend(stage.start(1).await?);
        stage.clear().await?;
    }
    report("one after the other", &rows, &before, &stage.operations().await?);
    stage.wave(&format!("{parallel} at once"), parallel).await?;
    for count in counts {
        stage.start(*count).await?;
        stage.rest(*count).await?;
        stage.clear().await?;
    }
    Ok(())
}

fn pod(number: usize) -> Value {
    let name = format!("bench-pods-{number}");
    // It ends when it is told to.
    let container = json!({"name": "main", "image": "corten.local/test-web:v1", "args": ["caught"]});
    let spec = json!({"terminationGracePeriodSeconds": 5, "containers": [container]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"bench": "pods"}}, "spec": spec})
}

impl Stage {
    /// Starts pods and waits until they run.
    async fn start(&mut self, count: usize) -> Result<Vec<Times>> {
        let numbers: Vec<usize> = (self.made..self.made + count).collect();
        self.made += count;
        let one = |number: usize| {
            let client = self.client.clone();
            async move {
                let asked = Instant::now();
                let object = client.create(PODS, Some("default"), &pod(number)).await?;
                let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
                anyhow::Ok((uid, Times { asked, answered: Instant::now(), bound: None, running: None }))
            }
        };
        // News is read while requests are under way: its time is what counts.
        let asked = try_join_all(numbers.into_iter().map(one));
        let mut seen: HashMap<String, (Option<Instant>, Option<Instant>)> = HashMap::new();
        tokio::pin!(asked);
        let mut times: Option<HashMap<String, Times>> = None;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(times) = &times
                && times.keys().all(|uid| seen.get(uid).is_some_and(|s| s.1.is_some()))
            {
                break;
            }
            tokio::select! {
                answer = &mut asked, if times.is_none() => times = Some(answer?.into_iter().collect()),
                change = self.changes.recv() => note(&mut seen, change.context("the watch ended")?.object()),
                () = tokio::time::sleep_until(deadline) => anyhow::bail!("not every pod runs after {PATIENCE:?}"),
            }
        }
        self.alive.extend(times.iter().flat_map(HashMap::keys).cloned());
        let done = |(uid, t): (String, Times)| {
            let (bound, running) = seen.get(&uid).copied().unwrap_or_default();
            Times { bound, running, ..t }
        };
        Ok(times.unwrap_or_default().into_iter().map(done).collect())
    }

    /// Removes every pod of the benchmark.
    async fn clear(&mut self) -> Result<()> {
        self.client.delete_collection(PODS, Some("default"), "bench=pods", &DeleteParams::default()).await?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        // An object goes when the node has let go of the pod: what it still ended would count as work for the next ones.
        while !self.alive.is_empty() {
            tokio::select! {
                change = self.changes.recv() => {
                    if let Change::Deleted(pod) = change.context("the watch ended")? {
                        self.alive.remove(pod["metadata"]["uid"].as_str().unwrap_or_default());
                    }
                }
                () = tokio::time::sleep_until(deadline) => anyhow::bail!("pods of the benchmark are left on the node"),
            }
        }
        Ok(())
    }

    async fn wave(&mut self, title: &str, count: usize) -> Result<()> {
        let before = self.operations().await?;
        let rows = self.start(count).await?;
        if !title.is_empty() {
            report(title, &rows, &before, &self.operations().await?);
        }
        self.clear().await
    }

    async fn metrics(&self) -> Result<String> {
        Ok(self.client.get_text(&format!("/api/v1/nodes/{}/proxy/metrics", self.node)).await?)
    }

    /// Seconds that calls of the runtime took so far, by operation.
    async fn operations(&self) -> Result<HashMap<String, f64>> {
        let text = self.metrics().await?;
        let sums = text.lines().filter_map(|line| {
            let rest = line.strip_prefix("kubelet_runtime_operations_duration_seconds_sum{operation_type=\"")?;
            let (operation, value) = rest.split_once("\"} ")?;
            Some((operation.to_owned(), value.parse().ok()?))
        });
        Ok(sums.collect())
    }

    /// What the kubelet costs while nothing happens.
    async fn rest(&self, pods: usize) -> Result<()> {
        tokio::time::sleep(REST).await;
        let figure = |text: &str, name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
        };
        let before = self.metrics().await?;
        tokio::time::sleep(REST).await;
        let after = self.metrics().await?;
        let cpu = |text: &str| figure(text, "process_cpu_seconds_total");
        let percent = (cpu(&after) - cpu(&before)) / REST.as_secs_f64() * 100.0;
        let resident = figure(&after, "process_resident_memory_bytes") / 1e6;
        let target = if pods >= 100 { 45.0 } else { 20.0 };
        println!(
            "kubelet at {pods:>3} pods: {resident:.1} MB resident (target {target}), {percent:.2} % of a core (target 1)"
        );
        Ok(())
    }
}

fn note(seen: &mut HashMap<String, (Option<Instant>, Option<Instant>)>, pod: &Value) {
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    let entry = seen.entry(uid.to_owned()).or_default();
    if pod["spec"]["nodeName"].is_string() {
        entry.0.get_or_insert_with(Instant::now);
    }
    if pod["status"]["phase"] == "Running" {
        entry.1.get_or_insert_with(Instant::now);
    }
}

/// One line. The kubelet's part is what is left of the time on the node without the runtime's work; of it, it waits some
/// for the runtime to tell what there is. Calls of different pods overlap when many start at once.
fn report(title: &str, rows: &[Times], before: &HashMap<String, f64>, after: &HashMap<String, f64>) {
    #[expect(clippy::cast_precision_loss, reason = "some hundreds of pods")]
    let pods = rows.len().max(1) as f64;
    let mean = |part: &dyn Fn(&Times) -> Option<Duration>| {
        rows.iter().filter_map(part).map(|d| d.as_secs_f64() * 1000.0).sum::<f64>() / pods
    };
    let starting: HashSet<&str> = STARTING.into();
    let spent = |wanted: bool| {
        let mine = after.iter().filter(|(operation, _)| starting.contains(operation.as_str()) == wanted);
        // What ends pods is not on the way to Running.
        let mine = mine.filter(|(operation, _)| !operation.starts_with("stop_") && !operation.starts_with("remove_"));
        mine.map(|(operation, sum)| sum - before.get(operation).unwrap_or(&0.0)).sum::<f64>() * 1000.0 / pods
    };
    let mut totals: Vec<f64> =
        rows.iter().filter_map(|t| Some((t.running? - t.asked).as_secs_f64() * 1000.0)).collect();
    totals.sort_by(f64::total_cmp);
    let p99 = totals.get((totals.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN);
    let api = mean(&|t| Some(t.answered - t.asked));
    let scheduler = mean(&|t| Some(t.bound?.saturating_duration_since(t.answered)));
    let node = mean(&|t| Some(t.running? - t.bound?));
    let (runtime, looks) = (spent(true), spent(false));
    let kubelet = node - runtime;
    println!(
        "{title:<20} {:>8.1} {p99:>8.1} {runtime:>8.1} {api:>8.1} {scheduler:>10.1} {kubelet:>8.1} {looks:>8.1} {:>8.1}",
        mean(&|t| Some(t.running? - t.asked)),
        api + scheduler + kubelet
    );
}

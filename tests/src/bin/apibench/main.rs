//! Drives any Kubernetes API server, this one or upstream's, by its URL and a token or certificate, and prints rates and latencies.
//!
//!     apibench --server https://127.0.0.1:6443 --ca ca.crt --token T --pid $(pidof kube-apiserver)
//!     apibench … --objects 100000 --watchers 5000
//!
//! It makes namespaces of its own and removes what it put in them. Figures of two servers may be compared only if both were taken in the same hour on the same machine.

mod connection;
mod load;

use anyhow::{Context, Result};
use clap::Parser;
use connection::{Access, Connection};
use http::Method;
use load::{Figures, Job};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// What to drive and how hard.
#[derive(Parser)]
struct Arguments {
    /// The server: https://HOST:PORT.
    #[arg(long)]
    server: String,
    /// The authority that signed its certificate.
    #[arg(long)]
    ca: PathBuf,
    /// A bearer token.
    #[arg(long, default_value = "")]
    token: String,
    /// A client certificate, instead of a token.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    key: Option<PathBuf>,
    /// The server's process, to print its resident memory and what processor time a request costs it.
    #[arg(long)]
    pid: Option<u32>,
    /// Connections for everything but lists.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Objects to create, then to replace and patch; lists are of this many, and of 100 and 10,000 if those are fewer.
    #[arg(long, default_value_t = 10_000)]
    objects: usize,
    /// Reads of one object.
    #[arg(long, default_value_t = 20_000)]
    reads: usize,
    /// Lists of each size.
    #[arg(long, default_value_t = 40)]
    lists: usize,
    /// Watchers of one namespace.
    #[arg(long, default_value_t = 200)]
    watchers: usize,
    /// Objects created while they watch.
    #[arg(long, default_value_t = 200)]
    watched: usize,
}

const LIST_CONNECTIONS: usize = 4;
/// Of a second, in what Linux tells of processes.
const TICKS: f64 = 100.0;
/// How many objects are removed by one request.
const PART: usize = 5_000;
/// How many objects smaller lists have.
const SMALLER: [usize; 2] = [100, 10_000];

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    daemon::tls::install_provider();
    let identity = arguments.cert.as_deref().zip(arguments.key.as_deref());
    let access = Arc::new(Access::new(&arguments.server, &arguments.ca, identity, &arguments.token)?);
    let mark = std::process::id();
    let mut sizes: Vec<usize> = SMALLER.into_iter().filter(|size| *size < arguments.objects).collect();
    sizes.push(arguments.objects);
    let lists: Vec<(usize, String)> = sizes.into_iter().map(|size| (size, format!("bench-{mark}-{size}"))).collect();
    let watched = format!("bench-{mark}-watch");
    let names: Vec<&String> = lists.iter().map(|(_, name)| name).chain([&watched]).collect();
    let mut first = Connection::open(&access).await?;
    for name in &names {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string();
        first.call(Method::POST, "/api/v1/namespaces", "application/json", body).await.context("namespace")?;
    }
    println!("{:<28}{:>12}{:>12}{:>12}{:>12}{:>12}", "", "rate/s", "p50 ms", "p99 ms", "MB/s", "cpu us");
    let outcome = measure(&arguments, &access, &lists, &watched).await;
    // What went wrong first counts.
    outcome.and(removed(&access, &names).await)
}

/// Removes the namespaces with what is in them, a part at a time: all of it may take longer than a request may.
async fn removed(access: &Access, names: &[&String]) -> Result<()> {
    // The server has closed the connection that waited meanwhile.
    let mut connection = Connection::open(access).await?;
    for name in names {
        let collection = format!("/api/v1/namespaces/{name}/configmaps");
        let mut call =
            async |method, path: &str| connection.call(method, path, "application/json", String::new()).await;
        while !load::is_empty(&call(Method::GET, &format!("{collection}?limit=1")).await?)? {
            call(Method::DELETE, &format!("{collection}?limit={PART}")).await?;
        }
        call(Method::DELETE, &format!("/api/v1/namespaces/{name}")).await?;
    }
    Ok(())
}

/// `lists` are sizes and namespaces, the largest last.
async fn measure(arguments: &Arguments, access: &Arc<Access>, lists: &[(usize, String)], watched: &str) -> Result<()> {
    let (many, objects) = (arguments.connections, arguments.objects);
    let ((_, large), smaller) = lists.split_last().context("nothing to list")?;
    for (size, namespace) in smaller {
        load::run(access, many, *size, Arc::new(load::create(namespace))).await?;
    }
    let server = Server(arguments.pid);
    let single = [
        ("POST", objects, load::create(large)),
        ("PUT", objects, load::replace(large)),
        ("PATCH", objects, load::patch(large)),
        ("GET", arguments.reads, load::read(large)),
        ("mixed", arguments.reads, load::mixed(large, objects)),
    ];
    for (name, times, job) in single {
        server.show(name, load::run(access, many, times, Arc::new(job))).await?;
    }
    for (count, namespace) in lists {
        let kinds: [(&str, Job); 3] = [
            ("", load::list(namespace)),
            (" by label", load::by_label(namespace)),
            (" by name", load::by_field(namespace)),
        ];
        for (kind, job) in kinds {
            let run = load::run(access, LIST_CONNECTIONS, arguments.lists, Arc::new(job));
            server.show(&format!("LIST {count}{kind}"), run).await?;
        }
    }
    server.memory("after the lists");
    let run = load::fan_out(access, watched, arguments.watchers, arguments.watched);
    server.show(&format!("{} watchers, events", arguments.watchers), run).await?;
    server.memory("after the watches");
    Ok(())
}

/// The process that is measured, if it is known.
struct Server(Option<u32>);

impl Server {
    /// Lets a load run and prints its line.
    async fn show(&self, name: &str, load: impl Future<Output = Result<Figures>>) -> Result<()> {
        let before = self.processor();
        let figures = load.await?;
        let cost = before.zip(self.processor()).map(|(before, after)| (after - before) / figures.count() as f64 * 1e6);
        println!(
            "{name:<28}{:>12.0}{:>12.2}{:>12.2}{:>12.1}{:>12}",
            figures.rate(),
            figures.percentile(50),
            figures.percentile(99),
            figures.megabytes_per_second(),
            cost.map_or("-".to_string(), |cost| format!("{cost:.0}")),
        );
        Ok(())
    }

    /// Seconds of processor time it has used: proc_pid_stat(5), fields 14 and 15.
    fn processor(&self) -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0?)).ok()?;
        let ticks = stat.rsplit(')').next()?.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        Some(ticks.sum::<Result<f64, _>>().ok()? / TICKS)
    }

    /// Resident memory, as Linux accounts it.
    fn memory(&self, when: &str) {
        let Some(pid) = self.0 else { return };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or(" unknown");
        println!("resident {when}: {}", resident.trim());
    }
}

//! Measures any server of the etcd v3 API, and two of them in turn: throughput, latency, memory, CPU and syncs.
//!
//!     store-bench --pid 123 http://127.0.0.1:2379 --peer-pid 456 http://127.0.0.1:22379
//!
//! Every row runs against the first endpoint, then against the second, and prints the ratio of the two; absolute figures
//! change from machine to machine. Keys have 8 bytes and values 256, as in etcd's own published figures.

mod fanout;
mod load;
mod process;
mod workload;

use std::time::Duration;

use clap::Parser;

use load::Figures;
use process::Process;
use workload::{WORKLOADS, Workload};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures servers of the etcd v3 API.
#[derive(Debug, Parser)]
#[command(name = "store-bench")]
struct Arguments {
    /// The server to measure, then the one to compare it with.
    #[arg(required = true, num_args = 1..=2)]
    endpoints: Vec<String>,
    /// Process id of the first server, for its memory and CPU time.
    #[arg(long)]
    pid: Option<u32>,
    /// Process id of the second server.
    #[arg(long)]
    peer_pid: Option<u32>,
    /// Concurrent clients; each waits for its answer before it asks again.
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    clients: Vec<usize>,
    /// Connections that the clients share, at most.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Seconds per row and server.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Times each row is run; the median by throughput counts.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Rows to run; all when not given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// One server.
struct Target {
    url: String,
    process: Option<Process>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let pids = [arguments.pid, arguments.peer_pid];
    let targets: Vec<Target> = arguments
        .endpoints
        .iter()
        .zip(pids)
        .map(|(url, pid)| Target { url: url.clone(), process: pid.map(Process) })
        .collect();
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    if let Some(unknown) = arguments.only.iter().find(|only| !names().any(|name| name == *only)) {
        return Err(format!("no row {unknown:?}; there are: {}", names().collect::<Vec<_>>().join(", ")).into());
    }
    println!("{}", Figures::heading());
    for workload in WORKLOADS.iter().filter(|workload| wanted(workload.name)) {
        for clients in &arguments.clients {
            compare(&arguments, &targets, workload, *clients).await?;
        }
    }
    if wanted(fanout::NAME) {
        let mut rows = Vec::new();
        for target in &targets {
            rows.push(fanout::run(target, Duration::from_secs(arguments.seconds)).await?);
            print(rows.last(), target);
        }
        ratio(&rows);
    }
    for target in &targets {
        if let Some(process) = &target.process {
            println!("{}: {}", target.url, process.memory()?);
        }
    }
    Ok(())
}

fn names() -> impl Iterator<Item = &'static str> {
    WORKLOADS.iter().map(|workload| workload.name).chain([fanout::NAME])
}

async fn compare(
    arguments: &Arguments,
    targets: &[Target],
    workload: &'static Workload,
    clients: usize,
) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for target in targets {
        let connections = load::connect(&target.url, clients.min(arguments.connections)).await?;
        (workload.prepare)(connections[0].clone()).await?;
        let mut rounds = Vec::new();
        for _ in 0..arguments.rounds.max(1) {
            let time = Duration::from_secs(arguments.seconds);
            rounds.push(load::run(target, workload, &connections, clients, time).await?);
        }
        rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        rows.push(rounds.swap_remove(rounds.len() / 2));
        print(rows.last(), target);
    }
    ratio(&rows);
    Ok(())
}

fn print(row: Option<&Figures>, target: &Target) {
    if let Some(row) = row {
        println!("{row}  {}", target.url);
    }
}

fn ratio(rows: &[Figures]) {
    if let [first, second] = rows {
        println!("{}", first.ratio(second));
    }
}

//! Measures any server of the etcd v3 API, and two of them in turn: throughput, latency, memory, CPU and syncs.
//!
//!     store-bench --pid 123 http://127.0.0.1:2379 --peer-pid 456 http://127.0.0.1:22379
//!     store-bench --members 3 start:target/release/store start:etcd
//!
//! The second form starts clusters itself; only such members can be killed, so only then there is the row leader-kill.
//!
//! Every row runs against the first endpoint, then against the second, and prints the ratio of the two; absolute figures
//! change from machine to machine. Keys have 8 bytes and values 256, as in etcd's own published figures.

mod connection;
mod fanout;
mod load;
mod longer;
mod process;
mod target;
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use load::Figures;
use target::{Folder, Target};
use workload::{WORKLOADS, Workload};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures servers of the etcd v3 API.
#[derive(Debug, Parser)]
#[command(name = "store-bench")]
struct Arguments {
    /// The server to measure, then the one to compare it with: a URL, several of one cluster with commas between them, or
    /// start:PROGRAM.
    #[arg(required = true, num_args = 1..=2)]
    endpoints: Vec<String>,
    /// Process id of the first server, for its memory and CPU time.
    #[arg(long)]
    pid: Option<u32>,
    /// Process id of the second server.
    #[arg(long)]
    peer_pid: Option<u32>,
    /// Members of a cluster that is started here.
    #[arg(long, default_value_t = 1)]
    members: usize,
    /// Where members that are started here keep their data.
    #[arg(long, default_value = ".")]
    data: PathBuf,
    /// Puts of the row puts-and-compaction.
    #[arg(long, default_value_t = 1_000_000)]
    puts: u64,
    /// How often the row leader-kill kills a leader.
    #[arg(long, default_value_t = 20)]
    kills: usize,
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

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let folder = Folder::new(&arguments.data)?;
    let mut targets = Vec::new();
    for (place, (endpoint, pid)) in arguments.endpoints.iter().zip([arguments.pid, arguments.peer_pid]).enumerate() {
        targets.push(Target::new(endpoint, pid, arguments.members, &folder.of(place)).await?);
    }
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
    if wanted(longer::PUTS) {
        let mut rows = Vec::new();
        for target in &targets {
            rows.push(longer::puts(target, arguments.puts).await?);
            print(rows.last(), target);
            memory(target)?;
        }
        ratio(&rows);
    }
    // By name only, or where it can be done.
    let can_kill = arguments.members >= 3 && arguments.endpoints.iter().all(|e| e.starts_with("start:"));
    if wanted(longer::FAIL_OVER) && (can_kill || !arguments.only.is_empty()) {
        let mut rows = Vec::new();
        for target in &mut targets {
            rows.push(longer::fail_over(target, arguments.kills).await?);
            print(rows.last(), target);
        }
        ratio(&rows);
    }
    targets.iter().try_for_each(memory)
}

fn memory(target: &Target) -> Result<(), Failure> {
    for memory in target.memory()? {
        println!("{}: {memory}", target.name);
    }
    Ok(())
}

fn names() -> impl Iterator<Item = &'static str> {
    WORKLOADS.iter().map(|workload| workload.name).chain([fanout::NAME, longer::PUTS, longer::FAIL_OVER])
}

async fn compare(
    arguments: &Arguments,
    targets: &[Target],
    workload: &'static Workload,
    clients: usize,
) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for target in targets {
        let connections = target.connect(clients.min(arguments.connections)).await?;
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
        println!("{row}  {}", target.name);
    }
}

fn ratio(rows: &[Figures]) {
    if let [first, second] = rows {
        println!("{}", first.ratio(second));
    }
}

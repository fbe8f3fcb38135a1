//! Closed-loop load: every client asks, waits for the answer and asks again.

use std::fmt;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::task::JoinSet;

use crate::Failure;
use crate::connection::Connection;
use crate::target::Target;
use crate::workload::{Client, Workload};

/// One row.
pub struct Figures {
    pub name: String,
    /// Operations per second.
    pub rate: f64,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
    /// Of the server.
    pub cpu_micros_per_operation: Option<f64>,
    /// Of the server's log.
    pub syncs_per_second: Option<f64>,
}

impl Figures {
    /// Column names.
    pub fn heading() -> String {
        format!(
            "{:<28} {:>10} {:>9} {:>9} {:>9} {:>9} {:>8}",
            "", "per second", "p50 ms", "p99 ms", "max ms", "CPU us/op", "syncs/s"
        )
    }

    /// Makes a row of the times of single operations.
    pub fn new(name: String, mut times: Vec<Duration>, took: Duration) -> Self {
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let rate = times.len() as f64 / took.as_secs_f64();
        let (p50, p99, max) = (at(50), at(99), at(100));
        Figures { name, rate, p50, p99, max, cpu_micros_per_operation: None, syncs_per_second: None }
    }

    /// What this row is in multiples of another server's.
    pub fn ratio(&self, other: &Figures) -> String {
        let times = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64().max(1e-9);
        format!(
            "{:<28} {:>9.2}x {:>8.2}x {:>8.2}x {:>8.2}x",
            "  ratio",
            self.rate / other.rate.max(1e-9),
            times(self.p50, other.p50),
            times(self.p99, other.p99),
            times(self.max, other.max)
        )
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let known = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.0}"));
        write!(
            f,
            "{:<28} {:>10.0} {:>9.2} {:>9.2} {:>9.2} {:>9} {:>8}",
            self.name,
            self.rate,
            ms(self.p50),
            ms(self.p99),
            ms(self.max),
            known(self.cpu_micros_per_operation),
            known(self.syncs_per_second)
        )
    }
}

/// Runs `clients` clients for `time`.
///
/// # Errors
/// An operation failed.
pub async fn run(
    target: &Target,
    workload: &'static Workload,
    connections: &[Connection],
    clients: usize,
    time: Duration,
) -> Result<Figures, Failure> {
    let (cpu_before, syncs_before) = (target.cpu_seconds()?, target.syncs().await);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for id in 0..clients {
        let client = Client::new(connections[id % connections.len()].clone(), id, SmallRng::seed_from_u64(id as u64));
        tasks.spawn(one(client, workload, start + time));
    }
    let mut times = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        times.extend(ended??);
    }
    let took = start.elapsed();
    let mut figures = Figures::new(format!("{}, {clients} clients", workload.name), times, took);
    let operations = figures.rate * took.as_secs_f64();
    if let (Some(before), Some(after)) = (cpu_before, target.cpu_seconds()?) {
        figures.cpu_micros_per_operation = Some((after - before) * 1e6 / operations.max(1.0));
    }
    if let (Some(before), Some(after)) = (syncs_before, target.syncs().await) {
        figures.syncs_per_second = Some((after - before) / took.as_secs_f64());
    }
    Ok(figures)
}

async fn one(mut client: Client, workload: &'static Workload, until: Instant) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    while Instant::now() < until {
        let start = Instant::now();
        (workload.step)(&mut client).await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

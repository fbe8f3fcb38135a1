//! The scheduler's decisions alone, without API server, store or network.

use std::time::Duration;

use anyhow::{Result, anyhow};
use kube_scheduler::simulation::Simulator;

use super::shapes::{Shape, node, pod};
use super::sizes::Sizes;

/// Decides about all pods of a shape and prints how long that took.
pub fn run(shape: &Shape, sizes: &Sizes) -> Result<()> {
    let (nodes, before, measured) = sizes.of(shape);
    let mut simulator = Simulator::default();
    let failed = |reason: String| anyhow!("{}: {reason}", shape.name);
    for number in 0..nodes {
        simulator.add_node(node(number)).map_err(failed)?;
    }
    simulator.schedule((0..before).map(|n| pod("before", n, shape.before_pod))).map_err(failed)?;
    let result = simulator.schedule((0..measured).map(|n| pod("measured", n, shape.pod))).map_err(failed)?;
    let total: Duration = result.decisions.iter().sum();
    let mut sorted = result.decisions.clone();
    sorted.sort();
    let at = |share: usize| sorted.get((sorted.len() * share / 100).min(sorted.len().saturating_sub(1))).copied();
    let micros = |d: Option<Duration>| d.unwrap_or_default().as_micros();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = measured as f64 / total.as_secs_f64();
    println!(
        "{:<38} {nodes:>6} {before:>6} {measured:>7} {rate:>10.0} {:>8} {:>8} {:>8} {:>8.0}x {:>6}",
        shape.name,
        micros(at(50)),
        micros(at(99)),
        result.refused,
        rate / shape.floor.max(1.0),
        super::stack::resident_mib(std::process::id()),
    );
    Ok(())
}

//! Checks of the processes that move the cluster, alone: real ones with a real API server and store on this host, and nodes
//! without machines. A cluster that other scenarios use could not be killed so often, nor be at rest.

mod bad_input;
mod faults;
mod placement;
mod proxy;
mod rest;
mod snapshot;
mod story;

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use futures_util::future::LocalBoxFuture;

/// One check.
struct Check {
    name: &'static str,
    run: fn(Vec<usize>) -> LocalBoxFuture<'static, Result<()>>,
}

const CHECKS: &[Check] = &[
    Check { name: "faults", run: |every| Box::pin(async move { faults::run(&every).await }) },
    Check { name: "bad_input", run: |_| Box::pin(bad_input::run()) },
    Check { name: "placement", run: |_| Box::pin(placement::run()) },
    Check { name: "rest", run: |_| Box::pin(rest::run()) },
];

/// Runs the named checks, or all. `every` are the numbers of writes after which faults kill; the usual ones if it is empty.
///
/// # Errors
/// An unknown name, or the first check that fails.
pub fn run(names: &[String], every: &[usize]) -> Result<()> {
    let known = || CHECKS.iter().map(|c| c.name).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = names.iter().find(|name| CHECKS.iter().all(|c| c.name != **name)) {
        bail!("there is no check {unknown}; there are: {}", known());
    }
    let every = if every.is_empty() { faults::EVERY } else { every };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for check in CHECKS.iter().filter(|c| names.is_empty() || names.iter().any(|name| name == c.name)) {
        let start = Instant::now();
        runtime
            .block_on((check.run)(every.to_vec()))
            .with_context(|| format!("the controllers' check {}", check.name))?;
        println!("check {} ... {:.1} s", check.name, start.elapsed().as_secs_f64());
    }
    Ok(())
}

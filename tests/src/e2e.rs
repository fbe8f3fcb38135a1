//! Running scenarios: one cluster for all of them, one line for each.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use qemu::{Artifacts, Cluster, DriverName, down, up};

use crate::bench;
use crate::context::Context;
use crate::scenarios::{SCENARIOS, Scenario};

const CLUSTER: &str = "e2e";

/// Runs the named scenarios, or all, on a fresh cluster.
///
/// # Errors
/// An unknown name, or the first scenario that fails.
pub fn run(driver: DriverName, keep: bool, names: &[String]) -> Result<()> {
    let chosen = choose(names)?;
    let artifacts = Artifacts::build()?;
    down::down(CLUSTER)?;
    let started = Instant::now();
    let cluster = up::start(CLUSTER, driver, 1, &artifacts)?;
    let context = Context { cluster, artifacts };
    let ready = started.elapsed();
    let image = context.artifacts.image.test_web.display().to_string();
    let imported = context.cortenctl(&["image", "import", &image]).map(drop);
    let outcome = imported.and_then(|()| run_all(&context, &chosen, driver));
    let reported = outcome.and_then(|()| bench::report(&context, ready));
    match reported {
        Err(error) if keep => {
            println!("the cluster is left running: export KUBECONFIG={}", context.cluster.kubeconfig().display());
            Err(error)
        }
        Err(error) => {
            explain(&context);
            down::down(CLUSTER).context("removing the cluster")?;
            Err(error)
        }
        Ok(()) => down::down(CLUSTER).map(drop),
    }
}

fn choose(names: &[String]) -> Result<Vec<&'static Scenario>> {
    let known = || SCENARIOS.iter().map(|s| s.name).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = names.iter().find(|name| SCENARIOS.iter().all(|s| s.name != **name)) {
        bail!("there is no scenario {unknown}; there are: {}", known());
    }
    Ok(SCENARIOS.iter().filter(|s| names.is_empty() || names.iter().any(|name| name == s.name)).collect())
}

fn run_all(context: &Context, scenarios: &[&Scenario], driver: DriverName) -> Result<()> {
    let mut passed = 0;
    for scenario in scenarios {
        if !scenario.drivers.contains(&driver) {
            println!("scenario {} ... not for this driver: {}", scenario.name, scenario.why_not);
            continue;
        }
        let start = Instant::now();
        println!("scenario {} ...", scenario.name);
        if let Err(error) = (scenario.run)(context) {
            println!("scenario {} ... FAILED", scenario.name);
            println!("{passed} passed, 1 failed");
            return Err(error.context(format!("scenario {}", scenario.name)));
        }
        passed += 1;
        println!("scenario {} ... ok ({:.1} s)", scenario.name, start.elapsed().as_secs_f64());
    }
    println!("{passed} passed, 0 failed");
    Ok(())
}

/// What helps to understand a failure, as far as the cluster still answers.
fn explain(context: &Context) {
    for words in [
        "get nodes,pods,deployments,replicasets,services,endpointslices -A -o wide",
        "get events -A",
        "describe pods -n default",
    ] {
        match context.kubectl(words) {
            Ok(text) => println!("--- kubectl {words}\n{text}"),
            Err(error) => println!("--- kubectl {words}: {error:#}"),
        }
    }
    for service in ["kubelet", "kube-apiserver", "kube-controller-manager", "machined"] {
        match context.cortenctl(&["logs", service, "--tail", "40"]) {
            Ok(text) => println!("--- {service}\n{text}"),
            Err(error) => println!("--- {service}: {error:#}"),
        }
    }
    let console = std::fs::read_to_string(context.cluster.console_log(context.node())).unwrap_or_default();
    let tail: Vec<&str> = console.lines().rev().take(60).collect();
    println!("--- console\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
}

/// Keeps the signature of scenarios in one place.
pub type Run = fn(&Context) -> Result<()>;

/// The cluster of scenarios, for those that start it again.
pub fn boot_again(context: &Context) -> Result<()> {
    let cluster: &Cluster = &context.cluster;
    context.driver().power_on(cluster, context.node(), &context.artifacts)?;
    up::wait_until_ready(cluster, &context.artifacts, Instant::now())
}

//! Every supervised process is killed with SIGKILL, one after the other: it comes back, and containers survive.

use anyhow::{Result, ensure};

use super::machine::SERVICES;
use super::{restarts, workload};
use crate::context::Context;
use crate::inspector;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    inspector::with_inspector(context, || {
        workload::bring_up(context)?;
        let before = restarts::identities(context)?;
        for service in SERVICES.iter().chain(&["machined"]) {
            kill(context, service)?;
            // The next victim is reached through this one.
            context.eventually(&format!("exec after {service}'s death"), || {
                context.kubectl("exec client --request-timeout=20s -- /test-web env POD_NAME").map(drop)
            })?;
            println!("  killed {service}");
        }
        context.kubectl(&format!("wait --for=condition=Ready node/{} --timeout=300s", context.node().name))?;
        context.eventually("Ready pods", || {
            context.kubectl("wait --for=condition=Ready pod -l app=web --timeout=10s").map(drop)
        })?;
        workload::reachable(context)?;
        let after = restarts::identities(context)?;
        ensure!(before == after, "containers did not survive: before {before:?}, after {after:?}");
        workload::take_down(context)
    })
}

/// Kills a service and waits until it runs as another process and the API answers.
pub(super) fn kill(context: &Context, service: &str) -> Result<()> {
    let before = line(context, service)?;
    // Whoever carries the answer may be the victim: what counts is the process number.
    let said = inspector::kill(context, service);
    context.eventually(&format!("{service} after its death"), || {
        let now = line(context, service)?;
        ensure!(now.contains("Running") && now != before, "{now}; the killer said {said:?}");
        context.kubectl("get --raw /readyz --request-timeout=5s").map(drop)
    })?;
    Ok(())
}

/// What machined says of a service: its state and its process.
fn line(context: &Context, service: &str) -> Result<String> {
    let services = context.cortenctl(&["services"])?;
    let found = services.lines().find(|line| line.split_whitespace().any(|word| word == service));
    Ok(found.unwrap_or_default().to_owned())
}

//! Services end and come back; what runs in containers does not notice.

use anyhow::{Result, ensure};

use super::machine::SERVICES;
use super::workload;
use crate::context::Context;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    workload::bring_up(context)?;
    let before = identities(context)?;
    for service in SERVICES {
        context.cortenctl(&["services", "restart", service])?;
        context.eventually(&format!("{service} after its restart"), || {
            let services = context.cortenctl(&["services"])?;
            let line = services.lines().find(|line| line.split_whitespace().any(|word| word == *service));
            ensure!(line.is_some_and(|line| line.contains("Running")), "{}", line.unwrap_or_default());
            context.kubectl("get --raw /readyz --request-timeout=5s")?;
            Ok(())
        })?;
        println!("  restarted {service}");
    }
    context.kubectl(&format!("wait --for=condition=Ready node/{} --timeout=300s", context.node().name))?;
    context.eventually("Ready pods", || {
        context.kubectl("wait --for=condition=Ready pod -l app=web --timeout=10s").map(drop)
    })?;
    workload::reachable(context)?;
    let after = identities(context)?;
    ensure!(before == after, "containers did not survive: before {before:?}, after {after:?}");
    workload::take_down(context)
}

/// Every pod's uid with its containers' identities: the same before and after means that nothing was restarted.
pub fn identities(context: &Context) -> Result<Vec<String>> {
    let pods = context.get("pods")?;
    let mut all = Vec::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let containers = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        let ids: Vec<&str> = containers.filter_map(|c| c["containerID"].as_str()).collect();
        all.push(format!("{} {}", pod["metadata"]["uid"], ids.join(" ")));
    }
    all.sort();
    Ok(all)
}

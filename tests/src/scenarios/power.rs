//! The plug is pulled in the middle of writes: every acknowledged write is there afterwards, and pods return.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Result, anyhow, ensure};
use serde_json::json;

use super::workload;
use crate::context::Context;
use crate::e2e;

/// Writes that must have been acknowledged before the plug is pulled.
const ACKNOWLEDGED_MIN: usize = 10;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    workload::bring_up(context)?;
    let acknowledged = write_until_power_loss(context)?;
    println!("  {} writes were acknowledged before the power went", acknowledged.len());
    e2e::boot_again(context)?;
    let present = context.get("configmaps -l test=power")?;
    let names: Vec<&str> =
        present["items"].as_array().into_iter().flatten().filter_map(|o| o["metadata"]["name"].as_str()).collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|name| !names.contains(&name.as_str())).collect();
    ensure!(lost.is_empty(), "acknowledged but lost: {lost:?}");
    context.eventually("pods that are back", || {
        context.kubectl("wait --for=condition=Ready pod -l app=web --timeout=10s")?;
        context.kubectl("wait --for=condition=Ready pod/client --timeout=10s").map(drop)
    })?;
    workload::reachable(context)?;
    context.kubectl("delete configmaps -l test=power")?;
    workload::take_down(context)
}

/// Writes in a thread of its own, pulls the plug meanwhile, and returns what was acknowledged.
fn write_until_power_loss(context: &Context) -> Result<Vec<String>> {
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0.. {
                let name = format!("power-{number}");
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                match (write(context, &name), acknowledged.lock()) {
                    (Ok(()), Ok(mut list)) => list.push(name),
                    (Err(error), _) => {
                        // Expected once the power is gone; before that, it is why too few writes were acknowledged.
                        println!("  writing ended: {error:#}");
                        return;
                    }
                    (Ok(()), Err(_)) => return,
                }
            }
        });
        let enough = context.eventually("acknowledged writes", || {
            let count = acknowledged.lock().map_err(|_| anyhow!("the writer panicked"))?.len();
            ensure!(count >= ACKNOWLEDGED_MIN, "{count} writes so far");
            Ok(())
        });
        let off = context.driver().power_off(&context.cluster, context.node());
        stop.store(true, Ordering::Relaxed);
        let _ = writer.join();
        enough.and(off)
    })?;
    let list = acknowledged.lock().map(|list| list.clone()).unwrap_or_default();
    Ok(list)
}

fn write(context: &Context, name: &str) -> Result<()> {
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"test": "power"}}});
    context.apply(&object.to_string()).map(drop)
}

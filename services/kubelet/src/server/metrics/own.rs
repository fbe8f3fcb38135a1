//! `/metrics`: the kubelet about itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;

use super::Kind::{Counter, Gauge, Histogram};
use super::{Page, seconds};
use crate::runtime_tally::{BOUNDS, Calls, bound};
use crate::server::Refusal;
use crate::server::stats::{self, PodUse};
use crate::shared::Shared;

/// A page of memory, and a hundredth of a second: what the kernel counts in on every machine Corten runs on.
const PAGE: u64 = 4096;
const TICK: u64 = 10_000_000;

/// Answers a request.
///
/// # Errors
/// The runtime does not answer.
pub async fn serve(State(shared): State<Arc<Shared>>) -> Result<Page, Refusal> {
    let listed = shared.cri.list().await.map_err(Refusal::internal)?;
    let running: Vec<_> = listed.values().filter(|l| l.running).collect();
    let pods: std::collections::BTreeSet<&str> = running.iter().map(|l| l.uid.as_str()).collect();
    let mut page = Page::default();
    page.family("kubelet_node_name", Gauge, "The node's name. The count is always 1.");
    page.sample("kubelet_node_name", &[("node", &shared.node_name)], 1);
    page.family("kubernetes_build_info", Gauge, "A metric with a constant '1' value labeled by version.");
    page.sample("kubernetes_build_info", &[("git_version", crate::node_status::object::VERSION)], 1);
    page.single("kubelet_running_pods", Gauge, "Number of pods that have a running pod sandbox", pods.len());
    page.family("kubelet_running_containers", Gauge, "Number of containers currently running");
    // Every pod has its sandbox besides its containers.
    let containers = running.len().saturating_sub(pods.len());
    page.sample("kubelet_running_containers", &[("container_state", "running")], containers);
    process(&mut page);
    runtime(&mut page, &shared.cri.calls.all());
    volumes(&mut page, &stats::pods(&shared).await?);
    Ok(page)
}

/// Calls of the runtime by operation.
fn runtime(page: &mut Page, calls: &BTreeMap<&'static str, Calls>) {
    type Read = fn(&Calls) -> u64;
    let counts: [(&str, &str, Read); 2] = [
        ("kubelet_runtime_operations_total", "Cumulative number of runtime operations by operation type.", |c| c.count),
        (
            "kubelet_runtime_operations_errors_total",
            "Cumulative number of runtime operation errors by operation type.",
            |c| c.errors,
        ),
    ];
    for (name, help, read) in counts {
        page.family(name, Counter, help);
        for (operation, calls) in calls {
            page.sample(name, &[("operation_type", operation)], read(calls));
        }
    }
    let name = "kubelet_runtime_operations_duration_seconds";
    page.family(name, Histogram, "Duration in seconds of runtime operations. Broken down by operation type.");
    for (operation, calls) in calls {
        let operation = ("operation_type", *operation);
        for (index, within) in calls.within.iter().enumerate().take(BOUNDS) {
            page.sample(&format!("{name}_bucket"), &[operation, ("le", &bound(index).to_string())], within);
        }
        page.sample(&format!("{name}_bucket"), &[operation, ("le", "+Inf")], calls.count);
        page.sample(&format!("{name}_sum"), &[operation], calls.time.as_secs_f64());
        page.sample(&format!("{name}_count"), &[operation], calls.count);
    }
}

fn process(page: &mut Page) {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (cpu, resident) = usage(&file("/proc/self/stat"));
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let help = "Total user and system CPU time spent in seconds.";
    page.single("process_cpu_seconds_total", Counter, help, seconds(cpu));
    page.single("process_resident_memory_bytes", Gauge, "Resident memory size in bytes.", resident);
    page.single("process_open_fds", Gauge, "Number of open file descriptors.", open);
}

/// Processor time in nanoseconds and resident bytes, from a line of /proc/<pid>/stat; the name in it may contain blanks.
fn usage(stat: &str) -> (u64, u64) {
    let fields: Vec<u64> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
    let at = |field: usize| fields.get(field).copied().unwrap_or(0);
    ((at(11) + at(12)) * TICK, at(21) * PAGE)
}

/// Volumes made from claims.
fn volumes(page: &mut Page, pods: &[PodUse]) {
    type Read = fn(&stats::VolumeUse) -> u64;
    let families: [(&str, &str, Read); 6] = [
        ("capacity_bytes", "Capacity in bytes of the volume", |v| v.disk.capacity),
        ("available_bytes", "Number of available bytes in the volume", |v| v.disk.available),
        ("used_bytes", "Number of used bytes in the volume", |v| v.used.0),
        ("inodes", "Maximum number of inodes in the volume", |v| v.disk.inodes),
        ("inodes_free", "Number of free inodes in the volume", |v| v.disk.inodes_free),
        ("inodes_used", "Number of used inodes in the volume", |v| v.used.1),
    ];
    let claims: Vec<_> = pods
        .iter()
        .flat_map(|p| p.volumes.iter().filter_map(move |v| Some((p.namespace.as_str(), v.claim.as_deref()?, v))))
        .collect();
    for (suffix, help, read) in families {
        let name = format!("kubelet_volume_stats_{suffix}");
        page.family(&name, Gauge, help);
        for (namespace, claim, volume) in &claims {
            page.sample(&name, &[("namespace", namespace), ("persistentvolumeclaim", claim)], read(volume));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processs_own_line_is_read() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 8 0 5 1000000 250 18446744073709551615";
        assert_eq!(usage(stat), (42 * TICK, 250 * PAGE));
    }
}

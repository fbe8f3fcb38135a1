//! `/metrics/resource`: processor and memory of the node, its pods and containers, which autoscalers read.

use std::sync::Arc;

use axum::extract::State;

use super::Kind::{Counter, Gauge};
use super::{Page, instant, seconds};
use crate::server::stats::{self, Host, PodUse, Usage};
use crate::shared::Shared;

/// Answers a request. A runtime that does not answer is told by `resource_scrape_error`.
pub async fn serve(State(shared): State<Arc<Shared>>) -> Page {
    let mut page = Page::default();
    let host = Host::read();
    node(&mut page, &host);
    let asked = stats::pods(&shared).await;
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    page.single("resource_scrape_error", Gauge, help, i32::from(asked.is_err()));
    pods(&mut page, &asked.unwrap_or_default());
    page
}

fn node(page: &mut Page, host: &Host) {
    let [all, _, available, _] = host.memory;
    let help = "Cumulative cpu time consumed by the node in core-seconds";
    page.single("node_cpu_usage_seconds_total", Counter, help, seconds(host.cpu));
    let help = "Current working set of the node in bytes";
    page.single("node_memory_working_set_bytes", Gauge, help, all - available.min(all));
    let help = "Current swap usage of the node in bytes. Reported only on non-windows systems";
    page.single("node_swap_usage_bytes", Gauge, help, host.swap.0 - host.swap.1.min(host.swap.0));
}

fn pods(page: &mut Page, pods: &[PodUse]) {
    type Read = fn(&Usage) -> Option<String>;
    let families: [(&str, super::Kind, &str, Read); 3] = [
        ("cpu_usage_seconds_total", Counter, "Cumulative cpu time consumed by the {} in core-seconds", |u| {
            u.cpu.map(|n| seconds(n).to_string())
        }),
        ("memory_working_set_bytes", Gauge, "Current working set of the {} in bytes", |u| {
            u.working_set.map(|n| n.to_string())
        }),
        ("swap_usage_bytes", Gauge, "Current amount of the {} swap usage in bytes", |u| u.swap.map(|n| n.to_string())),
    ];
    for (suffix, kind, help, read) in families {
        let name = format!("container_{suffix}");
        page.family(&name, kind, &help.replace("{}", "container"));
        for (pod, c) in pods.iter().flat_map(|p| p.containers.iter().map(move |c| (p, c))) {
            if let Some(value) = read(&c.usage) {
                let labels = [("container", c.name.as_str()), ("namespace", &pod.namespace), ("pod", &pod.name)];
                page.sample(&name, &labels, value);
            }
        }
        let name = format!("pod_{suffix}");
        page.family(&name, kind, &help.replace("{}", "pod"));
        for pod in pods {
            if let Some(value) = read(&pod.usage) {
                page.sample(&name, &[("namespace", pod.namespace.as_str()), ("pod", &pod.name)], value);
            }
        }
    }
    let name = "container_start_time_seconds";
    page.family(name, Gauge, "Start time of the container since unix epoch in seconds");
    for (pod, c) in pods.iter().flat_map(|p| p.containers.iter().map(move |c| (p, c))) {
        if let Some(time) = instant(&c.started_at) {
            let labels = [("container", c.name.as_str()), ("namespace", &pod.namespace), ("pod", &pod.name)];
            page.sample(name, &labels, time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::stats::ContainerUse;

    #[test]
    fn autoscalers_find_what_they_look_for() {
        let usage = Usage { cpu: Some(2_000_000_000), working_set: Some(5), ..Usage::default() };
        let container = ContainerUse { name: "c".into(), usage, ..ContainerUse::default() };
        let pod =
            PodUse { name: "p".into(), namespace: "n".into(), usage, containers: vec![container], ..PodUse::default() };
        let mut page = Page::default();
        node(&mut page, &Host { memory: [100, 0, 60, 0], cpu: 1, ..Host::default() });
        pods(&mut page, &[pod]);
        for line in [
            "node_memory_working_set_bytes 40",
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 2",
            "pod_memory_working_set_bytes{namespace=\"n\",pod=\"p\"} 5",
        ] {
            assert!(page.0.lines().any(|l| l == line), "{line}");
        }
    }
}

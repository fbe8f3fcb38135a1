//! `/metrics/cadvisor`.

use std::sync::Arc;

use axum::extract::State;

use super::Kind::{Counter, Gauge};
use super::{Kind, Page, instant, seconds};
use crate::server::Refusal;
use crate::server::stats::{self, ContainerUse, PodUse, Usage};
use crate::shared::Shared;

/// Answers a request.
///
/// # Errors
/// The runtime does not answer.
pub async fn serve(State(shared): State<Arc<Shared>>) -> Result<Page, Refusal> {
    let pods = stats::pods(&shared).await?;
    let mut page = Page::default();
    page.single("machine_cpu_cores", Gauge, "Number of logical CPU cores.", shared.machine.cpus);
    page.single("machine_memory_bytes", Gauge, "Amount of memory installed on the machine.", shared.machine.memory);
    containers(&mut page, &pods);
    networks(&mut page, &pods);
    Ok(page)
}

/// A family that every cgroup has a sample of: name, kind, help, how to read it.
type Family = (&'static str, Kind, &'static str, fn(&Usage) -> Option<f64>);

/// Prometheus has only floating point.
fn number(value: Option<u64>) -> Option<f64> {
    value.map(|v| v as f64)
}

const USAGE: &[Family] = &[
    ("container_cpu_usage_seconds_total", Counter, "Cumulative cpu time consumed in seconds.", |u| u.cpu.map(seconds)),
    ("container_memory_usage_bytes", Gauge, "Current memory usage in bytes, including all memory.", |u| {
        number(u.memory)
    }),
    ("container_memory_working_set_bytes", Gauge, "Current working set in bytes.", |u| number(u.working_set)),
    ("container_memory_rss", Gauge, "Size of RSS in bytes.", |u| number(u.rss)),
    ("container_memory_swap", Gauge, "Container swap usage in bytes.", |u| number(u.swap)),
    ("container_last_seen", Gauge, "Last time a container was seen by the exporter.", |u| {
        u64::try_from(u.time).ok().filter(|t| *t > 0).map(seconds)
    }),
];

/// Takes a container's labels, its usage and what it is.
type Visit<'a> = &'a mut dyn FnMut(&[(&str, &str)], &Usage, &ContainerUse);

fn containers(page: &mut Page, pods: &[PodUse]) {
    let none = ContainerUse::default();
    // A pod's own cgroup is the container without a name.
    let each = |visit: Visit| {
        for pod in pods {
            let whole = (&none, &pod.usage, &pod.sandbox);
            for (container, usage, id) in
                std::iter::once(whole).chain(pod.containers.iter().map(|c| (c, &c.usage, &c.id)))
            {
                let labels = [
                    ("container", container.name.as_str()),
                    ("image", &container.image),
                    ("name", id),
                    ("namespace", &pod.namespace),
                    ("pod", &pod.name),
                ];
                visit(&labels, usage, container);
            }
        }
    };
    for (name, kind, help, read) in USAGE {
        page.family(name, *kind, help);
        each(&mut |labels, usage, _| {
            if let Some(value) = read(usage) {
                page.sample(name, labels, value);
            }
        });
    }
    let name = "container_memory_failures_total";
    page.family(name, Counter, "Cumulative count of memory allocation failures.");
    each(&mut |labels, usage, _| {
        let Some((all, major)) = usage.faults else { return };
        for (kind, count) in [("pgfault", all), ("pgmajfault", major)] {
            let scoped = [labels, &[("failure_type", kind), ("scope", "container")]].concat();
            page.sample(name, &scoped, count);
        }
    });
    let name = "container_fs_usage_bytes";
    page.family(name, Gauge, "Number of bytes that are consumed by the container on this filesystem.");
    each(&mut |labels, _, container| {
        if let Some((bytes, _)) = container.layer {
            page.sample(name, labels, bytes);
        }
    });
    let name = "container_start_time_seconds";
    page.family(name, Gauge, "Start time of the container since unix epoch in seconds.");
    each(&mut |labels, _, container| {
        if let Some(time) = instant(&container.started_at) {
            page.sample(name, labels, time);
        }
    });
}

fn networks(page: &mut Page, pods: &[PodUse]) {
    type Read = fn(&stats::Interface) -> u64;
    let families: [(&str, &str, Read); 4] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received.", |i| i.received.0),
        ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving.", |i| {
            i.received.1
        }),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted.", |i| i.sent.0),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting.",
            |i| i.sent.1,
        ),
    ];
    for (name, help, read) in families {
        page.family(name, Counter, help);
        for pod in pods {
            for interface in &pod.interfaces {
                let labels = [
                    ("interface", interface.name.as_str()),
                    ("name", &pod.sandbox),
                    ("namespace", &pod.namespace),
                    ("pod", &pod.name),
                ];
                page.sample(name, &labels, read(interface));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_and_containers_have_samples_of_what_is_known() {
        let usage = Usage { cpu: Some(1_500_000_000), ..Usage::default() };
        let container = ContainerUse { name: "c".into(), id: "i".into(), usage, ..ContainerUse::default() };
        let interface = stats::Interface { name: "eth0".into(), received: (7, 0), sent: (8, 0) };
        let pod = PodUse {
            name: "p".into(),
            namespace: "n".into(),
            containers: vec![container],
            interfaces: vec![interface],
            ..PodUse::default()
        };
        let mut page = Page::default();
        containers(&mut page, std::slice::from_ref(&pod));
        networks(&mut page, &[pod]);
        let cpu: Vec<&str> = page.0.lines().filter(|l| l.starts_with("container_cpu_usage")).collect();
        let want =
            "container_cpu_usage_seconds_total{container=\"c\",image=\"\",name=\"i\",namespace=\"n\",pod=\"p\"} 1.5";
        assert_eq!(cpu, [want]);
        assert!(page.0.contains(
            "container_network_receive_bytes_total{interface=\"eth0\",name=\"\",namespace=\"n\",pod=\"p\"} 7\n"
        ));
        assert!(!page.0.contains("container_memory_rss{"));
    }
}

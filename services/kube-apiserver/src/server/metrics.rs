//! Counters for /metrics, under upstream's names, in the text format of Prometheus.

use super::{GIT_VERSION, State};
use crate::authz::Attributes;
use crate::flowcontrol;
use crate::registry::{Resource, lookup};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the duration histogram, in seconds; a subset of upstream's.
const BUCKETS: [f64; 14] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 10.0, 30.0, 60.0];

/// Request counters.
#[derive(Default)]
pub struct Metrics {
    /// Reads being served.
    pub reading: AtomicU64,
    /// Writes being served.
    pub writing: AtomicU64,
    /// Watches being served.
    pub watches: AtomicU64,
    requests: Mutex<BTreeMap<Labels, Series>>,
}

/// What requests are told apart by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    scope: &'static str,
    code: u16,
}

#[derive(Default)]
struct Series {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl Labels {
    /// Labels of a request; only what the table knows becomes a label, so that clients cannot invent series.
    pub fn of(a: &Attributes, apply: bool) -> Self {
        let verb = match a.verb.as_str() {
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" | "post" => "POST",
            "update" | "put" => "PUT",
            "patch" if apply => "APPLY",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            _ => "other",
        };
        let Some(res) = lookup(&a.group, &a.version, &a.resource).filter(|_| a.path.is_none()) else {
            return Self { verb, ..Self::default() };
        };
        Self {
            verb,
            group: res.group,
            version: res.version,
            resource: res.plural,
            subresource: res.subresource(&a.subresource).map_or("", |s| s.name),
            scope: scope(res, a),
            code: 0,
        }
    }

    /// Whether it changes nothing.
    pub fn is_read_only(&self) -> bool {
        matches!(self.verb, "GET" | "LIST" | "WATCH")
    }

    /// Whether its answer goes on for long.
    pub fn is_watch(&self) -> bool {
        self.verb == "WATCH"
    }

    fn text(&self) -> String {
        let Self { verb, group, version, resource, subresource, scope, .. } = self;
        format!(
            "component=\"apiserver\",dry_run=\"\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }
}

fn scope(res: &Resource, a: &Attributes) -> &'static str {
    match () {
        () if !a.name.is_empty() || a.verb == "create" => "resource",
        () if res.namespaced && !a.namespace.is_empty() => "namespace",
        () => "cluster",
    }
}

impl Metrics {
    /// The gauge that counts such requests while they are served.
    pub fn in_flight(&self, labels: &Labels) -> &AtomicU64 {
        if labels.is_read_only() { &self.reading } else { &self.writing }
    }

    /// A request has been answered.
    pub fn record(&self, labels: Labels, code: u16, took: Duration) {
        let mut requests = self.requests.lock();
        let series = requests.entry(Labels { code, ..labels }).or_default();
        let seconds = took.as_secs_f64();
        series.count += 1;
        series.seconds += seconds;
        if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            series.buckets[bucket] += 1;
        }
    }
}

/// Everything, as text.
pub fn text(state: &State) -> String {
    let mut out = String::new();
    let m = &state.metrics;
    let load = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
    family(&mut out, "apiserver_current_inflight_requests", "gauge");
    for (kind, gauge) in [("mutating", &m.writing), ("readOnly", &m.reading)] {
        line(&mut out, "apiserver_current_inflight_requests", &format!("request_kind=\"{kind}\""), load(gauge));
    }
    family(&mut out, "apiserver_longrunning_requests", "gauge");
    line(&mut out, "apiserver_longrunning_requests", "component=\"apiserver\",verb=\"WATCH\"", load(&m.watches));
    requests(&mut out, &m.requests.lock());
    family(&mut out, "apiserver_storage_objects", "gauge");
    for (resource, objects) in state.storage.sizes() {
        line(&mut out, "apiserver_storage_objects", &format!("resource=\"{resource}\""), objects);
    }
    family(&mut out, "kubernetes_build_info", "gauge");
    line(&mut out, "kubernetes_build_info", &format!("git_version=\"{GIT_VERSION}\",major=\"1\",minor=\"35\""), 1);
    if let Some(flow) = state.flow.fair() {
        flowcontrol::metrics::text(&mut out, flow);
    }
    if let Some(bytes) = resident() {
        family(&mut out, "process_resident_memory_bytes", "gauge");
        line(&mut out, "process_resident_memory_bytes", "", bytes);
    }
    out
}

fn requests(out: &mut String, series: &BTreeMap<Labels, Series>) {
    family(out, "apiserver_request_total", "counter");
    for (labels, one) in series {
        line(out, "apiserver_request_total", &format!("code=\"{}\",{}", labels.code, labels.text()), one.count);
    }
    // Durations are not told apart by their code.
    let mut merged: BTreeMap<Labels, Series> = BTreeMap::new();
    for (labels, one) in series {
        let sum = merged.entry(Labels { code: 0, ..*labels }).or_default();
        sum.count += one.count;
        sum.seconds += one.seconds;
        sum.buckets.iter_mut().zip(one.buckets).for_each(|(sum, n)| *sum += n);
    }
    const NAME: &str = "apiserver_request_duration_seconds";
    family(out, NAME, "histogram");
    for (labels, one) in &merged {
        let text = labels.text();
        let mut below = 0;
        for (bound, n) in BUCKETS.iter().zip(one.buckets) {
            below += n;
            line(out, &format!("{NAME}_bucket"), &format!("{text},le=\"{bound}\""), below);
        }
        line(out, &format!("{NAME}_bucket"), &format!("{text},le=\"+Inf\""), one.count);
        line(out, &format!("{NAME}_sum"), &text, one.seconds);
        line(out, &format!("{NAME}_count"), &text, one.count);
    }
}

/// The head of a family of series.
pub fn family(out: &mut String, name: &str, kind: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# TYPE {name} {kind}");
}

/// One series.
pub fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ =
        if labels.is_empty() { writeln!(out, "{name} {value}") } else { writeln!(out, "{name}{{{labels}}} {value}") };
}

/// Bytes, as Linux accounts them.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib: u64 = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_those_of_the_table() {
        let a = |verb: &str, resource: &str, name: &str| Attributes {
            verb: verb.into(),
            version: "v1".into(),
            resource: resource.into(),
            namespace: "n".into(),
            name: name.into(),
            ..Attributes::default()
        };
        let got = Labels::of(&a("list", "pods", ""), false);
        assert_eq!((got.verb, got.resource, got.scope), ("LIST", "pods", "namespace"));
        assert_eq!(Labels::of(&a("patch", "pods", "p"), true).verb, "APPLY");
        assert_eq!(Labels::of(&a("brew", "coffee", "x"), false), Labels { verb: "other", ..Labels::default() });
    }

    #[test]
    fn histograms_add_up() {
        let metrics = Metrics::default();
        for (code, millis) in [(200, 1), (200, 30), (404, 70_000)] {
            metrics.record(Labels { verb: "GET", ..Labels::default() }, code, Duration::from_millis(millis));
        }
        let mut out = String::new();
        requests(&mut out, &metrics.requests.lock());
        let wanted = [
            "apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"\",scope=\"\",subresource=\"\",verb=\"GET\",version=\"\"} 2",
            "le=\"0.005\"} 1",
            "le=\"0.05\"} 2",
            "le=\"60\"} 2",
            "le=\"+Inf\"} 3",
        ];
        for part in wanted {
            assert!(out.contains(part), "{part} in {out}");
        }
    }
}

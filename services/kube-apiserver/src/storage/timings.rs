//! How long the store takes, by operation and resource, under upstream's names.

use crate::registry::Resource;
use crate::server::metrics::{Histogram, family, line};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

/// Upper bounds, in seconds.
const BOUNDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// Operation, group and resource.
type Key = (&'static str, &'static str, &'static str);

/// The counters.
#[derive(Default)]
pub struct Timings(Mutex<BTreeMap<Key, (Histogram<23>, u64)>>);

impl Timings {
    /// The store has answered.
    pub fn record(&self, operation: &'static str, res: &Resource, took: Duration, failed: bool) {
        let mut all = self.0.lock();
        let (durations, failures) = all.entry((operation, res.group, res.plural)).or_default();
        durations.observe(&BOUNDS, took.as_secs_f64());
        *failures += u64::from(failed);
    }

    /// Their series.
    pub fn text(&self, out: &mut String) {
        let labels = |(operation, group, resource): &Key| {
            format!("group=\"{group}\",operation=\"{operation}\",resource=\"{resource}\"")
        };
        let all = self.0.lock();
        family(out, "etcd_request_duration_seconds", "histogram");
        for (key, (durations, _)) in all.iter() {
            durations.text(out, "etcd_request_duration_seconds", &labels(key), &BOUNDS);
        }
        family(out, "etcd_request_errors_total", "counter");
        for (key, (_, failures)) in all.iter().filter(|(_, (_, failures))| *failures > 0) {
            line(out, "etcd_request_errors_total", &labels(key), failures);
        }
        family(out, "etcd_requests_total", "counter");
        for (key, (durations, _)) in all.iter() {
            line(out, "etcd_requests_total", &labels(key), durations.count());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::lookup;

    #[test]
    fn failures_take_time_too() {
        let timings = Timings::default();
        let pods = lookup("", "v1", "pods").expect("a row");
        timings.record("get", pods, Duration::from_millis(1), false);
        timings.record("get", pods, Duration::from_secs(30), true);
        let mut out = String::new();
        timings.text(&mut out);
        let labels = "group=\"\",operation=\"get\",resource=\"pods\"";
        for want in [
            format!("etcd_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} 1"),
            format!("etcd_request_errors_total{{{labels}}} 1"),
            format!("etcd_requests_total{{{labels}}} 2"),
        ] {
            assert!(out.contains(&want), "{want} in {out}");
        }
    }
}

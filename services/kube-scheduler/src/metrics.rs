//! Metrics with upstream's names, in the text format that Prometheus reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use parking_lot::Mutex;

use crate::queue::{History, Sizes};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A node was found.
    Scheduled,
    /// No node takes the pod.
    Unschedulable,
    /// Something else went wrong.
    Error,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Outcome::Scheduled => "scheduled",
            Outcome::Unschedulable => "unschedulable",
            Outcome::Error => "error",
        }
    }
}

/// A histogram whose buckets double.
#[derive(Clone, Debug)]
struct Histogram {
    first: f64,
    counts: Vec<u64>,
    sum: f64,
    total: u64,
}

impl Histogram {
    fn new(first: f64, buckets: usize) -> Histogram {
        Histogram { first, counts: vec![0; buckets], sum: 0.0, total: 0 }
    }

    fn observe(&mut self, value: f64) {
        let mut bound = self.first;
        for count in &mut self.counts {
            if value <= bound {
                *count += 1;
                break;
            }
            bound *= 2.0;
        }
        self.sum += value;
        self.total += 1;
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let (mut bound, mut below) = (self.first, 0);
        for count in &self.counts {
            below += count;
            line(out, format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}"));
            bound *= 2.0;
        }
        line(out, format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", self.total));
        line(out, format_args!("{name}_sum{{{labels}}} {}", self.sum));
        line(out, format_args!("{name}_count{{{labels}}} {}", self.total));
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A String takes any text.
    let _ = out.write_fmt(text);
    out.push('\n');
}

#[derive(Debug, Default)]
struct State {
    synced: bool,
    sizes: Sizes,
    nodes: usize,
    pods: usize,
    attempts: BTreeMap<(String, Outcome), Histogram>,
    sli: BTreeMap<u32, Histogram>,
    tries: Option<Histogram>,
    rejections: BTreeMap<(String, &'static str), u64>,
    preemptions: u64,
    victims: Option<Histogram>,
}

/// What the scheduler counts.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<State>);

impl Metrics {
    /// The first lists are complete.
    pub fn synced(&self) {
        self.0.lock().synced = true;
    }

    /// Whether the first lists are complete.
    pub fn is_synced(&self) -> bool {
        self.0.lock().synced
    }

    /// The sizes of queue and cache.
    pub fn sizes(&self, sizes: Sizes, nodes: usize, pods: usize) {
        let mut state = self.0.lock();
        (state.sizes, state.nodes, state.pods) = (sizes, nodes, pods);
    }

    /// A pod was tried.
    pub fn attempt(&self, profile: &str, outcome: Outcome, took: Duration) {
        let mut state = self.0.lock();
        let histogram = state.attempts.entry((profile.to_owned(), outcome));
        histogram.or_insert_with(|| Histogram::new(0.001, 15)).observe(took.as_secs_f64());
    }

    /// A pod was bound.
    pub fn bound(&self, history: History) {
        let mut state = self.0.lock();
        let sli = state.sli.entry(history.attempts).or_insert_with(|| Histogram::new(0.01, 20));
        sli.observe(history.since.elapsed().as_secs_f64());
        state.tries.get_or_insert_with(|| Histogram::new(1.0, 5)).observe(f64::from(history.attempts));
    }

    /// These plugins rejected a pod.
    pub fn rejected(&self, profile: &str, by: &BTreeSet<&'static str>) {
        let mut state = self.0.lock();
        for plugin in by {
            *state.rejections.entry((profile.to_owned(), plugin)).or_default() += 1;
        }
    }

    /// Room was looked for by preemption.
    pub fn preemption_attempt(&self) {
        self.0.lock().preemptions += 1;
    }

    /// So many victims made room.
    #[expect(clippy::cast_precision_loss, reason = "a few pods")]
    pub fn preempted(&self, victims: usize) {
        self.0.lock().victims.get_or_insert_with(|| Histogram::new(1.0, 7)).observe(victims as f64);
    }

    /// Everything in text.
    pub fn text(&self) -> String {
        let state = self.0.lock();
        let mut out = String::new();
        let Sizes { active, backoff, unschedulable, gated } = state.sizes;
        line(&mut out, format_args!("# TYPE scheduler_pending_pods gauge"));
        for (queue, size) in
            [("active", active), ("backoff", backoff), ("gated", gated), ("unschedulable", unschedulable)]
        {
            line(&mut out, format_args!("scheduler_pending_pods{{queue=\"{queue}\"}} {size}"));
        }
        line(&mut out, format_args!("# TYPE scheduler_cache_size gauge"));
        for (kind, size) in [("nodes", state.nodes), ("pods", state.pods)] {
            line(&mut out, format_args!("scheduler_cache_size{{type=\"{kind}\"}} {size}"));
        }
        line(&mut out, format_args!("# TYPE scheduler_schedule_attempts_total counter"));
        for ((profile, outcome), histogram) in &state.attempts {
            let (result, total) = (outcome.label(), histogram.total);
            let labels = format!("profile=\"{profile}\",result=\"{result}\"");
            line(&mut out, format_args!("scheduler_schedule_attempts_total{{{labels}}} {total}"));
        }
        line(&mut out, format_args!("# TYPE scheduler_scheduling_attempt_duration_seconds histogram"));
        for ((profile, outcome), histogram) in &state.attempts {
            let labels = format!("profile=\"{profile}\",result=\"{}\"", outcome.label());
            histogram.write(&mut out, "scheduler_scheduling_attempt_duration_seconds", &labels);
        }
        line(&mut out, format_args!("# TYPE scheduler_pod_scheduling_sli_duration_seconds histogram"));
        for (attempts, histogram) in &state.sli {
            let labels = format!("attempts=\"{attempts}\"");
            histogram.write(&mut out, "scheduler_pod_scheduling_sli_duration_seconds", &labels);
        }
        line(&mut out, format_args!("# TYPE scheduler_plugin_rejections_total counter"));
        for ((profile, plugin), count) in &state.rejections {
            let labels = format!("plugin=\"{plugin}\",profile=\"{profile}\"");
            line(&mut out, format_args!("scheduler_plugin_rejections_total{{{labels}}} {count}"));
        }
        line(&mut out, format_args!("# TYPE scheduler_preemption_attempts_total counter"));
        line(&mut out, format_args!("scheduler_preemption_attempts_total {}", state.preemptions));
        let named =
            [("scheduler_pod_scheduling_attempts", &state.tries), ("scheduler_preemption_victims", &state.victims)];
        for (name, histogram) in named {
            line(&mut out, format_args!("# TYPE {name} histogram"));
            histogram.iter().for_each(|histogram| histogram.write(&mut out, name, ""));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_format() {
        let metrics = Metrics::default();
        metrics.attempt("p", Outcome::Scheduled, Duration::from_micros(1500));
        metrics.sizes(Sizes { gated: 2, ..Sizes::default() }, 3, 4);
        let text = metrics.text();
        for expected in [
            "scheduler_pending_pods{queue=\"gated\"} 2",
            "scheduler_cache_size{type=\"nodes\"} 3",
            "scheduler_schedule_attempts_total{profile=\"p\",result=\"scheduled\"} 1",
            "scheduler_scheduling_attempt_duration_seconds_bucket{profile=\"p\",result=\"scheduled\",le=\"0.001\"} 0",
            "scheduler_scheduling_attempt_duration_seconds_bucket{profile=\"p\",result=\"scheduled\",le=\"0.002\"} 1",
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected} in\n{text}");
        }
    }
}

//! Counters of priority and fairness, under upstream's names.

use super::FlowControl;
use super::queues::Reason;
use crate::server::metrics::{family, line};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the histogram of waiting, in seconds.
const BUCKETS: [f64; 11] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0];

/// What happened to the requests of one schema. A request that did not wait is in the first bucket.
#[derive(Default)]
pub struct Counts {
    dispatched: AtomicU64,
    rejected: [AtomicU64; Reason::ALL.len()],
    executing: AtomicI64,
    seats: AtomicI64,
    queued: AtomicI64,
    waits: [Waits; 2],
}

/// Of those that ran at last, and of those that did not.
#[derive(Default)]
struct Waits {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Counts {
    pub(super) fn dispatched(&self, seats: u32) {
        self.dispatched.fetch_add(1, Ordering::Relaxed);
        self.executing.fetch_add(1, Ordering::Relaxed);
        self.seats.fetch_add(i64::from(seats), Ordering::Relaxed);
    }

    pub(super) fn finished(&self, seats: u32) {
        self.executing.fetch_sub(1, Ordering::Relaxed);
        self.seats.fetch_sub(i64::from(seats), Ordering::Relaxed);
    }

    pub(super) fn rejected(&self, reason: Reason) {
        self.rejected[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn queued(&self, change: i64) {
        self.queued.fetch_add(change, Ordering::Relaxed);
    }

    pub(super) fn waited(&self, time: Duration, ran: bool) {
        let waits = &self.waits[usize::from(!ran)];
        let seconds = time.as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            waits.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        waits.count.fetch_add(1, Ordering::Relaxed);
        waits.micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// One gauge of a schema.
type ClassGauge = (&'static str, fn(&Counts) -> i64);

const CLASS_GAUGES: [ClassGauge; 3] = [
    ("current_executing_requests", |c| c.executing.load(Ordering::Relaxed)),
    ("current_executing_seats", |c| c.seats.load(Ordering::Relaxed)),
    ("current_inqueue_requests", |c| c.queued.load(Ordering::Relaxed)),
];

/// Everything, as text.
pub fn text(out: &mut String, control: &FlowControl) {
    levels(out, control);
    let plan = control.plan.load();
    let classes = || {
        plan.classes.iter().map(|c| {
            let labels = format!("flow_schema=\"{}\",priority_level=\"{}\"", c.schema.name, c.level.name);
            (labels, &c.counts)
        })
    };
    for (name, read) in CLASS_GAUGES {
        let name = format!("apiserver_flowcontrol_{name}");
        family(out, &name, "gauge");
        classes().for_each(|(labels, counts)| line(out, &name, &labels, read(counts)));
    }
    const DISPATCHED: &str = "apiserver_flowcontrol_dispatched_requests_total";
    family(out, DISPATCHED, "counter");
    classes().for_each(|(labels, c)| line(out, DISPATCHED, &labels, c.dispatched.load(Ordering::Relaxed)));
    const REJECTED: &str = "apiserver_flowcontrol_rejected_requests_total";
    family(out, REJECTED, "counter");
    for (labels, counts) in classes() {
        for reason in Reason::ALL {
            let n = counts.rejected[reason as usize].load(Ordering::Relaxed);
            if n > 0 {
                line(out, REJECTED, &format!("{labels},reason=\"{}\"", reason.name()), n);
            }
        }
    }
    const WAIT: &str = "apiserver_flowcontrol_request_wait_duration_seconds";
    family(out, WAIT, "histogram");
    for (labels, counts) in classes() {
        // Those that ran without waiting are counted with the others, at no cost to them.
        let waited = counts.waits[0].count.load(Ordering::Relaxed);
        let at_once = counts.dispatched.load(Ordering::Relaxed).saturating_sub(waited);
        counts.waits[0].text(out, WAIT, &format!("execute=\"true\",{labels}"), at_once);
        counts.waits[1].text(out, WAIT, &format!("execute=\"false\",{labels}"), 0);
    }
}

impl Waits {
    fn text(&self, out: &mut String, name: &str, labels: &str, at_once: u64) {
        let count = self.count.load(Ordering::Relaxed) + at_once;
        if count == 0 {
            return;
        }
        let mut below = at_once;
        for (bound, n) in BUCKETS.iter().zip(&self.buckets) {
            below += n.load(Ordering::Relaxed);
            line(out, &format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), below);
        }
        line(out, &format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), count);
        line(out, &format!("{name}_sum"), labels, self.micros.load(Ordering::Relaxed) as f64 / 1e6);
        line(out, &format!("{name}_count"), labels, count);
    }
}

/// One gauge of a level.
type Gauge = (&'static str, fn(&super::Planned) -> f64);

const GAUGES: [Gauge; 7] = [
    ("nominal_limit_seats", |p| f64::from(p.bounds.nominal)),
    ("lower_limit_seats", |p| f64::from(p.bounds.min)),
    ("upper_limit_seats", |p| f64::from(p.bounds.max)),
    ("current_limit_seats", |p| {
        if p.share.exempt { f64::from(p.bounds.max) } else { f64::from(p.level.state.lock().limit()) }
    }),
    ("demand_seats_high_watermark", |p| p.level.demand.lock().high),
    ("demand_seats_smoothed", |p| p.level.demand.lock().smooth),
    ("target_seats", |p| {
        let demand = *p.level.demand.lock();
        demand.smooth.max(f64::from(p.bounds.min)).max(demand.high.min(f64::from(p.bounds.nominal)))
    }),
];

fn levels(out: &mut String, control: &FlowControl) {
    let plan = control.plan.load();
    for (name, read) in GAUGES {
        let name = format!("apiserver_flowcontrol_{name}");
        family(out, &name, "gauge");
        for (level, planned) in &plan.levels {
            line(out, &name, &format!("priority_level=\"{level}\""), read(planned));
        }
    }
    family(out, "apiserver_flowcontrol_seat_fair_frac", "gauge");
    line(out, "apiserver_flowcontrol_seat_fair_frac", "", *control.fair.lock());
}

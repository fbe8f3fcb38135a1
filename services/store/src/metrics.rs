//! Figures for Prometheus, by etcd's names.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::member::Member;
use crate::server::VERSION;

/// Upper bounds of the buckets in microseconds: 1 ms doubled up to 8 s, as in etcd.
const BUCKETS: [u64; 14] = [
    1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_024_000, 2_048_000, 4_096_000,
    8_192_000,
];

/// Something that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts several more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something takes.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [Counter; BUCKETS.len()],
    count: Counter,
    micros: Counter,
}

impl Durations {
    /// Records the time since `start`.
    pub fn since(&self, start: Instant) {
        self.record(start.elapsed());
    }

    fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = BUCKETS.iter().position(|bound| micros <= *bound) {
            self.buckets[bucket].increment();
        }
        self.count.increment();
        self.micros.add(micros);
    }

    fn render(&self, name: &str, help: &str, out: &mut String) {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut below = 0;
        for (bound, bucket) in BUCKETS.iter().zip(&self.buckets) {
            below += bucket.get();
            let _ = writeln!(out, "{name}_bucket{{le=\"{}\"}} {below}", seconds(*bound));
        }
        let count = self.count.get();
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum {}\n{name}_count {count}", seconds(self.micros.get()));
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// What is counted while it happens.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Syncs of the log.
    pub syncs: Durations,
    /// Flushes of the database.
    pub flushes: Durations,
    /// Bytes of entries written to the log.
    pub log_bytes: Counter,
    /// Range requests.
    pub ranges: Counter,
    /// Changes of each kind that were applied.
    pub puts: Counter,
    /// See [`Metrics::puts`].
    pub deletes: Counter,
    /// See [`Metrics::puts`].
    pub txns: Counter,
    /// Changes that were not refused and failed all the same.
    pub failed: Counter,
    /// Watch streams, and those that ended.
    pub streams: [Counter; 2],
}

enum Kind {
    Counter,
    Gauge,
}

/// Everything there is to tell.
pub async fn render(member: &Member) -> String {
    let metrics = &member.state.metrics;
    let mvcc = &member.state.mvcc;
    let (_, committed, applied) = member.consensus.progress();
    let leader = member.consensus.leader().await;
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    let size = member.engine.size();
    let open_streams = metrics.streams[0].get().saturating_sub(metrics.streams[1].get());
    let rows = [
        ("etcd_server_has_leader", Kind::Gauge, "Whether a leader is known.", u64::from(leader.is_some())),
        ("etcd_server_is_leader", Kind::Gauge, "Whether this member leads.", u64::from(member.consensus.is_leader())),
        ("etcd_server_proposals_committed_total", Kind::Gauge, "The last committed entry.", committed),
        ("etcd_server_proposals_applied_total", Kind::Gauge, "The last applied entry.", applied),
        ("etcd_server_proposals_failed_total", Kind::Counter, "Changes that failed.", metrics.failed.get()),
        ("etcd_server_quota_backend_bytes", Kind::Gauge, "The space quota.", member.config.quota()),
        ("etcd_disk_wal_write_bytes_total", Kind::Gauge, "Bytes written to the log.", metrics.log_bytes.get()),
        ("etcd_mvcc_db_total_size_in_bytes", Kind::Gauge, "Size of the database.", size),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", Kind::Gauge, "Size of the database in use.", size),
        ("etcd_mvcc_range_total", Kind::Counter, "Range requests.", metrics.ranges.get()),
        ("etcd_mvcc_put_total", Kind::Counter, "Puts.", metrics.puts.get()),
        ("etcd_mvcc_delete_total", Kind::Counter, "Deletes.", metrics.deletes.get()),
        ("etcd_mvcc_txn_total", Kind::Counter, "Transactions.", metrics.txns.get()),
        ("etcd_debugging_mvcc_keys_total", Kind::Gauge, "Keys.", mvcc.keys() as u64),
        ("etcd_debugging_mvcc_current_revision", Kind::Gauge, "The revision.", number(mvcc.revision())),
        ("etcd_debugging_mvcc_compact_revision", Kind::Gauge, "The compacted revision.", number(mvcc.compacted())),
        ("etcd_debugging_mvcc_watch_stream_total", Kind::Gauge, "Watch streams.", open_streams),
    ];
    let mut out = String::new();
    for (name, kind, help, value) in rows {
        let kind = if matches!(kind, Kind::Counter) { "counter" } else { "gauge" };
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
    for (name, label, value) in [
        ("etcd_server_id", "server_id", format!("{:x}", member.identity.member)),
        ("etcd_server_version", "server_version", VERSION.to_owned()),
    ] {
        let _ = writeln!(out, "# HELP {name} Always 1.\n# TYPE {name} gauge\n{name}{{{label}=\"{value}\"}} 1");
    }
    metrics.syncs.render("etcd_disk_wal_fsync_duration_seconds", "Syncs of the log.", &mut out);
    metrics.flushes.render("etcd_disk_backend_commit_duration_seconds", "Flushes of the database.", &mut out);
    process(&mut out);
    out
}

/// Memory and CPU time of this process; left out where the kernel does not tell.
fn process(out: &mut String) {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let resident = read("/proc/self/statm").and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    if let Some(pages) = resident {
        let name = "process_resident_memory_bytes";
        let _ = writeln!(out, "# HELP {name} Resident memory.\n# TYPE {name} gauge\n{name} {}", pages * 4096);
    }
    let descriptors = std::fs::read_dir("/proc/self/fd").map(Iterator::count);
    if let Ok(count) = descriptors {
        let name = "process_open_fds";
        let _ = writeln!(out, "# HELP {name} Open file descriptors.\n# TYPE {name} gauge\n{name} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_cumulative() {
        let durations = Durations::default();
        for micros in [10, 1_500, 3_000_000, 60_000_000] {
            durations.record(Duration::from_micros(micros));
        }
        let mut out = String::new();
        durations.render("d", "help", &mut out);
        for line in [
            "# TYPE d histogram",
            "d_bucket{le=\"0.001\"} 1",
            "d_bucket{le=\"0.002\"} 2",
            "d_bucket{le=\"4.096\"} 3",
            "d_bucket{le=\"+Inf\"} 4",
            "d_sum 63.00151",
            "d_count 4",
        ] {
            assert!(out.lines().any(|l| l == line), "{line}: {out}");
        }
    }
}

//! Counters of the work queues, in Prometheus' text form with upstream's names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::LazyLock;
use std::time::Duration;

use parking_lot::Mutex;

/// One queue's numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    passes: u64,
    failures: u64,
    busy: Duration,
    longest: Duration,
}

static QUEUES: LazyLock<Mutex<BTreeMap<&'static str, Queue>>> = LazyLock::new(Mutex::default);

/// Notes a pass of a controller.
pub fn passed(controller: &'static str, took: Duration, failed: bool) {
    let mut queues = QUEUES.lock();
    let queue = queues.entry(controller).or_default();
    queue.passes += 1;
    queue.failures += u64::from(failed);
    queue.busy += took;
    queue.longest = queue.longest.max(took);
}

/// All numbers as text.
pub fn render() -> String {
    let queues = QUEUES.lock().clone();
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Queue) -> String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (queue, numbers) in &queues {
            let _ = writeln!(text, "{name}{{name=\"{queue}\"}} {}", value(numbers));
        }
    };
    family("workqueue_adds_total", "counter", "Keys that were worked on", &|q| q.passes.to_string());
    family("workqueue_retries_total", "counter", "Passes that failed and were tried again", &|q| {
        q.failures.to_string()
    });
    family("workqueue_work_duration_seconds_sum", "counter", "Time spent in passes", &|q| {
        q.busy.as_secs_f64().to_string()
    });
    family("workqueue_work_duration_seconds_count", "counter", "Passes", &|q| q.passes.to_string());
    family("workqueue_longest_work_seconds", "gauge", "The longest pass", &|q| q.longest.as_secs_f64().to_string());
    let requests = client::requests_sent();
    let _ = writeln!(
        text,
        "# HELP rest_client_requests_total Requests sent to the API server\n# TYPE rest_client_requests_total counter\n\
         rest_client_requests_total {requests}"
    );
    if let Some(bytes) = resident_bytes() {
        let _ = writeln!(
            text,
            "# HELP process_resident_memory_bytes Resident memory\n# TYPE process_resident_memory_bytes gauge\n\
             process_resident_memory_bytes {bytes}"
        );
    }
    text
}

/// From proc_pid_statm(5): the second number is pages of 4 KiB.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    text.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_counted() {
        passed("of-a-test", Duration::from_millis(250), false);
        passed("of-a-test", Duration::from_millis(250), true);
        let text = render();
        for line in [
            "workqueue_adds_total{name=\"of-a-test\"} 2",
            "workqueue_retries_total{name=\"of-a-test\"} 1",
            "workqueue_work_duration_seconds_sum{name=\"of-a-test\"} 0.5",
            "# TYPE process_resident_memory_bytes gauge",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}

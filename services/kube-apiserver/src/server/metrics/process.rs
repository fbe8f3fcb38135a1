//! What Linux accounts of this process, as `proc_pid_stat(5)` and its neighbours describe it.

use super::{family, line};

/// Ticks of the clock that `stat` counts in, per second: the same on every Linux (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Its series; what cannot be read is left out.
pub fn text(out: &mut String) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (stat, status, limits) = (read("/proc/self/stat"), read("/proc/self/status"), read("/proc/self/limits"));
    let kib = |key: &str| Some(field(&status, key)?.strip_suffix(" kB")?.trim().parse::<f64>().ok()? * 1024.0);
    let booted = field(&read("/proc/stat"), "btime").and_then(|text| text.parse::<f64>().ok());
    let files = std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    let most = field(&limits, "Max open files").and_then(|text| text.split_whitespace().next()?.parse().ok());
    let series = [
        (
            "process_cpu_seconds_total",
            "counter",
            ticks(&stat, 14).zip(ticks(&stat, 15)).map(|(user, system)| user + system),
        ),
        ("process_max_fds", "gauge", most),
        ("process_open_fds", "gauge", files),
        ("process_resident_memory_bytes", "gauge", kib("VmRSS:")),
        ("process_start_time_seconds", "gauge", booted.zip(ticks(&stat, 22)).map(|(booted, since)| booted + since)),
        ("process_virtual_memory_bytes", "gauge", kib("VmSize:")),
    ];
    for (name, kind, value) in series {
        if let Some(value) = value {
            family(out, name, kind);
            line(out, name, "", value);
        }
    }
}

/// What follows a word at the beginning of a line.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

/// A field of `stat` by its number in the manual, in seconds. The second, the name, may contain anything.
fn ticks(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().nth(number - 3)?.parse::<f64>().ok()? / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_stat_are_counted_after_the_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 1234 1000 10";
        assert_eq!((ticks(stat, 14), ticks(stat, 15), ticks(stat, 22)), (Some(2.5), Some(0.5), Some(12.34)));
        let mut out = String::new();
        text(&mut out);
        for name in ["process_cpu_seconds_total", "process_start_time_seconds", "process_open_fds", "process_max_fds"] {
            assert!(out.contains(&format!("\n{name} ")), "{name} in {out}");
        }
    }
}

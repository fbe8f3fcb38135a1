//! Processes: what runs, with its resident memory. Kernel threads have none and are left out.

use machine_api::v1::{Process, ProcessesResponse};

pub(super) fn call() -> ProcessesResponse {
    let pids = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let mut processes: Vec<Process> = pids.filter_map(process).collect();
    processes.sort_by(|a, b| b.rss_bytes.cmp(&a.rss_bytes).then(a.pid.cmp(&b.pid)));
    ProcessesResponse { processes }
}

/// A process may end while we look: then it is not listed.
fn process(pid: i32) -> Option<Process> {
    let memory = linux::memory::resident(pid).ok().filter(|memory| memory.rss > 0)?;
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let name = read("comm")?.trim().to_owned();
    let service = service_of(&read("cgroup").unwrap_or_default());
    Some(Process { pid, name, rss_bytes: memory.rss, service, pss_bytes: memory.pss, private_bytes: memory.private })
}

/// PID 1 puts each service into the cgroup /system/<name>.
fn service_of(cgroup: &str) -> String {
    let path = cgroup.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or_default();
    path.strip_prefix("/system/").and_then(|p| p.split('/').next()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_cgroup_names_the_service() {
        assert_eq!(super::service_of("0::/system/store\n"), "store");
        assert_eq!(super::service_of("0::/kubepods/burstable/x\n"), "");
        assert!(super::call().processes.iter().any(|p| p.pid == i32::try_from(std::process::id()).unwrap()));
    }
}

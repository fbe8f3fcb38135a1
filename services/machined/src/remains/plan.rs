//! What of all that is there nobody owns any more. Pure.

use std::collections::BTreeSet;

/// The label of a lease that ends by itself: containerd gives one to each of its own calls, and so does an import.
const EXPIRES: &str = "containerd.io/gc.expire";
/// The name of a shim's process, as proc(5) cuts it.
const SHIM: &str = "containerd-shim";

/// A lease as the runtime lists it.
#[derive(Debug, Clone, Default)]
pub(super) struct Lease {
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: i64,
    pub(super) labels: Vec<String>,
}

/// A process of the machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    pub(super) has_children: bool,
}

/// Leases of calls that ended with an earlier runtime. A lease without an end is somebody's who will give it back.
pub(super) fn dead_leases(leases: &[Lease], runtime_started: i64) -> Vec<&str> {
    let dead = |lease: &&Lease| lease.created < runtime_started && lease.labels.iter().any(|label| label == EXPIRES);
    leases.iter().filter(dead).map(|lease| lease.id.as_str()).collect()
}

/// Shims of this namespace that the runtime has no bundle for and that hold no process. A bundle is made before its shim is
/// started and removed after it was told to end, so the processes have to be listed before the bundles.
pub(super) fn lost_shims<'a>(
    processes: &'a [Process],
    namespace: &str,
    bundles: &BTreeSet<String>,
) -> Vec<&'a Process> {
    let lost = |process: &&Process| {
        process.name == SHIM
            && !process.has_children
            && argument(&process.arguments, "-namespace") == Some(namespace)
            && argument(&process.arguments, "-id").is_some_and(|id| !bundles.contains(id))
    };
    processes.iter().filter(lost).collect()
}

fn argument<'a>(arguments: &'a [String], flag: &str) -> Option<&'a str> {
    let place = arguments.iter().position(|argument| argument == flag)?;
    arguments.get(place + 1).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_earlier_runtime_began_and_what_ends_by_itself_is_dead() {
        let lease = |id: &str, created, labels: &[&str]| Lease {
            id: id.to_owned(),
            created,
            labels: labels.iter().map(ToString::to_string).collect(),
        };
        let leases = [
            lease("killed", 9, &[EXPIRES]),
            lease("of-now", 10, &[EXPIRES]),
            lease("kept-by-somebody", 1, &["containerd.io/gc.flat"]),
            lease("sandbox", 1, &[]),
        ];
        assert_eq!(dead_leases(&leases, 10), ["killed"]);
    }

    #[test]
    fn a_shim_without_bundle_and_without_children_is_lost() {
        let process = |pid, name: &str, line: &str, has_children| Process {
            pid,
            name: name.to_owned(),
            arguments: line.split(' ').map(str::to_owned).collect(),
            has_children,
        };
        let shim =
            |id: &str| format!("/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id {id} -address /run/c.sock");
        let processes = [
            process(1, SHIM, &shim("lost"), false),
            process(2, SHIM, &shim("known"), false),
            process(3, SHIM, &shim("holds-a-process"), true),
            process(4, SHIM, "/usr/bin/containerd-shim-runc-v2 -namespace other -id lost", false),
            process(5, SHIM, "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id", false),
            process(6, "sleep", &shim("lost"), false),
        ];
        let bundles = ["known".to_owned()].into();
        assert_eq!(lost_shims(&processes, "k8s.io", &bundles).iter().map(|p| p.pid).collect::<Vec<_>>(), [1]);
    }
}

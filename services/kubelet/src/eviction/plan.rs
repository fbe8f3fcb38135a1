//! Which thresholds hold, what the node says about itself, and which pod goes first. Pure: time comes in.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::thresholds::{Signal, Threshold};
use crate::node_status::machine::Pressure;
use crate::pod::{Pod, amount};

/// How much of something there is: available and all.
pub type Observations = BTreeMap<Signal, (i128, i128)>;

/// What is remembered from one look to the next.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Since when each threshold, by its place in the list, has been crossed.
    crossed: BTreeMap<usize, Instant>,
    /// When each pressure was last seen.
    seen: BTreeMap<Kind, Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Memory,
    Disk,
    Pid,
}

impl Signal {
    fn kind(self) -> Kind {
        match self {
            Signal::Memory => Kind::Memory,
            Signal::Pids => Kind::Pid,
            _ => Kind::Disk,
        }
    }
}

/// What one look came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The node's conditions.
    pub pressure: Pressure,
    /// Thresholds for which something has to go now, memory first.
    pub act: Vec<Threshold>,
}

/// Looks. `transition` is how long a condition stays after it was last true, so that it does not flap.
pub fn look(
    memory: &mut Memory,
    thresholds: &[Threshold],
    now: &Observations,
    at: Instant,
    transition: Duration,
) -> Verdict {
    for (index, threshold) in thresholds.iter().enumerate() {
        let held = memory.crossed.contains_key(&index);
        if now.get(&threshold.signal).is_some_and(|(available, all)| crossed(threshold, *available, *all, held)) {
            memory.crossed.entry(index).or_insert(at);
            memory.seen.insert(threshold.signal.kind(), at);
        } else {
            memory.crossed.remove(&index);
        }
    }
    memory.seen.retain(|_, seen| at.duration_since(*seen) <= transition);
    let due = |(index, since): (&usize, &Instant)| -> Option<Threshold> {
        let threshold = thresholds.get(*index)?;
        threshold.grace.is_none_or(|grace| at.duration_since(*since) >= grace).then_some(*threshold)
    };
    let mut act: Vec<Threshold> = memory.crossed.iter().filter_map(due).collect();
    act.sort_by_key(|t| (t.signal, t.grace.is_some()));
    let has = |kind: Kind| memory.seen.contains_key(&kind);
    Verdict { pressure: Pressure { memory: has(Kind::Memory), disk: has(Kind::Disk), pid: has(Kind::Pid) }, act }
}

/// Once crossed, a threshold holds until the minimum was reclaimed too.
fn crossed(threshold: &Threshold, available: i128, all: i128, held: bool) -> bool {
    let more = if held { threshold.reclaim.of(all) } else { 0 };
    available < threshold.below.of(all) + more
}

/// A pod and what it uses.
#[derive(Clone, Debug)]
pub struct Usage<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Bytes of memory, its working set.
    pub memory: i128,
    /// Bytes of the disk: logs, writable layers, volumes.
    pub disk: i128,
    /// Files and folders on it.
    pub inodes: i128,
    /// Processes.
    pub pids: i128,
}

impl Usage<'_> {
    fn of(&self, signal: Signal) -> (i128, i128) {
        let request = |resource: &str| crate::admission::request(self.pod, resource) / 1000;
        match signal {
            Signal::Memory => (self.memory, request("memory")),
            Signal::NodeSpace | Signal::ImageSpace => (self.disk, request("ephemeral-storage")),
            Signal::NodeInodes | Signal::ImageInodes => (self.inodes, 0),
            Signal::Pids => (self.pids, 0),
        }
    }
}

/// The pods that may go, the first to go first: those that use more than they asked for, then the less important, then
/// those that use most beyond their request. Critical pods stay.
pub fn rank<'a, 'b>(pods: &'a [Usage<'b>], signal: Signal) -> Vec<&'a Usage<'b>> {
    let mut ranked: Vec<&Usage<'_>> = pods.iter().filter(|u| !u.pod.is_critical()).collect();
    ranked.sort_by_key(|usage| {
        let (used, request) = usage.of(signal);
        (Reverse(used > request), usage.pod.spec.priority.unwrap_or(0), Reverse(used - request))
    });
    ranked
}

/// Whether ending the pod would help. On the disk that is known beforehand: a pod that holds less than a hundredth of what
/// is missing would end for nothing, as when the system's own files fill it. (Upstream ends it all the same.)
pub fn would_help(usage: &Usage<'_>, threshold: &Threshold, available: i128, all: i128) -> bool {
    let missing = threshold.below.of(all) + threshold.reclaim.of(all) - available;
    match threshold.signal {
        Signal::Memory | Signal::Pids => true,
        signal => usage.of(signal).0 * 100 >= missing,
    }
}

/// What users read about the eviction.
pub fn message(threshold: &Threshold, available: i128, all: i128, usage: &Usage<'_>) -> String {
    let resource = threshold.signal.resource();
    let (used, request) = usage.of(threshold.signal);
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        short(threshold.below.of(all)),
        short(available)
    );
    if used > request && matches!(threshold.signal, Signal::Memory | Signal::NodeSpace | Signal::ImageSpace) {
        text += &format!(
            "Pod {} was using {}, request is {}, has larger consumption of {resource}. ",
            usage.pod.metadata.name,
            short(used),
            short(request)
        );
    }
    text
}

/// Kibibytes, as quantities write them; small numbers as they are.
fn short(amount: i128) -> String {
    if amount >= 1024 { format!("{}Ki", amount / 1024) } else { amount.to_string() }
}

/// What of a pod's own limits on local storage is exceeded, given each emptyDir's bytes by volume name, each container's
/// (logs and writable layer) by name.
pub fn over_limit(pod: &Pod, volumes: &BTreeMap<String, i128>, containers: &BTreeMap<String, i128>) -> Option<String> {
    for volume in &pod.spec.volumes {
        let Some(limit) =
            volume.empty_dir.as_ref().and_then(|e| crate::volumes::payload::size_limit(e.size_limit.as_ref()))
        else {
            continue;
        };
        if volumes.get(&volume.name).is_some_and(|used| *used > i128::from(limit)) {
            let written = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref());
            let text = written.map_or(String::new(), |v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
            return Some(format!("Usage of EmptyDir volume {:?} exceeds the limit {text:?}. ", volume.name));
        }
    }
    let total: i128 = volumes.values().chain(containers.values()).sum();
    let limit = crate::admission::limit(pod, "ephemeral-storage") / 1000;
    let all_limited = pod.all_containers().all(|c| amount(&c.resources.limits, "ephemeral-storage") > 0);
    if limit > 0 && all_limited && total > limit {
        let text = short(limit);
        return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {text}. "));
    }
    for container in pod.all_containers() {
        let limit = amount(&container.resources.limits, "ephemeral-storage") / 1000;
        if limit > 0 && containers.get(&container.name).is_some_and(|used| *used > limit) {
            let text = short(limit);
            return Some(format!("Container {} exceeded its local ephemeral storage limit {text:?}. ", container.name));
        }
    }
    None
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

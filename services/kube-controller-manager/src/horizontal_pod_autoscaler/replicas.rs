//! From measurements to a number of replicas. Pure; upstream's arithmetic.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::meta;
use apimachinery::quantity::Quantity;
use jiff::Timestamp;
use serde_json::Value;

use crate::{clock, object, pods};

/// A ratio this close to one changes nothing.
const TOLERANCE: f64 = 0.1;
/// A young pod's CPU says nothing yet, in seconds.
const CPU_INITIALIZATION: i64 = 300;
/// A pod that was not ready from its start on is still starting, in seconds.
const READINESS_DELAY: i64 = 30;

/// What was measured of one pod, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) milli: i128,
    pub(super) at: Timestamp,
    /// Seconds that the measurement covers.
    pub(super) window: i64,
}

/// Measurements by pod name.
pub(super) type Samples = BTreeMap<String, Sample>;

/// A proposal, with the value to show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Proposal {
    pub(super) replicas: i64,
    /// Utilization in percent, where that is what was asked for.
    pub(super) utilization: Option<i64>,
    /// Average per pod, in thousandths.
    pub(super) average: i128,
}

/// What to aim at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// Percent of what the pods request.
    Utilization(i64),
    /// Thousandths per pod.
    Average(i128),
}

#[derive(Debug, Default)]
struct Groups<'a> {
    ready: Vec<&'a str>,
    unready: Vec<&'a str>,
    missing: Vec<&'a str>,
}

fn is_near_one(ratio: f64) -> bool {
    (1.0 - ratio).abs() <= TOLERANCE
}

fn ceil(value: f64) -> i64 {
    value.ceil() as i64
}

fn ratio(a: i128, b: i128) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

fn groups<'a>(all: &'a [Arc<Value>], samples: &Samples, cpu: bool, now: Timestamp) -> Groups<'a> {
    let mut groups = Groups::default();
    for pod in all.iter().filter(|pod| pods::is_active(pod)) {
        let name = meta::name(pod);
        if object::text(pod, "/status/phase") == "Pending" {
            groups.unready.push(name);
            continue;
        }
        match samples.get(name) {
            None => groups.missing.push(name),
            Some(sample) if cpu && is_starting(pod, *sample, now) => groups.unready.push(name),
            Some(_) => groups.ready.push(name),
        }
    }
    groups
}

fn is_starting(pod: &Value, sample: Sample, now: Timestamp) -> bool {
    let Some(ready) = pods::ready_condition(pod) else { return true };
    let started = object::text(pod, "/status/startTime");
    let (Some(started), Some(changed)) =
        (clock::parse(started), ready["lastTransitionTime"].as_str().and_then(clock::parse))
    else {
        return true;
    };
    let unready = ready["status"] != "True";
    if clock::plus(started, CPU_INITIALIZATION) > now {
        return unready || sample.at < clock::plus(changed, sample.window);
    }
    unready && clock::plus(started, READINESS_DELAY) > changed
}

/// Requests of a pod for a resource, of all containers or of one; in thousandths.
fn request(pod: &Value, resource: &str, container: Option<&str>) -> Result<i128, String> {
    let sidecars = object::list(pod, "/spec/initContainers").iter().filter(|c| c["restartPolicy"] == "Always");
    let all = object::list(pod, "/spec/containers").iter().chain(sidecars);
    let mut sum = 0;
    for each in all.filter(|c| container.is_none_or(|name| c["name"] == name)) {
        let text = object::text(&each["resources"]["requests"], &format!("/{}", resource.replace('/', "~1")));
        let Ok(amount) = Quantity::parse(text) else {
            let (name, pod) = (object::text(each, "/name"), meta::name(pod));
            return Err(format!("missing request for {resource} in container {name} of Pod {pod}"));
        };
        sum += amount.milli();
    }
    Ok(sum)
}

/// Replicas for a measurement that every pod has: a resource, or a metric of pods.
pub(super) fn per_pod(
    current: i64,
    goal: Goal,
    all: &[Arc<Value>],
    samples: &Samples,
    resource: Option<(&str, Option<&str>)>,
    now: Timestamp,
) -> Result<Proposal, String> {
    if all.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = groups(all, samples, resource.is_some_and(|(name, _)| name == "cpu"), now);
    if groups.ready.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    // What one pod is meant to have: a share of its own requests, or the same for all.
    let mut goals: BTreeMap<&str, i128> = BTreeMap::new();
    for pod in all.iter().filter(|pod| pods::is_active(pod)) {
        let whole = match (goal, resource) {
            (Goal::Utilization(_), Some((name, container))) => request(pod, name, container)?,
            (Goal::Average(milli), _) => milli,
            (Goal::Utilization(_), None) => return Err("utilization needs a resource".to_owned()),
        };
        goals.insert(meta::name(pod), whole);
    }
    let target = match goal {
        Goal::Utilization(percent) => i128::from(percent),
        Goal::Average(_) => 100,
    };
    let used: i128 = groups.ready.iter().filter_map(|name| samples.get(*name)).map(|sample| sample.milli).sum();
    let meant = |names: &[&str]| names.iter().filter_map(|name| goals.get(*name)).sum::<i128>();
    let now_ratio = ratio(used * 100, meant(&groups.ready) * target);
    let ready = i64::try_from(groups.ready.len()).unwrap_or(i64::MAX);
    let shown = |replicas| Proposal {
        replicas,
        utilization: matches!(goal, Goal::Utilization(_))
            .then(|| i64::try_from(used * 100 / meant(&groups.ready).max(1)).unwrap_or(i64::MAX)),
        average: used / i128::from(ready.max(1)),
    };
    let replicas = rebalance(current, now_ratio, used, target, &groups, &meant);
    Ok(shown(replicas))
}

/// Pods that say nothing are taken to speak against the change: to use nothing when growing, all when shrinking.
fn rebalance(
    current: i64,
    now: f64,
    used: i128,
    target: i128,
    groups: &Groups<'_>,
    meant: &dyn Fn(&[&str]) -> i128,
) -> i64 {
    let ready = groups.ready.len();
    let grows = now > 1.0;
    let count_unready = grows && !groups.unready.is_empty();
    if groups.missing.is_empty() && !count_unready {
        return if is_near_one(now) { current } else { ceil(now * as_f64(ready)) };
    }
    let mut counted = ready + groups.missing.len();
    let (mut all_used, mut all_meant) = (used, meant(&groups.ready) + meant(&groups.missing));
    if now < 1.0 {
        all_used += meant(&groups.missing) * target.max(100) / 100;
    }
    if count_unready {
        counted += groups.unready.len();
        all_meant += meant(&groups.unready);
    }
    let then = ratio(all_used * 100, all_meant * target);
    if is_near_one(then) || (now < 1.0 && then > 1.0) || (grows && then < 1.0) {
        return current;
    }
    let replicas = ceil(then * as_f64(counted));
    if (then < 1.0 && replicas > current) || (then > 1.0 && replicas < current) { current } else { replicas }
}

fn as_f64(count: usize) -> f64 {
    count as f64
}

/// Replicas for one measurement of something else: a value that is shared by the ready pods, or an average per pod.
pub(super) fn of_whole(current: i64, ready: i64, value: i128, target: i128, average: bool) -> Proposal {
    let whole = i128::from(current.max(1));
    if average {
        let change = ratio(value, target * i128::from(current.max(0)));
        let replicas = if current > 0 && is_near_one(change) { current } else { ceil(ratio(value, target)) };
        return Proposal { replicas, utilization: None, average: value / whole };
    }
    let change = ratio(value, target);
    let replicas = match current {
        0 => ceil(change),
        _ if is_near_one(change) => current,
        _ => ceil(change * ready as f64),
    };
    Proposal { replicas, utilization: None, average: value }
}

//! What a DaemonSet does about its pods on each node, and what it says about them. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::intstr::{self, Round};
use apimachinery::meta;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::pod;
use crate::pods::{self, Availability};
use crate::revisions::HASH_LABEL;
use crate::{clock, nodes, object};

/// Everything the plan looks at.
pub(super) struct Observed<'a> {
    pub(super) set: &'a Value,
    /// The set's pods.
    pub(super) pods: &'a [Arc<Value>],
    pub(super) nodes: &'a [Arc<Value>],
    /// The hash of the revision of the set's template.
    pub(super) hash: &'a str,
    pub(super) collisions: Option<i64>,
    pub(super) now: Timestamp,
}

/// What to do, and what to say.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nodes that get a pod.
    pub(super) create: Vec<String>,
    /// Pods that ended and make room for another: on each node only so often.
    pub(super) replace: Vec<Arc<Value>>,
    /// Pods that are not wanted any more.
    pub(super) delete: Vec<Arc<Value>>,
    /// The new status, if it differs.
    pub(super) status: Option<Value>,
    /// When time alone changes something.
    pub(super) next: Option<Duration>,
}

/// What a node means to the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fit {
    /// A pod is to be started there.
    pub(super) should_run: bool,
    /// A pod that is there may stay.
    pub(super) may_stay: bool,
}

/// Whether the set's pod belongs on a node.
pub(super) fn fit(set: &Value, node: &Value) -> Fit {
    let spec = &set["spec"]["template"]["spec"];
    let fixed = object::text(spec, "/nodeName");
    if (!fixed.is_empty() && fixed != meta::name(node)) || !nodes::accepted_by(spec, node) {
        return Fit { should_run: false, may_stay: false };
    }
    let tolerations = pod::tolerations(spec);
    Fit {
        should_run: !nodes::repels(node, &tolerations, &["NoSchedule", "NoExecute"]),
        may_stay: !nodes::repels(node, &tolerations, &["NoExecute"]),
    }
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    min_ready: i64,
    fits: BTreeMap<&'a str, Fit>,
    /// Oldest first.
    by_node: BTreeMap<&'a str, Vec<Arc<Value>>>,
    plan: Plan,
}

/// Decides.
pub(super) fn plan(observed: &Observed<'_>) -> Plan {
    let mut by_node: BTreeMap<&str, Vec<Arc<Value>>> = BTreeMap::new();
    for pod in observed.pods {
        by_node.entry(pod::node_of(pod)).or_default().push(Arc::clone(pod));
    }
    for pods in by_node.values_mut() {
        pods.sort_by_key(|p| (meta::creation_timestamp(p).to_owned(), meta::name(p).to_owned()));
    }
    let mut planner = Planner {
        observed,
        min_ready: object::int(observed.set, "/spec/minReadySeconds").unwrap_or(0),
        fits: observed.nodes.iter().map(|node| (meta::name(node), fit(observed.set, node))).collect(),
        by_node,
        plan: Plan::default(),
    };
    if meta::deletion_timestamp(observed.set).is_none() {
        planner.place();
        if object::text(observed.set, "/spec/updateStrategy/type") != "OnDelete" {
            planner.roll();
        }
    }
    let status = planner.status();
    planner.plan.status = (!same(&status, &observed.set["status"])).then_some(status);
    planner.plan.next = planner.next();
    planner.plan
}

impl Planner<'_> {
    fn is_new(&self, pod: &Value) -> bool {
        meta::label(pod, HASH_LABEL) == Some(self.observed.hash)
    }

    fn is_available(&self, pod: &Value) -> bool {
        pods::availability(pod, self.min_ready, self.observed.now) == Availability::Now
    }

    /// The number of pods that a rollout may add, or take away. Only one of them is above zero.
    fn fences(&self) -> (i64, i64) {
        let total = i64::try_from(self.fits.values().filter(|fit| fit.should_run).count()).unwrap_or(0);
        let rolling = &self.observed.set["spec"]["updateStrategy"]["rollingUpdate"];
        let of = |field: &str| intstr::scaled_value(&rolling[field], total, Round::Up).ok();
        let surge = of("maxSurge").unwrap_or(0);
        if surge > 0 { (surge, 0) } else { (0, of("maxUnavailable").unwrap_or(1).max(1)) }
    }

    /// One pod on every node that should have one, none elsewhere.
    fn place(&mut self) {
        let surges = self.fences().0 > 0;
        for (name, fit) in &self.fits {
            let here = self.by_node.get(name).map(Vec::as_slice).unwrap_or_default();
            if !fit.may_stay {
                self.plan.delete.extend(here.iter().filter(|pod| !pods::is_terminating(pod)).cloned());
                continue;
            }
            let (mut running, mut leaving) = (Vec::new(), 0);
            for pod in here {
                if pods::is_terminating(pod) {
                    leaving += 1;
                } else if pods::is_finished(pod) {
                    leaving += 1;
                    self.plan.replace.push(Arc::clone(pod));
                } else {
                    running.push(Arc::clone(pod));
                }
            }
            if running.is_empty() && leaving == 0 && fit.should_run {
                self.plan.create.push((*name).to_owned());
            }
            let surplus =
                if surges { self.surplus_of_surge(&running) } else { running.get(1..).unwrap_or_default().to_vec() };
            self.plan.delete.extend(surplus);
        }
        // Nodes that are gone: pod-garbage-collector removes what ran there, so only the unscheduled are ours.
        let gone = self.by_node.iter().filter(|(name, _)| !self.fits.contains_key(*name)).flat_map(|(_, pods)| pods);
        let unplaced = gone.filter(|p| object::text(p, "/spec/nodeName").is_empty() && !pods::is_terminating(p));
        self.plan.delete.extend(unplaced.cloned());
    }

    /// With a surge a node may have an old and a new pod for a while: until the new one is available or the old one fails.
    fn surplus_of_surge(&self, running: &[Arc<Value>]) -> Vec<Arc<Value>> {
        let (new, old): (Vec<_>, Vec<_>) = running.iter().cloned().partition(|pod| self.is_new(pod));
        let mut surplus: Vec<Arc<Value>> = new.iter().skip(1).chain(old.iter().skip(1)).cloned().collect();
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (self.is_available(new) || !pods::is_ready(old))
        {
            surplus.push(Arc::clone(old));
        }
        surplus
    }

    /// The old and the new pod of a node, leaving out what is ending.
    fn pair(&self, name: &str) -> (Option<Arc<Value>>, Option<Arc<Value>>) {
        let here = self.by_node.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut staying = here.iter().filter(|pod| !pods::is_terminating(pod));
        let old = staying.clone().find(|pod| !self.is_new(pod)).cloned();
        (old, staying.find(|pod| self.is_new(pod)).cloned())
    }

    /// Moves nodes from the old revision to the new one, within the fences.
    fn roll(&mut self) {
        let (surge, unavailable) = self.fences();
        let names: Vec<&str> = self.fits.iter().filter(|(_, fit)| fit.should_run).map(|(name, _)| *name).collect();
        let (mut at_once, mut in_turn, mut busy) = (Vec::new(), Vec::new(), 0);
        for name in names {
            match self.pair(name) {
                (old, Some(new)) => busy += i64::from(!self.is_available(&new) && (surge == 0 || old.is_some())),
                (None, None) => busy += i64::from(surge == 0),
                (Some(old), None) if self.is_available(&old) => in_turn.push((name, old)),
                (Some(old), None) => {
                    busy += i64::from(surge == 0);
                    at_once.push((name, old));
                }
            }
        }
        let room = usize::try_from(surge.max(unavailable) - busy).unwrap_or(0);
        for (name, old) in at_once.into_iter().chain(in_turn.into_iter().take(room)) {
            if surge > 0 {
                self.plan.create.push(name.to_owned());
            } else if !pods::is_finished(&old) {
                self.plan.delete.push(old);
            }
        }
        self.plan.create.sort();
        self.plan.create.dedup();
    }

    fn next(&self) -> Option<Duration> {
        let available = |pod: &Arc<Value>| match pods::availability(pod, self.min_ready, self.observed.now) {
            Availability::At(then) => Some(clock::until(self.observed.now, then)),
            _ => None,
        };
        self.observed.pods.iter().filter_map(available).min()
    }

    fn status(&self) -> Value {
        let (mut desired, mut current, mut ready, mut available, mut updated, mut misscheduled) = (0, 0, 0, 0, 0, 0);
        for (name, fit) in &self.fits {
            let here = self.by_node.get(name).map(Vec::as_slice).unwrap_or_default();
            if !fit.should_run {
                misscheduled += i64::from(!here.is_empty());
                continue;
            }
            desired += 1;
            current += i64::from(!here.is_empty());
            let staying = || here.iter().filter(|pod| !pods::is_terminating(pod));
            ready += i64::from(staying().any(|pod| pods::is_ready(pod)));
            available += i64::from(staying().any(|pod| self.is_available(pod)));
            updated += i64::from(staying().any(|pod| self.is_new(pod)));
        }
        let mut status = json!({
            "observedGeneration": meta::generation(self.observed.set),
            "desiredNumberScheduled": desired, "currentNumberScheduled": current, "numberMisscheduled": misscheduled,
            "numberReady": ready, "numberAvailable": available, "numberUnavailable": desired - available,
            "updatedNumberScheduled": updated,
        });
        if let Some(collisions) = self.observed.collisions {
            status["collisionCount"] = collisions.into();
        }
        if let Some(conditions) = self.observed.set["status"].get("conditions") {
            status["conditions"] = conditions.clone();
        }
        status
    }
}

/// Equal, where the API leaves out a zero.
fn same(new: &Value, old: &Value) -> bool {
    let fields = [
        "observedGeneration",
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberMisscheduled",
        "numberReady",
        "numberAvailable",
        "numberUnavailable",
        "updatedNumberScheduled",
        "collisionCount",
    ];
    let count = |status: &Value, field: &str| status[field].as_i64().unwrap_or(0);
    !old["desiredNumberScheduled"].is_null() && fields.iter().all(|field| count(new, field) == count(old, field))
}

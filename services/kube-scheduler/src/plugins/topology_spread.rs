//! PodTopologySpread: matching pods are spread over domains of nodes, as the pod demands or, without a demand, as pods of
//! one workload should be.

use std::collections::HashSet;
use std::sync::Arc;

use apimachinery::selector::LabelSelector;
use serde_json::Value;

use crate::cache::Cache;
use crate::framework::{Cycle, Event, Filter, Normalize, Plugin, Refusal, Score};
use crate::index::{Count, Counted, Counts, Eligible};
use crate::neighbours::Spread;
use crate::node::Node;
use crate::plugins::resources::{no_fields_but, number};
use crate::pod::Pod;
use crate::terms::{label, list, text};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// A constraint for pods that have none of their own.
#[derive(Clone, Debug)]
struct Default {
    max_skew: i64,
    key: String,
    hard: bool,
}

pub struct TopologySpread {
    defaults: Vec<Default>,
    /// Of the system's defaults nobody is asked to have the labels.
    need_labels: bool,
}

impl TopologySpread {
    pub fn read(args: &Value) -> Result<Self, String> {
        no_fields_but(args, &["defaultConstraints", "defaultingType"])?;
        let given = list(args, "/defaultConstraints");
        let is_list = match text(args, "/defaultingType") {
            "" | "System" => false,
            "List" => true,
            other => return Err(format!("defaultingType: Unsupported value: {other:?}")),
        };
        if !is_list {
            if !given.is_empty() {
                return Err("defaultConstraints: Invalid value: when .defaultingType is System".to_owned());
            }
            let soft = |max_skew, key: &str| Default { max_skew, key: key.to_owned(), hard: false };
            return Ok(TopologySpread { defaults: vec![soft(3, HOSTNAME), soft(5, ZONE)], need_labels: false });
        }
        let read = |(index, constraint): (usize, &Value)| {
            let at = |e: String| format!("defaultConstraints[{index}].{e}");
            no_fields_but(constraint, &["maxSkew", "topologyKey", "whenUnsatisfiable"]).map_err(at)?;
            Ok(Default {
                max_skew: number(constraint, "maxSkew", 0, 1..=i64::MAX).map_err(at)?,
                key: text(constraint, "/topologyKey").to_owned(),
                hard: match text(constraint, "/whenUnsatisfiable") {
                    "DoNotSchedule" => true,
                    "ScheduleAnyway" => false,
                    other => return Err(at(format!("whenUnsatisfiable: Unsupported value: {other:?}"))),
                },
            })
        };
        let defaults = given.iter().enumerate().map(read).collect::<Result<_, String>>()?;
        Ok(TopologySpread { defaults, need_labels: true })
    }

    fn needs_labels(&self, pod: &Pod) -> bool {
        self.need_labels || !pod.spec.spread.is_empty()
    }
}

/// The constraints that hold for a pod: its own, or else the defaults.
fn constraints<'a>(pod: &'a Pod, defaults: &'a [Spread]) -> &'a [Spread] {
    if pod.spec.spread.is_empty() { defaults } else { &pod.spec.spread }
}

impl Plugin for TopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn defaults(&self, pod: &Pod, workload: &[LabelSelector]) -> Vec<Spread> {
        if workload.is_empty() || !pod.spec.spread.is_empty() {
            return Vec::new();
        }
        let spread = |default: &Default| {
            let like = self.defaults.iter().filter(|other| other.hard == default.hard);
            let eligible = Eligible {
                keys: like.filter(|_| self.need_labels).map(|other| other.key.clone()).collect(),
                rules: (!pod.spec.nodes.is_empty()).then(|| Arc::clone(&pod.spec.nodes)),
                tolerations: None,
            };
            let counted = Counted::Spread { namespace: pod.spec.namespace.clone(), selectors: workload.to_vec() };
            Spread {
                max_skew: default.max_skew,
                key: default.key.clone(),
                hard: default.hard,
                min_domains: 1,
                matches_itself: true,
                count: Arc::new(Count::new(default.key.clone(), counted, eligible)),
            }
        };
        self.defaults.iter().map(spread).collect()
    }

    fn counts(&self, pod: &Pod, defaults: &[Spread]) -> Vec<Arc<Count>> {
        constraints(pod, defaults).iter().map(|constraint| Arc::clone(&constraint.count)).collect()
    }

    fn filter<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let hard = constraints(cycle.pod, cycle.defaults).iter().filter(|c| c.hard);
        let rules: Vec<(&Spread, &Counts)> = hard.filter_map(|c| Some((c, cycle.count(&c.count)?))).collect();
        if rules.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            for (constraint, counts) in &rules {
                let Some(domain) = label(&node.offer.labels, &constraint.key) else {
                    return Some(Refusal::hopeless(
                        "node(s) didn't match pod topology spread constraints (missing required label)",
                    ));
                };
                let few = i64::try_from(counts.domains()).unwrap_or(i64::MAX) < constraint.min_domains;
                let fewest = if few { 0 } else { counts.fewest() };
                if counts.of(domain) + i64::from(constraint.matches_itself) - fewest > constraint.max_skew {
                    return Some(Refusal::of("node(s) didn't match pod topology spread constraints"));
                }
            }
            None
        }))
    }

    fn score<'a>(&'a self, cycle: &Cycle<'a>, feasible: &[&'a Node]) -> Option<Score<'a>> {
        let soft = constraints(cycle.pod, cycle.defaults).iter().filter(|c| !c.hard);
        let rules: Vec<(&Spread, &Counts)> = soft.filter_map(|c| Some((c, cycle.count(&c.count)?))).collect();
        if rules.is_empty() {
            return None;
        }
        let need_labels = self.needs_labels(cycle.pod);
        let keys: Vec<&'a str> = rules.iter().map(|(constraint, _)| constraint.key.as_str()).collect();
        let is_scored = move |node: &Node| !need_labels || keys.iter().all(|key| node.offer.labels.contains_key(*key));
        let scored: Vec<&Node> = feasible.iter().copied().filter(|node| is_scored(node)).collect();
        let wishes: Vec<Wish<'a>> = rules.into_iter().map(|(c, counts)| Wish::new(c, counts, &scored)).collect();
        let of = move |node: &Node| if is_scored(node) { total(&wishes, node) } else { -1 };
        Some(Score { of: Box::new(of), normalize: Normalize::Fewest })
    }

    fn helps(&self, pod: &Pod, event: &Event, _: &Cache) -> bool {
        let counts = |other: &Pod| {
            let mut own = pod.spec.spread.iter().filter(|c| c.hard);
            other.spec.namespace == pod.spec.namespace
                && (pod.spec.spread.is_empty() || own.any(|c| c.selects(&other.spec.labels)))
        };
        match event {
            Event::Node { old: None, .. } | Event::NodeGone => true,
            Event::Node { old: Some(old), new } => old.labels != new.labels || old.taints != new.taints,
            Event::Placed { pod: other, .. } | Event::Gone(other) => counts(other),
            Event::Storage | Event::Devices => false,
        }
    }
}

/// A soft constraint with its counts.
struct Wish<'a> {
    constraint: &'a Spread,
    counts: &'a Counts,
    weight: f64,
}

impl<'a> Wish<'a> {
    /// Many domains weigh more, as their counts are smaller.
    #[expect(clippy::cast_precision_loss, reason = "numbers of domains, far below 2^52")]
    fn new(constraint: &'a Spread, counts: &'a Counts, scored: &[&Node]) -> Wish<'a> {
        let domains = if constraint.key == HOSTNAME {
            scored.len()
        } else {
            let domains = scored.iter().filter_map(|node| label(&node.offer.labels, &constraint.key));
            domains.collect::<HashSet<&str>>().len()
        };
        Wish { constraint, counts, weight: ((domains + 2) as f64).ln() }
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "counts of pods, far below 2^52")]
fn total(wishes: &[Wish<'_>], node: &Node) -> i64 {
    let mut score = 0.0;
    for wish in wishes {
        if let Some(domain) = label(&node.offer.labels, &wish.constraint.key) {
            score += wish.counts.of(domain) as f64 * wish.weight + (wish.constraint.max_skew - 1) as f64;
        }
    }
    score.round() as i64
}

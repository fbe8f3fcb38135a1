//! PodTopologySpread: matching pods are spread over domains of nodes, as the pod demands or, without a demand, as pods of
//! one workload should be.

use std::collections::HashMap;

use apimachinery::selector::LabelSelector;

use crate::framework::{Cycle, Event, Filter, Normalize, Plugin, Score};
use crate::node::Node;
use crate::pod::{Pod, Spread};
use crate::terms::{Labels, label};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

pub struct TopologySpread;

impl Plugin for TopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn filter<'a>(&self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let pod = cycle.pod;
        let hard: Vec<&Spread> = pod.spread.iter().filter(|c| c.hard).collect();
        if hard.is_empty() {
            return None;
        }
        let rules: Vec<Rule<'a>> = hard.iter().map(|constraint| Rule::count(cycle, constraint, &hard)).collect();
        Some(Box::new(move |node| {
            for rule in &rules {
                let Some(domain) = label(&node.offer.labels, &rule.constraint.key) else {
                    return vec![
                        "node(s) didn't match pod topology spread constraints (missing required label)".into(),
                    ];
                };
                if rule.exceeded(domain) {
                    return vec!["node(s) didn't match pod topology spread constraints".into()];
                }
            }
            Vec::new()
        }))
    }

    fn score<'a>(&self, cycle: &Cycle<'a>, feasible: &[&'a Node]) -> Option<Score<'a>> {
        let wishes = Wishes::of(cycle)?;
        let domains: Vec<Domains> =
            wishes.rules.iter().map(|wish| Domains::count(cycle, &wishes, wish, feasible)).collect();
        let namespace = cycle.pod.namespace.as_str();
        Some(Score { of: Box::new(move |node| wishes.score(&domains, node, namespace)), normalize: Normalize::Fewest })
    }

    fn weight(&self) -> i64 {
        2
    }

    fn helps(&self, pod: &Pod, event: &Event) -> bool {
        let counts = |other: &Pod| {
            let hard = || pod.spread.iter().filter(|c| c.hard);
            other.namespace == pod.namespace && hard().any(|c| c.selector.matches(Some(&other.labels)))
        };
        match event {
            Event::Node { old: None, .. } | Event::NodeGone => true,
            Event::Node { old: Some(old), new } => old.labels != new.labels || old.taints != new.taints,
            Event::Placed(other) | Event::Gone(other) => counts(other),
        }
    }
}

fn matching(node: &Node, namespace: &str, selects: impl Fn(&Labels) -> bool) -> i64 {
    let counted = |pod: &&std::sync::Arc<Pod>| pod.namespace == namespace && !pod.ending && selects(&pod.labels);
    i64::try_from(node.pods.values().filter(counted).count()).unwrap_or(i64::MAX)
}

/// Whether a node's pods count for a constraint.
fn is_eligible(pod: &Pod, constraint: &Spread, node: &Node) -> bool {
    (!constraint.honor_affinity || pod.allows_node(&node.offer.name, &node.offer.labels))
        && (!constraint.honor_taints || pod.bears(&node.offer.taints))
}

/// A hard constraint with its counts.
struct Rule<'a> {
    constraint: &'a Spread,
    counts: HashMap<&'a str, i64>,
    fewest: i64,
    itself: i64,
}

impl<'a> Rule<'a> {
    fn count(cycle: &Cycle<'a>, constraint: &'a Spread, all: &[&Spread]) -> Rule<'a> {
        let pod = cycle.pod;
        let mut counts: HashMap<&str, i64> = HashMap::new();
        for node in cycle.cache.nodes() {
            let labels = &node.offer.labels;
            let in_all = all.iter().all(|c| labels.contains_key(&c.key));
            let Some(domain) = label(labels, &constraint.key).filter(|_| in_all) else { continue };
            if is_eligible(pod, constraint, node) {
                let found = matching(node, &pod.namespace, |labels| constraint.selector.matches(Some(labels)));
                *counts.entry(domain).or_default() += found;
            }
        }
        let few_domains = i64::try_from(counts.len()).unwrap_or(i64::MAX) < constraint.min_domains;
        let fewest = if few_domains { 0 } else { counts.values().copied().min().unwrap_or(0) };
        let itself = i64::from(constraint.selector.matches(Some(&pod.labels)));
        Rule { constraint, counts, fewest, itself }
    }

    fn exceeded(&self, domain: &str) -> bool {
        let here = self.counts.get(domain).copied().unwrap_or(0);
        here + self.itself - self.fewest > self.constraint.max_skew
    }
}

/// A soft constraint: the pod's own, or a default one.
struct Wish<'a> {
    key: &'a str,
    max_skew: i64,
    selectors: Vec<&'a LabelSelector>,
    constraint: Option<&'a Spread>,
}

impl Wish<'_> {
    fn selects(&self, labels: &Labels) -> bool {
        self.selectors.iter().all(|selector| selector.matches(Some(labels)))
    }
}

struct Wishes<'a> {
    rules: Vec<Wish<'a>>,
    /// Nodes without all the labels get no score; default constraints are not that strict.
    need_all_labels: bool,
}

impl<'a> Wishes<'a> {
    fn of(cycle: &Cycle<'a>) -> Option<Wishes<'a>> {
        let pod = cycle.pod;
        let rules: Vec<Wish<'a>> = if pod.spread.is_empty() {
            let workload: Vec<&LabelSelector> = cycle.workload.iter().collect();
            if workload.is_empty() {
                return None;
            }
            let wish = |key, max_skew| Wish { key, max_skew, selectors: workload.clone(), constraint: None };
            vec![wish(HOSTNAME, 3), wish(ZONE, 5)]
        } else {
            let soft = pod.spread.iter().filter(|c| !c.hard);
            soft.map(|c| Wish { key: &c.key, max_skew: c.max_skew, selectors: vec![&c.selector], constraint: Some(c) })
                .collect()
        };
        (!rules.is_empty()).then_some(Wishes { rules, need_all_labels: !pod.spread.is_empty() })
    }

    fn counts(&self, node: &Node) -> bool {
        !self.need_all_labels || self.rules.iter().all(|wish| node.offer.labels.contains_key(wish.key))
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "counts of pods, far below 2^52")]
    fn score(&self, domains: &[Domains], node: &Node, namespace: &str) -> i64 {
        if !self.counts(node) {
            return -1;
        }
        let mut score = 0.0;
        for (wish, domains) in self.rules.iter().zip(domains) {
            let Some(domain) = label(&node.offer.labels, wish.key) else { continue };
            let here = match &domains.counts {
                None => matching(node, namespace, |labels| wish.selects(labels)),
                Some(counts) => counts.get(domain).copied().unwrap_or(0),
            };
            score += here as f64 * domains.weight + (wish.max_skew - 1) as f64;
        }
        score.round() as i64
    }
}

/// The counts of a wish's domains. Where each node is a domain of its own they are taken when a node is scored.
struct Domains {
    counts: Option<HashMap<String, i64>>,
    weight: f64,
}

impl Domains {
    /// Domains of the feasible nodes count pods of all nodes; many domains weigh more, as their counts are smaller.
    #[expect(clippy::cast_precision_loss, reason = "numbers of domains, far below 2^52")]
    fn count(cycle: &Cycle<'_>, wishes: &Wishes<'_>, wish: &Wish<'_>, feasible: &[&Node]) -> Domains {
        let scored = feasible.iter().filter(|node| wishes.counts(node));
        if wish.key == HOSTNAME {
            return Domains { counts: None, weight: ((scored.count() + 2) as f64).ln() };
        }
        let domains = scored.filter_map(|node| label(&node.offer.labels, wish.key));
        let mut counts: HashMap<String, i64> = domains.map(|domain| (domain.to_owned(), 0)).collect();
        for node in cycle.cache.nodes().filter(|node| wishes.counts(node)) {
            let eligible = wish.constraint.map_or_else(
                || cycle.pod.allows_node(&node.offer.name, &node.offer.labels),
                |constraint| is_eligible(cycle.pod, constraint, node),
            );
            let count = label(&node.offer.labels, wish.key).and_then(|domain| counts.get_mut(domain));
            if let Some(count) = count.filter(|_| eligible) {
                *count += matching(node, &cycle.pod.namespace, |labels| wish.selects(labels));
            }
        }
        let weight = ((counts.len() + 2) as f64).ln();
        Domains { counts: Some(counts), weight }
    }
}

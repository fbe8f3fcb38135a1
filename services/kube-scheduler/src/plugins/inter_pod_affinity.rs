//! InterPodAffinity: pods that must or would like to be near or away from others; the rules of those already placed hold
//! against newcomers as well.

use std::collections::{HashMap, HashSet};

use crate::framework::{Cycle, Event, Filter, Normalize, Plugin, Score};
use crate::node::Node;
use crate::pod::{Neighbours, Pod};
use crate::terms::label;

/// What a placed pod's required affinity counts when scoring.
const HARD_AFFINITY_WEIGHT: i64 = 1;

pub struct InterPodAffinity;

/// A label and its value: one domain.
type Domain<'a> = (&'a str, &'a str);

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn filter<'a>(&self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let pod = cycle.pod;
        let refused = refused_by_placed(cycle);
        if refused.is_empty() && pod.affinity.required.is_empty() && pod.anti_affinity.required.is_empty() {
            return None;
        }
        let near = domains_with(cycle, &pod.affinity.required);
        let away: Vec<HashSet<Domain<'a>>> =
            pod.anti_affinity.required.iter().map(|term| domains_with(cycle, std::slice::from_ref(term))).collect();
        // The first of a group that wants to be together finds nobody; it may go anywhere that has the labels.
        let first = near.is_empty() && pod.affinity.required.iter().all(|term| term.means(pod, cycle.of_namespace));
        Some(Box::new(move |node| {
            let domain_of = |key: &str| label(&node.offer.labels, key);
            let met = |term: &Neighbours| {
                domain_of(&term.key).is_some_and(|d| first || near.contains(&(term.key.as_str(), d)))
            };
            if !pod.affinity.required.iter().all(met) {
                return vec!["node(s) didn't match pod affinity rules".into()];
            }
            let beside = |(term, domains): (&Neighbours, &HashSet<Domain<'a>>)| {
                domain_of(&term.key).is_some_and(|d| domains.contains(&(term.key.as_str(), d)))
            };
            if pod.anti_affinity.required.iter().zip(&away).any(beside) {
                return vec!["node(s) didn't match pod anti-affinity rules".into()];
            }
            if refused.iter().any(|(key, domain)| domain_of(key) == Some(domain)) {
                return vec!["node(s) didn't satisfy existing pods anti-affinity rules".into()];
            }
            Vec::new()
        }))
    }

    fn score<'a>(&self, cycle: &Cycle<'a>, _: &[&'a Node]) -> Option<Score<'a>> {
        let weights = weights(cycle);
        if weights.is_empty() {
            return None;
        }
        let of = move |node: &Node| {
            let here = |((key, domain), _): &(&Domain<'a>, &i64)| label(&node.offer.labels, key) == Some(domain);
            weights.iter().filter(here).map(|(_, weight)| weight).sum()
        };
        Some(Score { of: Box::new(of), normalize: Normalize::Range })
    }

    fn weight(&self) -> i64 {
        2
    }

    fn helps(&self, pod: &Pod, event: &Event) -> bool {
        match event {
            Event::Node { old: Some(old), new } => old.labels != new.labels,
            Event::Node { old: None, .. } => true,
            // Somebody to be near, or labels that no longer offend.
            Event::Placed(_) => true,
            Event::Gone(gone) => !pod.anti_affinity.required.is_empty() || !gone.anti_affinity.required.is_empty(),
            Event::NodeGone => false,
        }
    }
}

/// Domains where a placed pod's required anti-affinity means the newcomer.
fn refused_by_placed<'a>(cycle: &Cycle<'a>) -> HashSet<Domain<'a>> {
    let mut refused = HashSet::new();
    for node in cycle.cache.nodes().filter(|node| node.with_affinity > 0) {
        for term in node.pods.values().flat_map(|placed| &placed.anti_affinity.required) {
            if let Some(domain) = label(&node.offer.labels, &term.key)
                && term.means(cycle.pod, cycle.of_namespace)
            {
                refused.insert((term.key.as_str(), domain));
            }
        }
    }
    refused
}

/// Domains with a pod that every one of the terms means.
fn domains_with<'a>(cycle: &Cycle<'a>, terms: &'a [Neighbours]) -> HashSet<Domain<'a>> {
    let mut found = HashSet::new();
    if terms.is_empty() {
        return found;
    }
    for node in cycle.cache.nodes() {
        let meant = |placed: &Pod| terms.iter().all(|term| term.means(placed, cycle.of_namespace));
        if node.pods.values().any(|placed| meant(placed)) {
            let domains =
                terms.iter().filter_map(|term| Some((term.key.as_str(), label(&node.offer.labels, &term.key)?)));
            found.extend(domains);
        }
    }
    found
}

/// What each domain is worth: the newcomer's wishes about placed pods and theirs about the newcomer.
fn weights<'a>(cycle: &Cycle<'a>) -> HashMap<Domain<'a>, i64> {
    let pod = cycle.pod;
    let mut weights = HashMap::new();
    let wishes = !pod.affinity.preferred.is_empty() || !pod.anti_affinity.preferred.is_empty();
    for node in cycle.cache.nodes().filter(|node| wishes || node.with_affinity > 0) {
        for placed in node.pods.values() {
            let mut add = |term: &'a Neighbours, weight: i64, meant: &Pod| {
                if let Some(domain) = label(&node.offer.labels, &term.key)
                    && term.means(meant, cycle.of_namespace)
                {
                    *weights.entry((term.key.as_str(), domain)).or_insert(0) += weight;
                }
            };
            pod.affinity.preferred.iter().for_each(|(weight, term)| add(term, *weight, placed));
            pod.anti_affinity.preferred.iter().for_each(|(weight, term)| add(term, -weight, placed));
            placed.affinity.required.iter().for_each(|term| add(term, HARD_AFFINITY_WEIGHT, pod));
            placed.affinity.preferred.iter().for_each(|(weight, term)| add(term, *weight, pod));
            placed.anti_affinity.preferred.iter().for_each(|(weight, term)| add(term, -weight, pod));
        }
    }
    weights
}

//! InterPodAffinity: pods that must or would like to be near or away from others; the rules of those already placed hold
//! against newcomers as well.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::cache::Cache;
use crate::framework::{Cycle, Event, Filter, Normalize, Plugin, Refusal, Score};
use crate::index::{Count, Counts, Voice};
use crate::neighbours::{Neighbours, Spread};
use crate::node::Node;
use crate::plugins::resources::{no_fields_but, number};
use crate::pod::Pod;
use crate::terms::label;

pub struct InterPodAffinity {
    /// What a placed pod's required affinity counts when scoring.
    hard_weight: i64,
    /// A newcomer without wishes does not care about those of placed pods.
    ignore_wishes_of_placed: bool,
}

impl InterPodAffinity {
    pub fn read(args: &Value) -> Result<Self, String> {
        no_fields_but(args, &["hardPodAffinityWeight", "ignorePreferredTermsOfExistingPods"])?;
        Ok(InterPodAffinity {
            hard_weight: number(args, "hardPodAffinityWeight", 1, 0..=100)?,
            ignore_wishes_of_placed: args["ignorePreferredTermsOfExistingPods"] == true,
        })
    }
}

/// What the domains of one label are worth.
struct Worth<'a> {
    key: &'a str,
    weight: i64,
    of: Domains<'a>,
}

enum Domains<'a> {
    Counted(&'a Counts),
    Owned(&'a HashMap<Box<str>, i64>),
}

impl Worth<'_> {
    fn on(&self, node: &Node) -> i64 {
        let Some(domain) = label(&node.offer.labels, self.key) else { return 0 };
        let sum = match self.of {
            Domains::Counted(counts) => counts.of(domain),
            Domains::Owned(domains) => domains.get(domain).copied().unwrap_or(0),
        };
        sum * self.weight
    }
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn counts(&self, pod: &Pod, _: &[Spread]) -> Vec<Arc<Count>> {
        let (near, away) = (&pod.spec.affinity, &pod.spec.anti_affinity);
        let wishes = near.preferred.iter().chain(&away.preferred).map(|(_, term)| term);
        let terms = away.required.iter().chain(wishes).filter_map(|term| term.count.as_ref());
        near.all_required.iter().chain(terms).map(Arc::clone).collect()
    }

    fn filter<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let cycle = *cycle;
        let spec = &cycle.pod.spec;
        let refusing = cycle.cache.index().terms.speaking(Voice::Refuses);
        let refused: Vec<_> = refusing.filter(|owned| cycle.is_meant_by(&owned.term)).collect();
        let (near, away) = (&spec.affinity, &spec.anti_affinity);
        if refused.is_empty() && near.required.is_empty() && away.required.is_empty() {
            return None;
        }
        let found: Vec<_> =
            near.required.iter().zip(near.all_required.iter().map(|count| cycle.count(count))).collect();
        let offended: Vec<_> = away.required.iter().map(|term| (term, counts_of(&cycle, term))).collect();
        // The first of a group that wants to be together finds nobody; it may go anywhere that has the labels.
        let nobody = found.iter().all(|(_, counts)| counts.is_none_or(|counts| counts.total() == 0));
        let first = nobody && near.required.iter().all(|term| cycle.is_meant_by(term));
        Some(Box::new(move |node| {
            let domain_of = |key: &str| label(&node.offer.labels, key);
            let in_domain = |(term, counts): &(&Arc<Neighbours>, Option<&Counts>)| {
                domain_of(&term.key).map(|domain| counts.is_some_and(|counts| counts.of(domain) > 0))
            };
            if !found.iter().all(|rule| in_domain(rule).is_some_and(|there| first || there)) {
                return Some(Refusal::hopeless("node(s) didn't match pod affinity rules"));
            }
            if offended.iter().any(|rule| in_domain(rule) == Some(true)) {
                return Some(Refusal::of("node(s) didn't match pod anti-affinity rules"));
            }
            let refuses = |owned: &&crate::index::Owned| {
                domain_of(&owned.term.key).is_some_and(|domain| owned.domains.contains_key(domain))
            };
            refused.iter().any(refuses).then(|| Refusal::of("node(s) didn't satisfy existing pods anti-affinity rules"))
        }))
    }

    fn score<'a>(&'a self, cycle: &Cycle<'a>, _: &[&'a Node]) -> Option<Score<'a>> {
        let spec = &cycle.pod.spec;
        let wishes = spec.affinity.preferred.iter().map(|(weight, term)| (*weight, term));
        let aversions = spec.anti_affinity.preferred.iter().map(|(weight, term)| (-weight, term));
        let mut worths: Vec<Worth<'a>> = wishes
            .chain(aversions)
            .filter_map(|(weight, term)| {
                let of = Domains::Counted(counts_of(cycle, term)?);
                Some(Worth { key: &term.key, weight, of })
            })
            .collect();
        let has_wishes = !worths.is_empty();
        let terms = &cycle.cache.index().terms;
        for (voice, weight) in [(Voice::Requires, self.hard_weight), (Voice::Prefers, 1)] {
            if weight == 0 || self.ignore_wishes_of_placed && !has_wishes {
                continue;
            }
            let meant = terms.speaking(voice).filter(|owned| cycle.is_meant_by(&owned.term));
            worths.extend(meant.map(|owned| Worth {
                key: &owned.term.key,
                weight,
                of: Domains::Owned(&owned.domains),
            }));
        }
        if worths.is_empty() {
            return None;
        }
        let of = move |node: &Node| worths.iter().map(|worth| worth.on(node)).sum();
        Some(Score { of: Box::new(of), normalize: Normalize::Range })
    }

    fn helps(&self, pod: &Pod, event: &Event, cache: &Cache) -> bool {
        let means = |term: &Neighbours, other: &Pod| {
            term.means(&other.spec.namespace, &other.spec.labels, &|name| cache.namespace(name))
        };
        match event {
            Event::Node { old: Some(old), new } => old.labels != new.labels,
            Event::Node { old: None, .. } => true,
            // Somebody to be near, or labels that no longer offend.
            Event::Placed { changed: true, .. } => true,
            Event::Placed { pod: other, .. } => pod.spec.affinity.required.iter().any(|term| means(term, other)),
            Event::Gone(gone) => {
                pod.spec.anti_affinity.required.iter().any(|term| means(term, gone))
                    || gone.spec.anti_affinity.required.iter().any(|term| means(term, pod))
            }
            Event::NodeGone | Event::Storage | Event::Devices => false,
        }
    }
}

fn counts_of<'a>(cycle: &Cycle<'a>, term: &Neighbours) -> Option<&'a Counts> {
    cycle.count(term.count.as_ref()?)
}

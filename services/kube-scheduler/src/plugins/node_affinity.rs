//! NodeAffinity: nodeSelector and required affinity must hold; preferred terms add their weights.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::cache::Cache;
use crate::framework::{Cycle, Event, Filter, Normalize, Plugin, Refusal, Score};
use crate::node::{Node, Offer};
use crate::objects::PodSpec;
use crate::plugins::resources::no_fields_but;
use crate::pod::Pod;
use crate::spec::NodeRules;
use crate::terms::Term;

pub struct NodeAffinity {
    /// What the profile adds to every pod's own rules.
    added: NodeRules,
    added_wishes: Vec<(i64, Term)>,
}

impl NodeAffinity {
    pub fn read(args: &Value) -> Result<Self, String> {
        no_fields_but(args, &["addedAffinity"])?;
        let added = &args["addedAffinity"];
        let known =
            ["requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"];
        no_fields_but(added, &known).map_err(|e| format!("addedAffinity.{e}"))?;
        let mut affinity = Map::new();
        affinity.insert("nodeAffinity".to_owned(), added.clone());
        let spec = PodSpec { affinity: affinity.into(), ..PodSpec::default() };
        Ok(NodeAffinity { added: NodeRules::read(&spec), added_wishes: NodeRules::wishes(&spec) })
    }

    fn allows(&self, pod: &Pod, node: &Offer) -> bool {
        self.added.allow(&node.name, &node.labels) && pod.spec.nodes.allow(&node.name, &node.labels)
    }
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    /// Each term names its nodes: pods of a DaemonSet, one node each.
    fn only(&self, pod: &Pod) -> Option<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for term in pod.spec.nodes.required.as_ref()? {
            names.extend(term.names()?.iter().cloned());
        }
        Some(names)
    }

    fn filter<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let pod = cycle.pod;
        if pod.spec.nodes.is_empty() && self.added.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            let (name, labels) = (&node.offer.name, &node.offer.labels);
            if !self.added.allow(name, labels) {
                return Some(Refusal::hopeless("node(s) didn't match scheduler-enforced node affinity"));
            }
            let allowed = pod.spec.nodes.allow(name, labels);
            (!allowed).then(|| Refusal::hopeless("node(s) didn't match Pod's node affinity/selector"))
        }))
    }

    fn score<'a>(&'a self, cycle: &Cycle<'a>, _: &[&'a Node]) -> Option<Score<'a>> {
        let (preferred, added) = (&cycle.pod.spec.preferred_nodes, &self.added_wishes);
        if preferred.is_empty() && added.is_empty() {
            return None;
        }
        let of = move |node: &Node| {
            let met =
                preferred.iter().chain(added).filter(|(_, term)| term.matches(&node.offer.name, &node.offer.labels));
            met.map(|(weight, _)| weight).sum()
        };
        Some(Score { of: Box::new(of), normalize: Normalize::Largest })
    }

    fn is_local(&self) -> bool {
        true
    }

    fn helps(&self, pod: &Pod, event: &Event, _: &Cache) -> bool {
        matches!(event, Event::Node { new, .. } if self.allows(pod, new))
    }
}

//! Counts of placed pods by domain, kept current by each change, so that a decision costs the same with a hundred pods and
//! with a hundred thousand.
//!
//! Two directions: a [`Count`] answers "how many pods that I mean are in each domain" for a newcomer's rule; [`Terms`]
//! answers "which domains do the rules of placed pods speak about" for the rules that placed pods have about newcomers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use apimachinery::selector::LabelSelector;

use crate::neighbours::Neighbours;
use crate::node::{Node, Offer};
use crate::pod::Pod;
use crate::spec::{NodeRules, Spec, bears};
use crate::terms::{Labels, Toleration, label, selector_id};

/// More different rules than this in a cluster are counted afresh when they come up again.
const COUNTS_MAX: usize = 128;

/// Gives a namespace's labels.
pub type OfNamespace<'a> = &'a dyn Fn(&str) -> Option<Arc<Labels>>;

/// Which pods count.
#[derive(Clone, Debug)]
pub enum Counted {
    /// Pods that every one of the terms means.
    Meant(Vec<Neighbours>),
    /// Pods of a namespace that all selectors select and that are not ending.
    Spread {
        /// The namespace.
        namespace: String,
        /// The selectors.
        selectors: Vec<LabelSelector>,
    },
}

impl Counted {
    fn counts(&self, pod: &Pod, of_namespace: OfNamespace<'_>) -> bool {
        let Spec { namespace, labels, .. } = &*pod.spec;
        match self {
            Counted::Meant(terms) => terms.iter().all(|term| term.means(namespace, labels, of_namespace)),
            Counted::Spread { namespace: wanted, selectors } => {
                !pod.ending && namespace == wanted && selectors.iter().all(|s| s.matches(Some(labels)))
            }
        }
    }

    fn id(&self) -> String {
        match self {
            Counted::Meant(terms) => terms.iter().map(|term| format!("{}&", term.id)).collect(),
            Counted::Spread { namespace, selectors } => {
                let selectors: String = selectors.iter().map(selector_id).collect();
                format!("{namespace}/{selectors}")
            }
        }
    }
}

/// Which nodes count.
#[derive(Clone, Debug, Default)]
pub struct Eligible {
    /// They have all of these labels.
    pub keys: Vec<String>,
    /// These rules allow them.
    pub rules: Option<Arc<NodeRules>>,
    /// These tolerations bear their taints.
    pub tolerations: Option<Arc<[Toleration]>>,
}

impl Eligible {
    /// Whether a node counts.
    pub fn is(&self, offer: &Offer) -> bool {
        self.keys.iter().all(|key| offer.labels.contains_key(key))
            && self.rules.as_ref().is_none_or(|rules| rules.allow(&offer.name, &offer.labels))
            && self.tolerations.as_ref().is_none_or(|tolerations| bears(tolerations, &offer.taints))
    }
}

/// A question about placed pods.
#[derive(Clone, Debug)]
pub struct Count {
    /// Equal for equal questions.
    pub id: Arc<str>,
    /// The label whose values are the domains.
    pub key: String,
    /// The pods.
    pub counted: Counted,
    /// The nodes.
    pub eligible: Eligible,
}

impl Count {
    /// A question.
    pub fn new(key: String, counted: Counted, eligible: Eligible) -> Count {
        let rules = eligible.rules.as_ref().map_or("", |rules| &rules.id);
        let tolerations = eligible.tolerations.as_ref().map(|t| format!("{t:?}")).unwrap_or_default();
        let id = format!("{key}|{}|{:?}|{rules}|{tolerations}", counted.id(), eligible.keys);
        Count { id: id.into(), key, counted, eligible }
    }

    /// How many pods all of the terms mean, by the domains of `key`.
    pub fn neighbours(terms: &[Neighbours], key: &str) -> Count {
        Count::new(key.to_owned(), Counted::Meant(terms.to_vec()), Eligible::default())
    }
}

/// What is in a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    nodes: usize,
    pods: i64,
}

/// A question with its current answer.
#[derive(Debug)]
pub struct Counts {
    count: Arc<Count>,
    domains: HashMap<Box<str>, Tally>,
    /// How many domains have how many pods.
    sizes: BTreeMap<i64, usize>,
    total: i64,
    used: u64,
}

impl Counts {
    /// Pods in a domain.
    pub fn of(&self, domain: &str) -> i64 {
        self.domains.get(domain).map_or(0, |tally| tally.pods)
    }

    /// Pods in all domains.
    pub fn total(&self) -> i64 {
        self.total
    }

    /// Number of domains.
    pub fn domains(&self) -> usize {
        self.domains.len()
    }

    /// Pods in the domain with the fewest; 0 without domains.
    pub fn fewest(&self) -> i64 {
        self.sizes.first_key_value().map_or(0, |(pods, _)| *pods)
    }

    fn change(&mut self, offer: &Offer, nodes: isize, pods: i64) {
        let Some(domain) = label(&offer.labels, &self.count.key) else { return };
        let tally = match self.domains.get_mut(domain) {
            Some(tally) => tally,
            None => self.domains.entry(domain.into()).or_default(),
        };
        if tally.nodes > 0 {
            drop_one(&mut self.sizes, tally.pods);
        }
        tally.nodes = tally.nodes.saturating_add_signed(nodes);
        tally.pods += pods;
        self.total += pods;
        if tally.nodes > 0 {
            *self.sizes.entry(tally.pods).or_default() += 1;
        } else {
            self.domains.remove(domain);
        }
    }

    fn node(&mut self, node: &Node, sign: i64, of_namespace: OfNamespace<'_>) {
        if !self.count.eligible.is(&node.offer) {
            return;
        }
        let counts = |pod: &&Arc<Pod>| self.count.counted.counts(pod, of_namespace);
        let pods = i64::try_from(node.pods.iter().filter(counts).count()).unwrap_or(i64::MAX);
        self.change(&node.offer, if sign > 0 { 1 } else { -1 }, sign * pods);
    }
}

fn drop_one(sizes: &mut BTreeMap<i64, usize>, pods: i64) {
    if let Some(count) = sizes.get_mut(&pods) {
        *count -= 1;
        if *count == 0 {
            sizes.remove(&pods);
        }
    }
}

/// How a placed pod's term speaks about newcomers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Voice {
    /// Required anti-affinity: they must not come.
    Refuses,
    /// Required affinity: it would have them near.
    Requires,
    /// A wish; its weight is negative if it wants distance.
    Prefers,
}

/// A term that placed pods have, and where.
#[derive(Debug)]
pub struct Owned {
    /// The term.
    pub term: Arc<Neighbours>,
    /// The sum of weights by domain: of pods for [`Voice::Refuses`] and [`Voice::Requires`].
    pub domains: HashMap<Box<str>, i64>,
    /// Pods with this term and the nodes they are on, whether or not those have the label.
    pods: usize,
}

/// The terms of placed pods, equal ones together.
#[derive(Debug, Default)]
pub struct Terms(HashMap<(Voice, Arc<str>), Owned>);

impl Terms {
    /// All terms that speak in one way.
    pub fn speaking(&self, voice: Voice) -> impl Iterator<Item = &Owned> {
        self.0.iter().filter(move |((v, _), _)| *v == voice).map(|(_, owned)| owned)
    }

    fn pod(&mut self, pod: &Pod, offer: &Offer, sign: i64) {
        let Spec { affinity, anti_affinity, .. } = &*pod.spec;
        let refuses = anti_affinity.required.iter().map(|term| (Voice::Refuses, 1, term));
        let requires = affinity.required.iter().map(|term| (Voice::Requires, 1, term));
        let near = affinity.preferred.iter().map(|(weight, term)| (Voice::Prefers, *weight, term));
        let away = anti_affinity.preferred.iter().map(|(weight, term)| (Voice::Prefers, -*weight, term));
        for (voice, weight, term) in refuses.chain(requires).chain(near).chain(away) {
            let id = (voice, Arc::clone(&term.id));
            let new = || Owned { term: Arc::clone(term), domains: HashMap::new(), pods: 0 };
            let owned = self.0.entry(id.clone()).or_insert_with(new);
            owned.pods = owned.pods.saturating_add_signed(if sign > 0 { 1 } else { -1 });
            if let Some(domain) = label(&offer.labels, &term.key) {
                let sum = owned.domains.entry(domain.into()).or_default();
                *sum += sign * weight;
                if *sum == 0 {
                    owned.domains.remove(domain);
                }
            }
            if owned.pods == 0 {
                self.0.remove(&id);
            }
        }
    }
}

/// All counts.
#[derive(Debug, Default)]
pub struct Index {
    counts: HashMap<Arc<str>, Counts>,
    /// The terms of placed pods.
    pub terms: Terms,
    clock: u64,
}

impl Index {
    /// The answer to a question that was [`Index::ensure`]d for this decision.
    pub fn get(&self, count: &Count) -> Option<&Counts> {
        self.counts.get(&count.id)
    }

    /// Makes sure that the questions of one decision have current answers.
    pub fn ensure<'n>(
        &mut self,
        counts: &[Arc<Count>],
        nodes: impl Iterator<Item = &'n Node> + Clone,
        of_namespace: OfNamespace<'_>,
    ) {
        self.clock += 1;
        for count in counts {
            if let Some(known) = self.counts.get_mut(&count.id) {
                known.used = self.clock;
                continue;
            }
            let mut answer = Counts {
                count: Arc::clone(count),
                domains: HashMap::new(),
                sizes: BTreeMap::new(),
                total: 0,
                used: self.clock,
            };
            nodes.clone().filter(|node| node.exists).for_each(|node| answer.node(node, 1, of_namespace));
            self.counts.insert(Arc::clone(&count.id), answer);
        }
        let spare = self.counts.len().saturating_sub(COUNTS_MAX);
        if spare > 0 {
            let clock = self.clock;
            let mut idle: Vec<(u64, Arc<str>)> =
                self.counts.iter().filter(|(_, c)| c.used < clock).map(|(id, c)| (c.used, Arc::clone(id))).collect();
            idle.sort();
            idle.iter().take(spare).for_each(|(_, id)| drop(self.counts.remove(id)));
        }
    }

    /// A node with its pods comes (`sign` 1) or goes (-1).
    pub fn node(&mut self, node: &Node, sign: i64, of_namespace: OfNamespace<'_>) {
        if !node.exists {
            return;
        }
        self.counts.values_mut().for_each(|counts| counts.node(node, sign, of_namespace));
        for pod in node.pods.iter().filter(|pod| pod.spec.has_terms()) {
            self.terms.pod(pod, &node.offer, sign);
        }
    }

    /// A pod comes to a node (`sign` 1) or goes (-1).
    pub fn pod(&mut self, pod: &Pod, node: &Node, sign: i64, of_namespace: OfNamespace<'_>) {
        if !node.exists {
            return;
        }
        for counts in self.counts.values_mut() {
            if counts.count.counted.counts(pod, of_namespace) && counts.count.eligible.is(&node.offer) {
                counts.change(&node.offer, 0, sign);
            }
        }
        if pod.spec.has_terms() {
            self.terms.pod(pod, &node.offer, sign);
        }
    }

    /// A namespace's labels changed: what depended on them is counted afresh when it is asked for.
    pub fn namespace_changed(&mut self) {
        self.counts.retain(|_, counts| match &counts.count.counted {
            Counted::Meant(terms) => !terms.iter().any(Neighbours::selects_namespaces),
            Counted::Spread { .. } => true,
        });
    }
}

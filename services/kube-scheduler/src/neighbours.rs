//! Rules of a pod about other pods: spread constraints, affinity and anti-affinity terms.

use std::fmt::Write;
use std::sync::Arc;

use apimachinery::selector::LabelSelector;
use serde_json::Value;

use crate::index::{Count, Counted, Eligible};
use crate::spec::NodeRules;
use crate::terms::{self, Labels, Toleration, list, text};

/// A topology spread constraint.
#[derive(Clone, Debug)]
pub struct Spread {
    /// Largest allowed difference.
    pub max_skew: i64,
    /// The label whose values are the domains.
    pub key: String,
    /// DoNotSchedule, else a wish.
    pub hard: bool,
    /// With fewer domains than this, an imagined empty one counts.
    pub min_domains: i64,
    /// The pod itself is one of those that count.
    pub matches_itself: bool,
    /// The matching pods by domain.
    pub count: Arc<Count>,
}

impl Spread {
    /// Whether pods with these labels count.
    pub fn selects(&self, labels: &Labels) -> bool {
        match &self.count.counted {
            Counted::Spread { selectors, .. } => selectors.iter().all(|selector| selector.matches(Some(labels))),
            Counted::Meant(_) => false,
        }
    }
}

/// Reads the constraints of a pod.
pub fn spreads(
    constraints: &[Value],
    namespace: &str,
    labels: &Labels,
    rules: &Arc<NodeRules>,
    tolerations: &Arc<[Toleration]>,
) -> Vec<Spread> {
    let is_hard = |c: &Value| text(c, "/whenUnsatisfiable") != "ScheduleAnyway";
    let keys = |hard: bool| -> Vec<String> {
        constraints.iter().filter(|c| is_hard(c) == hard).map(|c| text(c, "/topologyKey").to_owned()).collect()
    };
    let read = |constraint: &Value| {
        let own_keys = list(constraint, "/matchLabelKeys");
        let selector = terms::selector_with(&constraint["labelSelector"], own_keys, &[], labels);
        let key = text(constraint, "/topologyKey").to_owned();
        let hard = is_hard(constraint);
        let honor_affinity = text(constraint, "/nodeAffinityPolicy") != "Ignore";
        let honor_taints = text(constraint, "/nodeTaintsPolicy") == "Honor";
        let eligible = Eligible {
            keys: keys(hard),
            rules: (honor_affinity && !rules.is_empty()).then(|| Arc::clone(rules)),
            tolerations: honor_taints.then(|| Arc::clone(tolerations)),
        };
        let matches_itself = selector.matches(Some(labels));
        let counted = Counted::Spread { namespace: namespace.to_owned(), selectors: vec![selector] };
        Spread {
            max_skew: constraint["maxSkew"].as_i64().unwrap_or(1),
            hard,
            min_domains: constraint["minDomains"].as_i64().unwrap_or(1),
            matches_itself,
            count: Arc::new(Count::new(key.clone(), counted, eligible)),
            key,
        }
    };
    constraints.iter().map(read).collect()
}

/// A pod affinity or anti-affinity term.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// The label whose values are the domains.
    pub key: String,
    selector: LabelSelector,
    namespaces: Vec<String>,
    namespace_selector: Option<LabelSelector>,
    /// Equal for terms that mean the same.
    pub id: Arc<str>,
    /// The pods that the term means, by domain.
    pub count: Option<Arc<Count>>,
}

impl Neighbours {
    fn read(term: &Value, namespace: &str, labels: &Labels) -> Neighbours {
        let mut namespaces: Vec<String> =
            list(term, "/namespaces").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let namespace_selector = match &term["namespaceSelector"] {
            Value::Null => None,
            selector => Some(LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing())),
        };
        if namespaces.is_empty() && namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        namespaces.sort();
        let (with, without) = (list(term, "/matchLabelKeys"), list(term, "/mismatchLabelKeys"));
        let selector = terms::selector_with(&term["labelSelector"], with, without, labels);
        let key = text(term, "/topologyKey").to_owned();
        let mut id = format!("{key}|{}|{namespaces:?}", terms::selector_id(&selector));
        if let Some(selector) = &namespace_selector {
            // A String takes any text.
            let _ = write!(id, "|{}", terms::selector_id(selector));
        }
        let mut term =
            Neighbours { key, selector, namespaces, namespace_selector, id: id.as_str().into(), count: None };
        term.count = Some(Arc::new(Count::neighbours(std::slice::from_ref(&term), &term.key)));
        term
    }

    /// Whether labels of namespaces decide.
    pub fn selects_namespaces(&self) -> bool {
        self.namespace_selector.as_ref().is_some_and(|selector| !selector.is_empty())
    }

    /// Whether the term means a pod with these labels in this namespace. `of_namespace` gives a namespace's labels.
    pub fn means(&self, namespace: &str, labels: &Labels, of_namespace: &dyn Fn(&str) -> Option<Arc<Labels>>) -> bool {
        let here = self.namespaces.iter().any(|name| name == namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|selector| selector.is_empty() || selector.matches(of_namespace(namespace).as_deref()));
        here && self.selector.matches(Some(labels))
    }
}

/// Required and preferred terms of one direction.
#[derive(Clone, Debug, Default)]
pub struct Affinity {
    /// All must hold.
    pub required: Vec<Arc<Neighbours>>,
    /// Weights are added up.
    pub preferred: Vec<(i64, Arc<Neighbours>)>,
    /// For each required term the pods that all of them mean, by the term's domain.
    pub all_required: Vec<Arc<Count>>,
}

impl Affinity {
    /// Reads podAffinity or podAntiAffinity.
    pub fn read(affinity: &Value, namespace: &str, labels: &Labels) -> Affinity {
        let required = list(affinity, "/requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = list(affinity, "/preferredDuringSchedulingIgnoredDuringExecution").iter();
        let required: Vec<Arc<Neighbours>> =
            required.map(|term| Arc::new(Neighbours::read(term, namespace, labels))).collect();
        let all: Vec<Neighbours> = required.iter().map(|term| Neighbours::clone(term)).collect();
        let all_required = required.iter().map(|term| Arc::new(Count::neighbours(&all, &term.key))).collect();
        let read = |p: &Value| {
            let term = Neighbours::read(&p["podAffinityTerm"], namespace, labels);
            (p["weight"].as_i64().unwrap_or(0), Arc::new(term))
        };
        Affinity { required, preferred: preferred.map(read).collect(), all_required }
    }

    /// Has no terms.
    pub fn is_empty(&self) -> bool {
        self.required.is_empty() && self.preferred.is_empty()
    }
}

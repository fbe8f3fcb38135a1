//! Disruption budgets, as far as preemption minds them.

use std::collections::{HashMap, HashSet};

use apimachinery::selector::LabelSelector;

use crate::objects::BudgetObject;
use crate::pod::Pod;

/// A PodDisruptionBudget.
#[derive(Clone, Debug)]
struct Budget {
    namespace: Box<str>,
    selector: LabelSelector,
    allowed: i64,
    disrupted: HashSet<Box<str>>,
}

impl Budget {
    /// An empty selector protects nobody here, as upstream has it.
    fn protects(&self, pod: &Pod) -> bool {
        !pod.spec.labels.is_empty()
            && *self.namespace == *pod.spec.namespace
            && !self.selector.is_empty()
            && self.selector.matches(Some(&pod.spec.labels))
            // Its disruption is counted already.
            && !self.disrupted.contains(&pod.name)
    }
}

/// All budgets.
#[derive(Debug, Default)]
pub struct Budgets {
    known: HashMap<(Box<str>, Box<str>), Budget>,
    version: u64,
}

impl Budgets {
    /// Another after every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// A budget appeared or changed.
    pub fn set(&mut self, object: &BudgetObject) {
        let selector = LabelSelector::from_object(&object.spec.selector).unwrap_or_else(|_| LabelSelector::nothing());
        let budget = Budget {
            namespace: object.metadata.namespace.clone(),
            selector,
            allowed: object.status.disruptions_allowed,
            disrupted: object.status.disrupted_pods.keys().map(|name| name.as_str().into()).collect(),
        };
        self.version += 1;
        self.known.insert((object.metadata.namespace.clone(), object.metadata.name.clone()), budget);
    }

    /// A budget is gone.
    pub fn remove(&mut self, namespace: &str, name: &str) {
        self.version += 1;
        self.known.remove(&(namespace.into(), name.into()));
    }

    /// For each pod whether removing it, after those before it, would break a budget.
    pub fn broken_by<'p>(&self, pods: impl Iterator<Item = &'p Pod>) -> Vec<bool> {
        let mut budgets: Vec<(&Budget, i64)> = self.known.values().map(|budget| (budget, budget.allowed)).collect();
        let mut breaks = |pod: &Pod| {
            let mut broken = false;
            for (_, left) in budgets.iter_mut().filter(|(budget, _)| budget.protects(pod)) {
                *left -= 1;
                broken |= *left < 0;
            }
            broken
        };
        pods.map(&mut breaks).collect()
    }
}

//! What the nodes answered to the kind of pod that was asked about last. The next replica gets the same answer from every node
//! that has not changed since, as long as only rules are asked that look at nothing but the node ([`Plugin::is_local`]).
//!
//! A node's `stamp` says whether it has changed: it is new with everything that happens to the node, to the pods on it and to
//! those it was cleared for.
//!
//! [`Plugin::is_local`]: crate::framework::Plugin::is_local

use std::collections::HashMap;
use std::sync::Arc;

use crate::framework::Refusal;
use crate::node::Node;
use crate::preemption::Rehearsal;

/// Whether a node takes the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Fits,
    /// It does not; the number of the refusal.
    Refused(usize),
}

/// An answer and the stamp of the node that gave it; no node has stamp 0.
type Stamped<T> = (u64, T);

/// The answers.
#[derive(Debug, Default)]
pub struct Memo {
    /// Whose answers these are.
    kind: Option<u64>,
    /// A node that was cleared for this very pod answers it otherwise than its replicas.
    own: Option<usize>,
    /// By slot.
    verdicts: Vec<Stamped<Option<Verdict>>>,
    /// By slot; holds while the disruption budgets stay as they are too.
    rehearsals: HashMap<usize, Stamped<Arc<Rehearsal>>>,
    budgets: u64,
    refusals: Vec<(&'static str, Refusal)>,
}

impl Memo {
    /// Answers to pods of this kind are asked for now. `kind` is none if they do not depend on the nodes alone.
    pub fn begin(&mut self, kind: Option<u64>, own: Option<usize>) {
        self.own = own;
        if kind.is_none() || self.kind != kind {
            self.kind = kind;
            self.verdicts.clear();
            self.rehearsals.clear();
            self.refusals.clear();
        }
    }

    fn holds(&self, slot: usize) -> bool {
        self.kind.is_some() && self.own != Some(slot)
    }

    /// What the node answered, if it would again.
    pub fn verdict(&self, slot: usize, node: &Node) -> Option<Verdict> {
        let (stamp, verdict) = self.verdicts.get(slot)?;
        verdict.filter(|_| *stamp == node.stamp && self.holds(slot))
    }

    /// Remembers an answer.
    pub fn learn(&mut self, slot: usize, node: &Node, answer: Result<(), (&'static str, Refusal)>) -> Verdict {
        let verdict = match answer {
            Ok(()) => Verdict::Fits,
            Err(refusal) => Verdict::Refused(self.number(refusal)),
        };
        if self.holds(slot) {
            if self.verdicts.len() <= slot {
                self.verdicts.resize(slot + 1, (0, None));
            }
            self.verdicts[slot] = (node.stamp, Some(verdict));
        }
        verdict
    }

    /// Nodes give few different reasons.
    fn number(&mut self, refusal: (&'static str, Refusal)) -> usize {
        let known = self.refusals.iter().position(|known| *known == refusal);
        known.unwrap_or_else(|| {
            self.refusals.push(refusal);
            self.refusals.len() - 1
        })
    }

    /// A refusal by its number, and the plugin that speaks.
    pub fn refusal(&self, number: usize) -> &(&'static str, Refusal) {
        &self.refusals[number]
    }

    /// Whom the node would have to remove, if that is still so.
    pub fn rehearsal(&self, slot: usize, node: &Node, budgets: u64) -> Option<Arc<Rehearsal>> {
        let (stamp, rehearsal) = self.rehearsals.get(&slot)?;
        (*stamp == node.stamp && self.budgets == budgets && self.holds(slot)).then(|| Arc::clone(rehearsal))
    }

    /// Remembers whom the node would have to remove.
    pub fn rehearsed(&mut self, slot: usize, node: &Node, budgets: u64, rehearsal: &Arc<Rehearsal>) {
        if self.budgets != budgets {
            self.budgets = budgets;
            self.rehearsals.clear();
        }
        if self.holds(slot) {
            self.rehearsals.insert(slot, (node.stamp, Arc::clone(rehearsal)));
        }
    }
}

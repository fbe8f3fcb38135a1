//! Who owns whom, over all objects of the cluster. Pure: changes go in, uids to look at come out.
//!
//! An owner that is named but was never seen stands in the graph as *virtual* until an informer shows it or a request
//! proves that it does not exist.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use apimachinery::meta;
use serde_json::Value;

use crate::object;

pub(super) const ORPHAN: &str = "orphan";
pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// Where an object lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

/// An entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) blocks: bool,
}

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) identity: Identity,
    pub(super) owners: Vec<Owner>,
    pub(super) dependents: BTreeSet<String>,
    pub(super) seen: bool,
    pub(super) ending: bool,
    /// Ending, and its dependents must go first.
    pub(super) ending_after_dependents: bool,
}

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Work {
    /// Should this object go?
    Delete(String),
    /// Let go of this object's dependents, then of its `orphan` finalizer.
    Orphan(String),
}

/// Uids that are known to be gone, so that a thousand dependents of one owner cost one question about it.
const ABSENT_MAX: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    /// The last ones that went. A uid never comes back.
    absent: HashSet<String>,
    absent_in_order: VecDeque<String>,
}

/// Reads the owner references of an object.
pub(super) fn owners_of(object: &Value) -> Vec<Owner> {
    let read = |r: &Value| Owner {
        api_version: object::text(r, "/apiVersion").to_owned(),
        kind: object::text(r, "/kind").to_owned(),
        name: object::text(r, "/name").to_owned(),
        uid: object::text(r, "/uid").to_owned(),
        blocks: r["blockOwnerDeletion"] == true,
    };
    object::list(object, "/metadata/ownerReferences").iter().map(read).collect()
}

/// Whether an object has a finalizer.
pub(super) fn has_finalizer(object: &Value, name: &str) -> bool {
    object::list(object, "/metadata/finalizers").iter().any(|f| f == name)
}

/// Ending, and waiting for its dependents to go.
pub(super) fn waits_for_dependents(object: &Value) -> bool {
    meta::deletion_timestamp(object).is_some() && has_finalizer(object, FOREGROUND)
}

impl Graph {
    pub(super) fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Whether this uid is known to be gone for good.
    pub(super) fn is_absent(&self, uid: &str) -> bool {
        self.absent.contains(uid)
    }

    fn note_absent(&mut self, uid: &str) {
        if !self.absent.insert(uid.to_owned()) {
            return;
        }
        self.absent_in_order.push_back(uid.to_owned());
        if self.absent_in_order.len() > ABSENT_MAX
            && let Some(oldest) = self.absent_in_order.pop_front()
        {
            self.absent.remove(&oldest);
        }
    }

    /// The nodes that name `uid` as owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<&Node> {
        let uids = self.nodes.get(uid).into_iter().flat_map(|node| &node.dependents);
        uids.filter_map(|uid| self.nodes.get(uid)).collect()
    }

    /// An object was seen, new or changed. `object` has `apiVersion` and `kind`.
    pub(super) fn observe(&mut self, object: &Value) -> Vec<Work> {
        let uid = meta::uid(object).to_owned();
        let owners = owners_of(object);
        let ending = meta::deletion_timestamp(object).is_some();
        let waits = waits_for_dependents(object);
        let before = self.nodes.get(&uid);
        let newly_ending = ending && !before.is_some_and(|n| n.ending && n.seen);
        let newly_waiting = waits && !before.is_some_and(|n| n.ending_after_dependents);
        let lost = before.map(|n| self.changed_owners(n, &owners)).unwrap_or_default();

        let mut work = self.link(object, &uid, &owners);
        let node = self.nodes.entry(uid.clone()).or_insert_with(|| Node::new(identity(object)));
        node.identity = identity(object);
        (node.owners, node.seen, node.ending) = (owners, true, ending);
        node.ending_after_dependents |= waits;

        work.extend(lost.into_iter().map(Work::Delete));
        if newly_ending && has_finalizer(object, ORPHAN) {
            work.push(Work::Orphan(uid.clone()));
        }
        if newly_waiting {
            let dependents = self.nodes[&uid].dependents.iter().cloned().collect::<Vec<_>>();
            work.extend(dependents.into_iter().map(Work::Delete));
            work.push(Work::Delete(uid));
        }
        work
    }

    /// Waiting owners that a change of references may have set free.
    fn changed_owners(&self, before: &Node, now: &[Owner]) -> Vec<String> {
        let freed = |old: &&Owner| !now.iter().any(|new| new.uid == old.uid && (new.blocks || !old.blocks));
        let waits = |uid: &str| self.nodes.get(uid).is_some_and(|owner| owner.ending_after_dependents);
        before.owners.iter().filter(freed).filter(|o| waits(&o.uid)).map(|o| o.uid.clone()).collect()
    }

    /// Makes the owners' lists of dependents right; owners never seen become virtual and are looked at.
    fn link(&mut self, object: &Value, uid: &str, owners: &[Owner]) -> Vec<Work> {
        let old: Vec<String> = self.nodes.get(uid).into_iter().flat_map(|n| &n.owners).map(|o| o.uid.clone()).collect();
        let gone = old.iter().filter(|old| !owners.iter().any(|new| new.uid == **old));
        for owner in gone {
            if let Some(node) = self.nodes.get_mut(owner) {
                node.dependents.remove(uid);
                if !node.seen && node.dependents.is_empty() {
                    self.nodes.remove(owner);
                }
            }
        }
        let mut work = Vec::new();
        for owner in owners {
            let node = self.nodes.entry(owner.uid.clone()).or_insert_with(|| {
                work.push(Work::Delete(owner.uid.clone()));
                Node::new(Identity {
                    api_version: owner.api_version.clone(),
                    kind: owner.kind.clone(),
                    namespace: meta::namespace(object).to_owned(),
                    name: owner.name.clone(),
                    uid: owner.uid.clone(),
                })
            });
            node.dependents.insert(uid.to_owned());
            // A dependent that appears while its owner waits must go as well.
            if node.ending_after_dependents && !old.contains(&owner.uid) {
                work.push(Work::Delete(uid.to_owned()));
            }
        }
        work
    }

    /// An object is gone, or a virtual one was proven not to exist.
    pub(super) fn removed(&mut self, uid: &str) -> Vec<Work> {
        self.note_absent(uid);
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut work: Vec<Work> = node.dependents.iter().cloned().map(Work::Delete).collect();
        for owner in &node.owners {
            let Some(parent) = self.nodes.get_mut(&owner.uid) else { continue };
            parent.dependents.remove(uid);
            if parent.ending_after_dependents {
                work.push(Work::Delete(owner.uid.clone()));
            } else if !parent.seen && parent.dependents.is_empty() {
                self.nodes.remove(&owner.uid);
            }
        }
        work
    }
}

impl Node {
    fn new(identity: Identity) -> Node {
        Node {
            identity,
            owners: Vec::new(),
            dependents: BTreeSet::new(),
            seen: false,
            ending: false,
            ending_after_dependents: false,
        }
    }
}

fn identity(object: &Value) -> Identity {
    Identity {
        api_version: object::text(object, "/apiVersion").to_owned(),
        kind: object::text(object, "/kind").to_owned(),
        namespace: meta::namespace(object).to_owned(),
        name: meta::name(object).to_owned(),
        uid: meta::uid(object).to_owned(),
    }
}

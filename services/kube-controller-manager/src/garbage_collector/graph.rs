//! Who owns whom, over all objects of the cluster. Pure: changes go in, uids to look at come out.
//!
//! An owner that is named but was never seen stands in the graph as *virtual* until an informer shows it or a request
//! proves that it does not exist.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use apimachinery::meta;
use serde_json::Value;

use crate::object;

pub(super) const ORPHAN: &str = "orphan";
pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// Where an object lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) api_version: Arc<str>,
    pub(super) kind: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) uid: Arc<str>,
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

/// What a node keeps of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) uid: Arc<str>,
    pub(super) blocks: bool,
}

/// One object. There are as many as the cluster has objects, so texts that many share are there once.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) identity: Identity,
    pub(super) owners: Box<[Link]>,
    pub(super) dependents: BTreeSet<Arc<str>>,
    pub(super) seen: bool,
    pub(super) ending: bool,
    /// Ending, and its dependents must go first.
    pub(super) ending_after_dependents: bool,
}

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Work {
    /// Should this object go?
    Delete(Arc<str>),
    /// Let go of this object's dependents, then of its `orphan` finalizer.
    Orphan(Arc<str>),
}

/// Uids that are known to be gone, so that a thousand dependents of one owner cost one question about it.
const ABSENT_MAX: usize = 1000;
/// Fewer shared names are not worth a sweep.
const NAMES_MIN: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<Arc<str>, Node>,
    names: Names,
    /// The last ones that went. A uid never comes back.
    absent: HashSet<String>,
    absent_in_order: VecDeque<String>,
}

/// Texts that nodes share.
#[derive(Debug, Default)]
struct Names {
    known: HashSet<Arc<str>>,
    /// Those that no node has any more go when there are so many.
    sweep_at: usize,
}

impl Names {
    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = 2 * self.known.len() + NAMES_MIN;
        }
        let new: Arc<str> = text.into();
        self.known.insert(Arc::clone(&new));
        new
    }
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
        let identity = self.identity(object);
        let uid = Arc::clone(&identity.uid);
        let owners = owners_of(object);
        let ending = meta::deletion_timestamp(object).is_some();
        let waits = waits_for_dependents(object);
        let before = self.nodes.get(&*uid);
        let newly_ending = ending && !before.is_some_and(|n| n.ending && n.seen);
        let newly_waiting = waits && !before.is_some_and(|n| n.ending_after_dependents);
        let lost = before.map(|n| self.changed_owners(n, &owners)).unwrap_or_default();

        let mut work = self.link(object, &uid, &owners);
        let links =
            owners.iter().map(|owner| Link { uid: self.names.share(&owner.uid), blocks: owner.blocks }).collect();
        let node = self.nodes.entry(Arc::clone(&uid)).or_insert_with(|| Node::new(identity.clone()));
        (node.identity, node.owners, node.seen, node.ending) = (identity, links, true, ending);
        node.ending_after_dependents |= waits;

        work.extend(lost.into_iter().map(Work::Delete));
        if newly_ending && has_finalizer(object, ORPHAN) {
            work.push(Work::Orphan(Arc::clone(&uid)));
        }
        if newly_waiting {
            work.extend(self.nodes[&uid].dependents.iter().cloned().map(Work::Delete));
            work.push(Work::Delete(uid));
        }
        work
    }

    fn identity(&mut self, object: &Value) -> Identity {
        Identity {
            api_version: self.names.share(object::text(object, "/apiVersion")),
            kind: self.names.share(object::text(object, "/kind")),
            namespace: self.names.share(meta::namespace(object)),
            name: meta::name(object).into(),
            uid: self.names.share(meta::uid(object)),
        }
    }

    /// Waiting owners that a change of references may have set free.
    fn changed_owners(&self, before: &Node, now: &[Owner]) -> Vec<Arc<str>> {
        let freed = |old: &&Link| !now.iter().any(|new| *new.uid == *old.uid && (new.blocks || !old.blocks));
        let waits = |uid: &Arc<str>| self.nodes.get(uid).is_some_and(|owner| owner.ending_after_dependents);
        before.owners.iter().filter(freed).filter(|o| waits(&o.uid)).map(|o| o.uid.clone()).collect()
    }

    /// Makes the owners' lists of dependents right; owners never seen become virtual and are looked at.
    fn link(&mut self, object: &Value, uid: &Arc<str>, owners: &[Owner]) -> Vec<Work> {
        let old: Vec<Arc<str>> =
            self.nodes.get(uid).map(|n| n.owners.iter().map(|o| Arc::clone(&o.uid)).collect()).unwrap_or_default();
        let gone = old.iter().filter(|old| !owners.iter().any(|new| *new.uid == ***old));
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
            let owner_uid = self.names.share(&owner.uid);
            let node = self.nodes.entry(Arc::clone(&owner_uid)).or_insert_with(|| {
                work.push(Work::Delete(Arc::clone(&owner_uid)));
                Node::new(owner.identity(meta::namespace(object)))
            });
            node.dependents.insert(Arc::clone(uid));
            // A dependent that appears while its owner waits must go as well.
            if node.ending_after_dependents && !old.contains(&owner_uid) {
                work.push(Work::Delete(Arc::clone(uid)));
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
                work.push(Work::Delete(Arc::clone(&owner.uid)));
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
            owners: Box::default(),
            dependents: BTreeSet::new(),
            seen: false,
            ending: false,
            ending_after_dependents: false,
        }
    }
}

impl Owner {
    /// Where it must be if a dependent of that namespace is right.
    pub(super) fn identity(&self, namespace: &str) -> Identity {
        Identity {
            api_version: self.api_version.as_str().into(),
            kind: self.kind.as_str().into(),
            namespace: namespace.into(),
            name: self.name.as_str().into(),
            uid: self.uid.as_str().into(),
        }
    }
}

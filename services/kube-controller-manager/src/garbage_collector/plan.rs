//! Whether an object must go, given its owners. Pure.

use serde_json::{Value, json};

use super::graph::{self, FOREGROUND, Node, ORPHAN, Owner};
use crate::object;

/// An owner as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerState {
    /// It lives.
    Solid,
    /// It does not exist.
    Absent,
    /// It is ending and waits for its dependents.
    Waiting,
}

/// What to do with an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Keep,
    /// Only dead references go; a living owner holds the object.
    DropReferences(Vec<String>),
    /// Delete it, in this manner. `unblock`: first let its own references no longer block, since a ring of waiting
    /// owners would wait forever.
    Delete {
        policy: &'static str,
        unblock: bool,
    },
}

/// Decides about `live`, whose owners were found in the states given. `dependents` are its own.
pub(super) fn decide(live: &Value, states: &[(Owner, OwnerState)], dependents: &[&Node]) -> Decision {
    let of = |wanted: OwnerState| states.iter().filter(move |(_, state)| *state == wanted);
    if states.is_empty() {
        return Decision::Keep;
    }
    if of(OwnerState::Solid).next().is_some() {
        let dead: Vec<String> = states
            .iter()
            .filter(|(_, state)| *state != OwnerState::Solid)
            .map(|(owner, _)| owner.uid.clone())
            .collect();
        return if dead.is_empty() { Decision::Keep } else { Decision::DropReferences(dead) };
    }
    if of(OwnerState::Waiting).next().is_some() && !dependents.is_empty() {
        let ring = dependents.iter().any(|dependent| dependent.ending_after_dependents);
        return Decision::Delete { policy: "Foreground", unblock: ring };
    }
    // An object that is to outlive its owner, or to go after its dependents, has said so by a finalizer.
    let policy = if graph::has_finalizer(live, ORPHAN) {
        "Orphan"
    } else if graph::has_finalizer(live, FOREGROUND) {
        "Foreground"
    } else {
        "Background"
    };
    Decision::Delete { policy, unblock: false }
}

/// The dependents that a waiting owner must see gone before it may go.
pub(super) fn blocking<'a>(owner_uid: &str, dependents: &[&'a Node]) -> Vec<&'a Node> {
    let blocks = |node: &&&Node| node.owners.iter().any(|o| *o.uid == *owner_uid && o.blocks);
    dependents.iter().filter(blocks).copied().collect()
}

/// A merge patch without the references to these owners. The version makes it exact: a reference that someone adds at
/// the same time is not lost.
pub(super) fn without_owners(live: &Value, dead: &[String]) -> Value {
    let mut references = object::list(live, "/metadata/ownerReferences").to_vec();
    references.retain(|r| !dead.iter().any(|uid| r["uid"] == uid.as_str()));
    patch_references(live, references)
}

/// A merge patch after which no reference blocks.
pub(super) fn without_blocking(live: &Value) -> Value {
    let mut references = object::list(live, "/metadata/ownerReferences").to_vec();
    for reference in &mut references {
        if reference["blockOwnerDeletion"] == true {
            reference["blockOwnerDeletion"] = false.into();
        }
    }
    patch_references(live, references)
}

fn patch_references(live: &Value, references: Vec<Value>) -> Value {
    json!({"metadata": {
        "uid": live["metadata"]["uid"], "resourceVersion": live["metadata"]["resourceVersion"],
        "ownerReferences": if references.is_empty() { Value::Null } else { references.into() },
    }})
}

/// A merge patch without a finalizer.
pub(super) fn without_finalizer(live: &Value, finalizer: &str) -> Value {
    let mut finalizers = object::list(live, "/metadata/finalizers").to_vec();
    finalizers.retain(|f| f != finalizer);
    json!({"metadata": {
        "uid": live["metadata"]["uid"], "resourceVersion": live["metadata"]["resourceVersion"], "finalizers": finalizers,
    }})
}

use serde_json::{Value, json};

use super::graph::{Graph, Owner, Work, owners_of};
use super::plan::{self, Decision, OwnerState};

fn object(uid: &str, owners: &[&str]) -> Value {
    let references: Vec<Value> = owners
        .iter()
        .map(|o| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": o, "uid": o, "blockOwnerDeletion": true}))
        .collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap",
           "metadata": {"name": uid, "namespace": "n", "uid": uid, "resourceVersion": "7", "ownerReferences": references}})
}

fn ending(mut object: Value, finalizer: &str) -> Value {
    object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    object["metadata"]["finalizers"] = json!([finalizer]);
    object
}

fn delete(uid: &str) -> Work {
    Work::Delete(uid.into())
}

#[test]
fn a_named_but_unseen_owner_is_looked_at_and_its_absence_frees_dependents() {
    let mut graph = Graph::default();
    assert_eq!(graph.observe(&object("pod", &["set"])), [delete("set")]);
    assert!(!graph.node("set").unwrap().seen);
    assert_eq!(graph.removed("set"), [delete("pod")]);
}

#[test]
fn background_deletion_reaches_dependents_when_the_owner_is_gone() {
    let mut graph = Graph::default();
    graph.observe(&object("set", &[]));
    assert!(graph.observe(&object("pod", &["set"])).is_empty());
    assert!(!graph.is_absent("set"));
    assert_eq!(graph.removed("set"), [delete("pod")]);
    assert!(graph.node("pod").unwrap().dependents.is_empty());
    assert!(graph.is_absent("set"), "the pod need not ask");
}

#[test]
fn foreground_deletion_looks_at_dependents_then_at_the_owner() {
    let mut graph = Graph::default();
    graph.observe(&object("set", &[]));
    graph.observe(&object("pod", &["set"]));
    assert_eq!(graph.observe(&ending(object("set", &[]), "foregroundDeletion")), [delete("pod"), delete("set")]);
    assert_eq!(graph.observe(&object("late", &["set"])), [delete("late")], "a dependent that appears meanwhile");
    let dependents = graph.dependents("set");
    assert_eq!(plan::blocking("set", &dependents).len(), 2);
    graph.removed("late");
    assert_eq!(graph.removed("pod"), [delete("set")]);
}

#[test]
fn a_reference_that_goes_frees_a_waiting_owner() {
    let mut graph = Graph::default();
    graph.observe(&object("pod", &["set"]));
    graph.observe(&ending(object("set", &[]), "foregroundDeletion"));
    assert_eq!(graph.observe(&object("pod", &[])), [delete("set")]);
    assert!(graph.dependents("set").is_empty());
}

#[test]
fn orphaning_starts_once() {
    let mut graph = Graph::default();
    graph.observe(&object("set", &[]));
    let dying = ending(object("set", &[]), "orphan");
    assert_eq!(graph.observe(&dying), [Work::Orphan("set".into())]);
    assert!(graph.observe(&dying).is_empty());
}

#[test]
fn decisions() {
    use OwnerState::{Absent, Solid, Waiting};
    let plain = Decision::Delete { policy: "Background", unblock: false };
    let keep_one = |dead: &[&str]| Decision::DropReferences(dead.iter().map(|d| (*d).to_owned()).collect());
    let foreground = |unblock| Decision::Delete { policy: "Foreground", unblock };
    let mut graph = Graph::default();
    graph.observe(&object("x", &[]));
    graph.observe(&object("leaf", &["x"]));
    graph.observe(&ending(object("ring", &["x"]), "foregroundDeletion"));
    let none: Vec<&super::graph::Node> = Vec::new();
    let leaf = vec![graph.node("leaf").unwrap()];
    let ring = vec![graph.node("ring").unwrap()];

    let cases = [
        (vec![], &none, Decision::Keep),
        (vec![("a", Solid)], &none, Decision::Keep),
        (vec![("a", Solid), ("b", Absent)], &none, keep_one(&["b"])),
        (vec![("a", Solid), ("b", Waiting)], &leaf, keep_one(&["b"])),
        (vec![("a", Absent)], &leaf, plain),
        (vec![("a", Waiting)], &none, Decision::Delete { policy: "Background", unblock: false }),
        (vec![("a", Waiting)], &leaf, foreground(false)),
        (vec![("a", Waiting)], &ring, foreground(true)),
    ];
    for (states, dependents, expected) in cases {
        let owner = |uid: &str| owners_of(&object("o", &[uid])).remove(0);
        let states: Vec<(Owner, OwnerState)> = states.iter().map(|(uid, state)| (owner(uid), *state)).collect();
        assert_eq!(plan::decide(&object("o", &[]), &states, dependents), expected, "{states:?}");
    }
    let orphaning = ending(object("o", &["a"]), "orphan");
    let states = [(owners_of(&orphaning).remove(0), Absent)];
    assert_eq!(plan::decide(&orphaning, &states, &none), Decision::Delete { policy: "Orphan", unblock: false });
}

#[test]
fn patches_are_exact() {
    let patch = plan::without_owners(&object("o", &["a", "b"]), &["a".to_owned()]);
    assert_eq!(patch["metadata"]["resourceVersion"], "7");
    assert_eq!(patch["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);
    assert!(plan::without_owners(&object("o", &["a"]), &["a".to_owned()])["metadata"]["ownerReferences"].is_null());
    assert_eq!(
        plan::without_blocking(&object("o", &["a"]))["metadata"]["ownerReferences"][0]["blockOwnerDeletion"],
        false
    );
}

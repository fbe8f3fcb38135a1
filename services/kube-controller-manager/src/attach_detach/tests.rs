//! Attaching, waiting and detaching, case by case.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::plan::*;

fn volume(modes: &[&str]) -> Value {
    json!({"metadata": {"name": "pv"}, "spec": {"accessModes": modes, "csi": {"driver": "d", "volumeHandle": "h"}}})
}

fn attached_to(node: &str) -> Arc<Value> {
    let mut attachment = attachment(&volume(&[]), node);
    attachment["metadata"]["uid"] = node.into();
    attachment["status"] = json!({"attached": true});
    Arc::new(attachment)
}

fn node(ready: bool, in_use: bool, out_of_service: bool) -> Arc<Value> {
    let volumes = if in_use { json!(["kubernetes.io/csi/d^h"]) } else { json!([]) };
    let taints = if out_of_service { json!([{"key": OUT_OF_SERVICE}]) } else { json!([]) };
    let status = if ready { "True" } else { "Unknown" };
    Arc::new(json!({"spec": {"taints": taints},
        "status": {"volumesInUse": volumes, "conditions": [{"type": "Ready", "status": status}]}}))
}

fn user<'a>(node: &'a str, name: &'a str) -> User<'a> {
    User { node, name }
}

fn decide(modes: &[&str], users: &[User<'_>], on: &[&str], node: Option<Arc<Value>>, idle: u64) -> Vec<Action> {
    let attachments: Vec<_> = on.iter().map(|node| attached_to(node)).collect();
    let mut unused_for = |_: &str, unused: bool| if unused { Duration::from_secs(idle) } else { Duration::ZERO };
    plan(&volume(modes), users, &attachments, |_| node.clone(), &mut unused_for)
}

fn attach(node: &str) -> Action {
    Action::Attach { node: node.to_owned() }
}

#[test]
fn a_volume_goes_where_its_pods_are() {
    let here = || Some(node(true, false, false));
    let (a, b) = (user("a", "p"), user("b", "q"));
    assert_eq!(decide(&["ReadWriteOnce"], &[a, user("a", "r")], &[], here(), 0), [attach("a")]);
    assert_eq!(decide(&["ReadWriteOnce"], &[a], &["a"], here(), 0), []);
    assert_eq!(decide(&["ReadWriteMany"], &[a, b], &["a"], here(), 0), [attach("b")]);
    assert_eq!(decide(&["ReadWriteOnce"], &[a], &[], None, 0), [], "the node is gone");
    let detach = Action::Detach { attachment: attached_to("a") };
    assert_eq!(decide(&["ReadWriteOnce"], &[], &["a"], here(), 0), [detach]);
}

#[test]
fn one_node_at_a_time_for_volumes_of_one_node() {
    let here = || Some(node(true, false, false));
    let (a, b) = (user("a", "p"), user("b", "q"));
    let refused = |message: &str| Action::Refuse { node: "b".to_owned(), message: message.to_owned() };
    let used = "Multi-Attach error for volume \"pv\" Volume is already used by pod(s) p";
    assert_eq!(decide(&["ReadWriteOnce"], &[a, b], &["a"], here(), 0), [refused(used)]);
    assert_eq!(decide(&["ReadWriteOncePod"], &[a, b], &[], here(), 0), [attach("a"), refused(used)]);
    let held = "Multi-Attach error for volume \"pv\" Volume is already exclusively attached to one node and can't be attached to another";
    let busy = Some(node(true, true, false));
    assert_eq!(
        decide(&["ReadWriteOnce"], &[b], &["a"], busy, 0),
        [refused(held), Action::Wait(UNMOUNT_MAX)],
        "mounted without a pod"
    );
}

#[test]
fn a_node_that_is_lost_keeps_a_mounted_volume_for_six_minutes() {
    let wait = |seconds| vec![Action::Wait(Duration::from_secs(seconds))];
    let detach = || vec![Action::Detach { attachment: attached_to("a") }];
    let cases = [
        (Some(node(true, true, false)), 900, wait(360), "ready: it says itself when it is done"),
        (Some(node(false, true, false)), 60, wait(300), "not ready"),
        (Some(node(false, true, false)), 360, detach(), "not ready for long"),
        (Some(node(false, true, true)), 0, detach(), "out of service"),
        (Some(node(false, false, false)), 0, detach(), "not mounted"),
        (None, 0, wait(360), "deleted"),
        (None, 400, detach(), "deleted long ago"),
    ];
    for (node, idle, expected, why) in cases {
        assert_eq!(decide(&["ReadWriteOnce"], &[], &["a"], node, idle), expected, "{why}");
    }
}

#[test]
fn attachments_of_others_and_those_that_go_are_left_alone() {
    let mut foreign = Value::clone(&attached_to("a"));
    foreign["metadata"]["name"] = "by-hand".into();
    let mut going = Value::clone(&attached_to("a"));
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    for attachment in [foreign, going] {
        let here = node(true, false, false);
        let actions =
            plan(&volume(&[]), &[], &[Arc::new(attachment)], |_| Some(Arc::clone(&here)), &mut |_, _| Duration::ZERO);
        assert_eq!(actions, []);
    }
}

#[test]
fn pods_hold_volumes_until_their_containers_end() {
    let pod = |node: &str, phase: &str, going: bool, running: bool| {
        let state = if running { json!({"running": {}}) } else { json!({"terminated": {}}) };
        let mut pod = json!({"metadata": {}, "spec": {"nodeName": node},
            "status": {"phase": phase, "containerStatuses": [{"state": state}]}});
        if going {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        pod
    };
    let cases = [
        (pod("", "Pending", false, false), false),
        (pod("a", "Pending", false, false), true),
        (pod("a", "Running", true, true), true),
        (pod("a", "Running", true, false), false),
        (pod("a", "Succeeded", false, false), false),
    ];
    for (pod, expected) in cases {
        assert_eq!(holds(&pod), expected, "{pod}");
    }
}

#[test]
fn names_are_those_that_kubelets_compute() {
    // printf %s hda | sha256sum
    let name = attachment_name(&volume(&[]), "a");
    assert_eq!(name, "csi-c7e15073db8a31851603fca8ebbbef87d485d00357b279084c86b1900878603f");
    let listed = attached([attached_to("a")].iter(), |_| Some(Arc::new(volume(&[]))));
    assert_eq!(listed, [json!({"devicePath": "", "name": "kubernetes.io/csi/d^h"})]);
}

#[test]
fn pods_hear_of_success_and_of_each_failure_once() {
    let status = |status: Value| json!({"spec": {"source": {"persistentVolumeName": "pv"}}, "status": status});
    let (fresh, done) = (status(json!({"attached": false})), status(json!({"attached": true})));
    let failed = status(json!({"attached": false, "attachError": {"message": "no"}}));
    assert_eq!(outcome(Some(&fresh), &done).map(|o| o.1), Some("SuccessfulAttachVolume"));
    assert_eq!(outcome(None, &done), None);
    assert_eq!(outcome(Some(&done), &done), None);
    let message = outcome(Some(&fresh), &failed).map(|o| o.2);
    assert_eq!(message.as_deref(), Some("AttachVolume.Attach failed for volume \"pv\" : no"));
    assert_eq!(outcome(Some(&failed), &failed), None);
}

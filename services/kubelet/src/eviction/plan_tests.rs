use serde_json::{Value, json};

use super::super::thresholds::Amount;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn threshold(signal: Signal, below: i128, grace: Option<u64>) -> Threshold {
    Threshold { signal, below: Amount::Fixed(below), grace: grace.map(Duration::from_secs), reclaim: Amount::Fixed(5) }
}

fn seen(signal: Signal, available: i128) -> Observations {
    Observations::from([(signal, (available, 100))])
}

#[test]
fn hard_thresholds_act_at_once_and_hold_until_the_minimum_is_reclaimed() {
    let list = [threshold(Signal::Memory, 10, None)];
    let mut memory = Memory::default();
    let start = Instant::now();
    let mut look_at = |available: i128, seconds: u32| {
        look(&mut memory, &list, &seen(Signal::Memory, available), start + SECOND * seconds, SECOND * 60)
    };
    assert_eq!(look_at(20, 0), Verdict::default());
    let low = look_at(9, 10);
    assert!(low.pressure.memory && low.act.len() == 1);
    assert_eq!(look_at(12, 20).act.len(), 1, "less than the minimum was reclaimed");
    let better = look_at(16, 30);
    assert!(better.act.is_empty() && better.pressure.memory, "the condition outlasts its cause");
    assert!(!look_at(16, 120).pressure.memory);
}

#[test]
fn soft_thresholds_wait_for_their_grace() {
    let list = [threshold(Signal::NodeSpace, 10, Some(90))];
    let mut memory = Memory::default();
    let start = Instant::now();
    let mut look_at = |available: i128, seconds: u32| {
        look(&mut memory, &list, &seen(Signal::NodeSpace, available), start + SECOND * seconds, SECOND * 60)
    };
    let first = look_at(5, 0);
    assert!(first.pressure.disk && first.act.is_empty());
    assert!(look_at(5, 45).act.is_empty());
    assert!(look_at(50, 60).act.is_empty(), "it recovered in time");
    assert!(look_at(5, 100).act.is_empty());
    assert_eq!(look_at(5, 190).act.len(), 1);
}

fn pod(name: &str, priority: i64, request: &str) -> Pod {
    let container = json!({"name": "c", "resources": {"requests": {"memory": request, "ephemeral-storage": request}}});
    Pod::from_value(&json!({"metadata": {"name": name}, "spec": {"priority": priority, "containers": [container]}}))
        .unwrap()
}

#[test]
fn who_uses_more_than_asked_for_goes_first_then_the_less_important() {
    let pods = [
        ("within", pod("within", -5, "100"), 50),
        ("over", pod("over", 10, "10"), 50),
        ("far over", pod("far over", 10, "10"), 90),
        ("low", pod("low", 0, "10"), 20),
        ("critical", pod("critical", 2_000_000_000, "0"), 1000),
    ];
    let usages: Vec<Usage<'_>> =
        pods.iter().map(|(_, pod, used)| Usage { pod, memory: *used, disk: *used, inodes: 0, pids: 0 }).collect();
    for signal in [Signal::Memory, Signal::NodeSpace] {
        let names: Vec<&str> = rank(&usages, signal).iter().map(|u| u.pod.metadata.name.as_str()).collect();
        assert_eq!(names, ["low", "far over", "over", "within"]);
    }
}

#[test]
fn the_message_says_what_was_low_and_who_used_it() {
    let pod = pod("p", 0, "1Mi");
    let usage = Usage { pod: &pod, memory: 4 << 20, disk: 0, inodes: 0, pids: 0 };
    let text = message(&threshold(Signal::Memory, 100 << 20, None), 50 << 20, 1 << 30, &usage);
    assert!(
        text.starts_with("The node was low on resource: memory. Threshold quantity: 102400Ki, available: 51200Ki. ")
    );
    assert!(text.contains("was using 4096Ki, request is 1024Ki"));
}

#[test]
fn nobody_is_ended_for_a_disk_that_others_filled() {
    let pod = pod("p", 0, "0");
    let helps = |disk: i128, signal: Signal| {
        let usage = Usage { pod: &pod, memory: 0, disk, inodes: 0, pids: 0 };
        would_help(&usage, &threshold(signal, 10_000, None), 0, 100_000)
    };
    assert!(!helps(50, Signal::NodeSpace));
    assert!(helps(5000, Signal::ImageSpace));
    assert!(helps(0, Signal::Memory), "memory is not known so well");
}

#[test]
fn limits_on_local_storage_are_kept() {
    let pod = |spec: Value| Pod::from_value(&json!({"spec": spec})).unwrap();
    let used = |name: &str, bytes: i128| BTreeMap::from([(name.to_owned(), bytes)]);
    let none = BTreeMap::new();
    let volume =
        pod(json!({"containers": [{"name": "c"}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Ki"}}]}));
    assert_eq!(over_limit(&volume, &used("v", 1024), &none), None);
    let text = over_limit(&volume, &used("v", 1025), &none).unwrap();
    assert_eq!(text, "Usage of EmptyDir volume \"v\" exceeds the limit \"1Ki\". ");
    let limited = |name: &str| json!({"name": name, "resources": {"limits": {"ephemeral-storage": "1Ki"}}});
    let two = pod(json!({"containers": [limited("a"), limited("b")]}));
    assert!(over_limit(&two, &none, &used("a", 1500)).unwrap().starts_with("Container a exceeded"));
    assert!(over_limit(&two, &used("v", 2000), &used("a", 100)).unwrap().starts_with("Pod ephemeral"));
    assert_eq!(over_limit(&two, &used("v", 1000), &used("a", 100)), None);
}

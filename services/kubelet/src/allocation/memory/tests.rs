use super::state::{Node, Table};
use super::*;
use serde_json::json;

/// Two nodes with 100 bytes each.
fn manager(name: &str) -> Memory {
    let table = || Table { total: 110, system_reserved: 10, allocatable: 100, reserved: 0, free: 100 };
    let node = |id| {
        (id, Node { number_of_assignments: 0, memory_map: [("memory".to_owned(), table())].into(), cells: vec![id] })
    };
    let file = std::env::temp_dir().join(format!("kubelet-memory-state-{name}-{}", std::process::id()));
    Memory { pinned: true, file, state: Mutex::new(State { nodes: [node(0), node(1)].into(), ..State::default() }) }
}

fn pod(uid: &str, memory: &str) -> Pod {
    let resources = json!({"limits": {"cpu": "1", "memory": memory}});
    let spec = json!({
        "initContainers": [{"name": "init", "resources": resources}],
        "containers": [{"name": "main", "resources": resources}],
    });
    Pod::from_value(&json!({"metadata": {"uid": uid}, "spec": spec})).unwrap()
}

const ANY: Hint = Hint { nodes: None, preferred: false };

fn give(memory: &Memory, pod: &Pod, hint: Hint) -> Result<Vec<usize>, String> {
    let mut reusable = Reusable::new();
    for container in pod.all_containers() {
        memory.allocate(pod, container, hint, &mut reusable).map_err(|f| format!("{}: {}", f.reason, f.message))?;
    }
    Ok(memory.nodes(&pod.metadata.uid, "main").ids().collect())
}

fn left(memory: &Memory) -> Vec<u64> {
    memory.state.lock().nodes.values().map(|n| n.memory_map["memory"].free).collect()
}

#[test]
fn memory_is_set_aside_once_for_containers_that_follow_each_other() {
    let memory = manager("once");
    assert_eq!(give(&memory, &pod("a", "60"), ANY).unwrap(), [0]);
    assert_eq!(left(&memory), [40, 100]);
    assert_eq!(memory.blocks("a", "init")[0].size, 0, "handed over to the main container");
    assert_eq!(give(&memory, &pod("b", "60"), ANY).unwrap(), [1]);
    // Again is the same.
    assert_eq!(give(&memory, &pod("b", "60"), ANY).unwrap(), [1]);
    assert_eq!(left(&memory), [40, 40]);
    memory.keep_only(&|uid| uid == "b");
    assert_eq!(left(&memory), [100, 40]);
}

#[test]
fn a_node_serves_single_or_always_the_same_group() {
    let memory = manager("groups");
    assert_eq!(give(&memory, &pod("wide", "150"), ANY).unwrap(), [0, 1]);
    assert_eq!(left(&memory), [0, 50]);
    let error = give(&memory, &pod("small", "20"), Hint { nodes: None, preferred: true }).unwrap_err();
    assert!(error.contains("failed to find the default preferred hint"), "{error}");
    // Without a topology policy it may join the group.
    assert_eq!(give(&memory, &pod("small", "20"), ANY).unwrap(), [0, 1]);
    memory.keep_only(&|_| false);
    assert_eq!(give(&memory, &pod("small", "20"), ANY).unwrap(), [0]);
    let error = give(&memory, &pod("wide", "150"), ANY).unwrap_err();
    assert!(error.starts_with("UnexpectedAdmissionError") && error.contains("no NUMA nodes with enough memory"));
}

#[test]
fn the_topology_policys_choice_is_followed_and_widened() {
    let memory = manager("choice");
    let on = |node: usize, preferred| Hint { nodes: Some(Set::of([node])), preferred };
    assert_eq!(give(&memory, &pod("a", "60"), on(1, true)).unwrap(), [1]);
    memory.keep_only(&|_| false);
    assert_eq!(give(&memory, &pod("wide", "150"), on(1, false)).unwrap(), [0, 1]);
}

#[test]
fn hints_name_what_could_serve_and_what_is_best() {
    let memory = manager("hints");
    let of = |pod: &Pod| {
        let hints = memory.hints(pod, Some(&pod.spec.containers[0]), &Reusable::new());
        let one = |h: Hint| (h.nodes.unwrap().ids().collect::<Vec<_>>(), h.preferred);
        hints.get("memory").cloned().flatten().unwrap_or_default().into_iter().map(one).collect::<Vec<_>>()
    };
    assert_eq!(of(&pod("a", "60")), [(vec![0], true), (vec![1], true), (vec![0, 1], false)]);
    assert_eq!(of(&pod("a", "150")), [(vec![0, 1], true)]);
    give(&memory, &pod("x", "60"), ANY).unwrap();
    assert_eq!(of(&pod("a", "60")), [(vec![1], true)]);
    assert_eq!(of(&pod("x", "60")), [(vec![0], true)], "what it has");
    assert!(of(&pod("a", "250")).is_empty());
    // Others than guaranteed pods take what there is.
    let burstable = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"memory": "60"}}}]}});
    assert!(of(&Pod::from_value(&burstable).unwrap()).is_empty());
}

#[test]
fn a_pod_as_a_whole_wants_what_it_takes_at_its_peak() {
    let amounts = |n: &str| json!({"limits": {"cpu": "1", "memory": n}});
    let spec = json!({
        "initContainers": [
            {"name": "side", "restartPolicy": "Always", "resources": amounts("5")},
            {"name": "init", "resources": amounts("60")},
        ],
        "containers": [{"name": "a", "resources": amounts("20")}, {"name": "b", "resources": amounts("30")}],
    });
    let pod = Pod::from_value(&json!({"spec": spec})).unwrap();
    assert_eq!(whole(&pod)["memory"], 65);
}

#[test]
fn books_that_do_not_follow_from_the_entries_are_refused() {
    let memory = manager("check");
    let fresh = memory.state.lock().nodes.clone();
    give(&memory, &pod("wide", "150"), ANY).unwrap();
    let kept = memory.state.lock().clone();
    assert!(plan::check(&fresh, kept.clone()).is_ok());
    let mut smaller = fresh.clone();
    smaller.get_mut(&0).unwrap().memory_map.get_mut("memory").unwrap().total = 90;
    assert!(plan::check(&smaller, kept.clone()).unwrap_err().contains("different from the real one"));
    let mut other = kept;
    other.entries.get_mut("wide").unwrap().get_mut("main").unwrap()[0].nodes = vec![7];
    assert!(plan::check(&fresh, other).unwrap_err().contains("NUMA that does not exist"));
}

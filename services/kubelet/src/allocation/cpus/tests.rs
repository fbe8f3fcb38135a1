use super::machine::tests::machine;
use super::*;
use crate::config::PolicyOptions;
use serde_json::{Value, json};

fn pod(uid: &str, cpu: &str) -> Pod {
    let limits = json!({"limits": {"cpu": cpu, "memory": "1Mi"}});
    let spec = json!({
        "initContainers": [{"name": "init", "resources": limits}],
        "containers": [{"name": "main", "resources": limits}],
    });
    Pod::from_value(&json!({"metadata": {"uid": uid}, "spec": spec})).unwrap()
}

fn manager(name: &str, options: Value) -> Result<Cpus, String> {
    let config = KubeletConfiguration {
        options: PolicyOptions {
            cpu_manager_policy_options: serde_json::from_value(options).unwrap(),
            ..PolicyOptions::default()
        },
        reserved_system_cpus: "0".into(),
        ..KubeletConfiguration::default()
    };
    let policy = Static::new(&config, machine(2, 1, 2, 2))?;
    let file = std::env::temp_dir().join(format!("kubelet-cpu-state-{name}-{}", std::process::id()));
    let state = State { shared: policy.everything(), ..State::default() };
    Ok(Cpus { policy: Some(policy), file, state: Mutex::new(state), changed: watch::channel(()).0 })
}

fn give(cpus: &Cpus, pod: &Pod, nodes: Option<Nodes>) -> Result<String, String> {
    let mut reusable = CpuSet::default();
    for container in pod.all_containers() {
        cpus.allocate(pod, container, nodes, &mut reusable).map_err(|f| format!("{}: {}", f.reason, f.message))?;
    }
    Ok(cpus.exclusive(&pod.metadata.uid, "main").to_string())
}

#[test]
fn whole_cpus_of_guaranteed_pods_are_exclusive() {
    // Two sockets of two cores of two threads: node 0 is 0-1,4-5, node 1 is 2-3,6-7.
    let cpus = manager("life", json!({})).unwrap();
    assert_eq!(give(&cpus, &pod("a", "2"), None).unwrap(), "1,5");
    assert_eq!(cpus.exclusive("a", "init"), cpus.exclusive("a", "main"), "the init container's CPUs go on");
    assert_eq!(give(&cpus, &pod("b", "1500m"), None).unwrap(), "", "parts of CPUs are shared");
    assert_eq!(cpus.allowed("b", "main").to_string(), "0,2-4,6-7");
    assert_eq!(give(&cpus, &pod("c", "2"), Some(Nodes::of([1]))).unwrap(), "2,6");
    let refused = give(&cpus, &pod("d", "4"), None).unwrap_err();
    assert_eq!(
        refused,
        "UnexpectedAdmissionError: Pod was rejected: Allocate failed due to not enough cpus available to satisfy request: requested=4, available=3, which is unexpected"
    );
    cpus.keep_only(&|uid| uid == "c");
    assert_eq!(cpus.allowed("x", "y").to_string(), "0-1,3-5,7");
    let kept = std::fs::read_to_string(&cpus.file).unwrap();
    let state = check(cpus.policy.as_ref(), state::decode(&kept, "static").unwrap()).unwrap();
    assert_eq!(state, *cpus.state.lock());
    std::fs::remove_file(&cpus.file).unwrap();
}

#[test]
fn options_narrow_the_choice() {
    let cpus = manager("cores", json!({"full-pcpus-only": "true", "strict-cpu-reservation": "true"})).unwrap();
    assert_eq!(cpus.allowed("x", "y").to_string(), "1-7");
    let refused = |cpu| give(&cpus, &pod("a", cpu), None).unwrap_err();
    let odd =
        "SMTAlignmentError: Pod was rejected: SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2";
    assert_eq!(refused("3"), odd);
    let many = "not enough free physical CPUs: available physical CPUs = 6, requested CPUs = 8, CPUs per core = 2";
    assert!(refused("8").ends_with(many));
    assert_eq!(give(&cpus, &pod("a", "6"), None).unwrap(), "1-3,5-7");
    std::fs::remove_file(&cpus.file).unwrap();
}

#[test]
fn hints_name_the_nodes_with_room() {
    let cpus = manager("hints", json!({})).unwrap();
    let all = Nodes::of([0, 1]);
    let hints = |cpu: &str| -> Option<Vec<(u64, bool)>> {
        let pod = pod("a", cpu);
        let found = cpus.hints(&pod, Some(&pod.spec.containers[0]), &CpuSet::default(), all)?;
        Some(found.iter().map(|h| (h.nodes.unwrap().0, h.preferred)).collect())
    };
    assert_eq!(hints("2"), Some(vec![(1, true), (2, true), (3, false)]));
    assert_eq!(hints("4"), Some(vec![(2, true), (3, false)]));
    assert_eq!(hints("6"), Some(vec![(3, true)]));
    assert_eq!(hints("500m"), None);
}

#[test]
fn a_state_of_another_machine_or_reservation_is_refused() {
    let cpus = manager("check", json!({})).unwrap();
    let with = |shared: &str| {
        let state = State { shared: CpuSet::parse(shared).unwrap(), ..State::default() };
        check(cpus.policy.as_ref(), state).unwrap_err()
    };
    assert_eq!(with("1-7"), r#"not all reserved cpus: "0" are present in defaultCpuSet: "1-7""#);
    assert_eq!(with("0-6"), r#"current set of available CPUs "0-7" doesn't match with CPUs in state "0-6""#);
    assert!(Static::new(&KubeletConfiguration::default(), machine(1, 1, 2, 1)).unwrap_err().contains("reserved CPU"));
}

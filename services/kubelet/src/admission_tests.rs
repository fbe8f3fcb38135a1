use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Pod {
    Pod::from_value(&json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})).unwrap()
}

fn node() -> Node {
    let amounts = [("cpu", "2"), ("memory", "1Gi"), ("pods", "3"), ("example.com/gpu", "1")];
    Node {
        name: "n1".into(),
        labels: Map::from([("zone".into(), "a".into()), ("cores".into(), "8".into())]),
        taints: vec![
            ("gone".into(), "x".into(), "NoExecute".into()),
            ("busy".into(), String::new(), "NoSchedule".into()),
        ],
        allocatable: amounts.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        unsafe_sysctls: vec!["kernel.msg*".into()],
        ..Node::default()
    }
}

/// The reason of the rejection, or `ok`.
fn verdict(spec: Value, others: &[Pod]) -> String {
    let others: Vec<&Pod> = others.iter().collect();
    let mut node = node();
    node.taints.clear();
    admit(&pod(spec), &others, &node).map_or_else(|f| f.reason, |()| "ok".into())
}

fn cpu(amount: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]})
}

#[test]
fn resources_must_suffice_beside_the_others() {
    assert_eq!(verdict(cpu("2"), &[]), "ok");
    assert_eq!(verdict(cpu("1500m"), &[pod(cpu("600m"))]), "OutOfcpu");
    let failure = admit(&pod(cpu("1500m")), &[&pod(cpu("600m"))], &node()).unwrap_err();
    let expected =
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 1500, used: 600, capacity: 2000";
    assert_eq!(failure.message, expected);
    let memory = json!({"containers": [{"resources": {"requests": {"memory": "2Gi"}}}]});
    assert_eq!(verdict(memory, &[]), "OutOfmemory");
    assert_eq!(verdict(json!({}), &[pod(json!({})), pod(json!({})), pod(json!({}))]), "OutOfpods");
    let gpu = json!({"containers": [{"resources": {"requests": {"example.com/gpu": "1"}}}]});
    assert_eq!(verdict(gpu.clone(), &[]), "ok");
    assert_eq!(verdict(gpu.clone(), &[pod(gpu)]), "OutOfexample.com/gpu");
    let unknown = json!({"containers": [{"resources": {"requests": {"example.com/none": "1"}}}]});
    assert_eq!(verdict(unknown, &[]), "ok");
}

#[test]
fn a_pods_request_is_its_peak() {
    let request_of = |spec: Value| request(&pod(spec), "cpu");
    let container = |amount: &str| json!({"resources": {"requests": {"cpu": amount}}});
    let sidecar = |amount: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": amount}}});
    assert_eq!(request_of(json!({"containers": [container("1"), container("500m")]})), 1500);
    let init = json!({"containers": [container("1")], "initContainers": [container("3")], "overhead": {"cpu": "100m"}});
    assert_eq!(request_of(init), 3100);
    let mixed =
        json!({"containers": [container("1")], "initContainers": [container("2"), sidecar("500m"), container("1")]});
    assert_eq!(request_of(mixed), 2000);
    let after = json!({"containers": [container("1")], "initContainers": [sidecar("500m"), container("2")]});
    assert_eq!(request_of(after), 2500);
    let whole = json!({"resources": {"requests": {"cpu": "4"}}, "containers": [container("1")]});
    assert_eq!(request_of(whole), 4000);
}

#[test]
fn the_node_must_be_the_right_one() {
    assert_eq!(verdict(json!({"nodeSelector": {"zone": "a"}}), &[]), "ok");
    assert_eq!(verdict(json!({"nodeSelector": {"zone": "b"}}), &[]), "NodeAffinity");
    let affinity = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    for (terms, expected) in [
        (json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}]), "ok"),
        (json!([{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}]), "NodeAffinity"),
        (json!([{"matchExpressions": [{"key": "none", "operator": "DoesNotExist"}]}]), "ok"),
        (json!([{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}]}]), "ok"),
        (json!([{"matchExpressions": [{"key": "cores", "operator": "Lt", "values": ["4"]}]}]), "NodeAffinity"),
        (json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]), "ok"),
        (json!([{}]), "NodeAffinity"),
        (
            json!([{"matchExpressions": [{"key": "none", "operator": "Exists"}]}, {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]),
            "ok",
        ),
    ] {
        assert_eq!(verdict(affinity(terms.clone()), &[]), expected, "{terms}");
    }
}

#[test]
fn ports_of_the_node_are_taken_once() {
    let port = |ip: &str, protocol: &str, number: i32| json!({"containers": [{"ports": [{"containerPort": 80, "hostPort": number, "hostIP": ip, "protocol": protocol}]}]});
    let other = [pod(port("127.0.0.1", "TCP", 54321))];
    assert_eq!(verdict(port("127.0.0.2", "TCP", 54321), &other), "ok");
    assert_eq!(verdict(port("127.0.0.1", "UDP", 54321), &other), "ok");
    assert_eq!(verdict(port("127.0.0.1", "TCP", 54322), &other), "ok");
    assert_eq!(verdict(port("127.0.0.1", "TCP", 54321), &other), "NodePorts");
    assert_eq!(verdict(port("", "", 54321), &other), "NodePorts");
}

#[test]
fn only_taints_that_end_pods_count_and_static_pods_ignore_them() {
    let judge = |spec: Value, annotations: Value| {
        let pod = Pod::from_value(&json!({"metadata": {"annotations": annotations}, "spec": spec})).unwrap();
        admit(&pod, &[], &node()).map_or_else(|f| f.reason, |()| "ok".into())
    };
    assert_eq!(judge(json!({}), json!({})), "TaintToleration");
    assert_eq!(judge(json!({}), json!({"kubernetes.io/config.source": "file"})), "ok");
    for toleration in [json!({"operator": "Exists"}), json!({"key": "gone", "value": "x", "effect": "NoExecute"})] {
        assert_eq!(judge(json!({"tolerations": [toleration]}), json!({})), "ok");
    }
    assert_eq!(judge(json!({"tolerations": [{"key": "gone", "value": "y"}]}), json!({})), "TaintToleration");
}

#[test]
fn sysctls_need_permission() {
    let with = |name: &str, host: bool| json!({"hostNetwork": host, "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
    assert_eq!(verdict(with("kernel.shm_rmid_forced", false), &[]), "ok");
    assert_eq!(verdict(with("kernel/shm_rmid_forced", false), &[]), "ok");
    assert_eq!(verdict(with("kernel.msgmax", false), &[]), "ok");
    assert_eq!(verdict(with("kernel.sem", false), &[]), "SysctlForbidden");
    assert_eq!(verdict(with("net.ipv4.tcp_syncookies", true), &[]), "SysctlForbidden");
}

#[test]
fn a_node_that_runs_short_takes_only_what_it_must() {
    let judge = |pressure: Pressure, spec: Value| {
        let mut node = Node { pressure, ..node() };
        node.taints.clear();
        admit(&pod(spec), &[], &node).map_or_else(|f| f.reason, |()| "ok".into())
    };
    let memory = Pressure { memory: true, ..Pressure::default() };
    let disk = Pressure { disk: true, ..Pressure::default() };
    let burstable = || json!({"containers": [{"resources": {"requests": {"memory": "1Mi"}}}]});
    assert_eq!(judge(memory, json!({})), "Evicted");
    assert_eq!(judge(memory, burstable()), "ok");
    assert_eq!(judge(memory, json!({"tolerations": [{"operator": "Exists"}]})), "ok");
    assert_eq!(judge(disk, burstable()), "Evicted");
    assert_eq!(judge(disk, json!({"priority": 2_000_000_000})), "ok");
}

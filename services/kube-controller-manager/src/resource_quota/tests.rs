use std::sync::Arc;

use serde_json::{Value, json};

use super::plan::{is_in_scopes, kinds, status};
use super::usage;

fn text(usage: &usage::Usage) -> String {
    usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn objects_use_what_they_ask_for() {
    let container =
        |cpu: &str| json!({"resources": {"requests": {"cpu": cpu, "example.com/x": "2"}, "limits": {"cpu": "1"}}});
    let mut sidecar = container("100m");
    sidecar["restartPolicy"] = "Always".into();
    let pod = json!({"spec": {"containers": [container("200m"), container("300m")],
        "initContainers": [sidecar, container("800m")]}});
    let mut finished = pod.clone();
    finished["status"]["phase"] = "Succeeded".into();
    let service = |spec: Value| json!({"spec": spec});
    let ports = json!([{"port": 1}, {"port": 2, "nodePort": 30000}]);
    let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
    let cases = [
        ("pods", pod, "cpu=900m limits.cpu=3 pods=1 requests.cpu=900m requests.example.com/x=6"),
        ("pods", finished, ""),
        (
            "pods",
            json!({"spec": {"resources": {"requests": {"memory": "1Gi"}}, "containers": []}}),
            "memory=1Gi pods=1 requests.memory=1Gi",
        ),
        ("services", service(json!({"type": "ClusterIP", "ports": ports})), "services=1 services.nodeports=0"),
        ("services", service(json!({"type": "NodePort", "ports": ports})), "services=1 services.nodeports=2"),
        (
            "services",
            service(json!({"type": "LoadBalancer", "ports": ports})),
            "services=1 services.loadbalancers=1 services.nodeports=2",
        ),
        (
            "services",
            service(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports})),
            "services=1 services.loadbalancers=1 services.nodeports=1",
        ),
        (
            "persistentvolumeclaims",
            claim,
            "fast.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
             fast.storageclass.storage.k8s.io/requests.storage=1Gi persistentvolumeclaims=1 requests.storage=1Gi",
        ),
        ("secrets", json!({}), "secrets=1"),
    ];
    for (plural, object, expected) in cases {
        assert_eq!(text(&usage::of("", plural, &object)), expected, "{plural} {object}");
    }
}

#[test]
fn claims_use_devices_of_their_classes() {
    let claim = json!({"spec": {"devices": {"requests": [
        {"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
        {"name": "b", "exactly": {"deviceClassName": "nic", "allocationMode": "All"}},
        {"name": "c", "firstAvailable": [
            {"name": "x", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 4},
            {"name": "y", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1},
            {"name": "z", "deviceClassName": "fpga", "allocationMode": "ExactCount", "count": 1}]}]}}});
    let expected = "fpga.deviceclass.resource.k8s.io/devices=1 gpu.deviceclass.resource.k8s.io/devices=6 \
                    nic.deviceclass.resource.k8s.io/devices=32";
    assert_eq!(text(&usage::of("resource.k8s.io", "resourceclaims", &claim)), expected);
    let quota = json!({"spec": {"hard": {"gpu.deviceclass.resource.k8s.io/devices": "5"}}});
    let found: Vec<String> = kinds(&quota).iter().map(|(group, plural)| format!("{group}/{plural}")).collect();
    assert_eq!(found, ["resource.k8s.io/resourceclaims"]);
}

#[test]
fn scopes_choose_pods() {
    let ending = json!({"spec": {"activeDeadlineSeconds": 5, "containers": []}});
    let busy =
        json!({"spec": {"priorityClassName": "high", "containers": [{"resources": {"requests": {"cpu": "1"}}}]}});
    let select = |operator: &str, values: Value| {
        json!({"spec": {"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": values}]}}})
    };
    let scope = |name: &str| json!({"spec": {"scopes": [name]}});
    let cases = [
        (scope("Terminating"), true, false),
        (scope("NotTerminating"), false, true),
        (scope("BestEffort"), true, false),
        (scope("NotBestEffort"), false, true),
        (select("In", json!(["high"])), false, true),
        (select("NotIn", json!(["high"])), true, false),
        (select("Exists", json!([])), false, true),
        (json!({}), true, true),
    ];
    for (quota, first, second) in cases {
        assert_eq!((is_in_scopes(&quota, &ending), is_in_scopes(&quota, &busy)), (first, second), "{quota}");
    }
}

#[test]
fn status_follows_the_objects_and_undoes_what_users_write() {
    let mut quota =
        json!({"spec": {"hard": {"pods": "5", "count/deployments.apps": "1", "services": "2", "configmaps": "3"}}});
    let found: Vec<String> = kinds(&quota).iter().map(|(group, plural)| format!("{group}/{plural}")).collect();
    assert_eq!(found, ["/configmaps", "/pods", "/services", "apps/deployments"]);
    let of = |group: &str, plural: &str, count: usize| {
        (
            (group.to_owned(), plural.to_owned()),
            std::iter::repeat_with(|| Arc::new(json!({}))).take(count).collect::<Vec<_>>(),
        )
    };
    let objects = [of("", "pods", 2), of("apps", "deployments", 1), of("", "configmaps", 1)];
    let first = status(&quota, objects.clone()).unwrap();
    assert_eq!(first["used"], json!({"pods": "2", "count/deployments.apps": "1", "services": "0", "configmaps": "1"}));
    quota["status"] = first;
    assert!(status(&quota, objects.clone()).is_none(), "settled");
    quota["status"]["used"]["pods"] = "4".into();
    assert_eq!(status(&quota, objects.clone()).unwrap()["used"]["pods"], "2");
    quota["status"]["used"]["pods"] = "2000m".into();
    assert!(status(&quota, objects.clone()).is_none(), "the same amount");
}

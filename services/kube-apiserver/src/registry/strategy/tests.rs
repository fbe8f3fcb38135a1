use serde_json::{Value, json};

use super::kind::Kind;
use super::{batch, config, endpoints, event, namespace, node, pod, rbac, service, workload};
use crate::registry::Strategy;

/// An object as the pipeline would store it, without a server.
fn made(kind: &Kind, mut object: Value) -> Value {
    (kind.defaults)(&mut object);
    object
}

fn wrong(kind: &Kind, object: &Value) -> Vec<String> {
    kind.validate(object).iter().map(ToString::to_string).collect()
}

fn changed(kind: &Kind, old: &Value, change: impl Fn(&mut Value)) -> Vec<String> {
    let mut new = old.clone();
    change(&mut new);
    kind.validate_update(None, &new, old).iter().map(ToString::to_string).collect()
}

fn web() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[test]
fn deployment_defaults() {
    let d = made(&workload::DEPLOYMENT, web());
    assert_eq!(wrong(&workload::DEPLOYMENT, &d), [""; 0]);
    let spec = &d["spec"];
    assert_eq!(
        (&spec["replicas"], &spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]),
        (&json!(1), &json!(10), &json!(600))
    );
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(spec["template"]["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(made(&workload::DEPLOYMENT, d.clone()), d);
    let mut zero = web();
    zero["spec"]["replicas"] = json!(0);
    assert_eq!(made(&workload::DEPLOYMENT, zero)["spec"]["replicas"], 0, "zero is a choice");
}

#[test]
fn deployment_rules() {
    type Change = fn(&mut Value);
    let table: [(Change, &str); 7] = [
        (
            |d| d["spec"]["selector"] = json!({"matchLabels": {"app": "x"}}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ),
        (|d| d["spec"]["selector"] = Value::Null, "spec.selector: Required value"),
        (|d| d["spec"]["replicas"] = json!(-1), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            |d| d["spec"]["strategy"] = json!({"type": "x"}),
            "spec.strategy: Unsupported value: {\"type\":\"x\"}: supported values: \"Recreate\", \"RollingUpdate\"",
        ),
        (
            |d| d["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": 0, "maxUnavailable": "0%"}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
        ),
        (
            |d| d["spec"]["template"]["spec"]["restartPolicy"] = json!("Never"),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (|d| d["spec"]["template"]["spec"]["containers"] = json!([]), "spec.template.spec.containers: Required value"),
    ];
    for (change, want) in table {
        let mut d = made(&workload::DEPLOYMENT, web());
        change(&mut d);
        assert_eq!(wrong(&workload::DEPLOYMENT, &d), [want]);
    }
    let d = made(&workload::DEPLOYMENT, web());
    let errors = changed(&workload::DEPLOYMENT, &d, |d| {
        d["spec"]["selector"]["matchLabels"]["b"] = json!("c");
        d["spec"]["template"]["metadata"]["labels"]["b"] = json!("c");
    });
    assert_eq!(errors.len(), 1);
    assert!(errors[0].ends_with("field is immutable"), "{errors:?}");
}

fn a_pod() -> Value {
    made(
        &pod::POD,
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i:1"}], "tolerations": [{"key": "a", "operator": "Exists"}]}}),
    )
}

#[test]
fn pod_rules() {
    assert_eq!(wrong(&pod::POD, &a_pod()), [""; 0]);
    type Change = fn(&mut Value);
    let table: [(Change, &str); 11] = [
        (
            |p| p["metadata"]["name"] = json!("A_b"),
            "metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain",
        ),
        (|p| p["spec"]["containers"][0]["name"] = json!(""), "spec.containers[0].name: Required value"),
        (|p| p["spec"]["containers"][0]["image"] = json!(""), "spec.containers[0].image: Required value"),
        (
            |p| p["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/x"}]),
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
        (
            |p| p["spec"]["containers"][0]["ports"] = json!([{"containerPort": 70000, "protocol": "TCP"}]),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            |p| p["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            |p| p["spec"]["initContainers"] = json!([p["spec"]["containers"][0]]),
            "spec.initContainers[0].name: Duplicate value: \"c\"",
        ),
        (
            |p| p["spec"]["restartPolicy"] = json!("Maybe"),
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            |p| p["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            |p| p["spec"]["containers"][0]["livenessProbe"] = json!({"periodSeconds": 1}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            |p| p["spec"]["securityContext"]["sysctls"] = json!([{"name": "foo-", "value": "1"}]),
            "spec.securityContext.sysctls[0].name: Invalid value: \"foo-\"",
        ),
    ];
    for (change, want) in table {
        let mut p = a_pod();
        change(&mut p);
        let errors = wrong(&pod::POD, &p);
        assert!(errors.len() == 1 && errors[0].starts_with(want), "{errors:?} instead of {want}");
    }
}

#[test]
fn pods_hardly_change() {
    let p = a_pod();
    type Change = fn(&mut Value);
    let table: [(Change, &str); 6] = [
        (|p| p["spec"]["containers"][0]["image"] = json!("j"), ""),
        (
            |p| {
                p["spec"]["tolerations"] =
                    json!([{"key": "a", "operator": "Exists", "effect": ""}, {"key": "b", "operator": "Exists"}])
            },
            "",
        ),
        (|p| p["metadata"]["labels"] = json!({"a": "b"}), ""),
        (|p| p["spec"]["tolerations"] = json!([]), "spec.tolerations: Forbidden"),
        (|p| p["spec"]["nodeName"] = json!("n"), "spec: Forbidden: pod updates may not change fields other than"),
        (
            |p| p["spec"]["containers"] = json!([]),
            "spec.containers: Forbidden: pod updates may not add or remove containers",
        ),
    ];
    for (change, want) in table {
        let errors = changed(&pod::POD, &p, change);
        let found = errors.iter().any(|e| e.starts_with(want));
        assert!(if want.is_empty() { errors.is_empty() } else { found }, "{errors:?} instead of {want:?}");
    }
}

#[test]
fn pods_known_to_a_kubelet_wait() {
    let pod = |node: &str, phase: &str| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 10}, "status": {"phase": phase}});
    for (object, requested, want) in [
        (pod("n", "Running"), None, Some(10)),
        (pod("n", "Running"), Some(3), Some(3)),
        (pod("n", "Running"), Some(0), None),
        (pod("n", "Running"), Some(-1), Some(1)),
        (pod("", "Pending"), None, None),
        (pod("n", "Succeeded"), None, None),
    ] {
        assert_eq!(pod::POD.graceful_deletion(&object, requested), want, "{object}");
    }
}

#[test]
fn services() {
    let svc = |spec: Value| made(&service::SERVICE, json!({"metadata": {"name": "s"}, "spec": spec}));
    let plain = svc(json!({"ports": [{"port": 80}]}));
    assert_eq!(
        plain["spec"],
        json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
    );
    assert_eq!(plain["status"], json!({"loadBalancer": {}}));
    let table = [
        (json!({}), "spec.ports: Required value"),
        (json!({"clusterIP": "None"}), ""),
        (json!({"ports": [{"port": 1}, {"port": 2, "name": "b"}]}), "spec.ports[0].name: Required value"),
        (
            json!({"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]}),
            "spec.ports[1].name: Duplicate value: \"a\"",
        ),
        (json!({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b", "protocol": "UDP"}]}), ""),
        (
            json!({"ports": [{"port": 1, "nodePort": 30000}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (json!({"type": "ExternalName"}), "spec.externalName: Required value"),
        (
            json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 1}]}),
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
        ),
        (
            json!({"clusterIP": "x", "ports": [{"port": 1}]}),
            "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address",
        ),
    ];
    for (spec, want) in table {
        let errors = wrong(&service::SERVICE, &svc(spec.clone()));
        assert!(
            if want.is_empty() { errors.is_empty() } else { errors.len() == 1 && errors[0].starts_with(want) },
            "{spec}: {errors:?}"
        );
    }
    let old = svc(json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]}));
    let errors = changed(&service::SERVICE, &old, |s| {
        s["spec"]["clusterIP"] = json!("10.96.0.6");
        s["spec"]["clusterIPs"] = json!(["10.96.0.6"]);
    });
    assert_eq!(errors, ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.6\"]: may not change once set"]);
}

#[test]
fn service_families() {
    let cases = [
        (json!({}), &["IPv4"][..], json!(["IPv4"]), "SingleStack", 0),
        (json!({"ipFamilyPolicy": "PreferDualStack"}), &["IPv4"][..], json!(["IPv4"]), "PreferDualStack", 0),
        (
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            &["IPv4", "IPv6"][..],
            json!(["IPv4", "IPv6"]),
            "PreferDualStack",
            0,
        ),
        (json!({"ipFamilyPolicy": "RequireDualStack"}), &["IPv4"][..], json!(["IPv4"]), "RequireDualStack", 1),
        (
            json!({"clusterIP": "None", "clusterIPs": ["None"]}),
            &["IPv4"][..],
            json!(["IPv4", "IPv6"]),
            "RequireDualStack",
            0,
        ),
        (
            json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}}),
            &["IPv4"][..],
            json!(["IPv4"]),
            "SingleStack",
            0,
        ),
        (
            json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}),
            &["IPv4", "IPv6"][..],
            json!(["IPv6"]),
            "SingleStack",
            0,
        ),
    ];
    for (spec, cluster, families, policy, errors) in cases {
        let mut svc = made(&service::SERVICE, json!({"metadata": {"name": "s"}, "spec": spec}));
        assert_eq!(service::families(&mut svc, cluster).len(), errors, "{spec}");
        assert_eq!((&svc["spec"]["ipFamilies"], &svc["spec"]["ipFamilyPolicy"]), (&families, &json!(policy)), "{spec}");
    }
}

#[test]
fn configuration() {
    let secret =
        made(&config::SECRET, json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}, "data": {"c": "ZA=="}}));
    assert_eq!(secret["data"], json!({"a": "Yg==", "c": "ZA=="}));
    assert_eq!((secret.get("stringData"), &secret["type"]), (None, &json!("Opaque")));
    let frozen = json!({"metadata": {"name": "c"}, "immutable": true, "data": {"a": "b"}});
    assert_eq!(
        changed(&config::CONFIG_MAP, &frozen, |c| c["data"]["a"] = json!("c")),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    assert_eq!(changed(&config::CONFIG_MAP, &frozen, |c| c["metadata"]["labels"] = json!({"a": "b"})), [""; 0]);
    let tls =
        made(&config::SECRET, json!({"metadata": {"name": "t"}, "type": "kubernetes.io/tls", "data": {"tls.crt": ""}}));
    assert_eq!(wrong(&config::SECRET, &tls), ["data[tls.key]: Required value"]);
}

#[test]
fn other_kinds() {
    let ns = made(&namespace::NAMESPACE, json!({"metadata": {"name": "a"}}));
    assert_eq!(ns["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "a"}));
    let n = made(
        &node::NODE,
        json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.244.0.0/24"}, "status": {"capacity": {"cpu": "1"}}}),
    );
    assert_eq!((&n["spec"]["podCIDRs"], &n["status"]["allocatable"]["cpu"]), (&json!(["10.244.0.0/24"]), &json!("1")));
    assert_eq!(changed(&node::NODE, &n, |n| n["spec"]["podCIDRs"] = json!(["10.244.1.0/24"])).len(), 1);
    let slice = made(
        &endpoints::ENDPOINT_SLICE,
        json!({"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": [{"addresses": ["fd00::1"]}], "ports": [{"port": 80}]}),
    );
    assert_eq!(
        wrong(&endpoints::ENDPOINT_SLICE, &slice),
        ["endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be an IPv4 address"]
    );
    assert_eq!(slice["ports"], json!([{"name": "", "port": 80, "protocol": "TCP"}]));
    let binding = made(
        &rbac::ROLE_BINDING,
        json!({"metadata": {"name": "system:x"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]}),
    );
    assert_eq!(wrong(&rbac::ROLE_BINDING, &binding), [""; 0]);
    assert!(
        changed(&rbac::ROLE_BINDING, &binding, |b| b["roleRef"]["name"] = json!("q"))[0]
            .ends_with("cannot change roleRef")
    );
    let job = made(
        &batch::JOB,
        json!({"metadata": {"name": "j"}, "spec": {"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}),
    );
    assert_eq!(wrong(&batch::JOB, &job), [""; 0]);
    assert_eq!((&job["spec"]["backoffLimit"], &job["spec"]["completions"]), (&json!(6), &json!(1)));
}

#[test]
fn events_are_one_thing_in_two_shapes() {
    let core = made(
        &event::EVENT,
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "n"},
        "involvedObject": {"kind": "Pod", "namespace": "n", "name": "p"}, "reason": "R", "message": "m", "type": "Normal", "count": 2,
        "source": {"component": "c"}}),
    );
    let mut v1 = core.clone();
    event::EVENT_V1.served_form(&mut v1);
    assert_eq!(
        (&v1["apiVersion"], &v1["regarding"]["name"], &v1["note"], &v1["deprecatedCount"]),
        (&json!("events.k8s.io/v1"), &json!("p"), &json!("m"), &json!(2))
    );
    assert_eq!(wrong(&event::EVENT, &core), [""; 0]);
    let unset = |field: &str| format!("{field}: Invalid value: \"\": needs to be unset");
    let new = ["eventTime: Required value".to_owned(), unset("count"), unset("source")];
    assert_eq!(wrong(&event::EVENT_V1, &v1), new, "what only the old shape may have");
    assert_eq!(event::EVENT_V1.stored_form(&v1), Some(core.clone()));
    assert!(event::EVENT_V1.selectable_fields(&v1).contains(&("regarding.name", "p".to_owned())));
    assert!(event::EVENT.selectable_fields(&core).contains(&("involvedObject.name", "p".to_owned())));
}

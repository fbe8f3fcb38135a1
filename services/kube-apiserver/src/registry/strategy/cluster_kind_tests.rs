//! Kinds that are not about pods; see [`super::kind_tests`].

use serde_json::{Value, json};

use super::kind_tests::{changes, check, made, with};
use super::{autoscaling, certificate, csi, device, extension, flow, network, plain, quota, volume};
use crate::registry::Strategy;

#[test]
fn volumes() {
    let pv = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}});
    check(
        &volume::PERSISTENT_VOLUME,
        pv.clone(),
        vec![
            ("/spec/capacity", Value::Null, "spec.capacity: Required value"),
            (
                "/spec/capacity",
                json!({"cpu": "1"}),
                "spec.capacity: Unsupported value: {\"cpu\":\"1\"}: supported values: \"storage\"",
            ),
            (
                "/spec/capacity/storage",
                json!("0"),
                "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
            ),
            (
                "/spec/accessModes",
                json!(["ReadWriteOncePod", "ReadWriteMany"]),
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            ),
            ("/spec/hostPath", Value::Null, "spec: Required value: must specify a volume type"),
            (
                "/spec/nfs",
                json!({"server": "s", "path": "/p"}),
                "spec.nfs: Forbidden: may not specify more than 1 volume type",
            ),
        ],
    );
    changes(
        &volume::PERSISTENT_VOLUME,
        pv,
        None,
        vec![
            (
                "/spec/hostPath/path",
                json!("/y"),
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
            ),
            ("/spec/persistentVolumeReclaimPolicy", json!("Delete"), ""),
        ],
    );
}

#[test]
fn claims() {
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
    check(
        &volume::PERSISTENT_VOLUME_CLAIM,
        claim.clone(),
        vec![
            ("/spec/resources", json!({}), "spec.resources[storage]: Required value"),
            (
                "/spec/accessModes",
                json!(["RW"]),
                "spec.accessModes: Unsupported value: \"RW\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            ),
        ],
    );
    let frozen = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    changes(
        &volume::PERSISTENT_VOLUME_CLAIM,
        claim,
        None,
        vec![
            ("/spec/resources/requests/storage", json!("2Gi"), ""),
            (
                "/spec/resources/requests/storage",
                json!("500Mi"),
                "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity",
            ),
            ("/spec/accessModes", json!(["ReadWriteMany"]), frozen),
            ("/spec/volumeName", json!("v"), ""),
        ],
    );
}

#[test]
fn storage_classes_and_drivers() {
    let class = json!({"metadata": {"name": "c"}, "provisioner": "example.com/p"});
    changes(
        &volume::STORAGE_CLASS,
        class,
        None,
        vec![
            ("/provisioner", json!("x"), "provisioner: Forbidden: updates to provisioner are forbidden."),
            (
                "/volumeBindingMode",
                json!("WaitForFirstConsumer"),
                "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
            ),
        ],
    );
    let attachment = json!({"metadata": {"name": "a"}, "spec": {"attacher": "d.example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
    check(
        &csi::VOLUME_ATTACHMENT,
        attachment,
        vec![(
            "/spec/source",
            json!({}),
            "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        )],
    );
    let driver = made(&csi::CSI_DRIVER, json!({"metadata": {"name": "d.example.com"}, "spec": {}}));
    assert_eq!(driver["spec"]["fsGroupPolicy"], "ReadWriteOnceWithFSType");
    assert_eq!(driver["spec"]["volumeLifecycleModes"], json!(["Persistent"]));
}

#[test]
fn ingresses() {
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"rules": [{"host": "a.example.com", "http": {"paths": [
        {"path": "/x", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}});
    let (path, backend) = ("/spec/rules/0/http/paths/0/path", "/spec/rules/0/http/paths/0/backend");
    check(
        &network::INGRESS,
        ingress.clone(),
        vec![
            ("/spec/rules", json!([]), "spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"),
            (
                "/spec/rules/0/host",
                json!("10.0.0.1"),
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            ),
            (path, json!("x"), "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path"),
            (path, json!("/a//b"), "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'"),
            (
                "/spec/rules/0/http/paths/0/pathType",
                Value::Null,
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
            ),
            (
                backend,
                json!({}),
                "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
            ),
            (
                backend,
                json!({"service": {"name": "s"}}),
                "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
            ),
        ],
    );
    let mut both = ingress;
    both["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "x"});
    both["spec"]["ingressClassName"] = json!("y");
    assert_eq!(network::INGRESS.validate(&made(&network::INGRESS, both.clone())).len(), 1, "on creation");
    assert_eq!(network::INGRESS.validate_update(None, &both, &both), [], "not later");
}

#[test]
fn policies_and_ranges() {
    let policy = json!({"metadata": {"name": "p"}, "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 80}], "from": [{"podSelector": {}}]}]}});
    let (port, peer) = ("/spec/ingress/0/ports/0/endPort", "/spec/ingress/0/from/0");
    check(
        &network::NETWORK_POLICY,
        policy,
        vec![
            (
                port,
                json!(79),
                "spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`",
            ),
            (peer, json!({}), "spec.ingress[0].from[0]: Required value: must specify a peer"),
            (
                peer,
                json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}),
                "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
            ),
            (
                peer,
                json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}}),
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/9\": must be a strict subset of `cidr`",
            ),
            (
                peer,
                json!({"ipBlock": {"cidr": "x"}}),
                "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ),
        ],
    );
    let cidr = json!({"metadata": {"name": "c"}, "spec": {"cidrs": ["10.0.0.0/24"]}});
    check(
        &network::SERVICE_CIDR,
        cidr,
        vec![
            ("/spec/cidrs", json!([]), "spec.cidrs: Required value: at least one CIDR required"),
            (
                "/spec/cidrs",
                json!(["10.0.0.1/24"]),
                "spec.cidrs[0]: Invalid value: \"10.0.0.1/24\": must be in canonical form (\"10.0.0.0/24\")",
            ),
        ],
    );
}

#[test]
fn autoscalers_convert_without_loss() {
    let v2 = made(
        &autoscaling::AUTOSCALER_V2,
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": {"maxReplicas": 5, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
            "metrics": [{"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}}),
    );
    let mut v1 = v2.clone();
    autoscaling::AUTOSCALER_V1.served_form(&mut v1);
    assert_eq!(
        (&v1["apiVersion"], &v1["spec"]["targetCPUUtilizationPercentage"]),
        (&json!("autoscaling/v1"), &json!(50))
    );
    assert!(v1["spec"].get("metrics").is_none() && v1["spec"].get("behavior").is_none());
    let mut back = autoscaling::AUTOSCALER_V1.stored_form(&v1).expect("another form");
    let metrics = back["spec"]["metrics"].as_array_mut().expect("metrics");
    metrics.reverse();
    assert_eq!((&back["spec"], &back["metadata"]), (&v2["spec"], &v2["metadata"]));
    let plain = autoscaling::AUTOSCALER_V1.stored_form(&json!({"spec": {"maxReplicas": 3}})).expect("another form");
    assert_eq!(plain["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    check(
        &autoscaling::AUTOSCALER_V2,
        v2,
        vec![
            ("/spec/minReplicas", json!(0), "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"),
            (
                "/spec/minReplicas",
                json!(9),
                "spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`",
            ),
            ("/spec/scaleTargetRef/kind", json!(""), "spec.scaleTargetRef.kind: Required value"),
            (
                "/spec/metrics/0",
                json!({"type": "Pods"}),
                "spec.metrics[0].pods: Required value: must populate information for the given metric source",
            ),
            (
                "/spec/behavior/scaleDown/stabilizationWindowSeconds",
                json!(3601),
                "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
            ),
        ],
    );
}

#[test]
fn limits_and_quotas() {
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}}]}});
    let made_range = made(&quota::LIMIT_RANGE, range.clone());
    assert_eq!(made_range["spec"]["limits"][0]["default"], json!({"cpu": "1"}));
    assert_eq!(made_range["spec"]["limits"][0]["defaultRequest"], json!({"cpu": "1"}));
    check(
        &quota::LIMIT_RANGE,
        range,
        vec![(
            "/spec/limits/0/min/cpu",
            json!("2"),
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
        )],
    );
    let q = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "5", "count/deployments.apps": "2", "requests.nvidia.com/gpu": "1"}}});
    check(
        &quota::RESOURCE_QUOTA,
        q,
        vec![
            ("/spec/hard/pods", json!("500m"), "spec.hard[pods]: Invalid value: \"500m\": must be an integer"),
            (
                "/spec/hard",
                json!({"dogs": "1"}),
                "spec.hard[dogs]: Invalid value: \"dogs\": must be a standard resource for quota",
            ),
            (
                "/spec/scopes",
                json!(["Terminating", "NotTerminating"]),
                "spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes",
            ),
            (
                "/spec",
                json!({"hard": {"requests.cpu": "1"}, "scopes": ["BestEffort"]}),
                "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource",
            ),
        ],
    );
}

#[test]
fn certificates() {
    let request = json!({"metadata": {"name": "c"}, "spec": {"request": "bm90IGEgcGVt", "signerName": "example.com/s", "usages": ["client auth"]}});
    let said = certificate::CERTIFICATE_SIGNING_REQUEST.validate(&request);
    assert_eq!(
        said.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["spec.request: Invalid value: \"bm90IGEgcGVt\": PEM block type must be CERTIFICATE REQUEST"]
    );
    let decided = with(
        &request,
        "/status",
        json!({"conditions": [{"type": "Approved", "status": "True"}], "certificate": "eA=="}),
    );
    changes(
        &certificate::CERTIFICATE_SIGNING_REQUEST,
        decided,
        Some("status"),
        vec![
            (
                "/status/certificate",
                json!("eQ=="),
                "status.certificate: Forbidden: updates may not change or clear an existing status.certificate",
            ),
            (
                "/status/conditions",
                json!([]),
                "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"",
            ),
            (
                "/status/conditions",
                json!([{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]),
                "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
            ),
        ],
    );
}

#[test]
fn webhooks() {
    let hook = json!({"metadata": {"name": "w"}, "webhooks": [{"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "s", "namespace": "n"}}, "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}]});
    let w = made(&extension::MUTATING_WEBHOOKS, hook.clone());
    assert_eq!(
        (
            &w["webhooks"][0]["timeoutSeconds"],
            &w["webhooks"][0]["reinvocationPolicy"],
            &w["webhooks"][0]["clientConfig"]["service"]["port"]
        ),
        (&json!(10), &json!("Never"), &json!(443))
    );
    check(
        &extension::VALIDATING_WEBHOOKS,
        hook,
        vec![
            (
                "/webhooks/0/name",
                json!("a.b"),
                "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
            ),
            (
                "/webhooks/0/sideEffects",
                Value::Null,
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            ),
            (
                "/webhooks/0/timeoutSeconds",
                json!(31),
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ),
            (
                "/webhooks/0/rules/0/operations",
                json!(["*", "CREATE"]),
                "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
            ),
            (
                "/webhooks/0/clientConfig",
                json!({"url": "http://x"}),
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ),
        ],
    );
}

#[test]
fn definitions_and_api_services() {
    let definition = json!({"metadata": {"name": "dogs.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "dogs", "kind": "Dog"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let d = made(&extension::CUSTOM_RESOURCE_DEFINITION, definition.clone());
    assert_eq!(
        (&d["spec"]["names"]["singular"], &d["spec"]["names"]["listKind"], &d["status"]["storedVersions"]),
        (&json!("dog"), &json!("DogList"), &json!(["v1"]))
    );
    check(
        &extension::CUSTOM_RESOURCE_DEFINITION,
        definition,
        vec![
            (
                "/metadata/name",
                json!("cats.example.com"),
                "metadata.name: Invalid value: \"cats.example.com\": must be spec.names.plural+\".\"+spec.group",
            ),
            (
                "/spec/versions/0/schema",
                Value::Null,
                "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
            ),
        ],
    );
    let service = json!({"metadata": {"name": "v1.x.io"}, "spec": {"group": "x.io", "version": "v1", "groupPriorityMinimum": 10, "versionPriority": 10}});
    check(
        &extension::API_SERVICE,
        service,
        vec![
            (
                "/metadata/name",
                json!("v2.x.io"),
                "metadata.name: Invalid value: \"v2.x.io\": must be `spec.version+\".\"+spec.group`: \"v1.x.io\"",
            ),
            (
                "/spec/versionPriority",
                json!(0),
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
            ),
        ],
    );
}

#[test]
fn fairness_and_devices() {
    let schema = json!({"metadata": {"name": "f"}, "spec": {"priorityLevelConfiguration": {"name": "p"}}});
    check(
        &flow::FLOW_SCHEMA,
        schema,
        vec![
            (
                "/spec/matchingPrecedence",
                json!(1),
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
            ),
            (
                "/spec/rules",
                json!([{"subjects": []}]),
                "spec.rules[0].subjects: Required value: subjects must contain at least one value",
            ),
        ],
    );
    let level = json!({"metadata": {"name": "p"}, "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}});
    check(
        &flow::PRIORITY_LEVEL,
        level,
        vec![
            (
                "/spec/limited/limitResponse/queuing/handSize",
                json!(65),
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 65: should not be greater than queues (64)",
            ),
            ("/spec/limited", Value::Null, "spec.limited: Required value: must not be empty when type is Limited"),
        ],
    );
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}});
    assert_eq!(made(&device::RESOURCE_CLAIM, claim.clone())["spec"]["devices"]["requests"][0]["exactly"]["count"], 1);
    check(
        &device::RESOURCE_CLAIM,
        claim,
        vec![(
            "/spec/devices/requests/0/exactly",
            Value::Null,
            "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
        )],
    );
}

#[test]
fn priorities_and_budgets() {
    let class = json!({"metadata": {"name": "high"}, "value": 5});
    check(
        &plain::PRIORITY_CLASS,
        class,
        vec![
            (
                "/value",
                json!(1_000_000_001),
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
            ),
            (
                "/metadata/name",
                json!("system-x"),
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-x is not a known system priority class",
            ),
        ],
    );
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": "50%"}});
    check(
        &plain::POD_DISRUPTION_BUDGET,
        budget,
        vec![
            (
                "/spec/minAvailable",
                json!("120%"),
                "spec.minAvailable: Invalid value: \"120%\": must not be greater than 100%",
            ),
            (
                "/spec/maxUnavailable",
                json!(1),
                "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":\"50%\"}: minAvailable and maxUnavailable cannot be both set",
            ),
        ],
    );
}

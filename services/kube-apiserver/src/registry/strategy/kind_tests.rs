//! One table per kind: a valid object, changes that break one rule each, and what the client reads.

use serde_json::{Value, json};

use super::kind::Kind;
use super::{batch, pod, service, workload};
use crate::registry::Strategy;

pub fn made(kind: &Kind, mut object: Value) -> Value {
    (kind.defaults)(&mut object);
    object
}

/// Sets the value at a pointer whose parent exists, null for taking it away.
pub fn with(object: &Value, pointer: &str, value: Value) -> Value {
    let mut object = object.clone();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = object.pointer_mut(parent).expect("a parent");
    match key.parse::<usize>() {
        Ok(i) => parent[i] = value,
        Err(_) => parent[key] = value,
    }
    object
}

pub fn check(kind: &Kind, object: Value, table: Vec<(&str, Value, &str)>) {
    let valid = made(kind, object);
    let errors = |o: &Value| -> Vec<String> { kind.validate(o).iter().map(ToString::to_string).collect() };
    assert_eq!(errors(&valid), [""; 0], "{valid}");
    assert_eq!(made(kind, valid.clone()), valid, "defaulting twice changes nothing");
    all(table, |pointer, value| errors(&with(&valid, pointer, value)));
}

pub fn changes(kind: &Kind, old: Value, sub: Option<&str>, table: Vec<(&str, Value, &str)>) {
    let old = made(kind, old);
    all(table, |pointer, value| {
        let new = with(&old, pointer, value);
        kind.validate_update(sub, &new, &old).iter().map(ToString::to_string).collect()
    });
}

/// Every row has the wanted error among its own, or none where none is wanted.
fn all(table: Vec<(&str, Value, &str)>, errors: impl Fn(&str, Value) -> Vec<String>) {
    let differs = |(pointer, value, want): (&str, Value, &str)| {
        let found = errors(pointer, value.clone());
        let fits = if want.is_empty() { found.is_empty() } else { found.iter().any(|e| e == want) };
        (!fits).then(|| format!("{pointer} = {value}:\n  found {found:#?}\n  want  {want:?}\n"))
    };
    let wrong: String = table.into_iter().filter_map(differs).collect();
    assert!(wrong.is_empty(), "{wrong}");
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

/// A pod with something of everything.
fn full_pod() -> Value {
    json!({"metadata": {"name": "p"}, "spec": {
        "volumes": [{"name": "e", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/x"}}],
        "containers": [{"name": "c", "image": "i", "env": [{"name": "E", "value": "v"}], "securityContext": {}, "ports": [{"containerPort": 80}],
            "volumeMounts": [{"name": "e", "mountPath": "/e"}], "readinessProbe": {"httpGet": {"port": 80}}, "lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}],
        "affinity": {"nodeAffinity": {}}, "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}})
}

#[test]
fn what_pods_and_containers_use() {
    check(
        &pod::POD,
        full_pod(),
        vec![
            (
                "/spec/containers/0/resources",
                json!({"limits": {"hugepages-2Mi": "2Mi"}}),
                "spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
            ),
            (
                "/spec/containers/0/volumeDevices",
                json!([{"name": "x", "devicePath": "/e"}]),
                "spec.containers[0].volumeMounts[0].mountPath: Invalid value: \"/e\": must not already exist as a path in volumeDevices",
            ),
            (
                "/spec",
                json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}], "resources": {"requests": {"cpu": "1"}}}),
                "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 2",
            ),
            (
                "/spec/resources",
                json!({"limits": {"ephemeral-storage": "1"}}),
                "spec.resources.limits[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
            ),
        ],
    );
}

#[test]
fn pods() {
    let (env, mount) = ("/spec/containers/0/env/0", "/spec/containers/0/volumeMounts/0");
    let (probe, port) =
        ("/spec/containers/0/readinessProbe/terminationGracePeriodSeconds", "/spec/containers/0/ports/0/hostPort");
    let (context, limits) = ("/spec/containers/0/securityContext", "/spec/containers/0/resources");
    let sleep = "/spec/containers/0/lifecycle/preStop/sleep/seconds";
    check(
        &pod::POD,
        full_pod(),
        vec![
            (
                env,
                json!({"name": "a=b"}),
                "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            ),
            (
                env,
                json!({"name": "E", "value": "x", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}),
                "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            ),
            (
                env,
                json!({"name": "E", "valueFrom": {"resourceFieldRef": {"resource": "limits.disk", "divisor": "0"}}}),
                "spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: Unsupported value: \"limits.disk\": supported values: \"limits.cpu\", \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \"requests.memory\"",
            ),
            (
                mount,
                json!({"name": "e", "mountPath": "/e", "mountPropagation": "Bidirectional"}),
                "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
            ),
            (
                mount,
                json!({"name": "e", "mountPath": "/e", "subPath": "/abs"}),
                "spec.containers[0].volumeMounts.subPath: Invalid value: \"/abs\": must be a relative path",
            ),
            (
                probe,
                json!(5),
                "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
            ),
            (
                context,
                json!({"seccompProfile": {"type": "Localhost"}}),
                "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
            ),
            (
                context,
                json!({"privileged": true, "allowPrivilegeEscalation": false}),
                "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ),
            (
                limits,
                json!({"limits": {"disk": "1"}}),
                "spec.containers[0].resources.limits[disk]: Invalid value: \"disk\": must be a standard resource type or fully qualified",
            ),
            (
                port,
                json!(70_000),
                "spec.containers[0].ports[0].hostPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (
                sleep,
                json!(31),
                "spec.containers[0].lifecycle.preStop.sleep.seconds: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
            ),
        ],
    );
}

#[test]
fn pod_specs() {
    check(
        &pod::POD,
        full_pod(),
        vec![
            (
                "/spec/volumes/1/hostPath/path",
                json!("/x/../y"),
                "spec.volumes[1].hostPath.path: Invalid value: \"/x/../y\": must not contain '..'",
            ),
            ("/spec/volumes/1", json!({"name": "e", "emptyDir": {}}), "spec.volumes[1].name: Duplicate value: \"e\""),
            (
                "/spec/volumes/1",
                json!({"name": "x", "downwardAPI": {"items": [{"path": "a", "fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}]}}),
                "spec.volumes[1].downwardAPI.fieldRef.fieldPath: Unsupported value: \"spec.nodeName\": supported values: \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
            ),
            (
                "/spec/affinity/nodeAffinity",
                json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference": {}}]}),
                "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
            ),
            (
                "/spec/topologySpreadConstraints/0/minDomains",
                json!(0),
                "spec.topologySpreadConstraints[0].minDomains: Invalid value: 0: must be greater than zero",
            ),
            (
                "/spec/dnsConfig",
                json!({"nameservers": ["x"]}),
                "spec.dnsConfig.nameservers[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
        ],
    );
}

#[test]
fn pods_are_resized_within_limits() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}]}, "status": {"qosClass": "Burstable"}});
    let resources = "/spec/containers/0/resources";
    changes(
        &pod::POD,
        pod,
        Some("resize"),
        vec![
            (resources, json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}}), ""),
            (
                resources,
                json!({"requests": {"cpu": "1"}}),
                "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
            ),
            (
                resources,
                json!({"requests": {"cpu": "1", "ephemeral-storage": "1"}, "limits": {"cpu": "2"}}),
                "spec: Forbidden: only cpu and memory resources are mutable",
            ),
            (
                resources,
                json!({"requests": {"cpu": "2", "memory": "1"}, "limits": {"cpu": "2", "memory": "1"}}),
                "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
            ),
        ],
    );
}

#[test]
fn gated_pods_may_be_narrowed() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "g"}], "nodeSelector": {"a": "b"},
        "containers": [{"name": "c", "image": "i"}]}});
    changes(
        &pod::POD,
        pod,
        None,
        vec![
            ("/spec/nodeSelector", json!({"a": "b", "c": "d"}), ""),
            (
                "/spec/nodeSelector",
                json!({"c": "d"}),
                "spec.nodeSelector: Invalid value: {\"c\":\"d\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            ),
            ("/spec/schedulingGates", json!([]), ""),
        ],
    );
}

#[test]
fn services() {
    let svc = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    check(
        &service::SERVICE,
        svc,
        vec![
            (
                "/spec/externalIPs",
                json!(["127.0.0.1"]),
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ),
            (
                "/spec/loadBalancerClass",
                json!("a.b/c"),
                "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ),
            (
                "/spec/externalTrafficPolicy",
                json!("Local"),
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ),
            (
                "/spec/trafficDistribution",
                json!("Near"),
                "spec.trafficDistribution: Unsupported value: \"Near\": supported values: \"PreferClose\", \"PreferSameNode\", \"PreferSameZone\"",
            ),
        ],
    );
}

#[test]
fn workloads() {
    let daemon =
        json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template()}});
    let rolling = "/spec/updateStrategy/rollingUpdate";
    check(
        &workload::DAEMON_SET,
        daemon,
        vec![
            (
                rolling,
                json!({"maxUnavailable": 0, "maxSurge": 0}),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
            ),
            (
                rolling,
                json!({"maxUnavailable": 1, "maxSurge": "10%"}),
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: \"10%\": may not be set when maxUnavailable is non-zero",
            ),
        ],
    );
    let set = json!({"metadata": {"name": "s"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template(),
        "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}});
    check(
        &workload::STATEFUL_SET,
        set,
        vec![
            (
                "/spec/volumeClaimTemplates/0/spec/accessModes",
                json!([]),
                "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
            ),
            (
                "/spec/persistentVolumeClaimRetentionPolicy/whenScaled",
                json!("Keep"),
                "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Keep\": supported values: \"Retain\", \"Delete\"",
            ),
        ],
    );
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template()}, "status": {"replicas": 1}});
    changes(
        &workload::DEPLOYMENT,
        deployment,
        Some("status"),
        vec![(
            "/status/readyReplicas",
            json!(2),
            "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
        )],
    );
}

#[test]
fn jobs() {
    let mut pods = template();
    pods["spec"]["restartPolicy"] = json!("Never");
    let job = json!({"metadata": {"name": "j"}, "spec": {"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}, "template": pods}});
    check(
        &batch::JOB,
        job.clone(),
        vec![
            (
                "/spec/completionMode",
                json!("Some"),
                "spec.completionMode: Unsupported value: \"Some\": supported values: \"Indexed\", \"NonIndexed\"",
            ),
            (
                "/spec/backoffLimitPerIndex",
                json!(1),
                "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
            ),
            (
                "/spec/podFailurePolicy",
                json!({"rules": [{"action": "Skip", "onPodConditions": [{"type": "X", "status": "True"}]}]}),
                "spec.podFailurePolicy.rules[0].action: Unsupported value: \"Skip\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
            ),
            (
                "/spec/podFailurePolicy",
                json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [0]}}]}),
                "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
            ),
            (
                "/spec/template/metadata/labels/a",
                json!("c"),
                "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
            ),
        ],
    );
    let detail = "field is immutable";
    let suspended = with(&job, "/spec/suspend", json!(true));
    changes(
        &batch::JOB,
        suspended,
        None,
        vec![("/spec/template/spec/nodeSelector", json!({"x": "y"}), ""), ("/spec/parallelism", json!(3), "")],
    );
    changes(
        &batch::JOB,
        job,
        None,
        vec![("/spec/completions", json!(5), &format!("spec.completions: Invalid value: 5: {detail}"))],
    );
}

#[test]
fn cron_jobs() {
    let mut pods = template();
    pods["spec"]["restartPolicy"] = json!("Never");
    let cron = json!({"metadata": {"name": "c"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": pods}}}});
    check(
        &batch::CRON_JOB,
        cron,
        vec![
            (
                "/spec/schedule",
                json!("a b"),
                "spec.schedule: Invalid value: \"a b\": expected exactly 5 fields, found 2: [a b]",
            ),
            (
                "/spec/timeZone",
                json!("Mars/North"),
                "spec.timeZone: Invalid value: \"Mars/North\": unknown time zone Mars/North",
            ),
            (
                "/spec/concurrencyPolicy",
                json!("Any"),
                "spec.concurrencyPolicy: Unsupported value: \"Any\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ),
            (
                "/spec/jobTemplate/spec/template/spec/containers",
                json!([]),
                "spec.jobTemplate.spec.template.spec.containers: Required value",
            ),
        ],
    );
}

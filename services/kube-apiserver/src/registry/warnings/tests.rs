use super::super::lookup;
use super::*;
use serde_json::json;

fn said(group: &str, plural: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    of(lookup(group, "v1", plural).expect("a row"), None, object, old)
}

#[test]
fn every_row_is_a_resource() {
    assert!(TABLE.iter().all(|r| lookup(r.group, "v1", r.plural).is_some()));
    assert!(DEPRECATED.iter().all(|d| lookup(d.group, d.version, d.plural).is_some()));
    assert!(deprecation("", "v1", "endpoints").is_some() && deprecation("", "v1", "pods").is_none());
}

#[test]
fn pods_are_told_what_they_do_not_get() {
    let cases = [
        (
            json!({"containers": [{"name": "a", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}]}),
            vec![
                r#"spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply"#,
            ],
        ),
        (
            json!({"containers": [{"name": "a", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}]}]}),
            vec![],
        ),
        (
            json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
            vec![r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#],
        ),
        (
            json!({"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [{"key": "node-role.kubernetes.io/master"}]}]}}}}),
            vec![
                r#"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: node-role.kubernetes.io/master is use "node-role.kubernetes.io/control-plane" instead"#,
            ],
        ),
        (
            json!({"containers": [{"name": "a", "resources": {"requests": {"memory": "0.5", "cpu": "0.5"}}}]}),
            vec![
                r#"spec.containers[0].resources.requests[memory]: fractional byte value "500m" is invalid, must be an integer"#,
            ],
        ),
        (
            json!({"terminationGracePeriodSeconds": -1}),
            vec![
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ],
        ),
        (
            json!({"hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}], "imagePullSecrets": [{"name": "a"}, {"name": "a"}, {}]}),
            vec![
                r#"spec.hostAliases[1].ip: duplicate ip "1.1.1.1""#,
                r#"spec.imagePullSecrets[1].name: duplicate name "a""#,
                r#"spec.imagePullSecrets[2].name: invalid empty name """#,
            ],
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "UDP"}]},
                {"name": "b", "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP", "hostPort": 80}]}]}),
            vec![
                "spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.containers[1].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
                "spec.containers[1].ports[1]: overlapping port definition with spec.containers[1].ports[0]",
            ],
        ),
        (
            json!({"volumes": [{"name": "v", "gitRepo": {}}, {"name": "w", "storageos": {}}]}),
            vec![
                "spec.volumes[0].gitRepo: deprecated in v1.11",
                "spec.volumes[1].storageOS: deprecated in v1.22, non-functional in v1.25+",
            ],
        ),
    ];
    for (spec, want) in cases {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec});
        assert_eq!(said("", "pods", &pod, None), want);
        assert!(said("", "pods", &pod, Some(&pod)).is_empty(), "not when it changes");
    }
}

#[test]
fn terms_without_a_selector_match_nothing() {
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"affinity": {"podAffinity": {REQUIRED: [{"topologyKey": "a"}]}}}});
    let want = "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null labelSelector results in matching no pod";
    assert_eq!(said("", "pods", &pod, None), [want]);
}

#[test]
fn annotations_that_nobody_reads_are_named() {
    let annotated = json!({"metadata": {"name": "p", "annotations": {"scheduler.alpha.kubernetes.io/critical-pod": "",
        "container.seccomp.security.alpha.kubernetes.io/c": "x"}}, "spec": {"containers": [{"name": "c"}]}});
    assert_eq!(
        said("", "pods", &annotated, None),
        [
            r#"metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the "priorityClassName" field instead"#,
            r#"metadata.annotations[container.seccomp.security.alpha.kubernetes.io/c]: non-functional in v1.27+; use the \"seccompProfile\" field instead"#,
        ]
    );
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

#[test]
fn templates_are_looked_at_when_they_change() {
    let web = |generation: i64| json!({"metadata": {"name": "web", "generation": generation}, "spec": {"template": {"spec": {"terminationGracePeriodSeconds": -1}}}});
    let want = "spec.template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1";
    assert_eq!(said("apps", "deployments", &web(1), None), [want]);
    assert_eq!(said("apps", "deployments", &web(2), Some(&web(1))), [want]);
    assert!(said("apps", "deployments", &web(1), Some(&web(1))).is_empty());
    let name = json!({"metadata": {"name": "a.b"}, "spec": {}});
    let start = "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [";
    assert!(said("batch", "cronjobs", &name, None)[0].starts_with(start));
    let res = lookup("apps", "v1", "deployments").expect("a row");
    assert!(of(res, Some("status"), &web(1), None).is_empty(), "not by the status");
}

#[test]
fn others_have_theirs() {
    let cases = [
        (
            "networking.k8s.io",
            "ingresses",
            json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}}),
            vec![
                r#"annotation "kubernetes.io/ingress.class" is deprecated, please use 'spec.ingressClassName' instead"#,
            ],
        ),
        (
            "",
            "services",
            json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP", "externalName": "x"}}),
            vec![
                "spec.SessionAffinity is ignored for headless services",
                r#"spec.externalName is ignored when spec.type is not "ExternalName""#,
            ],
        ),
        (
            "",
            "services",
            json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "externalIPs": ["1.2.3.004", "::ffff:1.2.3.4", "2001:DB8::1", "2001:db8::1"]}}),
            vec![
                r#"spec.externalIPs[0]: non-standard IP address "1.2.3.004" will be considered invalid in a future Kubernetes release: use "1.2.3.4""#,
                r#"spec.externalIPs[1]: non-standard IP address "::ffff:1.2.3.4" will be considered invalid in a future Kubernetes release: use "1.2.3.4""#,
                r#"spec.externalIPs[2]: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")"#,
            ],
        ),
        (
            "",
            "persistentvolumeclaims",
            json!({"spec": {"resources": {"requests": {"storage": "1500m"}}}}),
            vec![r#"spec.resources.requests[storage]: fractional byte value "1500m" is invalid, must be an integer"#],
        ),
        (
            "",
            "endpoints",
            json!({"subsets": [{"addresses": [{"ip": "01.2.3.4"}]}]}),
            vec![
                r#"subsets[0].addresses[0].ip: non-standard IP address "01.2.3.4" will be considered invalid in a future Kubernetes release: use "1.2.3.4""#,
            ],
        ),
        (
            "",
            "endpoints",
            json!({"metadata": {"labels": {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}}, "subsets": [{"addresses": [{"ip": "01.2.3.4"}]}]}),
            vec![],
        ),
        ("", "configmaps", json!({}), vec![]),
    ];
    for (group, plural, object, want) in cases {
        assert_eq!(said(group, plural, &object, None), want, "{plural}");
    }
}

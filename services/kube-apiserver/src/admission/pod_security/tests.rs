use serde_json::{Value, json};

use super::policy::{Level, Policy, Version, evaluate, words};
use super::{Configuration, Policies, matters};

fn said(level: Level, version: Version, spec: Value) -> String {
    words(&evaluate(Policy { level, version }, &json!({}), &spec))
}

fn container(context: Value) -> Value {
    json!({"containers": [{"name": "a", "securityContext": context}]})
}

/// A pod the restricted level has nothing against.
fn tame() -> Value {
    json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]})
}

#[test]
fn baseline_closes_the_ways_to_the_host() {
    let table = [
        (json!({"hostNetwork": true, "hostPID": true}), "host namespaces (hostNetwork=true, hostPID=true)"),
        (
            container(json!({"privileged": true})),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            json!({"volumes": [{"name": "x", "hostPath": {"path": "/"}}, {"name": "y", "hostPath": {"path": "/"}}]}),
            "hostPath volumes (volumes \"x\", \"y\")",
        ),
        (
            container(json!({"capabilities": {"add": ["SYS_ADMIN", "CHOWN", "NET_ADMIN"]}})),
            "non-default capabilities (container \"a\" must not include \"NET_ADMIN\", \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}]}, {"name": "b", "ports": [{"hostPort": 81}]}]}),
            "hostPort (containers \"a\", \"b\" use hostPorts 80, 81)",
        ),
        (
            json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h"}}}]}),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")",
        ),
        (json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}), "forbidden sysctls (kernel.msgmax)"),
        (
            json!({"securityContext": {"seLinuxOptions": {"type": "spc_t", "role": "r"}}}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; role may not be set)",
        ),
        (
            container(json!({"seccompProfile": {"type": "Unconfined"}})),
            "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            container(json!({"procMount": "Unmasked"})),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (container(json!({})), ""),
        (tame(), ""),
    ];
    for (spec, want) in table {
        assert_eq!(said(Level::Baseline, Version::Latest, spec.clone()), want, "{spec}");
        assert_eq!(said(Level::Privileged, Version::Latest, spec), "");
    }
}

#[test]
fn restricted_says_what_is_missing() {
    assert_eq!(said(Level::Restricted, Version::Latest, tame()), "");
    assert_eq!(
        said(Level::Restricted, Version::Latest, container(json!({}))),
        "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    let mut volume = tame();
    volume["volumes"] = json!([{"name": "v", "hostPath": {"path": "/"}}]);
    // One finding, not the baseline's as well.
    let want = "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")";
    assert_eq!(said(Level::Restricted, Version::Latest, volume), want);
    let mut root = tame();
    root["containers"][0]["securityContext"]["runAsUser"] = json!(0);
    assert_eq!(
        said(Level::Restricted, Version::Latest, root),
        "runAsUser=0 (container \"a\" must not set runAsUser=0)"
    );
}

#[test]
fn rules_are_those_of_the_version() {
    let probe = json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h"}}}]});
    assert_eq!(said(Level::Baseline, Version::Minor(33), probe), "");
    let sysctl = |name: &str| json!({"securityContext": {"sysctls": [{"name": name}]}});
    for (version, fine) in [(26, false), (27, true)] {
        let said = said(Level::Baseline, Version::Minor(version), sysctl("net.ipv4.ip_local_reserved_ports"));
        assert_eq!(said.is_empty(), fine, "{version}");
    }
    // Before 1.22 nothing had to be dropped.
    let old = said(Level::Restricted, Version::Minor(18), container(json!({"runAsNonRoot": true})));
    assert_eq!(
        old,
        "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false)"
    );
    for (text, ok) in
        [("latest", true), ("v1.25", true), ("1.25", false), ("v1.025", false), ("v2.1", false), ("v1.", false)]
    {
        assert_eq!(Version::parse(text).is_ok(), ok, "{text}");
    }
}

#[test]
fn labels_are_read_or_refused() {
    let namespace = |labels: Value| json!({"metadata": {"labels": labels}});
    let open = Policies::defaults(&Configuration::default());
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.30",
        "pod-security.kubernetes.io/warn": "restricted"});
    let Ok(both) = Policies::of(&namespace(labels), open) else { panic!("these labels are valid") };
    assert_eq!(
        (both.enforce.to_string().as_str(), both.warn.to_string().as_str()),
        ("baseline:v1.30", "restricted:latest")
    );
    let errors =
        Policies::of(&namespace(json!({"pod-security.kubernetes.io/enforce": "tight"})), open).err().expect("refused");
    assert_eq!(
        errors[0].to_string(),
        "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"tight\": must be one of privileged, baseline, restricted"
    );
}

#[test]
fn only_some_changes_of_a_pod_are_judged() {
    let pod = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
    let mut label = pod.clone();
    label["metadata"]["labels"]["a"] = json!("c");
    assert!(!matters(&label, &pod));
    let mut image = pod.clone();
    image["spec"]["containers"][0]["image"] = json!("j");
    assert!(matters(&image, &pod));
}

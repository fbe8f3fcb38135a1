//! Pods that cannot run, each for a reason of its own: what the node says of them, in upstream's words.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::context::Context;

/// Where the node says it.
enum Said {
    /// A container waits: reason and message.
    Waits(&'static str, &'static str),
    /// The pod has failed, or was never let in: reason and message.
    Failed(&'static str, &'static str),
    /// The pod waits without saying why: reason and message of an event about it.
    Event(&'static str, &'static str),
    /// A container has ended: reason and message.
    Ended(&'static str, &'static str),
}
use Said::{Ended, Event, Failed, Waits};

/// Name, what is special about the pod, what is special about its container, and the verdict.
type Case = (&'static str, &'static str, &'static str, Said);

const CASES: &[Case] = &[
    (
        "no-image",
        "",
        "image: corten.local/none:v1, imagePullPolicy: Never",
        Waits("ErrImageNeverPull", "is not present with pull policy of Never"),
    ),
    (
        "bad-image",
        "",
        r#"image: "corten.local/Bad:v1""#,
        Waits("InvalidImageName", "repository name (Bad) must be lowercase"),
    ),
    (
        "no-config-map",
        "",
        "envFrom: [{configMapRef: {name: none}}]",
        Waits("CreateContainerConfigError", r#"configmap "none" not found"#),
    ),
    (
        "no-key",
        "",
        "env: [{name: A, valueFrom: {configMapKeyRef: {name: kube-root-ca.crt, key: none}}}]",
        Waits("CreateContainerConfigError", "couldn't find key none in ConfigMap default/kube-root-ca.crt"),
    ),
    (
        "root",
        "securityContext: {runAsUser: 0, runAsNonRoot: true}",
        "",
        Waits("CreateContainerConfigError", "container's runAsUser breaks non-root policy (pod: "),
    ),
    (
        "leaves-volume",
        "volumes: [{name: v, emptyDir: {}}]",
        r#"env: [{name: X, value: ".."}], volumeMounts: [{name: v, mountPath: /v, subPathExpr: $(X)/a}]"#,
        Waits("CreateContainerConfigError", "unable to provision SubPath `../a`: must not contain '..'"),
    ),
    (
        "no-variable",
        "volumes: [{name: v, emptyDir: {}}]",
        "volumeMounts: [{name: v, mountPath: /v, subPathExpr: $(NONE)/a}]",
        Waits("CreateContainerConfigError", r#"missing value for "NONE""#),
    ),
    (
        "no-profile",
        "",
        "securityContext: {seccompProfile: {type: Localhost, localhostProfile: none.json}}",
        Waits("CreateContainerError", "/var/lib/kubelet/seccomp/none.json"),
    ),
    ("no-program", "restartPolicy: Never", "command: [/none]", Ended("StartError", "no such file or directory")),
    (
        "sysctl",
        "securityContext: {sysctls: [{name: kernel.msgmax, value: '1'}]}",
        "",
        Failed("SysctlForbidden", r#"forbidden sysctl: "kernel.msgmax" not allowlisted"#),
    ),
    (
        "port",
        "nodeName: NODE",
        "ports: [{containerPort: 1, hostPort: 10250}, {containerPort: 2, hostPort: 7777}]",
        Failed(
            "NodePorts",
            "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        ),
    ),
    (
        "late",
        "activeDeadlineSeconds: 1",
        "",
        Failed("DeadlineExceeded", "Pod was active on the node longer than the specified deadline"),
    ),
    (
        "users",
        "hostUsers: false",
        "",
        Event(
            "FailedCreatePodSandBox",
            "Failed to create pod sandbox: can't set `spec.hostUsers: false`, runtime does not support user namespaces",
        ),
    ),
    (
        "no-client",
        "volumes: [{name: v, nfs: {server: 192.0.2.1, path: /}}]",
        "",
        Event(
            "FailedMount",
            r#"MountVolume.SetUp failed for volume "v" : volume kind nfs: this node has no NFS client"#,
        ),
    ),
    (
        "no-file",
        "volumes: [{name: v, hostPath: {path: /etc/none, type: File}}]",
        "",
        Event(
            "FailedMount",
            r#"MountVolume.SetUp failed for volume "v" : hostPath type check failed: /etc/none is not a file"#,
        ),
    ),
];

/// Holds the port of the node that another pod wants.
const HOLDER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: holder, labels: {app: verdict}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "corten.local/test-web:v1", ports: [{containerPort: 2, hostPort: 7777}]}]
"#;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    context.apply(HOLDER)?;
    context.kubectl("wait --for=condition=Ready pod/holder --timeout=60s")?;
    let all: Vec<String> = CASES.iter().map(|case| manifest(case, &context.node().name)).collect();
    context.apply(&all.join("---\n"))?;
    for (name, _, _, said) in CASES {
        context.eventually(&format!("a verdict about {name}"), || check(context, name, said))?;
    }
    context.kubectl("delete pod -l app=verdict --timeout=60s").map(drop)
}

/// What a case says of its container stands before the defaults: of a key that comes twice, only one may stay.
fn manifest((name, pod, container, _): &Case, node: &str) -> String {
    let image = if container.contains("image:") { "" } else { r#", image: "corten.local/test-web:v1""# };
    let comma = if container.is_empty() { "" } else { ", " };
    let pod = pod.replace("NODE", node);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: verdict}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 0\n  containers: [{{name: c{image}{comma}{container}}}]\n{}\n",
        if pod.is_empty() { pod } else { format!("  {pod}") }
    )
}

fn check(context: &Context, name: &str, said: &Said) -> Result<()> {
    let status = context.get(&format!("pod {name}"))?["status"].clone();
    let state = &status["containerStatuses"][0]["state"];
    let (found, reason, message) = match said {
        Waits(reason, message) => (state["waiting"].clone(), reason, message),
        Ended(reason, message) => (state["terminated"].clone(), reason, message),
        Failed(reason, message) => (json!({"reason": status["reason"], "message": status["message"]}), reason, message),
        Event(reason, message) => {
            let events = context.get(&format!("events --field-selector=involvedObject.name={name},reason={reason}"))?;
            (events["items"].get(0).cloned().context("no such event")?, reason, message)
        }
    };
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    ensure!(text("reason") == **reason && text("message").contains(message), "{found}, the pod's status: {status}");
    ensure!(!matches!(said, Failed(..)) || status["phase"] == "Failed", "the pod's status: {status}");
    Ok(())
}

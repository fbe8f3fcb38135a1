//! Pods as their own programs see them: names, files, variables, rights and namespaces, read from inside.

use anyhow::{Result, ensure};

use crate::context::Context;

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: box, labels: {colour: blue}}
spec:
  terminationGracePeriodSeconds: 0
  hostname: box
  subdomain: shelf
  setHostnameAsFQDN: true
  shareProcessNamespace: true
  hostAliases: [{ip: 192.0.2.7, hostnames: [near.example, far.example]}]
  dnsPolicy: None
  dnsConfig: {nameservers: [192.0.2.53], searches: [shelf.example], options: [{name: ndots, value: "2"}]}
  resources: {limits: {memory: 64Mi}}
  securityContext:
    runAsUser: 1000
    runAsGroup: 1001
    fsGroup: 2000
    supplementalGroups: [3000]
    seccompProfile: {type: RuntimeDefault}
    sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: "81"}]
  volumes:
  - {name: scratch, emptyDir: {}}
  - name: facts
    projected:
      defaultMode: 0440
      sources:
      - serviceAccountToken: {path: token, expirationSeconds: 600, audience: somebody}
      - downwardAPI: {items: [{path: memory, resourceFieldRef: {containerName: c, resource: limits.memory, divisor: 1Mi}}]}
      - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
  initContainers:
  - name: first
    image: corten.local/test-web:v1
    args: [write, /scratch/note, written by the init container]
    volumeMounts: [{name: scratch, mountPath: /scratch, subPathExpr: of-$(NAME)}]
    env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
  containers:
  - name: c
    image: corten.local/test-web:v1
    args: [sleep]
    env:
    - {name: WHERE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: GREETING, value: "from $(WHERE), not $$(WHERE) or $(NOWHERE)"}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
    volumeMounts:
    - {name: facts, mountPath: /facts}
    - {name: scratch, mountPath: /all, readOnly: true}
    - {name: scratch, mountPath: /part, subPath: of-box}
---
apiVersion: v1
kind: Pod
metadata: {name: guest}
spec:
  terminationGracePeriodSeconds: 0
  hostNetwork: true
  hostPID: true
  containers: [{name: c, image: "corten.local/test-web:v1", args: [sleep]}]
"#;

/// A file of the pod `box`, and what stands in it.
const FILES: &[(&str, &str)] = &[
    ("/etc/hosts", "192.0.2.7\tnear.example\tfar.example"),
    ("/etc/hosts", "\tbox.shelf.default.svc.cluster.local\tbox\n"),
    ("/etc/resolv.conf", "nameserver 192.0.2.53"),
    ("/etc/resolv.conf", "search shelf.example"),
    ("/etc/resolv.conf", "options ndots:2"),
    ("/proc/sys/kernel/hostname", "box.shelf.default.svc.cluster.local\n"),
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "81\n"),
    ("/facts/labels", "colour=\"blue\""),
    // The pod's limit stands in for the container's own.
    ("/facts/memory", "64"),
    ("/facts/token", "."),
    ("/all/of-box/note", "written by the init container"),
    ("/part/note", "written by the init container"),
    // The pod's first process is the sandbox's.
    ("/proc/1/comm", "pause\n"),
    ("/proc/self/status", "Uid:\t1000\t1000\t1000\t1000\nGid:\t1001\t1001\t1001\t1001\n"),
    ("/proc/self/status", "2000 3000 \n"),
    ("/proc/self/status", "CapBnd:\t0000000000000400\n"),
    ("/proc/self/status", "NoNewPrivs:\t1\nSeccomp:\t2\n"),
];

/// A place that must not be written to, and why.
const CLOSED: &[(&str, &str)] = &[
    ("/new", "Read-only file system"),
    ("/all/new", "Read-only file system"),
    ("/facts/new", "Read-only file system"),
];

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    context.apply(PODS)?;
    context.kubectl("wait --for=condition=Ready pod/box pod/guest --timeout=120s")?;
    for (file, wanted) in FILES {
        let found = context.kubectl(&format!("exec box -c c -- /test-web cat {file}"))?;
        ensure!(found.contains(wanted), "{file} says {found:?}, which has no {wanted:?}");
    }
    for (place, why) in CLOSED {
        let said = context.kubectl_fails(&format!("exec box -c c -- /test-web write {place} x"))?;
        ensure!(said.contains(why), "{place}: {said}");
    }
    context.kubectl("exec box -c c -- /test-web write /part/more x")?;
    let greeting = context.kubectl("exec box -c c -- /test-web env GREETING")?;
    let wanted = format!("from {}, not $(WHERE) or $(NOWHERE)", context.node().name);
    ensure!(greeting.trim() == wanted, "the variable is {greeting:?}");
    guest(context)?;
    beside(context)?;
    context.kubectl("delete pod/box pod/guest --timeout=60s").map(drop)
}

/// A pod in the node's own namespaces.
fn guest(context: &Context) -> Result<()> {
    let file = |name: &str| context.kubectl(&format!("exec guest -- /test-web cat {name}"));
    let (first, name) = (file("/proc/1/comm")?, file("/proc/sys/kernel/hostname")?);
    ensure!(first == "init\n", "the node's first process is {first:?}");
    ensure!(name.trim() == context.node().name, "the node's name is {name:?}");
    let status = context.get("pod guest")?["status"].clone();
    ensure!(status["podIP"] == status["hostIP"], "{status}");
    Ok(())
}

/// A container that joins a running pod later, and the processes of one of its containers.
fn beside(context: &Context) -> Result<()> {
    let container = r#"{"name":"later","image":"corten.local/test-web:v1","args":["cat","/proc/1/comm"],"targetContainerName":"c"}"#;
    let patch = format!(r#"{{"spec":{{"ephemeralContainers":[{container}]}}}}"#);
    context.kubectl_args(&["patch", "pod", "box", "--subresource=ephemeralcontainers", "-p", &patch])?;
    context.eventually("the container that came later has ended", || {
        let status = context.get("pod box")?["status"].clone();
        let later = &status["ephemeralContainerStatuses"][0];
        ensure!(later["state"]["terminated"]["exitCode"] == 0, "{later}");
        ensure!(status["containerStatuses"][0]["ready"] == true, "{status}");
        Ok(())
    })?;
    let said = context.kubectl("logs box -c later")?;
    ensure!(said == "pause\n" || said == "test-web\n", "its first process is {said:?}");
    Ok(())
}

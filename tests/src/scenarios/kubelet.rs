//! A pod's life on its node: order of containers, hooks, probes, variables from files, and a resize that the control group
//! shows from inside.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::context::Context;

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: life}
spec:
  terminationGracePeriodSeconds: 2
  volumes: [{name: vars, emptyDir: {}}]
  initContainers:
  - name: first
    image: corten.local/test-web:v1
    args: [write, /vars/env, "COLOUR='deep blue'"]
    volumeMounts: [{name: vars, mountPath: /vars}]
  - name: side
    image: corten.local/test-web:v1
    args: [serve, --port, "8081"]
    restartPolicy: Always
    startupProbe: {httpGet: {port: 8081}, periodSeconds: 1, failureThreshold: 30}
  containers:
  - name: main
    image: corten.local/test-web:v1
    env: [{name: COLOUR, valueFrom: {fileKeyRef: {volumeName: vars, path: env, key: COLOUR}}}]
    resources: {limits: {cpu: 200m, memory: 64Mi}}
    lifecycle:
      postStart: {httpGet: {port: 8081}}
      preStop: {exec: {command: [/test-web, exit, "3"]}}
    readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: polite, finalizers: [tests.corten.local/hold]}
spec:
  os: {name: linux}
  restartPolicy: Never
  containers:
  - name: c
    image: corten.local/test-web:v1
    args: [caught]
    lifecycle: {stopSignal: SIGUSR1}
---
apiVersion: v1
kind: Pod
metadata: {name: leaving}
spec:
  os: {name: linux}
  terminationGracePeriodSeconds: 10
  containers:
  - name: gate
    image: corten.local/test-web:v1
    args: [serve, --port, "8081"]
    lifecycle: {stopSignal: SIGKILL}
  - name: main
    image: corten.local/test-web:v1
    lifecycle: {preStop: {sleep: {seconds: 8}}}
    readinessProbe: {httpGet: {port: 8081}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: sick}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: corten.local/test-web:v1
    livenessProbe: {exec: {command: [/test-web, exit, "1"]}, periodSeconds: 1, failureThreshold: 1}
"#;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    context.apply(PODS)?;
    context.kubectl("wait --for=condition=Ready pod/life --timeout=120s")?;
    order(&context.get("pod life")?)?;
    let colour = context.kubectl("exec life -c main -- /test-web env COLOUR")?;
    ensure!(colour.trim() == "deep blue", "the file's variable is {colour:?}");
    resize(context)?;
    own_signal(context)?;
    leaving(context)?;
    context.eventually("a failed liveness probe restarts the container", || {
        let status = context.get("pod sick")?["status"]["containerStatuses"][0].clone();
        ensure!(status["restartCount"].as_u64() > Some(0), "status: {status}");
        Ok(())
    })?;
    context.kubectl("delete pod/life pod/sick --timeout=60s")?;
    context.eventually("the events tell of the probe and the hook", || {
        for (pod, reason) in [("sick", "Unhealthy"), ("life", "FailedPreStopHook")] {
            let selector = format!("events --field-selector=involvedObject.name={pod},reason={reason}");
            let events = context.get(&selector)?;
            ensure!(events["items"].as_array().is_some_and(|e| !e.is_empty()), "no event {reason} about {pod}");
        }
        Ok(())
    })?;
    Ok(())
}

/// One container after the other, the sidecar before the main one and beside it.
fn order(pod: &Value) -> Result<()> {
    let (inits, mains) = (&pod["status"]["initContainerStatuses"], &pod["status"]["containerStatuses"]);
    let first = inits[0]["state"]["terminated"]["finishedAt"].as_str().context("the init container has not ended")?;
    let side = inits[1]["state"]["running"]["startedAt"].as_str().context("the sidecar does not run")?;
    let main = mains[0]["state"]["running"]["startedAt"].as_str().context("the main container does not run")?;
    ensure!(first <= side && side <= main, "order: {first}, {side}, {main}");
    ensure!(inits[1]["started"] == true, "the sidecar has not started: {inits}");
    Ok(())
}

/// The container's CPU quota per 100 ms in microseconds, and its memory limit in bytes, read from inside.
fn limits(context: &Context) -> Result<(u64, u64)> {
    let file = |name: &str| context.kubectl(&format!("exec life -c main -- /test-web cat /sys/fs/cgroup/{name}"));
    // A host that still has the first version of control groups lends it to nodes in namespaces.
    let (cpu, memory) = match file("cpu.max") {
        Ok(quota) => (quota, file("memory.max")?),
        Err(_) => (file("cpu/cpu.cfs_quota_us")?, file("memory/memory.limit_in_bytes")?),
    };
    Ok((cpu.split_whitespace().next().context("no CPU quota")?.parse()?, memory.trim().parse()?))
}

/// A container is asked to end with the signal of its specification; the finalizer keeps the object readable.
fn own_signal(context: &Context) -> Result<()> {
    context.kubectl("wait --for=condition=Ready pod/polite --timeout=60s")?;
    let status = context.get("pod polite")?["status"]["containerStatuses"][0].clone();
    ensure!(status["stopSignal"] == "SIGUSR1", "status: {status}");
    context.kubectl("delete pod/polite --wait=false")?;
    context.eventually("the container has caught its signal", || {
        let status = context.get("pod polite")?["status"]["containerStatuses"][0].clone();
        let end = &status["state"]["terminated"];
        ensure!(end["message"] == "SIGUSR1" && end["exitCode"] == 0, "status: {status}");
        Ok(())
    })?;
    let free = r#"{"metadata":{"finalizers":null}}"#;
    context.kubectl_args(&["patch", "pod", "polite", "--type=merge", "-p", free]).map(drop)
}

/// While a container still ends, its readiness is asked and told: what it answered with ends before it does.
fn leaving(context: &Context) -> Result<()> {
    context.kubectl("wait --for=condition=Ready pod/leaving --timeout=60s")?;
    context.kubectl("delete pod/leaving --wait=false")?;
    context.eventually("the pod that ends is not ready", || {
        let pod = context.get("pod leaving")?;
        let main = &pod["status"]["containerStatuses"][1];
        let ready = condition(&pod, "Ready").context("no condition Ready")?;
        ensure!(main["state"]["running"].is_object() && main["ready"] == false, "status: {main}");
        ensure!(ready["status"] == "False", "condition: {ready}");
        Ok(())
    })?;
    Ok(())
}

fn resize(context: &Context) -> Result<()> {
    let patch = |cpu: &str, memory: &str| {
        let amounts = format!(r#"{{"cpu":"{cpu}","memory":"{memory}"}}"#);
        let resources = format!(r#"{{"requests":{amounts},"limits":{amounts}}}"#);
        let body = format!(r#"{{"spec":{{"containers":[{{"name":"main","resources":{resources}}}]}}}}"#);
        context.kubectl_args(&["patch", "pod", "life", "--subresource=resize", "-p", &body])
    };
    let given = limits(context)?;
    ensure!(given == (20_000, 64 << 20), "limits: {given:?}");
    patch("300m", "96Mi")?;
    context.eventually("the resize is done", || {
        let pod = context.get("pod life")?;
        let status = &pod["status"]["containerStatuses"][0];
        ensure!(status["resources"]["limits"]["cpu"] == "300m", "status: {status}");
        ensure!(status["allocatedResources"]["memory"] == "96Mi", "status: {status}");
        ensure!(status["restartCount"] == 0, "restarted: {status}");
        ensure!(condition(&pod, "PodResizeInProgress").is_none(), "conditions: {}", pod["status"]["conditions"]);
        Ok(())
    })?;
    let given = limits(context)?;
    ensure!(given == (30_000, 96 << 20), "limits after the resize: {given:?}");
    patch("1000", "96Mi")?;
    context.eventually("a resize that never fits is called so", || {
        let pod = context.get("pod life")?;
        let pending = condition(&pod, "PodResizePending").context("no condition PodResizePending")?;
        ensure!(pending["reason"] == "Infeasible", "condition: {pending}");
        Ok(())
    })?;
    let kept = limits(context)?;
    ensure!(kept == given, "limits after a resize that was refused: {kept:?}");
    Ok(())
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    pod["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

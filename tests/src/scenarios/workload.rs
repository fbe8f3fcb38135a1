//! A Deployment and a Service as users make them: applied, resolved, reached, inspected, scaled, replaced, deleted.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::context::Context;

/// Two replicas of the test web server behind a Service, and a pod to ask from.
pub const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: corten.local/test-web:v1
        ports: [{containerPort: 8080, name: http}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 2}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: greeting}
data: {text: "hello from a file"}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: prepare, image: corten.local/test-web:v1, args: [exit, "0"]}
  containers:
  - name: client
    image: corten.local/test-web:v1
    args: [sleep]
    env:
    - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    volumeMounts:
    - {name: greeting, mountPath: /etc/greeting}
    - {name: scratch, mountPath: /scratch}
    readinessProbe: {exec: {command: [/test-web, cat, /etc/greeting/text]}, periodSeconds: 2}
  volumes:
  - {name: greeting, configMap: {name: greeting}}
  - {name: scratch, emptyDir: {}}
"#;

/// Brings the workload up and waits for it; returns the seconds it took.
pub fn bring_up(context: &Context) -> Result<f64> {
    let start = Instant::now();
    context.apply(MANIFEST)?;
    context.kubectl("rollout status deployment/web --timeout=300s")?;
    context.kubectl("wait --for=condition=Ready pod/client --timeout=300s")?;
    Ok(start.elapsed().as_secs_f64())
}

/// Takes it away again and waits until nothing is left.
pub fn take_down(context: &Context) -> Result<()> {
    context.kubectl("delete deployment/web service/web configmap/greeting pod/client --timeout=120s")?;
    context.kubectl("wait --for=delete pod -l app=web --timeout=120s")?;
    let left = context.get("pods,replicasets,endpointslices -l app=web")?;
    ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "left behind: {left}");
    Ok(())
}

/// Both replicas answer through the Service's name.
pub fn reachable(context: &Context) -> Result<()> {
    let mut seen = BTreeSet::new();
    context.eventually("answers of both replicas", || {
        let answer = context.kubectl("exec client -- /test-web get http://web/")?;
        seen.insert(answer.trim().to_owned());
        ensure!(seen.len() >= 2, "answers so far: {seen:?}");
        Ok(())
    })?;
    Ok(())
}

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    let seconds = bring_up(context)?;
    println!("  from kubectl apply to Ready: {seconds:.1} s");
    names_and_addresses(context)?;
    reachable(context)?;
    inspection(context)?;
    scaling(context)?;
    replacement(context)?;
    take_down(context)
}

fn names_and_addresses(context: &Context) -> Result<()> {
    let service = context.get("service web")?;
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    for name in ["web", "web.default", "web.default.svc.cluster.local"] {
        let resolved = context.kubectl(&format!("exec client -- /test-web resolve {name}"))?;
        ensure!(resolved.trim() == address, "{name} resolves to {resolved:?}, not to {address}");
    }
    Ok(())
}

fn inspection(context: &Context) -> Result<()> {
    let pods = context.kubectl("get pods -l app=web")?;
    ensure!(
        pods.lines().next().is_some_and(|l| l.starts_with("NAME ") && l.contains("READY   STATUS")),
        "table: {pods}"
    );
    ensure!(pods.matches("1/1     Running").count() == 2, "pods: {pods}");
    let described = context.kubectl("describe deployment web")?;
    ensure!(described.contains("2 desired | 2 updated | 2 total | 2 available"), "describe: {described}");
    let described = context.kubectl("describe pod client")?;
    for wanted in ["Ready:          True", "Scheduled", "Started"] {
        ensure!(described.contains(wanted), "describe pod lacks {wanted:?}: {described}");
    }
    let file = context.kubectl("exec client -- /test-web cat /etc/greeting/text")?;
    ensure!(file.contains("hello from a file"), "the ConfigMap's file holds {file:?}");
    let name = context.kubectl("exec client -- /test-web env POD_NAME")?;
    ensure!(name.trim() == "client", "POD_NAME is {name:?}");
    let token =
        context.kubectl("exec client -- /test-web cat /var/run/secrets/kubernetes.io/serviceaccount/namespace")?;
    ensure!(token.trim() == "default", "the service account's namespace is {token:?}");
    context.eventually("a line in the log", || {
        let log = context.kubectl("logs deployment/web --tail=5")?;
        ensure!(log.contains("GET /"), "log: {log:?}");
        Ok(())
    })?;
    let explained = context.kubectl("explain deployment.spec.replicas")?;
    ensure!(explained.contains("integer") && explained.contains("Number of desired pods."), "explain: {explained}");
    let refused = context.apply(&MANIFEST.replace("replicas: 2", "replicaz: 2")).unwrap_or_else(|e| format!("{e:#}"));
    ensure!(refused.contains("unknown field \"spec.replicaz\""), "a wrong field is answered by: {refused}");
    let failed = context.kubectl_fails("exec client -- /test-web exit 7")?;
    ensure!(failed.contains("exit code 7"), "exec's exit code: {failed}");
    Ok(())
}

fn scaling(context: &Context) -> Result<()> {
    context.kubectl("scale deployment/web --replicas=3")?;
    context.kubectl("rollout status deployment/web --timeout=300s")?;
    let deployment = context.get("deployment web")?;
    ensure!(deployment["status"]["availableReplicas"] == 3, "status: {}", deployment["status"]);
    context.kubectl("scale deployment/web --replicas=2")?;
    context.eventually("two pods", || {
        let pods = context.get("pods -l app=web")?;
        let count = pods["items"].as_array().map_or(0, Vec::len);
        ensure!(count == 2, "{count} pods");
        Ok(())
    })?;
    Ok(())
}

fn replacement(context: &Context) -> Result<()> {
    let names = |context: &Context| -> Result<BTreeSet<String>> {
        let pods = context.get("pods -l app=web")?;
        let items = pods["items"].as_array().into_iter().flatten();
        Ok(items.filter_map(|p| p["metadata"]["name"].as_str().map(str::to_owned)).collect())
    };
    let before = names(context)?;
    let victim = before.iter().next().cloned().unwrap_or_default();
    context.kubectl(&format!("delete pod {victim} --timeout=120s"))?;
    context.kubectl("rollout status deployment/web --timeout=300s")?;
    let after = names(context)?;
    ensure!(after.len() == 2 && !after.contains(&victim), "pods before: {before:?}, after: {after:?}");
    Ok(())
}

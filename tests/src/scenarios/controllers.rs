//! Workload controllers beyond Deployments: what each promises, seen from outside, and that nothing is asked at rest.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::context::Context;

const STATEFUL_SET: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: corten.local/test-web:v1, env: [{name: VERSION, value: "1"}]}]
"#;

const DAEMON_SET: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: corten.local/test-web:v1, env: [{name: VERSION, value: "1"}]}]
"#;

const JOBS: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: counted}
spec:
  completions: 3
  parallelism: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: corten.local/test-web:v1, args: [env, JOB_COMPLETION_INDEX]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: failing}
spec:
  backoffLimit: 0
  ttlSecondsAfterFinished: 5
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: corten.local/test-web:v1, args: [exit, "3"]}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: often}
spec:
  schedule: "*/1 * * * ?"
  timeZone: Europe/Berlin
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: c, image: corten.local/test-web:v1, args: [exit, "0"]}]
"#;

const BUDGET: &str = r#"
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: db}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: db}}}
"#;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    // First, as its first Job takes up to a minute.
    context.apply(JOBS)?;
    stateful_set(context)?;
    budget(context)?;
    daemon_set(context)?;
    jobs(context)?;
    context
        .kubectl("delete statefulset/db service/db pdb/db daemonset/agent cronjob/often job/counted --timeout=120s")?;
    context.eventually("everything is gone", || {
        let left = context.get("pods,jobs,controllerrevisions")?;
        ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "left behind: {}", names(&left));
        Ok(())
    })?;
    Ok(())
}

fn names(list: &Value) -> String {
    let items = list["items"].as_array().into_iter().flatten();
    items.map(|o| format!("{}/{} ", o["kind"], o["metadata"]["name"])).collect()
}

fn stateful_set(context: &Context) -> Result<()> {
    context.apply(STATEFUL_SET)?;
    context.kubectl("rollout status statefulset/db --timeout=120s")?;
    let first = context.get("pod db-0")?;
    let second = context.get("pod db-1")?;
    let ready = first["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
    let ready = ready.context("db-0 has no Ready condition")?["lastTransitionTime"].as_str();
    ensure!(second["metadata"]["creationTimestamp"].as_str() >= ready, "db-1 did not wait for db-0");
    let resolved = context.kubectl("exec db-0 -- /test-web resolve db-1.db")?;
    ensure!(second["status"]["podIP"] == resolved.trim(), "db-1.db resolves to {resolved:?}");

    let revision = |field: &str| -> Result<Value> { Ok(context.get("statefulset db")?["status"][field].clone()) };
    let old = revision("currentRevision")?;
    context.kubectl("set env statefulset/db VERSION=2")?;
    context.kubectl("rollout status statefulset/db --timeout=120s")?;
    ensure!(revision("currentRevision")? != old, "another template must be another revision");
    context.kubectl("set env statefulset/db VERSION=1")?;
    context.kubectl("rollout status statefulset/db --timeout=120s")?;
    ensure!(revision("currentRevision")? == old, "the old template must find its old revision");
    Ok(())
}

fn budget(context: &Context) -> Result<()> {
    context.apply(BUDGET)?;
    context.eventually("one disruption is allowed", || {
        let status = context.get("pdb db")?["status"].clone();
        ensure!(status["disruptionsAllowed"] == 1 && status["expectedPods"] == 2, "status: {status}");
        Ok(())
    })?;
    let evict = |pod: &str| {
        let path = format!("/api/v1/namespaces/default/pods/{pod}/eviction");
        let body = format!(r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{pod}"}}}}"#);
        context.create_raw(&path, &body)
    };
    evict("db-1")?;
    let refused = evict("db-0").err().context("the second eviction must be refused")?;
    ensure!(format!("{refused:#}").contains("disruption budget"), "{refused:#}");
    context.kubectl("rollout status statefulset/db --timeout=120s")?;
    Ok(())
}

fn daemon_set(context: &Context) -> Result<()> {
    context.apply(DAEMON_SET)?;
    context.kubectl("rollout status daemonset/agent --timeout=120s")?;
    context.kubectl("set env daemonset/agent VERSION=2")?;
    context.kubectl("rollout status daemonset/agent --timeout=120s")?;
    let history = context.kubectl("rollout history daemonset/agent")?;
    ensure!(history.lines().filter(|line| line.starts_with(['1', '2'])).count() == 2, "history: {history}");
    let revisions = context.get("controllerrevisions -l app=agent")?;
    ensure!(revisions["items"].as_array().is_some_and(|all| all.len() == 2), "revisions: {}", names(&revisions));
    Ok(())
}

fn jobs(context: &Context) -> Result<()> {
    context.kubectl("wait --for=condition=Complete job/counted --timeout=120s")?;
    let status = context.get("job counted")?["status"].clone();
    ensure!(status["succeeded"] == 3 && status["completedIndexes"] == "0-2", "status: {status}");
    let pods = context.get("pods -l batch.kubernetes.io/job-name=counted")?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let (name, index) =
            (&pod["metadata"]["name"], &pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]);
        let log = context.kubectl(&format!("logs {}", name.as_str().unwrap_or_default()))?;
        ensure!(*index == log.trim(), "{name} has index {index} but says {log:?}");
        ensure!(pod["metadata"]["finalizers"].is_null(), "{name} is still held");
    }
    context.kubectl("wait --for=delete job/failing --timeout=120s")?;
    context.eventually("the CronJob has run", || {
        let cron = context.get("cronjob often")?;
        ensure!(cron["status"]["lastSuccessfulTime"].is_string(), "status: {}", cron["status"]);
        Ok(())
    })?;
    Ok(())
}

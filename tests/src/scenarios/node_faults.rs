//! Pods come and go while the kubelet, the runtime and shims are killed: afterwards nothing is left on the node, and what was
//! not touched has not been restarted.
//!
//! `NODE_FAULTS` is the number of pods (a short run by default), `NODE_FAULTS_SEED` repeats a run.

use std::thread;

use anyhow::{Context as _, Result, ensure};

use super::restarts;
use crate::context::Context;
use crate::inspector;
use crate::random::Random;

/// Pods of one round.
const BATCH: usize = 8;
/// Pods of a run that is part of every verification.
const SHORT: usize = 24;
/// A blow falls at most this many milliseconds after the round began: while sandboxes and containers are made, or ended.
const LATEST_MS: usize = 1000;

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: churn}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers: [{name: first, image: "corten.local/test-web:v1", args: [cat, /proc/uptime]}]
  containers:
  - name: main
    image: corten.local/test-web:v1
    args: [sleep]
    env: [{name: CHURN, value: NAME}]
    volumeMounts: [{name: scratch, mountPath: /scratch}, {name: memory, mountPath: /memory}]
  volumes: [{name: scratch, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]
---
"#;

const STEADY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: steady, labels: {app: steady}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "corten.local/test-web:v1", args: [sleep]}]
"#;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    let number = |name: &str, default: usize| match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    };
    let (pods, seed) = (number("NODE_FAULTS", SHORT)?, number("NODE_FAULTS_SEED", 1)?);
    let mut random = Random(seed as u64);
    println!("  {pods} pods, seed {seed}");
    // Once before, so that what is made on first use and stays is not taken for a leftover.
    context.apply(&PODS.replace("NAME", "churn-first"))?;
    context.kubectl("wait --for=condition=Ready pod/churn-first --timeout=120s")?;
    context.kubectl("delete pod/churn-first --timeout=60s")?;
    inspector::with_inspector(context, || {
        context.apply(STEADY)?;
        context.kubectl("wait --for=condition=Ready pod/steady --timeout=120s")?;
        let mut before = inspector::content(context)?;
        context.eventually("a node at rest", || {
            let now = inspector::content(context)?;
            let same = now == before;
            before = now;
            ensure!(same, "it changes");
            Ok(())
        })?;
        let identities = steady(context)?;
        for round in 0..pods.div_ceil(BATCH) {
            blow(context, &mut random, round).with_context(|| format!("round {round} of seed {seed}"))?;
        }
        context.eventually("a node without what the pods had", || {
            let now = inspector::content(context)?;
            let left: Vec<&String> = now.difference(&before).collect();
            ensure!(left.is_empty(), "left behind (seed {seed}): {left:?}");
            Ok(())
        })?;
        let after = steady(context)?;
        ensure!(identities == after, "restarted (seed {seed}): before {identities:?}, after {after:?}");
        context.kubectl("delete pod/steady --timeout=60s").map(drop)
    })
}

fn steady(context: &Context) -> Result<Vec<String>> {
    let all = restarts::identities(context)?;
    let restarts = context.get("pod steady")?["status"]["containerStatuses"][0]["restartCount"].to_string();
    Ok(all.into_iter().chain([restarts]).collect())
}

/// One round: pods appear under one blow and go under another.
fn blow(context: &Context, random: &mut Random, round: usize) -> Result<()> {
    let names: Vec<String> = (0..BATCH).map(|n| format!("churn-{round}-{n}")).collect();
    let manifest: String = names.iter().map(|name| PODS.replace("NAME", name)).collect();
    during(context, random, || context.apply(&manifest).map(drop))?;
    context.eventually("every pod runs", || {
        context.kubectl("wait --for=condition=Ready pod -l app=churn --timeout=20s").map(drop)
    })?;
    during(context, random, || context.kubectl("delete pod -l app=churn --wait=false").map(drop))?;
    context.eventually("every pod is gone", || {
        let left = context.get("pods -l app=churn")?;
        ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{} are left", left["items"]);
        Ok(())
    })?;
    println!("  round {round}: {BATCH} pods");
    Ok(())
}

/// Does the work while something is killed at a random moment.
fn during(context: &Context, random: &mut Random, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let victim = ["kubelet", "containerd", "shim"][random.below(3)];
    let (delay, which) = (random.below(LATEST_MS), random.below(BATCH));
    let done = thread::scope(|scope| {
        // Who carries the answer may be the victim; what counts is that the node is whole again.
        let killer = scope.spawn(|| inspector::strike(context, victim, delay, which));
        let done = work();
        if let Ok(Ok(said)) = killer.join() {
            println!("  {victim} after {delay} ms: {}", said.trim());
        } else {
            println!("  {victim} after {delay} ms, with who carried the answer");
        }
        done
    });
    context.eventually("exec after the blow", || {
        context.kubectl("exec steady --request-timeout=10s -- /test-web cat /proc/uptime").map(drop)
    })?;
    done
}

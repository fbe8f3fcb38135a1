//! A privileged pod that sees and harms the node it runs on: what an administrator with a debugging pod could do, and the
//! only way in on either driver.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::context::Context;

const MANIFEST: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: inspector, namespace: kube-system}
spec:
  hostPID: true
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  tolerations: [{operator: Exists}]
  containers:
  - name: inspector
    image: corten.local/test-web:v1
    args: [sleep]
    securityContext: {privileged: true, runAsUser: 0}
    volumeMounts: [{name: var, mountPath: /var}]
  volumes: [{name: var, hostPath: {path: /var}}]
"#;

/// Runs `look` with the pod in place, and removes it.
pub fn with_inspector(context: &Context, look: impl FnOnce() -> Result<()>) -> Result<()> {
    context.apply(MANIFEST)?;
    context.kubectl("wait --for=condition=Ready pod/inspector -n kube-system --timeout=300s")?;
    look()?;
    context.kubectl("delete pod/inspector -n kube-system --timeout=120s").map(drop)
}

/// What the node holds: one line per process, interface, mount, control group and nftables rule.
pub fn content(context: &Context) -> Result<BTreeSet<String>> {
    Ok(inspect(context, "content")?.lines().map(str::to_owned).collect())
}

/// Kills the node's processes of this name (cut after 15 bytes, as proc(5) does).
pub fn kill(context: &Context, name: &str) -> Result<()> {
    let name: String = name.chars().take(15).collect();
    inspect(context, &format!("kill {name}")).map(drop)
}

/// Kills the kubelet, the runtime or one shim of a pod with a variable `CHURN` after this many milliseconds.
pub fn strike(context: &Context, victim: &str, delay_ms: usize, which: usize) -> Result<String> {
    inspect(context, &format!("strike {victim} {delay_ms} {which}"))
}

/// Fills the data disk to the last byte, for this long.
pub fn fill(context: &Context, seconds: u32) -> Result<()> {
    inspect(context, &format!("fill /var {seconds}")).map(drop)
}

fn inspect(context: &Context, words: &str) -> Result<String> {
    context.kubectl(&format!("exec -n kube-system inspector -- /test-web node {words}"))
}

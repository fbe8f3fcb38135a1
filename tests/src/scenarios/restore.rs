//! A snapshot of the store brings a running cluster back: what came later is gone, from the node too; what was deleted is there.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::workload;
use crate::context::Context;
use crate::inspector;

const LATE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  containers: [{name: late, image: corten.local/test-web:v1, args: [sleep]}]
"#;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    workload::bring_up(context)?;
    context.kubectl("create configmap before --from-literal=state=kept")?;
    let file = context.cluster.folder.join("restore.snapshot");
    let name = file.display().to_string();
    context.cortenctl(&["store", "snapshot", &name])?;

    context.kubectl("delete configmap before")?;
    context.kubectl("create configmap after --from-literal=state=lost")?;
    context.apply(LATE)?;
    context.kubectl("wait --for=condition=Ready pod/late --timeout=300s")?;
    let late = context.kubectl("get pod late -o jsonpath={.metadata.uid}")?;

    damaged(context, &fs::read(&file)?)?;
    context.kubectl("get configmap after")?;

    let said = context.cortenctl(&["store", "restore", &name])?;
    ensure!(said.contains("restored"), "store restore says: {said}");
    context.eventually("the state of the snapshot", || {
        let state = context.kubectl("get configmap before -o jsonpath={.data.state} --request-timeout=10s")?;
        ensure!(state == "kept", "configmap before: {state}");
        let gone = context.kubectl_fails("get configmap after --request-timeout=10s")?;
        ensure!(gone.contains("NotFound"), "configmap after: {gone}");
        Ok(())
    })?;
    // Everyone who watches has to begin anew: controllers, scheduler, kubelet, proxy.
    context.kubectl(&format!("wait --for=condition=Ready node/{} --timeout=300s", context.node().name))?;
    context.kubectl("scale deployment/web --replicas=3")?;
    context.kubectl("rollout status deployment/web --timeout=300s")?;
    context.kubectl("scale deployment/web --replicas=2")?;
    context.kubectl("rollout status deployment/web --timeout=300s")?;
    context.eventually("two replicas that answer", || workload::reachable(context))?;
    inspector::with_inspector(context, || {
        context
            .eventually("a node without the later pod", || {
                let left: Vec<_> =
                    inspector::content(context)?.into_iter().filter(|line| line.contains(&late)).collect();
                ensure!(left.is_empty(), "left on the node: {left:?}");
                Ok(())
            })
            .map(drop)
    })?;
    context.kubectl("delete configmap before")?;
    fs::remove_file(&file).with_context(|| name)?;
    workload::take_down(context)
}

/// A file that is no snapshot any more is refused, and the store goes on with what it has.
fn damaged(context: &Context, snapshot: &[u8]) -> Result<()> {
    let file = context.cluster.folder.join("damaged.snapshot");
    let mut bytes = snapshot.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes)?;
    let mut command = qemu::kubectl::cortenctl(&context.cluster, &context.artifacts.cortenctl());
    let output = command.args(["store", "restore", &file.display().to_string()]).output()?;
    fs::remove_file(&file)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("sha256"), "a damaged snapshot: {said}");
    Ok(())
}

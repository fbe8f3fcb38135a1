//! persistentvolumeclaim-protection-controller: a claim that a pod uses stays until the pod is done with it.

use apimachinery::meta;
use client::resource::PODS;
use client::{Change, WorkQueue};
use serde_json::Value;

use crate::context::Context;
use crate::error::Error;
use crate::resource::PERSISTENTVOLUMECLAIMS;
use crate::worker::{self, Next};
use crate::{object, pods, protection};

const FINALIZER: &str = "kubernetes.io/pvc-protection";

/// Runs the controller.
pub async fn run(context: Context) {
    let (claims, all) = (context.informers.get(PERSISTENTVOLUMECLAIMS), context.informers.get(PODS));
    claims.synced().await;
    all.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&claims, move |change| to.add(meta::key(change.object())));
    let to = queue.clone();
    worker::on_change(&all, move |change| {
        let pod = change.object();
        if matches!(change, Change::Deleted(_)) || pods::is_finished(pod) {
            pods::claims(pod).for_each(|claim| to.add(format!("{}/{claim}", meta::namespace(pod))));
        }
    });
    let sync = async |key: String| -> Result<Next, Error> {
        let (namespace, name) = meta::split_key(&key);
        let Some(claim) = claims.get(namespace, name) else { return Ok(Next::Done) };
        let used_by = |pod: &Value| uses(pod) && pods::claims(pod).any(|claim| claim == name);
        let in_use = meta::deletion_timestamp(&claim).is_some() && all.each_in(namespace).any(|pod| used_by(&pod));
        let plan = protection::plan(&claim, FINALIZER, in_use);
        protection::apply(&context.client, PERSISTENTVOLUMECLAIMS, &claim, plan).await?;
        Ok(Next::Done)
    };
    worker::run("pvc-protection", queue, 2, sync).await;
}

/// A pod that no node has yet, or that has ended, holds nothing.
fn uses(pod: &Value) -> bool {
    !object::text(pod, "/spec/nodeName").is_empty() && !pods::is_finished(pod)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_of_running_pods_are_in_use() {
        let pod = |node: &str, phase: &str| {
            json!({"metadata": {"name": "p"}, "status": {"phase": phase}, "spec": {"nodeName": node, "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "b", "ephemeral": {}},
                {"name": "d", "emptyDir": {}}]}})
        };
        assert_eq!(pods::claims(&pod("n", "Running")).collect::<Vec<_>>(), ["c", "p-b"]);
        let cases = [("n", "Running", true), ("n", "Pending", true), ("", "Pending", false), ("n", "Failed", false)];
        for (node, phase, expected) in cases {
            assert_eq!(uses(&pod(node, phase)), expected, "{node} {phase}");
        }
    }
}

//! Devices as users see them: a plugin registers, pods get whole devices, who asks for more waits, and monitoring agents see
//! who has what.

use anyhow::{Context as _, Result, ensure};
use cri_api::pod_resources::ListPodResourcesRequest;
use cri_api::pod_resources::pod_resources_lister_client::PodResourcesListerClient;

use super::kills;
use crate::context::Context;
use crate::inspector;
use crate::plugin::Plugin;

const PLUGIN: &str = "devices";
const RESOURCE: &str = "test.corten.local/widget";

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: both}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: corten.local/test-web:v1
    args: [sleep]
    resources: {limits: {test.corten.local/widget: 2}}
---
apiVersion: v1
kind: Pod
metadata: {name: waits}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: corten.local/test-web:v1
    args: [sleep]
    resources: {limits: {test.corten.local/widget: 1}}
"#;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    let plugin = Plugin::start(context, PLUGIN)?;
    amounts(context, "3", "2")?;
    context.apply(PODS)?;
    context.kubectl("wait --for=condition=Ready pod/both --timeout=60s")?;
    let got = context.kubectl("exec both -- /test-web env WIDGETS")?;
    ensure!(got.trim() == "w0,w1", "the plugin's variable is {got:?}");
    context.eventually("the reason why a pod waits", || {
        let pod = context.get("pod waits")?;
        let message = pod["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
        ensure!(message.contains(&format!("Insufficient {RESOURCE}")), "{}", pod["status"]);
        Ok(())
    })?;
    inspector::with_inspector(context, || another_kubelet(context, &plugin))?;
    // A plugin registers anew with every kubelet.
    drop(plugin);
    let plugin = Plugin::start(context, PLUGIN)?;
    amounts(context, "3", "2")?;
    context.kubectl("delete pod/both --timeout=60s")?;
    context.kubectl("wait --for=condition=Ready pod/waits --timeout=60s")?;
    drop(plugin);
    amounts(context, "3", "0")?;
    context.kubectl("delete pod/waits --timeout=60s").map(drop)
}

/// A kubelet that starts anew still knows whose the devices are.
fn another_kubelet(context: &Context, plugin: &Plugin) -> Result<()> {
    kills::kill(context, "kubelet")?;
    context.eventually("the devices of the pod in podresources", || {
        let found = allocated(plugin)?;
        ensure!(found.iter().any(|(pod, ids)| pod == "both" && ids == &["w0", "w1"]), "{found:?}");
        Ok(())
    })?;
    Ok(())
}

fn amounts(context: &Context, capacity: &str, allocatable: &str) -> Result<()> {
    context.eventually("the node's devices", || {
        let node = context.get(&format!("node {}", context.node().name))?;
        let status = &node["status"];
        ensure!(status["capacity"][RESOURCE] == capacity, "capacity: {}", status["capacity"]);
        ensure!(status["allocatable"][RESOURCE] == allocatable, "allocatable: {}", status["allocatable"]);
        Ok(())
    })?;
    Ok(())
}

/// The devices of each pod, as the kubelet tells agents.
fn allocated(plugin: &Plugin) -> Result<Vec<(String, Vec<String>)>> {
    let socket = plugin.root.join("var/lib/kubelet/pod-resources/kubelet.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        PodResourcesListerClient::new(cri_api::connect_unix(&socket)).list(ListPodResourcesRequest {}).await
    });
    let pods = answer.with_context(|| socket.display().to_string())?.into_inner().pod_resources;
    let ids = |pod: cri_api::pod_resources::PodResources| {
        let devices = pod.containers.into_iter().flat_map(|container| container.devices);
        let mut ids: Vec<String> = devices.flat_map(|device| device.device_ids).collect();
        ids.sort();
        (pod.name, ids)
    };
    Ok(pods.into_iter().map(ids).collect())
}

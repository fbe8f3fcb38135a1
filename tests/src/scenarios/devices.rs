//! Devices as users see them: a plugin registers, pods get whole devices, who asks for more waits, and monitoring agents see
//! who has what. And dynamic resources: a claim is prepared by its driver and given back.

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

const CLAIM: &str = r#"
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: test.corten.local}
spec: {}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: claimed}
spec: {devices: {requests: [{name: r, exactly: {deviceClassName: test.corten.local}}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: claimer}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 1
  resourceClaims: [{name: own, resourceClaimName: claimed}]
  containers:
  - name: main
    image: corten.local/test-web:v1
    args: [sleep]
    resources: {claims: [{name: own}]}
"#;

/// Two devices of which a class wants one kind and a claim one size; and a claim whose expression is none.
const SELECTED: &str = r#"
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: selected}
spec:
  driver: dra.test.corten.local
  pool: {name: pool, generation: 1, resourceSliceCount: 1}
  nodeName: NODE
  devices:
  - {name: small, attributes: {kind: {string: gpu}, version: {version: 1.2.0}}, capacity: {memory: {value: 1Gi}}}
  - {name: other, attributes: {kind: {string: nic}}, capacity: {memory: {value: 8Gi}}}
  - {name: large, attributes: {kind: {string: gpu}, version: {version: 2.0.0}}, capacity: {memory: {value: 8Gi}}}
---
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: selected.corten.local}
spec:
  selectors:
  - cel: {expression: 'device.driver == "dra.test.corten.local" && device.attributes["dra.test.corten.local"].kind == "gpu"'}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: selected}
spec:
  devices:
    requests:
    - name: r
      exactly:
        deviceClassName: selected.corten.local
        selectors:
        - cel:
            expression: |
              cel.bind(own, device.capacity["dra.test.corten.local"],
                own.memory.compareTo(quantity("4Gi")) >= 0) &&
              device.attributes["dra.test.corten.local"].version.isGreaterThan(semver("1.9.0"))
---
apiVersion: v1
kind: Pod
metadata: {name: selector}
spec:
  terminationGracePeriodSeconds: 1
  resourceClaims: [{name: own, resourceClaimName: selected}]
  containers:
  - name: main
    image: corten.local/test-web:v1
    args: [sleep]
    resources: {claims: [{name: own}]}
"#;
const WRONG: &str = r#"{"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "wrong"},
  "spec": {"selectors": [{"cel": {"expression": "device.name == 1"}}]}}"#;

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
    context.kubectl("delete pod/waits --timeout=60s")?;
    claims(context)
}

/// Who allocates is played here, so that nothing but the node's part is looked at.
fn claims(context: &Context) -> Result<()> {
    let driver = Plugin::start(context, "claims")?;
    let node = &context.node().name;
    context.apply(&CLAIM.replace("NODE", node))?;
    let uid = context.get("pod claimer")?["metadata"]["uid"].as_str().context("a pod without uid")?.to_owned();
    context.eventually("a pod that waits for its claim", || {
        let reason = "FailedPrepareDynamicResources";
        let events = context.get(&format!("events --field-selector=involvedObject.name=claimer,reason={reason}"))?;
        ensure!(events["items"].as_array().is_some_and(|e| !e.is_empty()), "no event {reason}");
        Ok(())
    })?;
    let result =
        serde_json::json!({"driver": "dra.test.corten.local", "request": "r", "pool": "pool", "device": "device"});
    let status = serde_json::json!({"status": {
        "allocation": {"devices": {"results": [result]}},
        "reservedFor": [{"resource": "pods", "name": "claimer", "uid": uid}],
    }});
    let patch =
        ["patch", "resourceclaim", "claimed", "--subresource=status", "--type=merge", "-p", &status.to_string()];
    context.kubectl_args(&patch)?;
    context.kubectl("wait --for=condition=Ready pod/claimer --timeout=120s")?;
    let told = context.kubectl("exec claimer -- /test-web env CLAIM")?;
    ensure!(told.trim() == "claimed", "the device's variable is {told:?}");
    inspector::with_inspector(context, || kills::kill(context, "kubelet"))?;
    context.kubectl("delete pod/claimer --timeout=60s")?;
    let specifications = driver.root.join("run/cdi");
    let left = std::fs::read_dir(&specifications).with_context(|| specifications.display().to_string())?.count();
    ensure!(left == 0, "{left} claims are not given back");
    context.kubectl("delete resourceclaim/claimed deviceclass/test.corten.local --timeout=60s")?;
    selected(context)
}

/// The scheduler gives a claim the device that its expressions mean; the server refuses what is no expression.
fn selected(context: &Context) -> Result<()> {
    context.apply(&SELECTED.replace("NODE", &context.node().name))?;
    context.kubectl("wait --for=condition=Ready pod/selector --timeout=120s")?;
    let claim = context.get("resourceclaim selected")?;
    let device = &claim["status"]["allocation"]["devices"]["results"][0]["device"];
    ensure!(device == "large", "the claim has {device}");
    let refused = context.apply(WRONG).err().map(|e| format!("{e:#}"));
    let why = refused.context("a class was made whose expression is none")?;
    ensure!(why.contains("spec.selectors[0].cel.expression") && why.contains("undefined field 'name'"), "{why}");
    context.kubectl("delete pod/selector --timeout=60s")?;
    context.kubectl("delete resourceclaim/selected deviceclass/selected.corten.local resourceslice/selected").map(drop)
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
